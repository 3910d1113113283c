"""Which TCP ports a guest listens on, found by asking it: SYNs from the router, answered by SYN and ACK or by a reset.

It is for rules that admit so many ports that listening on all of them for the guest would be wrong: a client would be
accepted where nobody is. Asking is paced, since an emulated guest spends its own time on every answer. Ports that
servers commonly have, and those that were open last time, are asked every few seconds, all others in turn. A guest
that has answered nothing yet (it boots, or has no network) is only asked the common ones, or a single one where none
of these is wanted. Where many guests are asked, each is asked less often: `sharing` says how many there are.

No I/O: `ask(port)` sends a SYN, `tick` is called when `deadline` comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

COMMON = (
    21, 22, 25, 53, 80, 81, 110, 143, 179, 389, 443, 465, 587, 631, 636, 873, 993, 995, 1080, 1234, 1433, 1521, 1883,
    2049, 2181, 2222, 2375, 2376, 2379, 3000, 3001, 3128, 3306, 3389, 4000, 4200, 4566, 5000, 5001, 5201, 5432, 5601,
    5672, 5900, 6000, 6379, 6443, 7000, 7070, 7777, 8000, 8001, 8008, 8080, 8081, 8443, 8500, 8888, 9000, 9001, 9042,
    9090, 9092, 9200, 9418, 10000, 10250, 11211, 15672, 25565, 27017,
)  # fmt: skip
COMMON_SECONDS = 5.0
BATCH = 32  # ports asked at once
BATCH_SECONDS = 0.1  # between batches of the first round: 320 ports a second
LATER_SECONDS = 0.4  # and of those after it
UNSHARED = 8  # guests that do not yet make each other's common ports wait


class PortProbe:
    """`found(port, open)` is called for what changed."""

    def __init__(
        self,
        now: float,
        ask: Callable[[int], None],
        found: Callable[[int, bool], None],
        sharing: Callable[[], int] = lambda: 1,
    ) -> None:
        self.deadline = now
        self.open: set[int] = set()
        self.wanted: Sequence[int] = ()
        self._ask = ask
        self._found = found
        self._sharing = sharing
        self._common_at = now
        self._next = 0
        self._rounds = 0
        self._answered = False
        self._members: frozenset[int] = frozenset()

    def want(self, ports: Sequence[int], members: frozenset[int] | None = None) -> None:
        """From now on these are asked; what is open and no more wanted is forgotten. `members`: the same as a set, if
        there is one."""
        self.wanted = ports
        self._members = frozenset(ports) if members is None else members
        self._next = 0
        self._rounds = 0
        for port in sorted(self.open - self._members):
            self.open.discard(port)
            self._found(port, False)

    def answer(self, port: int, is_open: bool) -> None:
        """The guest answered for this port."""
        self._answered = True
        if port not in self._members or is_open == (port in self.open):
            return
        if is_open:
            self.open.add(port)
        else:
            self.open.discard(port)
        self._found(port, is_open)

    def tick(self, now: float) -> None:
        """Ask what is due; sets `deadline`."""
        sharing = max(1, self._sharing())
        if now >= self._common_at:
            self._common_at = now + COMMON_SECONDS * max(1.0, sharing / UNSHARED)
            for port in sorted(self.open.union(COMMON) & self._members) or self.wanted[:1]:
                self._ask(port)
        elif self._answered and self.wanted:
            for port in self.wanted[self._next : self._next + BATCH]:
                self._ask(port)
            self._next += BATCH
            if self._next >= len(self.wanted):
                self._next = 0
                self._rounds += 1
        if not self._answered or not self.wanted:
            self.deadline = self._common_at
        else:
            pause = LATER_SECONDS if self._rounds else BATCH_SECONDS
            self.deadline = min(self._common_at, now + pause * sharing)
