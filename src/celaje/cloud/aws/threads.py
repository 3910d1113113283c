"""Threads that wait for clients: no account has them all, and who is slow has one as long as nobody else wants it.

A signed request can make its body last for days, and an account can make many of them. So

- an account may have another thread while it has fewer than twice as many as are free (Threads). One alone gets two
  thirds of them, of two each gets two fifths, and whoever has none finds one. What is more waits for the account's own
  to come back;
- a client that sends or takes less than LEAST on the average of a while (Pace) is let go once somebody waits for whom
  that makes room (Share.crowded), and not before: a slow line is no mistake.

    share = threads.share(account)          # as far as it is known before anything is verified
    future = share.submit(answer, request)  # an executor for one request
    share.belongs_to(account)               # from within: it is known now
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

LEAST = 16 << 10
"""Bytes a second that a client must send or take where others wait."""

_TIMES = 2  # as many as are free may be an account's

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_Work = Callable[[], Callable[[], None]]  # what it returns tells whoever waits for it how it went


class _Waiting(NamedTuple):
    order: int
    share: Share
    work: _Work
    cancel: Callable[[], object]


class Threads:
    """`count` threads, and who has them."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._free = count
        self._having: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._order = itertools.count()
        self._ended = False

    def share(self, account: str) -> Share:
        """The threads as a request of that account has them."""
        return Share(self, account)

    def shutdown(self) -> None:
        """Finish what has begun; what has not is cancelled."""
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, {}
        for each in itertools.chain.from_iterable(waiting.values()):
            each.cancel()
        self._pool.shutdown()

    def _may_begin(self, account: str) -> bool:
        return self._having[account] < _TIMES * self._free

    def _add(self, share: Share, work: _Work, cancel: Callable[[], object]) -> None:
        with self._lock:
            if self._ended:
                raise RuntimeError("these threads have ended")
            waiting = _Waiting(next(self._order), share, work, cancel)
            self._waiting.setdefault(share.account, deque()).append(waiting)
            self._begin()

    def _begin(self) -> None:
        """Let begin what may: of the account that has the fewest, of such the one that has waited longest."""
        while self._free and self._waiting:
            account = min(self._waiting, key=lambda name: (self._having[name], self._waiting[name][0].order))
            if not self._may_begin(account):
                return
            waiting = self._waiting[account]
            first = waiting.popleft()
            if not waiting:
                del self._waiting[account]
            self._free -= 1
            self._having[account] += 1
            self._pool.submit(self._run, first.share, first.work)

    def _run(self, share: Share, work: _Work) -> None:
        try:
            tell = work()
        finally:
            with self._lock:
                self._free += 1
                self._leave(share.account)
                self._begin()
        tell()  # whoever asks for a thread when it has been told finds this one free

    def _leave(self, account: str) -> None:
        self._having[account] -= 1
        if not self._having[account]:
            del self._having[account]

    def _move(self, share: Share, account: str) -> bool:
        """A thread that was one account's is another's, unless that may have no more."""
        with self._lock:
            if share.account == account:
                return True
            self._free += 1
            may = self._may_begin(account)
            self._free -= 1
            if may:
                self._leave(share.account)
                self._having[account] += 1
                share.account = account
                self._begin()
            return may

    def _crowded(self, account: str) -> bool:
        with self._lock:
            if not self._waiting:
                return False
            having = self._having[account]
            return account in self._waiting or any(self._having[other] <= having for other in self._waiting)


class Share(Executor):
    """The threads as one request has them, one at a time."""

    def __init__(self, threads: Threads, account: str) -> None:
        self._threads = threads
        self.account = account

    def crowded(self) -> bool:
        """Whether somebody waits who has no more threads than this one's account, or the account itself does."""
        return self._threads._crowded(self.account)

    def belongs_to(self, account: str) -> bool:
        """The thread on which this is called is that account's. False if it may have no more: let go of it then."""
        return self._threads._move(self, account)

    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        """As of any executor."""
        future: Future[Result] = Future()

        def work() -> Callable[[], None]:
            if not future.set_running_or_notify_cancel():
                return lambda: None
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                return partial(future.set_exception, error)
            return partial(future.set_result, result)

        self._threads._add(self, work, future.cancel)
        return future


class Pace:
    """How fast one client sends or takes. `patience`: seconds of which each time the average counts."""

    def __init__(self, patience: float, crowded: Callable[[], bool]) -> None:
        self._patience = patience
        self._crowded = crowded
        self._since: float | None = None  # until the first bytes: the request may have waited for its own thread
        self._moved = 0

    def holds(self, count: int) -> bool:
        """So many bytes more were moved: whether that is fast enough, or nobody else waits."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            return True
        self._moved += count
        if now - self._since < self._patience:
            return True
        slow = self._moved < LEAST * (now - self._since)
        self._since, self._moved = now, 0
        return not (slow and self._crowded())
