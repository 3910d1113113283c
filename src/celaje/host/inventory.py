"""This user's machines as they are: found by their directories, asked on their sockets, whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass

from celaje.errors import CelajeError, GuestError, HostError, NotFound
from celaje.host import messages
from celaje.host.control import Control, wait_until_off
from celaje.host.record import MachineDirectory, Record, RestoredFrom, hidden, names

LOOK_SECONDS = 5.0  # a machine that does not answer by then is listed as one that does not answer
BEGIN_SECONDS = 120.0  # one whose guest executes nothing by then never will
ENDING_SECONDS = 0.5  # a process that does not listen any more is gone by then, mostly

RUNNING, PAUSED, STARTING, ENDING, SILENT = "running", "paused", "starting", "ending", "silent"
OFF, DIED = "off", "died"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A machine at this moment. `state` is one of the names above; `detail` is for a person, empty if there is nothing
    to say. `description` is what its process says of itself."""

    record: Record
    state: str
    process: int | None = None
    detail: str = ""
    description: messages.Description | None = None

    @property
    def alive(self) -> bool:
        """Whether a process runs it."""
        return self.process is not None


def look(directory: MachineDirectory) -> Sighting:
    """One machine. NotFound, InputError."""
    record = directory.record()
    process = directory.holder()
    if process is None:
        run = directory.run()
        state, detail = _last_end(directory, record)
        if directory.holder() is None and directory.run() == run:
            return Sighting(record, state, detail=detail)
        return look(directory)  # it has begun meanwhile, and what was read may be of two runs
    try:
        with Control(directory) as control:
            described = control.ask(messages.Describe(), messages.Description, seconds=LOOK_SECONDS)
    except NotFound:
        run = directory.run()
        if run is None or run.process != process:
            return Sighting(record, STARTING, process)
        if wait_until_off(directory, ENDING_SECONDS):
            return look(directory)
        return Sighting(record, ENDING, process)
    except HostError as error:
        if wait_until_off(directory, ENDING_SECONDS):
            return look(directory)
        return Sighting(record, SILENT, process, str(error))
    return Sighting(record, described.state, process, description=described)


def look_until_begun(directory: MachineDirectory, seconds: float = BEGIN_SECONDS) -> Sighting:
    """The machine once its guest executes, or has ended already. GuestError, with what went wrong, if it never did."""
    ends = time.monotonic() + seconds
    while True:
        seen = look(directory)
        if seen.description is not None and seen.description.starts:
            return seen
        if seen.state == DIED:
            raise GuestError(f"the machine {directory.name} did not begin: {seen.detail}")
        if not seen.alive:
            return seen
        if time.monotonic() > ends:
            raise HostError(f"the machine {directory.name} has not begun for {seconds:.0f} s; see {directory.log}")
        time.sleep(0.005)


def look_around() -> tuple[list[Sighting], list[CelajeError]]:
    """All machines, by name; and what is wrong with those that cannot be read. What is left of others is removed."""
    if hidden():
        from celaje.host.removal import sweep  # only then: it imports all that disks need

        sweep()
    found: list[Sighting] = []
    errors: list[CelajeError] = []
    for name in names():
        try:
            found.append(look(MachineDirectory.of(name)))
        except NotFound:
            continue  # removed in between
        except CelajeError as error:
            errors.append(error)
    return found, errors


def _last_end(directory: MachineDirectory, record: Record) -> tuple[str, str]:
    """(state, detail) of a machine that nothing runs."""
    if directory.run() is None:
        return OFF, "never started"
    outcome = directory.outcome()
    if outcome is not None:
        number = f" {outcome.number}" if outcome.kind == "fail" else ""
        text = f"{outcome.kind}{number}"
        return (DIED if outcome.kind == "failed" else OFF), f"{text}: {outcome.reason}" if outcome.reason else text
    seen = directory.process_exit()
    if seen is None:
        detail = "its process was killed or crashed"
    elif seen.status < 0:
        detail = f"its process was ended by {_signal(-seen.status)}"
    else:
        detail = f"its process ended with status {seen.status} and no verdict; see {directory.log}"
    return DIED, detail + _file_note(record.restored_from)


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _file_note(source: RestoredFrom | None) -> str:
    if source is None:
        return ""
    try:
        held = os.stat(source.path).st_size
    except OSError as error:
        return f"; the snapshot {source.path} that it was restored from cannot be read any more ({error.strerror})"
    if held < source.size:
        return (
            f"; the snapshot {source.path} that it was restored from was cut short under it: "
            f"{held} bytes are left of {source.size}"
        )
    return ""
