"""A machine that is removed is gone with all that is its own, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from celaje.cli import command
from celaje.disk.description import new_id
from celaje.disk.volumes import VolumeStore
from celaje.errors import HostError, InputError
from celaje.host import control, disks, inventory, messages, record, removal, starting
from celaje.host.machine_options import Boot, MachineOptions
from celaje.host.machine_snapshot import make_machine
from celaje.host.messages import AttachedDisk
from celaje.host.record import MachineDirectory
from tests.machine_processes import Machines


def made(name: str = "web", own: int = 2) -> MachineDirectory:
    """A machine with a root volume, others that came with it, and one that was only attached."""
    store = VolumeStore()
    ids = [store.create(f"{name}-{number}", size=1 << 20).id for number in range(own)]
    theirs = store.create(f"{name}-theirs", size=1 << 20).id
    new = record.new_record(name, MachineOptions(image="debian-mini"), Boot())
    attached = tuple(AttachedDisk(source=one, target=number) for number, one in enumerate((*ids[1:], theirs)))
    return record.create(msgspec.structs.replace(new, root=ids[0], brought=tuple(ids[1:]), attached=attached))


def left() -> list[str]:
    return [path.name for path in record.machines_directory().iterdir()]


def test_what_came_with_a_machine_goes_with_it_and_what_was_attached_stays() -> None:
    removal.remove(made())
    assert left() == []
    assert VolumeStore().names() == ["web-theirs"]


def test_a_disk_of_its_own_that_another_machine_has_by_now_stays() -> None:
    first, second = made("first"), made("second", own=1)
    moved = AttachedDisk(source=first.record().brought[0], target=7)
    second.write_record(msgspec.structs.replace(second.record(), attached=(moved,)))
    removal.remove(first)
    assert "first-1" in VolumeStore().names()
    first = made("third")
    first.write_record(msgspec.structs.replace(first.record(), attached=()))  # detached
    removal.remove(first)
    assert "third-1" in VolumeStore().names()
    assert "third-0" not in VolumeStore().names()


def test_a_disk_that_somebody_has_open_goes_with_the_next_look() -> None:
    directory = made()
    volume = VolumeStore().open("web-1")
    with pytest.raises(InputError, match="the machine is removed, and the next celaje vm ls removes its disk"):
        removal.remove(directory)
    assert record.names() == []
    inventory.look_around()
    assert VolumeStore().names() == ["web-1", "web-theirs"]
    volume.close()
    inventory.look_around()
    assert VolumeStore().names() == ["web-theirs"]
    assert left() == []


@contextlib.contextmanager
def locked(directory: MachineDirectory) -> Iterator[None]:
    """By this process, inside."""
    lock = directory.lock()
    try:
        yield
    finally:
        os.close(lock)


CUTS = ["before the volumes", "between the volumes", "before the directory", "in the directory"]


@pytest.mark.parametrize("cut", CUTS)
def test_a_removal_that_ends_anywhere_is_finished_by_the_next_look(cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    directory = made()
    calls: list[object] = []
    real = disks.remove_volume

    def remove_volume(identifier: str) -> None:
        calls.append(identifier)
        if len(calls) == {"before the volumes": 1, "between the volumes": 2}.get(cut, 0):
            raise Killed
        real(identifier)

    def rmtree(path: Path) -> None:
        if cut == "in the directory":
            (path / "machine.json").unlink()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(disks, "remove_volume", remove_volume)
        patched.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(Killed):
            removal.remove(directory)
    assert len(left()) == 1
    assert record.names() == []
    assert command.main(["vm", "ls"]) == 0
    assert left() == []
    assert VolumeStore().names() == ["web-theirs"]


def test_what_somebody_makes_or_removes_just_now_is_left_alone() -> None:
    directory = made()
    with directory.hidden() as doomed:
        removal.sweep()
        assert doomed.record().root
    with pytest.raises(HostError, match="runs already"), locked(made("other")):
        removal.remove(MachineDirectory.of("other"))
    removal.sweep()
    fresh = record.machines_directory() / ".new.0123456789abcdef"
    fresh.mkdir()
    removal.sweep()
    assert sorted(left()) == [fresh.name, "other"]
    os.utime(fresh, (0, 0))
    (record.machines_directory() / ".keep").mkdir()
    removal.sweep()
    assert sorted(left()) == [".keep", "other"]


def test_a_command_that_is_killed_at_a_random_moment_leaves_a_machine_or_nothing() -> None:
    chance = random.Random(9)
    for number in range(10):
        name = f"m{number}"
        made(name)
        with subprocess.Popen([sys.executable, "-m", "celaje", "vm", "rm", name], stdout=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.15, 0.5))
            process.kill()
        assert command.main(["vm", "ls"]) == 0
        own = [volume for volume in VolumeStore().names() if volume.startswith(f"{name}-")]
        if record.names():
            assert len(own) == 3
            assert command.main(["vm", "rm", name]) == 0
        else:
            assert own == [f"{name}-theirs"]
        assert left() == []


def test_a_restored_machine_leaves_no_disk_behind(machines: Machines, tmp_path: Path) -> None:
    store = VolumeStore()
    store.create("data", size=1 << 20)
    machines.started("first")
    disk = AttachedDisk(source=store.describe("data").id)
    control.ask("first", messages.AttachDisk(disk=disk), messages.DiskAttached)
    path = tmp_path / "first.snap"
    control.ask("first", messages.Snapshot(path=str(path)), messages.SnapshotTaken)
    second = make_machine("second", path).directory
    starting.start(second)
    assert store.names() == ["data", "second-disk0"]
    assert command.main(["vm", "rm", "--force", "second"]) == 0
    assert store.names() == ["data"]
    assert left() == ["first"]


def test_a_restore_that_is_killed_leaves_a_machine_or_nothing(machines: Machines, tmp_path: Path) -> None:
    store = VolumeStore()
    store.create("data", size=1 << 20)
    machines.started("first")
    disk = AttachedDisk(source=store.describe("data").id)
    control.ask("first", messages.AttachDisk(disk=disk), messages.DiskAttached)
    path = tmp_path / "first.snap"
    control.ask("first", messages.Snapshot(path=str(path)), messages.SnapshotTaken)
    chance = random.Random(4)
    for number in range(8):
        name = f"r{number}"
        words = [sys.executable, "-m", "celaje", "vm", "restore", name, str(path)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0.2, 0.6))
            process.kill()
        assert command.main(["vm", "ls"]) == 0
        if name in record.names():
            assert f"{name}-disk0" in store.names()
            assert command.main(["vm", "rm", "--force", name]) == 0
        assert store.names() == ["data"]
        assert left() == ["first"]


@pytest.mark.parametrize("made_volume", [True, False])
def test_a_machine_that_was_never_finished_goes_with_its_volumes(made_volume: bool) -> None:
    """As a kill leaves it: the hidden directory with a record, and the volumes that had been made by then."""
    identifier = new_id("vol")
    new = record.new_record("web", MachineOptions(image="debian-mini"), Boot())
    names: list[str] = []

    def prepare(place: Path) -> None:
        removal.sweep()  # somebody else's, meanwhile: it is locked
        if made_volume:
            VolumeStore().create("web-root", size=1 << 20, identifier=identifier)
        shutil.copytree(place, place.with_name(".web.0123456789abcdef"))
        names.extend(left())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record.create(msgspec.structs.replace(new, root=identifier), prepare)
    assert len(names) == 2
    assert left() == [".web.0123456789abcdef"]
    assert command.main(["vm", "ls"]) == 0
    assert left() == []
    assert VolumeStore().names() == []
