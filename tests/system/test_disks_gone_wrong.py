"""What a Linux guest gets when the host's disk is full, or what its disk stands on is missing or altered: an I/O error
for what cannot be had, everything else as ever; and the machine's log says what to do."""

from __future__ import annotations

import hashlib
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celaje.cli.command import main
from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.host import inventory
from celaje.host.record import MachineDirectory
from celaje.machine.snapshot.file import SnapshotFile
from tests.machine_processes import wait_until
from tests.system.debian_guest import Guest, booted, celaje, place, remove, restored

MIB = 1 << 20
LIMIT = 2048  # MiB: more than the root disk has
CONTENT = random.Random(11).randbytes(4 * CHUNK)
# The disk that is attached, as soon as the guest has it; a moment before, it cannot be opened.
APPEARS = (
    "modprobe sd_mod; while [ ! -e /sys/block/sda ]; do usleep 50000; done; mknod /dev/mine b 8 0; "
    "until { true < /dev/mine; } 2>/dev/null; do usleep 50000; done"
)
LEAVES = "rm /dev/mine; while [ -e /sys/block/sda ]; do usleep 50000; done"
FORGET = "sync; echo 3 > /proc/sys/vm/drop_caches"


@pytest.fixture(scope="module")
def module_home(built_image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with place(tmp_path_factory.mktemp("wrong") / "home", built_image("debian-mini").resolve()) as home:
        yield home


@pytest.fixture(autouse=True)
def _the_modules_home(module_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_HOME", str(module_home))


@pytest.fixture(scope="module")
def guest(module_home: Path, built_image: Callable[[str], Path]) -> Guest:
    with pytest.MonkeyPatch.context() as setting:
        setting.setenv("CELAJE_HOME", str(module_home))
        return booted("web", built_image("debian-mini").resolve())


def log() -> str:
    return MachineDirectory.of("web").log.read_text()


def read(guest: Guest, first: int, count: int, unit: str = "1M") -> str:
    """The SHA-256 of a part of the disk, in units, as the disk has it now."""
    guest.run(FORGET)
    return guest.run(f"dd if=/dev/mine bs={unit} skip={first} count={count} 2>/dev/null | sha256sum").split()[0]


def test_a_full_disk_is_an_io_error_and_what_was_acknowledged_stays(guest: Guest) -> None:
    store = VolumeStore()
    store.create("data", size=4 << 30)
    celaje("vm", "attach", "web", "data")
    guest.run(APPEARS)
    pattern = b"celaje\n" * (8 * MIB // 7 + 1)
    wanted = hashlib.sha256(pattern[: 8 * MIB]).hexdigest()
    guest.run(f"yes celaje | head -c {8 * MIB} > /tmp/pattern")
    guest.run("dd if=/tmp/pattern of=/dev/mine bs=1M seek=2000 conv=fsync,notrunc 2>/dev/null")

    process = MachineDirectory.of("web").holder()
    assert process is not None
    limits = resource.prlimit(process, resource.RLIMIT_FSIZE)
    # From here on the host takes nothing beyond this place of a file.
    resource.prlimit(process, resource.RLIMIT_FSIZE, (LIMIT * MIB, limits[1]))
    for _ in range(2):
        status, said = guest.status(f"dd if=/tmp/pattern of=/dev/mine bs=1M seek={LIMIT - 4} conv=fsync,notrunc")
        assert status != 0
        assert "error" in said.lower()
    wait_until(lambda: inventory.look(MachineDirectory.of("web")).state == "running")  # a busy host may be slow to tell
    assert "File too large: the guest's write is refused; make room for " in log()
    assert read(guest, 2000, 8) == wanted
    guest.run("echo kept > /root/kept; sync")  # its other disk works

    resource.prlimit(process, resource.RLIMIT_FSIZE, limits)
    guest.run(f"dd if=/tmp/pattern of=/dev/mine bs=1M seek={LIMIT - 4} conv=fsync,notrunc 2>/dev/null")
    assert read(guest, LIMIT - 4, 8) == wanted
    celaje("vm", "detach", "web", "data")
    guest.run(LEAVES)
    found = bytearray(8 * MIB)
    with closing(store.open("data")) as volume:
        for at in (2000, LIMIT - 4):
            volume.readinto([memoryview(found)], at * MIB)
            assert hashlib.sha256(found).hexdigest() == wanted
    assert not check(store, deep=False).damage


def test_a_chunk_that_is_missing_or_altered_is_an_io_error_until_it_is_put_back(guest: Guest) -> None:
    store = VolumeStore()
    store.create("first", size=len(CONTENT))
    with closing(store.open("first")) as volume:
        volume.write([memoryview(CONTENT)], 0)
        taken = store.snapshot(volume).id
    store.create("copy", source=SnapshotSource(taken))
    manifest = store.snapshots.manifest(taken)
    frames = {number: store.chunks.get(manifest.name(number)) for number in range(4)}
    for number in (1, 2):
        store.chunks.delete(manifest.name(number))
    store.chunks.put(manifest.name(2), frames[3])
    celaje("vm", "attach", "web", "copy")
    guest.run(APPEARS)
    for number in range(4):
        status, _ = guest.status(f"dd if=/dev/mine of=/tmp/chunk bs=512k skip={number} count=1 2>/dev/null")
        assert (status != 0) == (number in (1, 2))
    told = log()
    for number, how in ((1, "is missing; put it back"), (2, "is altered: its BLAKE3 hash is")):
        assert f"the chunk {store.chunks.where(manifest.name(number))} {how}" in told
    for number in (1, 2):
        store.chunks.delete(manifest.name(number))
        store.chunks.put(manifest.name(number), frames[number])
    assert read(guest, 0, 4, "512k") == hashlib.sha256(CONTENT).hexdigest()
    celaje("vm", "detach", "web", "copy")
    guest.run(LEAVES)


def test_a_block_of_a_snapshots_disk_that_was_altered_is_an_io_error_to_the_restored_guest(
    guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = VolumeStore()
    store.create("disk", size=len(CONTENT))
    with closing(store.open("disk")) as volume:
        volume.write([memoryview(CONTENT)], 0)
    celaje("vm", "attach", "web", "disk")
    guest.run(APPEARS)
    assert guest.run("sha256sum < /dev/mine").split()[0] == hashlib.sha256(CONTENT).hexdigest()
    guest.run(FORGET)
    path = tmp_path / "web.snap"
    celaje("vm", "snapshot", "web", path)
    with SnapshotFile(path) as file:
        section = file.section("disk1", len(CONTENT))
    with open(path, "r+b") as changed:
        changed.seek(section.offset + CHUNK + 100)
        changed.write(b"altered")
    assert main(["vm", "verify", str(path)]) == 2
    assert "block 8 of its section disk1 was altered" in capsys.readouterr().err

    copy = restored("copy", path, "user,network=copies")
    for number in range(4):
        status, _ = copy.status(f"dd if=/dev/mine of=/tmp/chunk bs=512k skip={number} count=1 2>/dev/null")
        assert (status != 0) == (number == 1)
    told = MachineDirectory.of("copy").log.read_text()
    assert f"65536 bytes from {section.offset + CHUNK} of the machine snapshot" in told
    assert "celaje vm verify FILE" in told
    copy.run("dd if=/dev/zero of=/dev/mine bs=512k seek=1 count=1 conv=fsync,notrunc 2>/dev/null")
    copy.run("sha256sum < /dev/mine")  # what it has written itself is there
    remove(copy)
    assert not [name for name in store.names() if name.startswith("copy-")]
    celaje("vm", "detach", "web", "disk")
    guest.run(LEAVES)
