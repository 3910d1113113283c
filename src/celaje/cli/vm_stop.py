"""`celaje vm stop`: asks guests to shut down, and switches off those that do not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser, seconds
from celaje.cli.machine_names import add_names, for_each
from celaje.errors import GuestError, UsageError

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory

TIMEOUT = 90.0


def run(words: list[str]) -> int:
    """Each of them. NotFound where one does not run; GuestError where one does not stop and shall not be killed."""
    parser = Parser(
        "vm stop",
        "Asks guests to shut down by their power buttons; those that do not within the time are switched off.",
    )
    add_names(parser)
    add = parser.add_argument
    add("--timeout", type=seconds, default=TIMEOUT, metavar="SECONDS", help=f"for each guest ({TIMEOUT:.0f})")
    add("--no-kill", action="store_true", help="leave a guest running that does not shut down")
    chosen = parser.parse_args(words)

    def stop(directory: MachineDirectory) -> str:
        return _stop(directory, chosen.timeout, not chosen.no_kill)

    return for_each(chosen.names, stop)


def _stop(directory: MachineDirectory, timeout: float, kill: bool) -> str:
    from celaje.cli.patience import patience
    from celaje.host import control, messages

    name, ends = directory.name, time.monotonic() + timeout
    try:
        control.ask(name, messages.PressPowerButton(), messages.Done)
    except UsageError as error:  # the guest does not listen, or is paused
        if not kill:
            raise GuestError(str(error)) from error
        control.kill(directory)
        return f"{name} is off; its guest did not listen to the power button, so it was switched off"
    with patience(f"{name} shuts down …"):
        off = control.wait_until_off(directory, max(0.0, ends - time.monotonic()))
    if off:
        return f"{name} is off"
    if not kill:
        raise GuestError(f"{name} has not shut down within {timeout:.0f} s; switch it off: celaje vm kill {name}")
    control.kill(directory)
    return f"{name} is off; it did not shut down within {timeout:.0f} s, so it was switched off"
