"""What is to be done about one instance: a function of what is wanted and what was seen, and of nothing else.

One action at a time: when it is done, the instance is looked at again. So it does not matter where the one before was
cut off, or by whom the world was changed in between.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum

from celaje.cloud.state.instances import PENDING, RUNNING, STOPPED, STOPPING, TERMINATED, TERMINATED_IS_LISTED

STOP_PATIENCE = datetime.timedelta(minutes=2)  # a guest that does not shut down for so long is switched off
REBOOT_PATIENCE = datetime.timedelta(minutes=1)  # … or reset
PRESS_AGAIN_SECONDS = 1.0  # a guest that boots hears no button yet
LAUNCH_PATIENCE = datetime.timedelta(minutes=2)  # what has failed for so long is given up
RECOVERIES = 3  # a machine whose process vanishes more often is left stopped


class Step(Enum):
    """One thing to do."""

    NOTHING = "nothing"
    START = "start"  # make the machine as it is to be, and start it
    NOTE_RUNNING = "note running"  # and that a reboot is done
    PRESS = "press the power button"
    RESET = "reset"
    KILL = "switch off"
    NOTE_STOPPED = "note stopped"  # and let go of what a stopped instance does not keep
    NOTE_SHUT_DOWN = "note that the guest shut down"  # stop or terminate, by the instance's attribute
    NOTE_FAILED = "note that the machine failed"  # stopped, by no wish of the client's
    GIVE_UP = "give up"  # it never came up
    REMOVE = "remove"  # the machine, its addresses and volumes: it is terminated
    FORGET = "forget"


class End(Enum):
    """How a run ended: in order, by a failure that its process told of, or without a word."""

    ORDERLY = "orderly"
    FAILED = "failed"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Intent:
    """What the database says. `asked` is when the state was entered; `recovers`: a machine whose process vanishes is
    started again; `ready`: its volumes are made; `hopeless`: what it is made of cannot be had, ever."""

    wanted: str
    state: str
    asked: datetime.datetime
    reboot_asked: datetime.datetime | None = None
    forced: bool = False
    recovers: bool = True
    recoveries: int = 0
    failing: bool = False
    ready: bool = True
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """The machine. `alive`: a process runs it. `end`: how the last run ended, None if none has since the instance was
    last started. `begun`: when the run that goes on, or the last, began; `run_before_boot`: before the host did."""

    alive: bool
    end: End | None = None
    begun: datetime.datetime | None = None
    run_before_boot: bool = False


def decided(intent: Intent, seen: Seen, now: datetime.datetime) -> Step:
    """The next step."""
    if intent.wanted == "terminated":
        if intent.state != TERMINATED:
            return Step.KILL if seen.alive else Step.REMOVE
        return Step.FORGET if now - intent.asked >= TERMINATED_IS_LISTED else Step.NOTHING
    if intent.wanted == "stopped":
        return _stopping(intent, seen, now)
    return _alive(intent, seen, now) if seen.alive else _not_alive(intent, seen, now)


def _stopping(intent: Intent, seen: Seen, now: datetime.datetime) -> Step:
    if not seen.alive:
        return Step.NOTHING if intent.state == STOPPED else Step.NOTE_STOPPED
    if intent.state != STOPPING or intent.forced or now - intent.asked >= STOP_PATIENCE:
        return Step.KILL
    return Step.PRESS


def _alive(intent: Intent, seen: Seen, now: datetime.datetime) -> Step:
    if intent.state != RUNNING:
        return Step.NOTE_RUNNING
    if intent.reboot_asked is None:
        return Step.NOTHING
    if seen.begun is not None and seen.begun >= intent.reboot_asked:
        return Step.NOTE_RUNNING  # it was started since: by the reboot
    return Step.RESET if now - intent.reboot_asked >= REBOOT_PATIENCE else Step.PRESS


def _not_alive(intent: Intent, seen: Seen, now: datetime.datetime) -> Step:
    if seen.end is None or seen.run_before_boot or (intent.reboot_asked and seen.end is End.ORDERLY):
        if intent.hopeless or (intent.failing and intent.state == PENDING and now - intent.asked >= LAUNCH_PATIENCE):
            return Step.GIVE_UP
        return Step.START if intent.ready else Step.NOTHING
    if seen.end is End.ORDERLY:
        return Step.NOTE_SHUT_DOWN
    if seen.end is End.VANISHED and intent.recovers and intent.recoveries < RECOVERIES:
        return Step.START
    return Step.NOTE_FAILED
