"""Which harts run: the states of the SBI's hart state management, and how a hart's thread waits in them.

              start                          the thread picks it up
    STOPPED ---------> START_PENDING ---------------------------------> STARTED <-----> SUSPENDED
       ^                                                                   |     suspend,
       +-------------------------------------------------------------------+     an interrupt
                                     stop

A hart stops and suspends itself, so that stopping and suspending are never merely pending.

Beside that, all harts together may be held: each thread then comes to rest where its hart's state is whole (before a
start is picked up, or where `run` has returned Interrupted), and goes on after the release. A hart that sleeps is woken
for it, which hardware may do too (SBI 2.0, 9.4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class HartState(IntEnum):
    """With the SBI's numbers (SBI 2.0, table 4)."""

    STARTED = 0
    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    SUSPENDED = 4
    SUSPEND_PENDING = 5
    RESUME_PENDING = 6


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Where a hart is to start (guest-physical), and what it finds in its second argument register."""

    address: int
    opaque: int


class HartStates:
    """The states of `count` harts, all stopped."""

    def __init__(self, count: int) -> None:
        self._condition = threading.Condition()
        self._states = [HartState.STOPPED] * count
        self._requests: list[StartRequest | None] = [None] * count
        self._wakes = [threading.Event() for _ in range(count)]
        self._closed = False
        self._held = False
        self._resting = [True] * count

    def __len__(self) -> int:
        return len(self._states)

    def state(self, hart: int) -> HartState:
        return self._states[hart]

    def start(self, hart: int, request: StartRequest) -> bool:
        """Let `hart` start. False where it is not stopped."""
        with self._condition:
            if self._states[hart] != HartState.STOPPED:
                return False
            self._states[hart] = HartState.START_PENDING
            self._requests[hart] = request
            self._condition.notify_all()
            return True

    def stop(self, hart: int) -> bool:
        """`hart` stops. True where no hart is left that could start one."""
        with self._condition:
            self._states[hart] = HartState.STOPPED
            return all(state == HartState.STOPPED for state in self._states)

    def wait_for_start(self, hart: int) -> StartRequest | None:
        """Wait until `hart` is to start; it has then. None where the machine ends before. `hart` rests meanwhile, also
        while harts are held."""
        with self._condition:
            self._rest(hart, lambda: self._requests[hart] is not None)
            if self._closed:
                return None
            request, self._requests[hart] = self._requests[hart], None
            self._states[hart] = HartState.STARTED
            return request

    def suspend(self, hart: int) -> None:
        with self._condition:
            self._states[hart] = HartState.SUSPENDED

    def resume(self, hart: int) -> None:
        with self._condition:
            self._states[hart] = HartState.STARTED

    def wake(self, hart: int) -> None:
        """Something has happened to one of `hart`'s interrupt lines. From any thread."""
        wake = self._wakes[hart]
        # Already set: the hart has not looked yet, and when it does it sees what happened before this call too.
        if not wake.is_set():
            wake.set()

    def expect_wake(self, hart: int) -> None:
        """From here on `wait_for_wake` does not wait for what has happened."""
        self._wakes[hart].clear()

    def wait_for_wake(self, hart: int, seconds: float | None) -> bool:
        """Wait for a `wake` since `expect_wake`, or until harts are held; at most so long. False where the machine
        ends."""
        if not self._closed:
            self._wakes[hart].wait(seconds)
        return not self._closed

    # Saving.

    def pending_start(self, hart: int) -> StartRequest | None:
        """Where `hart` is to start, while it is START_PENDING."""
        return self._requests[hart]

    def restore(self, states: Sequence[tuple[HartState, StartRequest | None]]) -> None:
        """Put back the states of harts at rest, before their threads begin; STARTED ones then go on at once."""
        with self._condition:
            self._states = [state for state, _ in states]
            self._requests = [request for _, request in states]

    def goes_on(self, hart: int) -> bool:
        """Whether `hart` was put back as one that runs. Comes back when it may."""
        with self._condition:
            if self._states[hart] != HartState.STARTED:
                return False
            self._rest(hart, lambda: True)
            return not self._closed

    # Holding.

    @property
    def held(self) -> bool:
        """Whether harts are to come to rest."""
        return self._held

    def hold(self) -> None:
        """Let every hart come to rest soon; those that execute must be interrupted besides."""
        with self._condition:
            self._held = True
        for wake in self._wakes:
            wake.set()

    def release(self) -> None:
        """Let them go on."""
        with self._condition:
            self._held = False
            self._condition.notify_all()

    def rest(self, hart: int) -> None:
        """`hart`'s state is whole: its thread stays here as long as harts are held."""
        if self._held:
            with self._condition:
                self._rest(hart, lambda: True)

    def leave(self, hart: int) -> None:
        """`hart`'s thread has ended, which is rest for good."""
        with self._condition:
            self._resting[hart] = True
            self._condition.notify_all()

    def wait_until_at_rest(self) -> None:
        """Wait until every hart rests, after `hold`."""
        with self._condition:
            self._condition.wait_for(lambda: all(self._resting))

    def _rest(self, hart: int, until: Callable[[], bool]) -> None:
        self._resting[hart] = True
        self._condition.notify_all()
        self._condition.wait_for(lambda: self._closed or (until() and not self._held))
        self._resting[hart] = False

    def close(self) -> None:
        """The machine ends: nobody waits any more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for wake in self._wakes:
            wake.set()
