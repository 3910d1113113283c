"""`celaje vm stop`: asks guests to shut down, and switches off those that do not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser, seconds
from celaje.cli.machine_names import add_names, for_each
from celaje.errors import GuestError, HostError, NotFound, UsageError

if TYPE_CHECKING:
    from celaje.host.record import MachineDirectory

TIMEOUT = 90.0
# A guest that boots does not listen yet, and may have a driver before it has anybody who acts on the button.
IGNORED_SECONDS = 0.5
PRESSED_SECONDS = 5.0


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
    if control.ask(name, messages.Describe(), messages.Description).state == "paused":
        raise UsageError(f"{name} is paused, so its guest cannot shut down; first: celaje vm resume {name}")
    with patience(f"{name} shuts down …"):
        heard = off = False
        while not off and (left := ends - time.monotonic()) > 0:
            pressed = _press(name)
            heard = heard or pressed
            off = control.wait_until_off(directory, min(left, PRESSED_SECONDS if pressed else IGNORED_SECONDS))
    if off:
        return f"{name} is off"
    fault = "did not shut down" if heard else "did not listen to its power button"
    if not kill:
        raise GuestError(f"the guest of {name} {fault} within {timeout:g} s; switch it off: celaje vm kill {name}")
    control.kill(directory)
    return f"{name} is off; its guest {fault} within {timeout:g} s, so it was switched off"


def _press(name: str) -> bool:
    """Whether the guest listens to its power button; it is pressed then. One that has ended has heard it."""
    from celaje.host import control, messages

    try:
        control.ask(name, messages.PressPowerButton(), messages.Done)
    except UsageError:
        return False
    except (NotFound, HostError):  # it ended in this moment
        return True
    return True
