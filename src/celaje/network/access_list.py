"""Access lists of subnets: ordered rules that allow or deny single packets, and know no connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What it matches it allows or denies. `protocol` None is all; `ports` are the receiver's, of ICMP type * 256 +
    code; `mask` and `network` are about the other end."""

    allow: bool
    protocol: int | None = None
    mask: int = 0
    network: int = 0
    ports: tuple[int, int] = (0, 65535)


class AccessList:
    """One direction of a list: the first rule that matches decides, and what none matches does not pass."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Iterable[AccessRule]) -> None:
        self._rules = tuple((one.protocol, one.mask, one.network, *one.ports, one.allow) for one in rules)

    def admits(self, protocol: int, remote: int, port: int) -> bool:
        """Whether a packet may pass. `port` is the one that it goes to; of ICMP its type * 256 + code, of what has no
        ports 0."""
        for about, mask, network, first, last, allow in self._rules:
            if (about is None or about == protocol) and remote & mask == network and first <= port <= last:
                return allow
        return False


NOTHING = AccessList(())
