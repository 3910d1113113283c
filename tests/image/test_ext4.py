"""File systems that mke2fs made, whole and damaged."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.errors import ImageError
from celaje.image.ext4 import LOOKED_AT_BYTES, Ext4
from tests.image.conftest import DiskInMemory

MIB = 1 << 20
BIG = random.Random(1).randbytes(3 * MIB + 123)


MakeExt4 = Callable[..., bytes]


@pytest.fixture
def make_ext4(tool: Callable[[str], str], tmp_path: Path) -> MakeExt4:
    """What mke2fs makes of some files, links and directories."""

    def make(*options: str, size: int = 16 * MIB, files: dict[str, bytes] | None = None, kind: str = "ext4") -> bytes:
        root = tmp_path / "root"
        (root / "boot").mkdir(parents=True)
        (root / "many").mkdir()
        for number in range(400):
            (root / "many" / f"file-with-a-rather-long-name-{number}").write_bytes(b"%d" % number)
        for path, content in (files or {"boot/vmlinux-6.12": BIG, "empty": b""}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        with open(root / "sparse", "wb") as file:
            file.seek(MIB)
            file.write(b"end")
        (root / "vmlinuz").symlink_to("boot/vmlinux-6.12")
        (root / "boot/up").symlink_to("../boot/./vmlinux-6.12")
        (root / "absolute").symlink_to("/boot/" + "./" * 40 + "vmlinux-6.12")
        (root / "loop").symlink_to("loop")
        (root / "nowhere").symlink_to("/none/at/all")
        disk = tmp_path / "disk"
        with open(disk, "wb") as file:
            file.truncate(size)
        subprocess.run([tool("mke2fs"), "-q", "-t", kind, "-d", root, *options, disk], check=True, capture_output=True)
        return disk.read_bytes()

    return make


def system(content: bytes | bytearray) -> Ext4:
    return Ext4(DiskInMemory(content), 0, len(content))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-b", "1024"),
        ("-b", "2048", "-I", "128"),
        ("-O", "^64bit,^metadata_csum"),
        ("-O", "meta_bg,^resize_inode", "-b", "1024"),
        ("-O", "^sparse_super,^resize_inode,^flex_bg"),
    ],
)
def test_files_links_and_directories_are_what_was_put_there(make_ext4: MakeExt4, options: tuple[str, ...]) -> None:
    found = system(make_ext4(*options, size=48 * MIB))
    for path in ("/boot/vmlinux-6.12", "/vmlinuz", "/boot/up", "/absolute", "//many/../boot/vmlinux-6.12"):
        assert found.read(path) == BIG
        place = found.find(path)
        assert place is not None
        assert place[0] == "/boot/vmlinux-6.12"
    assert found.read("/empty") == b""
    assert found.read("/sparse") == bytes(MIB) + b"end"
    assert found.read("/many/file-with-a-rather-long-name-399") == b"399"
    assert len(found.names("/many")) == 402
    for path in ("/none", "/nowhere", "/boot/vmlinux-6.12/below", "/many", "/none/../vmlinuz"):
        assert found.read(path) is None
    assert found.names("/none") == []


def test_what_it_cannot_read_it_says(make_ext4: MakeExt4) -> None:
    found = system(make_ext4())
    with pytest.raises(ImageError, match="more than 40 symbolic links"):
        found.find("/loop")
    with pytest.raises(ImageError, match="celaje reads such files up to 100"):
        found.read("/vmlinuz", 100)
    with pytest.raises(ImageError, match="no ext4 file system"):
        system(bytes(MIB))
    with pytest.raises(ImageError, match="the disk has 1024 bytes"):
        system(bytes(1024))


def test_a_path_that_goes_up_and_down_for_ever_ends(make_ext4: MakeExt4) -> None:
    found = system(make_ext4("-b", "1024"))
    assert found.read("/boot/.." * 500 + "/vmlinuz") == BIG
    with pytest.raises(ImageError, match=r"the path /many/\.\..* is longer than"):
        found.read("/many/.." * 100_000)
    found._looked_at = LOOKED_AT_BYTES - (100 << 10)  # nearly as much as would take a second
    with pytest.raises(ImageError, match="bytes of directories"):
        found.read("/many/../" * 450)


def test_a_file_system_without_extents_is_refused(make_ext4: MakeExt4) -> None:
    with pytest.raises(ImageError, match="no extents"):
        system(make_ext4(kind="ext2")).read("/vmlinuz")


def test_a_file_system_larger_than_its_partition_is_refused(make_ext4: MakeExt4) -> None:
    with pytest.raises(ImageError, match="its partition has"):
        system(make_ext4()[: 8 * MIB])


def test_an_unknown_feature_is_refused(make_ext4: MakeExt4) -> None:
    with pytest.raises(ImageError, match="features that celaje does not know: 0x8000"):
        system(make_ext4("-O", "inline_data"))


def debugfs(tool: Callable[[str], str], disk: Path, *commands: str) -> str:
    text = "".join(f"{command}\n" for command in commands)
    return subprocess.run(
        [tool("debugfs"), "-w", "-f", "-", disk], input=text, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("options", [("-b", "4096"), ("-b", "4096", "-O", "^64bit,^metadata_csum"), ("-b", "1024")])
def test_what_the_journal_holds_is_read_instead_of_what_it_replaces(
    make_ext4: MakeExt4, tool: Callable[[str], str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    make_ext4(*options, size=32 * MIB, files={"one": b"1" * 4096, "two": b"2" * 4096, "three": b"3" * 4096})
    disk = tmp_path / "disk"
    size = 1024 if "1024" in options else 4096
    printed = debugfs(tool, disk, "blocks /one", "blocks /two", "blocks /three").splitlines()
    one, two, three = (line.split()[0] for line in printed if line.split() and line.split()[0].isdigit())
    fresh = b"\xc0\x3b\x39\x98" + b"n" * (size - 4)  # begins as the journal's own blocks do, and is escaped there
    (tmp_path / "fresh").write_bytes(fresh)
    debugfs(
        tool,
        disk,
        "jo",
        *(f"jw -b {block} {tmp_path / 'fresh'}" for block in (one, two)),
        f"jw -r {two}",
        f"jw -b {three} {tmp_path / 'fresh'}",
        "jc",
    )
    found = system(disk.read_bytes())
    assert (found.read("/one") or b"")[:size] == fresh
    assert (found.read("/two") or b"")[:size] == b"2" * size
    assert (found.read("/three") or b"")[:size] == fresh
    subprocess.run([tool("e2fsck"), "-fy", disk], capture_output=True)
    replayed = system(disk.read_bytes())
    for path in ("/one", "/two", "/three"):
        assert replayed.read(path) == found.read(path)


def attempt(content: bytes | bytearray) -> None:
    """Read everything; nothing but an ImageError may come of it."""
    try:
        found = system(content)
        for path in ("/vmlinuz", "/boot/up", "/absolute", "/sparse", "/loop"):
            found.read(path)
        for path in ("/", "/many", "/boot"):
            found.names(path)
    except ImageError as error:
        assert str(error)


def test_a_damaged_file_system_is_an_image_error_or_reads_as_something_else(make_ext4: MakeExt4) -> None:
    whole = make_ext4("-b", "1024", "-N", "512", size=12 * MIB, files={"boot/vmlinux-6.12": b"k" * 9000})
    chance = random.Random(20)
    used = [start for start in range(0, len(whole), 1024) if any(whole[start : start + 1024])]
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.choice(used[:200]) + chance.randrange(1024)
            damaged[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        attempt(damaged)
    for _ in range(100):
        attempt(whole[: chance.randrange(len(whole)) // 512 * 512])


def test_a_damaged_journal_is_an_image_error_or_reads_as_something_else(
    make_ext4: MakeExt4, tool: Callable[[str], str], tmp_path: Path
) -> None:
    make_ext4("-b", "1024", size=12 * MIB, files={"boot/vmlinux-6.12": b"k" * 9000})
    disk = tmp_path / "disk"
    (tmp_path / "fresh").write_bytes(b"n" * 1024)
    journal = int(debugfs(tool, disk, "blocks <8>").splitlines()[1].split()[0])
    debugfs(tool, disk, "jo", f"jw -b 100-103 {tmp_path / 'fresh'}", f"jw -r 100 -b 300 {tmp_path / 'fresh'}", "jc")
    whole = disk.read_bytes()
    chance = random.Random(30)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            damaged[(journal + chance.randrange(12)) * 1024 + chance.randrange(64)] = chance.randrange(256)
        attempt(damaged)
