"""What cannot be had when a machine starts or is restored: one line that names it and says what to do, exit status 2,
and nothing of the machine stays."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from celaje.cli import command
from celaje.disk.volumes import VolumeStore
from celaje.host import record
from celaje.host.machine_snapshot import Owner
from celaje.host.record import MachineDirectory
from celaje.machine.snapshot.file import VERSION, SnapshotFile, SnapshotWriter
from celaje.machine.snapshot.state import MachineState, decode, encode
from tests.machine_processes import Machines
from tests.system.test_vm_run import ECHO

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def refused(capsys: Capture) -> Callable[..., str]:
    """The line of a command that must be refused."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        before = record.names(), VolumeStore().names()
        assert command.main([*map(str, words)]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("celaje: ")
        assert told.err.count("\n") == 1
        assert (record.names(), VolumeStore().names()) == before
        assert not record.hidden()
        return told.err

    return run


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo"
    path.write_bytes(ECHO)
    return path


def started(name: str, echo: Path, *words: str) -> None:
    assert command.main(["vm", "start", name, "--firmware", str(echo), "--memory", "16M", *words]) == 0


def rewritten(path: Path, place: Path, change: Callable[[MachineState], MachineState]) -> Path:
    """A copy of a snapshot with another state, with hashes that fit."""
    with SnapshotFile(path) as file, SnapshotWriter(place) as writer:
        for section in file.sections.values():
            at = writer.add(section.name, section.length)
            for number, block in enumerate(file.blocks(section)):
                writer.write(at + number * (1 << 16), [block])
        writer.finish(encode(change(decode(file.state))))
    return place


@pytest.fixture
def snapshot(machines: Machines, echo: Path, tmp_path: Path) -> Path:
    """Of a machine that is gone."""
    started("first", echo, "--network", "none")
    path = tmp_path / "first.snap"
    assert command.main(["vm", "snapshot", "first", str(path)]) == 0
    assert command.main(["vm", "rm", "--force", "first"]) == 0
    return path


def test_a_port_in_use(machines: Machines, echo: Path, refused: Callable[..., str]) -> None:
    words = ("vm", "start", "web", "--firmware", echo, "--memory", "16M", "--network")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(*words, f"user,forward=tcp:127.0.0.1:{port}:22")
        assert f"cannot forward tcp:127.0.0.1:{port} to port 22 of 'web': Address already in use" in said
        assert "choose another port, or 0 for any that is free" in said
    said = refused(*words, "user,forward=tcp:192.0.2.1:2222:22")  # no address of this host's
    assert "cannot forward tcp:192.0.2.1:2222" in said
    started("web", echo, "--network", f"user,forward=tcp:127.0.0.1:{port}:22")
    said = refused("vm", "start", "db", "--firmware", echo, "--network", f"user,forward=tcp:127.0.0.1:{port}:22")
    assert "of 'db': Address already in use" in said


def test_an_address_that_another_machine_has(
    machines: Machines, echo: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    """A second machine that goes on from a snapshot has the first one's addresses."""
    path = tmp_path / "web.snap"
    started("web", echo, "--network", "user")
    assert command.main(["vm", "snapshot", "web", str(path)]) == 0
    mac = MachineDirectory.of("web").record().mac
    taken = f"the MAC address {mac} of '%s' is that of 'web', which is attached; give one of them another, or plug it"
    said = refused("vm", "restore", "web2", path)
    assert f"{taken % 'web2'} into another network: --network user,network=NAME" in said
    assert command.main(["vm", "restore", "web2", str(path), "--network", "user,network=copies"]) == 0
    assert taken % "db" in refused("vm", "start", "db", "--firmware", echo, "--network", f"user,mac={mac}")


def test_a_snapshot_of_another_version(snapshot: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    place = tmp_path / "newer.snap"
    content = bytearray(snapshot.read_bytes())
    content[8:12] = (VERSION + 1).to_bytes(4, "little")
    place.write_bytes(content)
    for words in (("vm", "restore", "second", place), ("vm", "verify", place)):
        said = refused(*words)
        assert f"{place} is of version {VERSION + 1}, and this celaje reads version {VERSION}" in said
        assert "restore it with the celaje that took it" in said

    def other_format(state: MachineState) -> MachineState:
        owner = msgspec.json.decode(state.owner, type=Owner)
        owner = msgspec.structs.replace(owner, format=owner.format + 1)
        return msgspec.structs.replace(state, owner=msgspec.json.encode(owner))

    said = refused("vm", "restore", "second", rewritten(snapshot, tmp_path / "format.snap", other_format))
    assert "has format 2, and this celaje knows format 1; restore it with the celaje that took it" in said


def test_a_snapshot_of_a_processor_with_features_that_this_one_lacks(
    snapshot: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    def with_vectors(state: MachineState) -> MachineState:
        return msgspec.structs.replace(state, isa=f"{state.isa}_zvfh_zacas")

    said = refused("vm", "restore", "second", rewritten(snapshot, tmp_path / "vectors.snap", with_vectors))
    assert "zvfh" in said
    assert "zacas" in said
    assert "restore it with a celaje" in said


def test_a_snapshot_that_is_cut_short_or_altered_or_none(
    snapshot: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    content = snapshot.read_bytes()
    harmed = {
        "short": (content[:-1], f"has {len(content) - 1} bytes and must have {len(content)}"),
        "header": (content[:100] + b"\xff" + content[101:], "its header was altered"),
        "state": (content[:-4096] + b"\xff" + content[-4095:], "its state was altered"),
        "none": (b"something else", "is no machine snapshot; celaje vm snapshot NAME FILE takes one"),
        "empty": (b"", "is no machine snapshot"),
    }
    for name, (changed, reason) in harmed.items():
        place = tmp_path / name
        place.write_bytes(changed)
        assert reason in refused("vm", "restore", "second", place)
    assert "there is no machine snapshot" in refused("vm", "restore", "second", tmp_path / "nothing")


def test_a_volume_that_is_open_already(
    machines: Machines, echo: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    VolumeStore().create("data", size=1 << 20)
    started("one", echo, "--network", "none")
    started("two", echo, "--network", "none")
    assert command.main(["vm", "attach", "one", "data"]) == 0
    process = MachineDirectory.of("one").holder()
    for words in (
        ("vm", "attach", "two", "data"),
        ("vm", "volume", "export", "data", tmp_path / "data.raw"),
    ):
        said = refused(*words)
        assert f"the volume data is in use by process {process} (celaje-vmm); stop what uses it (celaje vm ls)" in said
    assert "is attached already; first: celaje vm detach" in refused("vm", "attach", "one", "data")
    said = refused("vm", "volume", "rm", "data")
    assert "data is attached to the machine one; first: celaje vm detach one data" in said
    assert not (tmp_path / "data.raw").exists()


def test_a_root_disk_that_somebody_else_has_open(
    machines: Machines, echo: Path, refused: Callable[..., str]
) -> None:
    store = VolumeStore()
    identifier = store.create("one-root", size=1 << 20).id
    directory = machines.made("one")
    directory.write_record(msgspec.structs.replace(directory.record(), root=identifier))
    with closing(store.open("one-root")):
        said = refused("vm", "start", "one")
        assert "the volume one-root is in use by process" in said
    assert command.main(["vm", "start", "one"]) == 0
