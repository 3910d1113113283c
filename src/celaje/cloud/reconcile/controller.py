"""What a controller is, and the loop that runs each in a thread of its own.

A controller compares intent (the database) with the world (hosts, disks, networks) and takes one idempotent step of
each resource that differs; it notes what it saw and sleeps until it is woken, or until the time that it asked for.
Wherever it is killed, the next one finds the same difference, or a smaller one.

One resource that cannot be helped stops no other: its error is logged, shown on it, and tried again later (Retries).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 60.0
STOP_SECONDS = 10.0  # within which a controller is expected to finish the step that it is in


class Controller(Protocol):
    """One noun's. `name` is what actions wake it by."""

    @property
    def name(self) -> str: ...

    def step(self) -> float | None:
        """Do what there is to do now. Returns after how many seconds to look again; None: only when woken.

        What it raises is a mistake of its own, and is logged; it is called again later.
        """
        ...


@dataclass(slots=True)
class _Failure:
    """When one that failed is `due`, after which `pause`, and whether it has been `taken` up since."""

    due: float
    pause: float
    taken: bool = False


class Retries:
    """When resources that failed are to be tried again: after half a second, then twice as long each time, up to a
    minute. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, _Failure] = {}
        self._changing = threading.Lock()

    def due(self, resource: str) -> bool:
        """Whether it may be tried now. Whoever is told so tries it, and says what has come of it."""
        with self._changing:
            failure = self._failed.get(resource)
            if failure is None:
                return True
            if failure.due > self._clock():
                return False
            failure.taken = True
            return True

    def failed(self, resource: str) -> float:
        """It has failed. Returns after how many seconds it is due again."""
        with self._changing:
            known = self._failed.get(resource)
            pause = FIRST_RETRY_SECONDS if known is None else min(2 * known.pause, LONGEST_RETRY_SECONDS)
            self._failed[resource] = _Failure(self._clock() + pause, pause)
            return pause

    def succeeded(self, resource: str) -> None:
        """It has worked, or is gone."""
        with self._changing:
            self._failed.pop(resource, None)

    def next(self) -> float | None:
        """In how many seconds to look at the first again; None if none waits. One that was due and that nobody took
        up is gone, or became due this moment: it is not looked for without a pause, and in the end no more."""
        now = self._clock()
        with self._changing:
            for resource in [name for name, one in self._failed.items() if one.due < now - LONGEST_RETRY_SECONDS]:
                if not self._failed[resource].taken:
                    del self._failed[resource]
            waiting = [one.due - now for one in self._failed.values() if not one.taken]
        return min((left if left > 0 else FIRST_RETRY_SECONDS for left in waiting), default=None)


def sooner(*seconds: float | None) -> float | None:
    """The least of those that are said."""
    said = [one for one in seconds if one is not None]
    return min(said) if said else None


@dataclass(frozen=True, slots=True)
class Condition:
    """How a controller does: `steps` so far, and the last mistake of its own, "" if there was none since it worked."""

    name: str
    steps: int
    error: str


class _Runner:
    """A controller and its thread."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._woken = threading.Event()
        self._leaving = False
        self.steps = 0
        self.error = ""
        self._retries = Retries()
        self.thread = threading.Thread(target=self._run, name=f"celaje-{controller.name}", daemon=True)

    def wake(self) -> None:
        self._woken.set()

    def leave(self) -> None:
        self._leaving = True
        self._woken.set()

    def _run(self) -> None:
        while not self._leaving:
            self._woken.clear()  # before it looks: whoever wakes it meanwhile is not forgotten
            wait: float | None
            try:
                wait = self.controller.step()
                self.error = ""
                self._retries.succeeded(self.controller.name)
            except Exception as error:  # the loop must go on: all other resources depend on it
                log.exception("the controller of %s failed", self.controller.name)
                self.error = f"{type(error).__name__}: {error}"
                wait = self._retries.failed(self.controller.name)
            self.steps += 1
            self._woken.wait(wait)


class Controllers:
    """All controllers of a daemon. `start` lets each look at everything once."""

    def __init__(self, controllers: Sequence[Controller]) -> None:
        self._runners = {one.name: _Runner(one) for one in controllers}

    def start(self) -> None:
        """Run them."""
        for runner in self._runners.values():
            runner.thread.start()

    def wake(self, names: Iterable[str]) -> None:
        """Let these look again, at once; from any thread, and never blocks. A name that this daemon has no controller
        of wakes nobody."""
        for name in names:
            runner = self._runners.get(name)
            if runner is not None:
                runner.wake()

    def conditions(self) -> list[Condition]:
        """How each does."""
        return [Condition(name, runner.steps, runner.error) for name, runner in self._runners.items()]

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """Let none begin another step, and wait for those in one. Whether all have finished: what is cut off is done
        again by the next daemon."""
        for runner in self._runners.values():
            runner.leave()
        ends = time.monotonic() + seconds
        for runner in self._runners.values():
            if runner.thread.ident is not None:
                runner.thread.join(max(0.0, ends - time.monotonic()))
        return not any(runner.thread.is_alive() for runner in self._runners.values())
