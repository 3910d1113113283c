"""Security groups: named sets of rules about what may reach an interface, and what it may reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TCP = 6
UDP = 17
ICMP = 1


class Direction(Enum):
    """Of a connection, as its guest sees it: who opened it."""

    INWARD = "in"
    OUTWARD = "out"


@dataclass(frozen=True, slots=True)
class Rule:
    """Admits what it matches; there are no rules that deny.

    `remote` is a network (address, prefix length) or the name of a group: the private addresses of the interfaces in
    it. `ports` (first, last) is about TCP and UDP: the guest's port (inward), the other's (outward). `icmp_type` and
    `icmp_code` are about ICMP, None is any. Protocol None is all of them, whatever ports are said.
    """

    protocol: int | None
    remote: tuple[int, int] | str = (0, 0)
    ports: tuple[int, int] = (0, 65535)
    icmp_type: int | None = None
    icmp_code: int | None = None


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """An interface admits what any rule of any of its groups does. `outward` None admits everything, as in a new
    group of EC2; () nothing."""

    name: str
    inward: tuple[Rule, ...] = ()
    outward: tuple[Rule, ...] | None = None
