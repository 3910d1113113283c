"""The machines of instances, as a host has them: what is seen of one, and what is asked of it.

An instance's machine has the instance's identifier as its name. Everything here may be done again.
"""

from __future__ import annotations

import contextlib
import datetime
from functools import cache
from pathlib import Path

from celaje import durable_file, paths
from celaje.cloud.reconcile.instance_decision import End, Seen
from celaje.errors import CelajeError, NotFound
from celaje.host import control, messages
from celaje.host.console_ring import ConsoleRing
from celaje.host.record import MachineDirectory

ANSWER_SECONDS = 2.0  # a machine that has not answered a question by then is impaired
CONSOLE_BYTES = 65_536  # of the console's output that a client is given
_ORDERLY = {"power-off", "pass", "reboot", "left"}  # ends that the guest, or who has the host, wished for


@cache
def booted() -> float:
    """When this host began, in seconds since 1970."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def seen(instance: str, started: datetime.datetime) -> tuple[Seen, int | None]:
    """The machine of an instance that was last started at `started`, and its process if it runs."""
    directory = MachineDirectory.of(instance)
    process = directory.holder()
    run = directory.run()
    begun = None if run is None else datetime.datetime.fromtimestamp(run.started, datetime.UTC)
    if process is not None:
        return Seen(alive=True, begun=begun), process
    if run is None or begun is None or begun < started:
        return Seen(alive=False), None
    outcome = directory.outcome()
    if outcome is None:
        end = End.VANISHED
    else:
        end = End.ORDERLY if outcome.kind in _ORDERLY else End.FAILED
    return Seen(alive=False, end=end, begun=begun, run_before_boot=run.started < booted()), None


def last_words(instance: str) -> str:
    """What is known of how the machine's last run ended, for a person."""
    outcome = MachineDirectory.of(instance).outcome()
    return "its process was killed" if outcome is None else outcome.reason or outcome.kind


def press(instance: str) -> None:
    """Press the power button, if anybody listens: a guest that boots does not yet, and one that has gone needs not."""
    with contextlib.suppress(CelajeError):
        control.ask(instance, messages.PressPowerButton(), messages.Done, seconds=ANSWER_SECONDS)


def reset(instance: str) -> None:
    """Start the guest anew. One that does not run is no mistake. HostError."""
    with contextlib.suppress(NotFound):
        control.ask(instance, messages.Reset(), messages.Done)


def kill(instance: str) -> None:
    """Switch it off; it has gone then. HostError."""
    with contextlib.suppress(NotFound):
        control.kill(MachineDirectory.of(instance))


def answers(instance: str) -> bool:
    """Whether the machine's process answers what it is asked."""
    try:
        control.ask(instance, messages.Describe(), messages.Description, seconds=ANSWER_SECONDS)
    except CelajeError:
        return False
    return True


def console_output(instance: str) -> bytes:
    """What the guest said last, also of one that is terminated and still listed. NotFound if it never started."""
    try:
        with ConsoleRing(MachineDirectory.of(instance).ring) as ring:
            return ring.tail(CONSOLE_BYTES)
    except CelajeError:
        with contextlib.suppress(FileNotFoundError):
            return _kept_console(instance).read_bytes()
        raise


def _kept_console(instance: str) -> Path:
    return paths.home() / "cloud" / "consoles" / instance


def keep_console(instance: str) -> None:
    """Keep what the guest said last beside its machine, which is about to go."""
    try:
        with ConsoleRing(MachineDirectory.of(instance).ring) as ring:
            said = ring.tail(CONSOLE_BYTES)
    except (CelajeError, OSError):
        return  # it never started, or the machine is gone already
    place = _kept_console(instance)
    durable_file.replace(paths.made(place.parent) / place.name, said)


def forget_console(instance: str) -> None:
    """The instance is listed no longer."""
    _kept_console(instance).unlink(missing_ok=True)
