"""Machines that are frozen to a file and go on from it, in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from celaje.cli.command import main
from celaje.disk.volumes import VolumeStore
from celaje.errors import GuestError, InputError, NotFound, UsageError
from celaje.host import control, inventory, machine_snapshot, messages, starting
from celaje.host.control import Control
from celaje.host.machine_options import DiskOption
from celaje.host.machine_snapshot import Owner, make_machine, open_snapshot
from celaje.host.network_options import HostPortOption, NetworkOptions
from celaje.host.record import MachineDirectory
from celaje.machine.snapshot.file import SnapshotFile, SnapshotWriter
from celaje.machine.snapshot.state import MachineState, decode, encode
from tests.machine_processes import Machines
from tests.system.test_vm_run import program

# For each byte that is typed: touches the next page of memory, from 0x80401000 on, and says the byte.
WALKER = program(
    0x100002B7,  # lui   t0, 0x10000
    0x40200437,  # lui   s0, 0x40200
    0x00141413,  # slli  s0, s0, 1
    0x000014B7,  # lui   s1, 1
    0x0052C303,  # 1: lbu t1, 5(t0)
    0x00137313,  # andi  t1, t1, 1
    0xFE030CE3,  # beqz  t1, 1b
    0x0002C383,  # lbu   t2, 0(t0)
    0x00940433,  # add   s0, s0, s1
    0x00043E03,  # ld    t3, 0(s0)
    0x00728023,  # sb    t2, 0(t0)
    0xFE5FF06F,  # j     1b
)


@contextmanager
def console(directory: MachineDirectory) -> Iterator[Control]:
    with Control(directory) as found:
        found.ask(messages.OpenConsole(), messages.Done)
        yield found


def talk(found: Control, text: bytes) -> bytes:
    """Type `text`; what is said until as much has come back."""
    found.send(messages.ConsoleInput(data=text))
    said = b""
    while len(said) < len(text):
        answer = found.receive()
        assert isinstance(answer, messages.ConsoleOutput), answer
        said += answer.data
    return said


def snapshot(directory: MachineDirectory, path: Path) -> messages.SnapshotTaken:
    return control.ask(directory.name, messages.Snapshot(path=str(path)), messages.SnapshotTaken)


def restored(name: str, path: Path) -> MachineDirectory:
    directory = make_machine(name, path).directory
    starting.start(directory)
    inventory.look_until_begun(directory)
    return directory


def test_a_machine_goes_on_in_another_process_and_its_next_start_is_a_boot(machines: Machines, tmp_path: Path) -> None:
    first = machines.started("first")
    path = tmp_path / "first.snap"
    with console(first) as found:
        assert talk(found, b"before") == b"before"
        taken = snapshot(first, path)
        assert taken.pause_seconds >= 0
        assert talk(found, b"after") == b"after"
    control.kill(first)
    os.unlink(tmp_path / "firmware")  # the file has it
    second = restored("second", path)
    with console(second) as found:
        assert talk(found, b"on") == b"on"
    assert second.record().restored_from is not None
    assert (second.record().mac, second.record().instance) == (first.record().mac, first.record().instance)
    control.ask("second", messages.Reset(), messages.Done)
    with console(second) as found:
        assert talk(found, b"anew") == b"anew"
    control.kill(second)
    path.unlink()
    starting.start(second)
    with console(second) as found:
        assert talk(found, b"boots") == b"boots"
    assert second.record().restored_from is None


def test_disks_are_as_they_were_at_the_instant_and_the_new_machines_own(machines: Machines, tmp_path: Path) -> None:
    store = VolumeStore()
    for name in ("one", "two", "three"):
        store.create(name, size=1 << 20)
    first = machines.started("first")
    for name in ("one", "two", "three"):
        disk = messages.AttachedDisk(source=store.describe(name).id, read_only=name == "three")
        control.ask("first", messages.AttachDisk(disk=disk), messages.DiskAttached)
    control.ask("first", messages.DetachDisk(source=store.describe("one").id), messages.Done)
    path = tmp_path / "first.snap"
    snapshot(first, path)
    second = restored("second", path)
    described = inventory.look(second).description
    assert described is not None
    assert [(disk.target, disk.read_only) for disk in described.disks] == [(1, False), (2, True)]
    have = {volume.id for volume in store.list()}
    assert {disk.source for disk in described.disks} < have
    assert len(have) == 5
    control.kill(second)
    starting.start(second)
    described = inventory.look(second).description
    assert described is not None
    assert [(disk.target, disk.read_only) for disk in described.disks] == [(1, False), (2, True)]


def test_a_file_that_is_cut_short_under_a_machine_ends_it_and_is_named(machines: Machines, tmp_path: Path) -> None:
    first = machines.started("first", WALKER)
    path = tmp_path / "first.snap"
    with console(first) as found:
        assert talk(found, b"before") == b"before"
        snapshot(first, path)
    second = restored("second", path)
    with console(second) as found:
        assert talk(found, b"on") == b"on"
        os.truncate(path, 4096)
        assert control.wait_until_off(second, 60)
    seen = inventory.look(second)
    assert seen.state == "died"
    assert f"the snapshot {path} that it was restored from was cut short under it: 4096 bytes" in seen.detail
    assert inventory.look(first).state == "running"


def test_what_keeps_a_machine_from_going_on_is_said_and_nothing_stays(machines: Machines, tmp_path: Path) -> None:
    first = machines.started("first")
    path = tmp_path / "first.snap"
    snapshot(first, path)
    with pytest.raises(UsageError, match=r"there is a machine first already; start it with"):
        make_machine("first", path)
    with pytest.raises(NotFound, match="there is no machine snapshot"):
        make_machine("second", tmp_path / "none")
    with pytest.raises(UsageError, match="has no network card; leave out --network"):
        make_machine("second", path, NetworkOptions())
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputError, match="is no whole machine snapshot"):
        make_machine("second", path)
    assert VolumeStore().list() == []
    assert [found.record.name for found in inventory.look_around()[0]] == ["first"]


def test_a_machine_with_a_plain_file_as_a_disk_is_refused_with_the_way_out(machines: Machines, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(4096))
    first = machines.started("first", disks=(DiskOption(str(disk)),))
    with pytest.raises(UsageError, match=r"plain file, which no snapshot can hold still; make it a volume"):
        snapshot(first, tmp_path / "first.snap")
    second = machines.started("second")
    attached = messages.AttachedDisk(source=str(disk), is_file=True, read_only=True)
    control.kill(first)
    control.ask("second", messages.AttachDisk(disk=attached), messages.DiskAttached)
    with pytest.raises(UsageError, match=r"plain file, which no snapshot can hold still; make it a volume"):
        snapshot(second, tmp_path / "second.snap")
    assert not list(tmp_path.glob("*.snap"))
    assert inventory.look(second).state == "running"


def altered(path: Path, place: Path, change: object) -> Path:
    """A copy of a snapshot whose owner's words are others, with hashes that fit."""
    with SnapshotFile(path) as file, SnapshotWriter(place) as writer:
        for section in file.sections.values():
            at = writer.add(section.name, section.length)
            for number, block in enumerate(file.blocks(section)):
                writer.write(at + number * (1 << 16), [block])
        state: MachineState = decode(file.state)
        owner = msgspec.json.decode(state.owner, type=Owner)
        assert callable(change)
        writer.finish(encode(msgspec.structs.replace(state, owner=change(owner))))
    return place


