"""How a machine ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class VerdictKind(Enum):
    """The ways a machine ends. The command line gives each its exit status."""

    POWER_OFF = "power-off"  # the guest switched the machine off in order
    PASS = "pass"  # a bare-metal program said that it passed
    FAIL = "fail"  # a bare-metal program said that it failed, and gave a number
    DIED = "died"  # the guest cannot go on
    TIMEOUT = "timeout"  # the time limit was reached
    REBOOT = "reboot"  # the guest asked for a reset, and the machine is one that does not reset
    LEFT = "left"  # the person at the terminal left with Ctrl-A x


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a machine ended: `number` is the failure's (FAIL), `reason` is for a person, in a few words."""

    kind: VerdictKind
    number: int = 0
    reason: str = ""
