from __future__ import annotations

import struct
import tarfile
import uuid
from pathlib import Path

import pytest

from celaje.errors import GuestError, ImageError
from celaje.image import cpio
from celaje.image.filesystem import VERDICT_MADE, MachineRun, Target, Toolbox, build_ext4
from celaje.image.tree import Tree

IDENTIFIER = uuid.UUID("12345678-1234-5678-9abc-def012345678")
START = 1 << 20


@pytest.fixture
def target(tmp_path: Path) -> Target:
    path = tmp_path / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(4 << 20)
    return Target(path, 1, START, IDENTIFIER, "label")


@pytest.fixture
def toolbox(tmp_path: Path) -> Toolbox:
    (tmp_path / "kernel").write_bytes(b"kernel")
    tree = Tree()
    tree.file("usr/sbin/mke2fs", b"mke2fs", 0o755)
    return Toolbox(tmp_path / "kernel", tree)


def write_superblock(path: Path, magic: int = 0xEF53, state: int = 1, identifier: uuid.UUID = IDENTIFIER) -> None:
    """What mke2fs would leave, as far as it is looked at."""
    superblock = bytearray(1024)
    struct.pack_into("<HH", superblock, 0x38, magic, state)
    superblock[0x68:0x78] = identifier.bytes
    with open(path, "r+b") as file:
        file.seek(START + 1024)
        file.write(superblock)


def some_tree() -> Tree:
    tree = Tree()
    tree.file("etc/shadow", b"secret", 0o640, gid=42)
    return tree


def test_the_guest_gets_the_tree_the_disk_and_its_orders(target: Target, toolbox: Toolbox) -> None:
    seen: list[MachineRun] = []

    def run(wanted: MachineRun) -> str:
        seen.append(wanted)
        disk, source = wanted.disks
        assert (disk.path, disk.serial, disk.read_only) == (target.path, "target", False)
        assert (source.serial, source.read_only) == ("source", True)
        with tarfile.open(source.path) as archive:
            info = archive.getmember("etc/shadow")
        assert (info.mode, info.gid, info.mtime) == (0o640, 42, 77)
        initrd = cpio.unpack(wanted.initrd.read_bytes())
        assert initrd.read("usr/sbin/mke2fs") == b"mke2fs"
        assert b"mke2fs" in initrd.read("init")
        write_superblock(disk.path)
        return f"[    1.0] noise\r\n{VERDICT_MADE}\r\n[    2.0] reboot: Power down\r\n"

    build_ext4(some_tree(), target, toolbox, run, 77)
    (wanted,) = seen
    words = wanted.command_line.split()
    assert {"celaje.partition=1", f"celaje.uuid={IDENTIFIER}", "celaje.label=label", "celaje.time=77"} <= set(words)
    assert wanted.memory_mib >= 256
    assert {path.name for path in target.path.parent.iterdir()} == {"disk.raw", "kernel"}


@pytest.mark.parametrize(
    ("console", "said"),
    [
        ("", "no verdict"),
        ("Kernel panic - not syncing: no init\n", "Kernel panic"),
        ("celaje: file system failed: mke2fs ended with status 1\n", "mke2fs ended with status 1"),
        (f"echo {VERDICT_MADE} in vain\n", "no verdict"),
    ],
)
def test_a_guest_that_fails_is_an_error_with_its_last_words(
    target: Target, toolbox: Toolbox, console: str, said: str
) -> None:
    with pytest.raises(GuestError, match=said):
        build_ext4(some_tree(), target, toolbox, lambda run: console, 77)


@pytest.mark.parametrize(
    ("magic", "state", "identifier"),
    [(0, 1, IDENTIFIER), (0xEF53, 0, IDENTIFIER), (0xEF53, 1, uuid.UUID(int=0))],
)
def test_a_guest_that_lies_is_found_out(
    target: Target, toolbox: Toolbox, magic: int, state: int, identifier: uuid.UUID
) -> None:
    def run(wanted: MachineRun) -> str:
        write_superblock(wanted.disks[0].path, magic, state, identifier)
        return VERDICT_MADE

    with pytest.raises(ImageError, match="no clean ext4"):
        build_ext4(some_tree(), target, toolbox, run, 77)
