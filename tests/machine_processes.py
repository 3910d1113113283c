"""Machines in processes of their own, for tests: how they are made, waited for and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from celaje.host import record, starting
from celaje.host.configuration import resolved
from celaje.host.control import wait_until_off
from celaje.host.machine_options import MachineOptions
from celaje.host.record import MachineDirectory
from celaje.network import client, spawn
from tests.system.test_vm_run import ECHO

SECONDS = 60.0


def wait_until(condition: Callable[[], object]) -> None:
    """Fails after a minute."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def alive(process: int) -> bool:
    """Whether a process runs (a zombie does not). One whose first thread has ended does as long as another is there:
    its files are open so long, and its locks held."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    state, threads = fields[0], int(fields[17])
    return state != "Z" or threads > 1


def end(process: int | None) -> None:
    """End one process, and wait until it is gone."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        wait_until(lambda: not alive(process))


class Machines:
    """What a test has started."""

    def __init__(self, firmware: Path) -> None:
        self._firmware = firmware

    def made(self, name: str, program: bytes = ECHO, **options: object) -> MachineDirectory:
        """A machine that has not been started: of a bare-metal program."""
        self._firmware.write_bytes(program)
        settings: dict[str, object] = {"firmware": str(self._firmware), "memory": 16 << 20, **options}
        wanted = MachineOptions(**settings)  # type: ignore[arg-type]  # the test says what fits
        return record.create(record.new_record(name, wanted, resolved(wanted)))

    def started(self, name: str, program: bytes = ECHO, **options: object) -> MachineDirectory:
        """A machine that runs."""
        directory = self.made(name, program, **options)
        starting.start(directory)
        return directory

    def end(self) -> None:
        """End every machine that is left."""
        for name in record.names():
            directory = MachineDirectory.of(name)
            end(directory.holder())
            assert wait_until_off(directory, SECONDS)


def end_servers() -> None:
    """End the template and the networks' processes of this runtime directory."""
    end(starting.template_process())
    for network in spawn.running():
        client.stop(network)
