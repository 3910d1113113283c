"""Threads of a machine's process that begin late, as on a host that is busy: nobody who asked in time is forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from celaje.disk.volumes import VolumeStore
from celaje.host import control, inventory, messages, starting
from celaje.host.control import Control
from celaje.host.record import MachineDirectory, Record
from celaje.host.vmm import MachineProcess
from tests.machine_processes import Machines

LATE = 0.2  # for who is too early to be found out


@contextmanager
def running(directory: MachineDirectory) -> Iterator[MachineProcess]:
    """The machine in this very process."""
    with MachineProcess(directory) as process:
        runs = threading.Thread(target=process.run)
        runs.start()
        try:
            yield process
        finally:
            process.leave()
            runs.join()


def test_what_the_guest_says_once_its_console_is_open_is_shown(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = threading.Thread.run

    def late(thread: threading.Thread) -> None:
        if thread.name == "console reader":
            time.sleep(LATE)
        run(thread)

    directory = machines.made("one", engine="evaluate")
    with running(directory):
        for said in (b"x", b"y"):  # once for the guest to have begun
            with Control(directory) as console:
                console.ask(messages.OpenConsole(), messages.Done)
                console.send(messages.ConsoleInput(data=said))
                assert console.receive() == messages.ConsoleOutput(data=said)
            monkeypatch.setattr(threading.Thread, "run", late)


def test_a_disk_that_comes_while_a_machine_goes_on_is_kept(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = messages.AttachedDisk(source=VolumeStore().create("data", size=1 << 20).id)
    directory = machines.made("one", engine="evaluate")
    directory.write_record(msgspec.structs.replace(directory.record(), goes_on=True))
    write = MachineDirectory.write_record

    def attach() -> None:
        control.ask("one", messages.AttachDisk(disk=disk), messages.DiskAttached)

    attaches = threading.Thread(target=attach)

    def late(machine: MachineDirectory, record: Record) -> None:
        if attaches.ident is None:
            attaches.start()
            attaches.join(LATE)
        write(machine, record)

    monkeypatch.setattr(MachineDirectory, "write_record", late)
    with running(directory):
        attaches.join()
        assert [one.source for one in directory.record().attached] == [disk.source]
        assert not directory.record().goes_on


def test_a_machine_that_begins_while_it_is_looked_at_has_not_died(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = machines.started("one")
    control.kill(directory)
    outcome = MachineDirectory.outcome
    started: list[int] = []

    def late(machine: MachineDirectory) -> object:
        if not started:
            started.append(starting.start(directory))
        return outcome(machine)

    monkeypatch.setattr(MachineDirectory, "outcome", late)
    seen = inventory.look(directory)
    assert (seen.state, [seen.process]) == ("running", started)


STARTS = """
import sys
from pathlib import Path
from celaje.host import vmm
from celaje.host.record import MachineDirectory

listening = vmm._listening

def late(directory):
    print("has the lock", flush=True)
    sys.stdin.readline()
    return listening(directory)

vmm._listening = late
with vmm.MachineProcess(MachineDirectory(Path(sys.argv[1]))) as process:
    print(process.run().kind)
"""


@pytest.fixture
def starts() -> Iterator[Callable[[MachineDirectory], subprocess.Popen[str]]]:
    """Starts a machine in a process of its own that has its lock, and listens from the next line on that it is told."""
    process: list[subprocess.Popen[str]] = []

    def start(directory: MachineDirectory) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", STARTS, str(directory.path)]
        found = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.append(found)
        assert found.stdout is not None
        assert found.stdout.readline() == "has the lock\n"
        return found

    yield start
    for one in process:
        with one:
            one.kill()


def test_a_machine_that_starts_just_now_is_killed_in_order(
    machines: Machines, starts: Callable[[MachineDirectory], subprocess.Popen[str]]
) -> None:
    directory = machines.made("one", engine="evaluate")
    process = starts(directory)
    failures: list[Exception] = []

    def kill() -> None:
        try:
            control.kill(directory, 60)
        except Exception as error:
            failures.append(error)

    kills = threading.Thread(target=kill)
    kills.start()
    kills.join(LATE)
    said, _ = process.communicate("\n", timeout=60)
    kills.join()
    assert (said, failures) == ("left\n", [])
    assert directory.holder() is None


def test_who_looks_while_a_machine_is_locked_hears_of_nobody_who_had_it_before(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = machines.made("one")
    (directory.path / "lock").write_text("1")  # of a process that was killed
    heard: list[int | None] = []
    looks = threading.Thread(target=lambda: heard.append(directory.holder()))
    truncate = os.ftruncate

    def late(descriptor: int, length: int) -> None:
        looks.start()
        looks.join(LATE)
        truncate(descriptor, length)

    monkeypatch.setattr(os, "ftruncate", late)
    lock = directory.lock()
    looks.join()
    os.close(lock)
    assert heard == [os.getpid()]