def test_a_hostile_file_opens_nothing_of_this_host(machines: Machines, tmp_path: Path) -> None:
    first = machines.started("first")
    path = tmp_path / "first.snap"
    snapshot(first, path)
    secret = tmp_path / "secret"
    secret.write_text("secret")

    def greedy(owner: Owner) -> bytes:
        options = msgspec.structs.replace(
            owner.record,
            options=msgspec.convert(
                {
                    **msgspec.to_builtins(owner.record.options),
                    "disks": [{"path": str(secret), "read_only": True}],
                    "kernel": str(secret),
                    "firmware": str(secret),
                },
                type(owner.record.options),
            ),
            attached=(messages.AttachedDisk(source=str(secret), is_file=True),),
            root=str(secret),
        )
        return msgspec.json.encode(msgspec.structs.replace(owner, record=options))

    made = make_machine("second", altered(path, tmp_path / "greedy.snap", greedy))
    record = made.directory.record()
    assert str(secret) not in msgspec.json.encode(record).decode()
    assert record.options.firmware == str(made.directory.path / "firmware")

    def with_disks(owner: Owner) -> bytes:
        disks = [messages.AttachedDisk(source=str(secret), is_file=True, target=0)]
        return msgspec.json.encode(msgspec.structs.replace(owner, disks=disks))

    with pytest.raises(InputError, match="does not have the disks that it speaks of"):
        make_machine("third", altered(path, tmp_path / "disks.snap", with_disks))

    def climbing(owner: Owner) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(owner, files=["../../../escape"]))

    with pytest.raises(InputError, match="does not say what its machine is"):
        make_machine("third", altered(path, tmp_path / "climbing.snap", climbing))
    def commanding(owner: Owner) -> bytes:
        instance = f"{owner.record.instance}\n    ProxyCommand touch {secret}"
        return msgspec.json.encode(
            msgspec.structs.replace(owner, record=msgspec.structs.replace(owner.record, instance=instance))
        )

    with pytest.raises(InputError, match="does not say what its machine is"):
        make_machine("third", altered(path, tmp_path / "commanding.snap", commanding))
    for nonsense in (b"", b"{}", b"[1]", b"\xff"):
        with pytest.raises(InputError, match="does not say what its machine is"):
            open_snapshot(altered(path, tmp_path / f"{nonsense.hex()}.snap", lambda owner, text=nonsense: text))  # type: ignore[misc]  # a bound default


