"""Instances by the names that people give them, and waiting for what they are to become."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from celaje.cli.cloud_client import Client, Shape, name_of
from celaje.cli.terminal_text import printable
from celaje.errors import CelajeError, NotFound, UsageError

GONE = ("shutting-down", "terminated")
LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 600.0

Result = TypeVar("Result")


class Interrupted(CelajeError):
    """Its user has not waited to the end."""

    exit_status = 128 + 2  # as a shell reports SIGINT


def instances(ec2: Client, **request: object) -> list[Shape]:
    """Descriptions of instances, the oldest first."""
    found = [one for group in ec2.all("describe_instances", "Reservations", **request) for one in group["Instances"]]
    return sorted(found, key=lambda one: (one["LaunchTime"], one["InstanceId"]))


def found(ec2: Client, names: Sequence[str]) -> list[Shape]:
    """The instances that `names` mean, identifiers or Name tags. NotFound; UsageError where a name is of several."""
    known = [one for one in instances(ec2) if one["State"]["Name"] != "terminated"]
    return [_one(known, name) for name in names]


def _one(known: list[Shape], name: str) -> Shape:
    matching = [one for one in known if name in (one["InstanceId"], name_of(one))]
    living = [one for one in matching if one["State"]["Name"] not in GONE] or matching
    if not living:
        have = ", ".join(label(one) for one in known)
        hint = f"there are: {have}" if have else "make it: celaje launch"
        raise NotFound(f"there is no instance {name!r}; {hint}")
    if len(living) > 1:
        these = ", ".join(one["InstanceId"] for one in living)
        raise UsageError(f"{name!r} is the name of {len(living)} instances; choose by identifier: {these}")
    return living[0]


def label(one: Shape) -> str:
    """What an instance is called, and its identifier."""
    name = printable(name_of(one))
    return f"{name} ({one['InstanceId']})" if name else str(one["InstanceId"])


def wait_until(
    ec2: Client, identifiers: Sequence[str], wanted: str, seconds: float = PATIENCE_SECONDS
) -> list[Shape]:
    """The instances when all are `wanted`. CelajeError, with why, for one that can no longer come to that."""

    def look() -> tuple[list[Shape] | None, str]:
        seen = instances(ec2, InstanceIds=list(identifiers))
        waiting = [one for one in seen if one["State"]["Name"] != wanted]
        for one in waiting:
            if one["State"]["Name"] in GONE and wanted not in GONE:
                told = one.get("StateReason", {}).get("Message") or one.get("StateTransitionReason")
                raise CelajeError(
                    f"{label(one)} is {one['State']['Name']}: {told or 'no reason is known'}; "
                    f"see: celaje console {one['InstanceId']}"
                )
        what = ", ".join(f"{label(one)} is {one['State']['Name']}" for one in waiting[:3])
        return (None if waiting else seen), what

    return wait(look, f"until {'it is' if len(identifiers) == 1 else 'they are'} {wanted}", seconds)


def wait(look: Callable[[], tuple[Result | None, str]], what: str, seconds: float = PATIENCE_SECONDS) -> Result:
    """What `look` returns when that is not None any more. Beside it, it returns what is seen, which is shown on a
    terminal with the time. CelajeError after `seconds`; Interrupted by Ctrl-C."""
    began = time.monotonic()
    shows = sys.stderr.isatty()
    shown = ""
    try:
        while True:
            result, seen = look()
            if result is not None:
                return result
            waited = time.monotonic() - began
            if waited > seconds:
                raise CelajeError(f"waited {seconds:.0f} s {what}: {seen}; look again: celaje ls")
            if shows:
                shown = f"waiting {what}: {seen} ({waited:.0f} s)"[:200]
                print(f"\r\033[K{shown}", end="", file=sys.stderr, flush=True)
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the cloud goes on with what it was asked for: celaje status") from None
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

