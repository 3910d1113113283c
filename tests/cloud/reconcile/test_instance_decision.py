"""The table of what is done about an instance."""

from __future__ import annotations

import datetime
import itertools

import pytest

from celaje.cloud.reconcile.instance_decision import (
    LAUNCH_PATIENCE,
    REBOOT_PATIENCE,
    RECOVERIES,
    STOP_PATIENCE,
    End,
    Intent,
    Seen,
    Step,
    decided,
)
from celaje.cloud.state.instances import CODES, TERMINATED_IS_LISTED

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
ON, OFF = Seen(alive=True), Seen(alive=False)
POWERED_OFF = Seen(alive=False, end=End.ORDERLY)
FAILED, VANISHED = Seen(alive=False, end=End.FAILED), Seen(alive=False, end=End.VANISHED)


def ago(seconds: float) -> datetime.datetime:
    return NOW - datetime.timedelta(seconds=seconds)


TABLE = {
    "a new instance is started": (Intent("running", "pending", NOW), OFF, Step.START),
    "one whose volumes are not made waits": (Intent("running", "pending", NOW, ready=False), OFF, Step.NOTHING),
    "one whose volumes cannot be made never starts": (
        Intent("running", "pending", NOW, ready=False, hopeless=True),
        OFF,
        Step.GIVE_UP,
    ),
    "one that came up while nobody looked is running": (Intent("running", "pending", NOW), ON, Step.NOTE_RUNNING),
    "a start that failed is tried again": (Intent("running", "pending", ago(1), failing=True), OFF, Step.START),
    "but not for ever": (
        Intent("running", "pending", NOW - LAUNCH_PATIENCE, failing=True),
        OFF,
        Step.GIVE_UP,
    ),
    "one that waits long without failing is started": (
        Intent("running", "pending", NOW - 2 * LAUNCH_PATIENCE),
        OFF,
        Step.START,
    ),
    "what runs is left alone": (Intent("running", "running", NOW), ON, Step.NOTHING),
    "a guest that shut down stays so": (Intent("running", "running", NOW), POWERED_OFF, Step.NOTE_SHUT_DOWN),
    "also one that did before it was seen running": (
        Intent("running", "pending", NOW),
        POWERED_OFF,
        Step.NOTE_SHUT_DOWN,
    ),
    "a machine that failed is left stopped": (Intent("running", "running", NOW), FAILED, Step.NOTE_FAILED),
    "one whose process was killed starts again": (Intent("running", "running", NOW), VANISHED, Step.START),
    "unless its owner said otherwise": (
        Intent("running", "running", NOW, recovers=False),
        VANISHED,
        Step.NOTE_FAILED,
    ),
    "or it has happened too often": (
        Intent("running", "running", NOW, recoveries=RECOVERIES),
        VANISHED,
        Step.NOTE_FAILED,
    ),
    "after the host was off all start again": (
        Intent("running", "running", NOW, recoveries=RECOVERIES),
        Seen(alive=False, end=End.VANISHED, run_before_boot=True),
        Step.START,
    ),
    "a reboot asks the guest first": (Intent("running", "running", NOW, ago(1)), ON, Step.PRESS),
    "then resets it": (Intent("running", "running", NOW, NOW - REBOOT_PATIENCE), ON, Step.RESET),
    "a guest that shut down for a reboot is started": (
        Intent("running", "running", NOW, ago(1)),
        POWERED_OFF,
        Step.START,
    ),
    "but not while an image is made of its volumes": (
        Intent("running", "running", NOW, ago(1), ready=False),
        POWERED_OFF,
        Step.NOTHING,
    ),
    "which ends the reboot": (
        Intent("running", "running", NOW, ago(5)),
        Seen(alive=True, begun=ago(1)),
        Step.NOTE_RUNNING,
    ),
    "a stop asks the guest first": (Intent("stopped", "stopping", ago(1)), ON, Step.PRESS),
    "then switches it off": (Intent("stopped", "stopping", NOW - STOP_PATIENCE), ON, Step.KILL),
    "a forced one does so at once": (Intent("stopped", "stopping", NOW, forced=True), ON, Step.KILL),
    "what has shut down is stopped": (Intent("stopped", "stopping", NOW), POWERED_OFF, Step.NOTE_STOPPED),
    "what is stopped stays so": (Intent("stopped", "stopped", NOW), POWERED_OFF, Step.NOTHING),
    "also if somebody else started it": (Intent("stopped", "stopped", NOW), ON, Step.KILL),
    "what is to go is switched off": (Intent("terminated", "shutting-down", NOW), ON, Step.KILL),
    "and removed": (Intent("terminated", "shutting-down", NOW), OFF, Step.REMOVE),
    "what is gone is listed for an hour": (Intent("terminated", "terminated", ago(60)), OFF, Step.NOTHING),
    "and then forgotten": (Intent("terminated", "terminated", NOW - TERMINATED_IS_LISTED), OFF, Step.FORGET),
}


@pytest.mark.parametrize(("intent", "seen", "step"), TABLE.values(), ids=list(TABLE))
def test_the_table(intent: Intent, seen: Seen, step: Step) -> None:
    assert decided(intent, seen, NOW) is step


@pytest.mark.parametrize("wanted", ["running", "stopped", "terminated"])
def test_every_pair_of_intent_and_world_comes_to_rest(wanted: str) -> None:
    """From wherever a kill has left it, steps that do what they say end in the state that was wanted."""
    ends = [None, *End]
    for state, alive, end, reboot in itertools.product(CODES, (False, True), ends, (None, ago(5))):
        if state == "terminated" and (wanted != "terminated" or alive):
            continue
        asked, seen, now = ago(5), Seen(alive, None if alive else end), NOW
        recoveries, wants = 0, wanted
        for _ in range(30):
            intent = Intent(wants, state, asked, reboot if state == "running" else None, recoveries=recoveries)
            step = decided(intent, seen, now)
            if step is Step.NOTHING:
                break
            now += datetime.timedelta(seconds=61)
            if step is Step.START:
                seen, recoveries = ON, recoveries + 1
                state, reboot = ("running" if reboot else state), None
            elif step is Step.NOTE_RUNNING:
                state, asked = "running", now
            elif step in (Step.PRESS, Step.KILL):
                seen = POWERED_OFF
            elif step is Step.RESET:
                reboot = None
            elif step in (Step.NOTE_STOPPED, Step.NOTE_SHUT_DOWN, Step.NOTE_FAILED):
                state, wants, asked = "stopped", "stopped", now
            elif step is Step.REMOVE:
                state, asked, seen = "terminated", now, OFF
            else:
                pytest.fail(f"{step} of {wanted} {state} {alive} {end}")
        else:
            pytest.fail(f"{wanted} {state} {alive} {end} goes on for ever")
        assert (state, seen.alive) == (wants, wants == "running")