def test_ports_of_the_host_are_closed_to_a_restored_machine_unless_somebody_opens_them(tmp_path: Path) -> None:
    saved = NetworkOptions(host_ports=(HostPortOption("tcp", 8080, 80),), mac="02:00:00:00:00:01")
    card, closed = machine_snapshot.card(tmp_path, saved, None)
    assert card is not None
    assert (card.host_ports, closed, card.mac) == ((), (8080,), saved.mac)
    wanted = NetworkOptions(network="copies", host_ports=(HostPortOption("tcp", 9090, 90),))
    card, closed = machine_snapshot.card(tmp_path, saved, wanted)
    assert card is not None
    assert (card.network, card.host_ports, card.mac, closed) == ("copies", wanted.host_ports, saved.mac, ())


def test_a_machine_whose_devices_are_others_does_not_begin(machines: Machines, tmp_path: Path) -> None:
    first = machines.started("first")
    path = tmp_path / "first.snap"
    snapshot(first, path)
    place = tmp_path / "other.snap"
    with SnapshotFile(path) as file, SnapshotWriter(place) as writer:
        for section in file.sections.values():
            writer.write(writer.add(section.name, section.length), list(file.blocks(section)))
        state = decode(file.state)
        writer.finish(encode(msgspec.structs.replace(state, devices=state.devices[:-1])))
    directory = make_machine("second", place).directory
    starting.start(directory)
    with pytest.raises(GuestError, match=r"the machine second did not begin: failed: .*devices are not this machine's"):
        inventory.look_until_begun(directory)


def test_the_commands_say_what_they_did(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.started("first")
    path = tmp_path / "first.snap"
    assert main(["vm", "snapshot", "first", str(path)]) == 0
    assert f"To go on from it: celaje vm restore NEW-NAME {path}" in capsys.readouterr().out
    assert main(["vm", "verify", str(path)]) == 0
    assert main(["vm", "snapshot", "first", str(path)]) == 2
    assert "is there already; remove it first" in capsys.readouterr().err
    assert main(["vm", "restore", "second", str(path)]) == 0
    assert capsys.readouterr().out == f"second goes on from {path}\n  celaje vm console second\n"
    assert main(["vm", "restore", "second", str(path)]) == 2
    assert "there is a machine second already" in capsys.readouterr().err
    assert main(["vm", "snapshot", "none", str(tmp_path / "none.snap")]) == 2
