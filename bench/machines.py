"""Machines in processes of their own: how long a start takes from the template, how long a guest at work stands still
for its snapshot, how soon a restored one executes, and what an idle one costs.

All of it in a CELAJE_HOME and a directory of sockets that are made for it; every process is ended again.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import boot, programs
from celaje.host import control, inventory, messages, record, starting
from celaje.host.configuration import resolved
from celaje.host.machine_options import MachineOptions
from celaje.host.machine_snapshot import make_machine
from celaje.host.record import MachineDirectory
from celaje.host.vmm import private_bytes

MEMORY_MIB = (512, 4096)
IDLE_SECONDS = 12  # decoded code goes after five
WORK = b"while :; do dd if=/dev/urandom of=/tmp/x bs=64k count=64; done 2>/dev/null &\n"


def measures(files: boot.Files, repeats: int) -> dict[str, float]:
    """Seconds and bytes by the names of report.MEASURES."""
    with _home():
        found = {"process_start_seconds": _starts(repeats)}
        for mebibytes in MEMORY_MIB:
            found |= _freeze_and_thaw(files, mebibytes, repeats)
        return found


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A home of its own while the block runs; what was started in it is ended."""
    settings = ("CELAJE_HOME", "XDG_RUNTIME_DIR")
    before = {name: os.environ.get(name) for name in settings}
    with tempfile.TemporaryDirectory(prefix="celaje-bench-") as name:
        home = Path(name)
        os.environ["CELAJE_HOME"] = str(home / "home")
        os.environ["XDG_RUNTIME_DIR"] = str(home / "run")
        (home / "run").mkdir(mode=0o700)
        try:
            yield home
        finally:
            for machine in record.names():
                with contextlib.suppress(Exception):
                    control.kill(MachineDirectory.of(machine))
            template = starting.template_process()
            if template is not None:
                os.kill(template, 15)
            for setting, value in before.items():
                if value is None:
                    del os.environ[setting]
                else:
                    os.environ[setting] = value


def _made(name: str, **options: object) -> MachineDirectory:
    wanted = MachineOptions(**options)  # type: ignore[arg-type]  # what is said below fits
    return record.create(record.new_record(name, wanted, resolved(wanted)))


def _starts(repeats: int) -> float:
    """From the request to the answer that the machine's process is up."""
    firmware = str(programs.program(programs.NOTHING))
    starting.start(_made("first", firmware=firmware))  # starts the template
    seconds = []
    for number in range(max(repeats, 5)):
        directory = _made(f"start-{number}", firmware=firmware)
        started = time.perf_counter()
        starting.start(directory)
        seconds.append(time.perf_counter() - started)
        control.wait_until_off(directory, 60)
    return statistics.median(seconds)


def _freeze_and_thaw(files: boot.Files, mebibytes: int, repeats: int) -> dict[str, float]:
    memory = mebibytes << 20
    options = {"kernel": str(files.kernel), "initrd": str(files.initrd), "append": boot.APPEND, "memory": memory}
    directory = _made(f"linux-{mebibytes}", **options)
    starting.start(directory)
    with control.Control(directory) as console:
        console.ask(messages.OpenConsole(), messages.Done)
        _wait_for(console, b":~# ")
        console.send(messages.ConsoleInput(data=WORK))
    pauses, restores = [], []
    for number in range(max(repeats, 5)):
        path = directory.path.parent / f"{mebibytes}-{number}.snap"
        taken = control.ask(
            directory.name, messages.Snapshot(path=str(path)), messages.SnapshotTaken, seconds=None
        )
        pauses.append(taken.pause_seconds)
        copy = make_machine(f"copy-{mebibytes}-{number}", path).directory
        started = time.perf_counter()
        starting.start(copy)
        inventory.look_until_begun(copy)
        restores.append(time.perf_counter() - started)
        control.kill(copy)
        path.unlink()
    control.kill(directory)
    found = {
        f"snapshot_pause_seconds_{mebibytes}": statistics.median(pauses),
        f"restore_seconds_{mebibytes}": statistics.median(restores),
    }
    if mebibytes == MEMORY_MIB[0]:
        starting.start(directory)
        with control.Control(directory) as console:
            console.ask(messages.OpenConsole(), messages.Done)
            _wait_for(console, b":~# ")
        time.sleep(IDLE_SECONDS)
        found["machine_idle_bytes"] = private_bytes(str(directory.holder()))
        control.kill(directory)
    return found


def _wait_for(console: control.Control, text: bytes) -> None:
    said = b""
    while text not in said:
        answer = console.receive(120)
        if not isinstance(answer, messages.ConsoleOutput):
            raise RuntimeError(f"the guest ended before it said {text!r}: {said[-200:]!r}")
        said += answer.data
