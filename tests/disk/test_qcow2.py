"""qcow2 images: read and written as qemu-img does, and what is damaged or made up refused."""

from __future__ import annotations

import json
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.disk.files import HOST, ZEROES, Buffers
from celaje.disk.qcow2 import Qcow2Disk, is_qcow2, qcow2_disk
from celaje.disk.qcow2_writer import export_qcow2
from celaje.disk.transfer import Disk, import_disk, raw_disk
from celaje.disk.volumes import VolumeStore
from celaje.errors import InputError, NotFound

MIB = 1 << 20
SIZE = 9 * MIB + 512 * 7
FindTool = Callable[[str], str]


class Contents:
    """A disk in memory, whose zeros it knows of in pieces of 4 KiB."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def readinto(self, buffers: Buffers, offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)

    def data(self) -> Iterator[tuple[int, int]]:
        for at in range(0, self.size, 4096):
            piece = self.content[at : at + 4096]
            if piece != ZEROES[: len(piece)]:
                yield at, at + len(piece)


def mixed(size: int = SIZE) -> bytes:
    """Noise, text and zeros."""
    random = Random(size)
    content = bytearray(size)
    for _ in range(40):
        at, length = random.randrange(size), random.randrange(200_000)
        piece = random.randbytes(length) if random.random() < 0.5 else (b"a line of text %d\n" % at) * (length // 20)
        content[at : at + length] = piece[: max(0, size - at)][:length]
    return bytes(content[:size]).ljust(size, b"\0")


def whole(disk: Disk) -> bytes:
    """All of a disk, read in pieces that fit no cluster; what `data` leaves out must be zeros."""
    content = bytearray(disk.size)
    with memoryview(content) as window:
        for at in range(0, disk.size, 77 * 512):
            piece = window[at : at + 77 * 512]
            disk.readinto([piece[:100], piece[100:]] if len(piece) > 100 else [piece], at)
    stretches = list(disk.data())
    assert stretches == sorted(stretches)
    rest = bytearray(content)
    for start, end in stretches:
        assert 0 <= start < end <= disk.size
        rest[start:end] = bytes(end - start)
    assert rest.count(0) == len(rest)
    return bytes(content)


def refuse(image: Path) -> None:
    """Open an image that is not to be read."""
    with qcow2_disk(image, HOST):
        pass


@pytest.fixture
def qemu_img(tool: FindTool) -> Callable[..., str]:
    path = tool("qemu-img")

    def run(*words: str | Path) -> str:
        done = subprocess.run([path, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(mixed())
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "compat=1.1"],
        ["-o", "compat=0.10"],
        ["-o", "cluster_size=512"],
        ["-o", "cluster_size=2M"],
        ["-c"],
        ["-c", "-o", "cluster_size=4096,compat=0.10"],
        ["-c", "-o", "compression_type=zstd"],
        ["-o", "preallocation=metadata"],
        ["-o", "refcount_bits=1,compat=1.1"],
    ],
    ids=lambda words: " ".join(words),
)
def test_what_qemu_img_wrote_is_read(
    qemu_img: Callable[..., str], raw: Path, tmp_path: Path, options: list[str]
) -> None:
    image = tmp_path / "disk.qcow2"
    qemu_img("convert", "-O", "qcow2", *options, raw, image)
    with qcow2_disk(image, HOST) as disk:
        assert disk.size == SIZE
        assert disk.notes == []
        assert whole(disk) == raw.read_bytes()


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
@pytest.mark.parametrize("size", [512, SIZE, 520 * MIB])
def test_what_is_written_is_read_by_qemu_img_and_its_check_finds_nothing(
    qemu_img: Callable[..., str], tmp_path: Path, compression: str, size: int
) -> None:
    image, back = tmp_path / "disk.qcow2", tmp_path / "back.raw"
    content = mixed(min(size, SIZE)).ljust(size, b"\0")
    source = Contents(content[: size - 512] + b"e" * 512)
    heard: list[tuple[int, int]] = []
    export_qcow2(source, image, HOST, compression, lambda done, of: heard.append((done, of)))
    assert heard[-1] == (size, size)
    checked = json.loads(qemu_img("check", "--output=json", image))
    assert {key: checked.get(key, 0) for key in ("corruptions", "leaks", "check-errors")} == {
        "corruptions": 0,
        "leaks": 0,
        "check-errors": 0,
    }
    assert image.stat().st_size < SIZE + MIB
    qemu_img("convert", "-O", "raw", image, back)
    assert back.read_bytes() == source.content


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_what_is_written_is_read_again(tmp_path: Path, compression: str) -> None:
    source = Contents(mixed())
    export_qcow2(source, tmp_path / "image", HOST, compression)
    assert is_qcow2(tmp_path / "image", HOST)
    with qcow2_disk(tmp_path / "image", HOST) as disk:
        assert whole(disk) == source.content


def test_compression_makes_an_image_smaller_and_another_one_is_refused(tmp_path: Path) -> None:
    source = Contents(b"the same again " * 100_000 + bytes(4096 - 1_500_000 % 4096))
    for compression in ("none", "zlib", "zstd"):
        export_qcow2(source, tmp_path / compression, HOST, compression)
    assert (tmp_path / "zlib").stat().st_size < (tmp_path / "none").stat().st_size / 2
    with pytest.raises(InputError, match="not by 'bzip2'"):
        export_qcow2(source, tmp_path / "other", HOST, "bzip2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none", "zlib", "zstd"]


def test_an_export_takes_no_name_that_something_has(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"mine")
    with pytest.raises(InputError, match="already"):
        export_qcow2(Contents(bytes(512)), tmp_path / "image", HOST)
    assert (tmp_path / "image").read_bytes() == b"mine"
    with pytest.raises(NotFound, match="no directory"):
        export_qcow2(Contents(bytes(512)), tmp_path / "none" / "image", HOST)


def test_internal_snapshots_are_left_out_with_a_note(qemu_img: Callable[..., str], raw: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    qemu_img("convert", "-O", "qcow2", raw, image)
    qemu_img("snapshot", "-c", "before", image)
    with qcow2_disk(image, HOST) as disk:
        assert disk.notes == ["1 internal snapshots are left out; the disk is as it is now"]
        assert whole(disk) == raw.read_bytes()


def test_a_backing_file_is_refused_by_name_unless_it_is_given(
    qemu_img: Callable[..., str], raw: Path, tmp_path: Path
) -> None:
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", raw, image, str(12 * MIB))
    with pytest.raises(InputError, match="differs from its backing file '.*disk.raw'; .*qemu-img convert"):
        refuse(image)
    with raw_disk(raw, HOST) as backing, qcow2_disk(image, HOST, backing) as disk:
        assert whole(disk) == raw.read_bytes().ljust(12 * MIB, b"\0")


def test_images_of_kinds_that_are_not_read_are_refused(qemu_img: Callable[..., str], tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", image, "1M")
    with pytest.raises(InputError, match="keeps its data in another file"), qcow2_disk(image, HOST):
        pass
    qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", image, "1M")
    with pytest.raises(InputError, match="extended L2"), qcow2_disk(image, HOST):
        pass


def test_an_image_becomes_a_volume(raw: Path, tmp_path: Path) -> None:
    with raw_disk(raw, HOST) as source:
        export_qcow2(source, tmp_path / "image", HOST, "zlib")
    store = VolumeStore(tmp_path / "home")
    with qcow2_disk(tmp_path / "image", HOST) as disk:
        import_disk(store, "mine", disk)
    with closing(store.open("mine")) as volume:
        content = bytearray(SIZE)
        with memoryview(content) as window:
            volume.readinto([window], 0)
        assert content == raw.read_bytes()


# --- damaged, or made up ---


def image_of(**fields: int) -> bytearray:
    """A small image of version 3: header, L1 at 0x10000, one L2 table at 0x20000, one cluster at 0x30000."""
    values = {
        "magic": int.from_bytes(b"QFI\xfb", "big"), "version": 3, "backing_at": 0, "backing_length": 0, "bits": 16,
        "size": MIB, "encryption": 0, "l1_entries": 1, "l1_offset": 0x10000, "refcounts": 0, "refcount_clusters": 0,
        "snapshots": 0, "snapshots_at": 0, "incompatible": 0, "compatible": 0, "autoclear": 0, "order": 4,
        "length": 104, "l1": 1 << 63 | 0x20000, "l2_0": 1 << 63 | 0x30000, "l2_1": 0,
    } | fields  # fmt: skip
    image = bytearray(0x40000)
    header = struct.pack(">IIQIIQIIQQIIQQQQII", *list(values.values())[:18])
    image[: len(header)] = header
    struct.pack_into(">Q", image, 0x10000, values["l1"])
    struct.pack_into(">QQ", image, 0x20000, values["l2_0"], values["l2_1"])
    image[0x30000:] = b"x" * 0x10000
    return image


def reading(image: bytes, path: Path) -> bytes:
    path.write_bytes(image)
    with qcow2_disk(path, HOST) as disk:
        return whole(disk)


def test_the_small_image_is_good(tmp_path: Path) -> None:
    assert reading(image_of(), tmp_path / "image") == b"x" * 0x10000 + bytes(MIB - 0x10000)
    assert reading(image_of()[:0x30200], tmp_path / "image") == b"x" * 512 + bytes(MIB - 512), "a last cluster cut off"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": 1}, "is no qcow2 image"),
        ({"version": 1}, "of version 1"),
        ({"version": 4}, "of version 4"),
        ({"bits": 8}, "2 to the 8 bytes"),
        ({"bits": 63}, "2 to the 63 bytes"),
        ({"size": 0}, "whole number of 512-byte sectors"),
        ({"size": 1000}, "whole number of 512-byte sectors"),
        ({"size": 1 << 62}, "64 TiB"),
        ({"encryption": 1}, "encrypted"),
        ({"encryption": 2}, "encrypted"),
        ({"incompatible": 2}, "marked as corrupt"),
        ({"incompatible": 1 << 40}, "unknown features"),
        ({"l1_entries": 0}, "L1 table of 0 entries"),
        ({"l1_entries": 1 << 31}, "at most"),
        ({"size": 64 << 40}, "L1 table of 1 entries"),
        ({"l1_offset": 0}, "L1 table at 0x0"),
        ({"l1_offset": 0x10008}, "L1 table at 0x10008"),
        ({"l1_offset": 1 << 63}, "L1 table at"),
        ({"l1": 0x20200}, "L2 table at 0x20200"),
        ({"l1": 0x50000}, "L2 table at 0x50000"),
        ({"l2_0": 0x30200}, "cluster at 0x30200"),
        ({"l2_0": 0x40000}, "cluster at 0x40000"),
        ({"l2_0": 1 << 62 | 0x50000}, "compressed cluster at 0x50000"),
        ({"l2_0": 1 << 62 | 0x30000}, "damaged compressed cluster|not whole"),
        ({"l2_1": 0x30000}, "names the cluster at 0x30000 twice"),
        ({"size": 1 << 30, "l1_entries": 2}, "cluster at|L2 table"),
        ({"backing_at": 0x200, "backing_length": 0}, "backing file in 0 bytes"),
        ({"backing_at": 0x200, "backing_length": 1 << 31}, "backing file in"),
        ({"backing_at": 1 << 60, "backing_length": 5}, "ends before its backing file's name"),
    ],
    ids=str,
)
def test_an_image_that_is_made_up_is_refused(tmp_path: Path, fields: dict[str, int], message: str) -> None:
    image = image_of(**fields)
    if fields.get("l1_entries") == 2:
        struct.pack_into(">Q", image, 0x10008, 0x50000)
    with pytest.raises(InputError, match=message):
        reading(image, tmp_path / "image")


def test_an_l2_table_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    image = image_of(size=1 << 30, l1_entries=2)
    struct.pack_into(">Q", image, 0x10008, 0x20000)
    with pytest.raises(InputError, match="names an L2 table twice"):
        reading(image, tmp_path / "image")


@pytest.mark.parametrize("length", [0, 3, 71, 103, 0x10004, 0x20000])
def test_an_image_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(InputError, match="disk|qcow2"):
        reading(image_of()[:length], tmp_path / "image")


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"), qcow2_disk(tmp_path / "none", HOST):
        pass
    with pytest.raises(InputError, match="is a directory"), qcow2_disk(tmp_path, HOST):
        pass
    (tmp_path / "short").write_bytes(b"QF")
    assert not is_qcow2(tmp_path / "short", HOST)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, 112),
                st.integers(0x10000, 0x10010),
                st.integers(0x20000, 0x20020),
                st.integers(0, 0x3FFFF),
            ),
            st.binary(min_size=1, max_size=8),
        ),
        max_size=6,
    )
)
def test_no_image_does_anything_but_be_read_or_refused(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    image = image_of()
    for at, data in changes:
        image[at : at + len(data)] = data
    path = tmp_path / "image"
    path.write_bytes(image)
    buffer = memoryview(bytearray(4096))
    try:
        with qcow2_disk(path, HOST) as disk:
            assert isinstance(disk, Qcow2Disk)
            for start, end in disk.data():
                assert 0 <= start < end <= disk.size
                disk.readinto([buffer[: min(4096, end - start)]], start)
            disk.readinto([buffer[:512]], disk.size - 512)
    except InputError:
        pass


def compressed_image(places: list[int], content: bytes, at: int = 0x30000, size: int = MIB) -> bytearray:
    """The small image with a compressed cluster at each of `places`, which are within `content`."""
    image = image_of(l2_0=0, size=size)
    for number, place in enumerate(places):
        sectors = ((at + place) % 512 + len(content) - place - 1) // 512
        struct.pack_into(">Q", image, 0x20000 + 8 * number, 1 << 62 | sectors << 54 | at + place)
    image[at : at + len(content)] = content
    return image


def deflated(content: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


def test_compressed_clusters_lie_beside_each_other(tmp_path: Path) -> None:
    pieces = [deflated(letter * 0x10000) for letter in (b"a", b"b", b"c")]
    places = [0, len(pieces[0]), len(pieces[0]) + len(pieces[1])]
    read = reading(compressed_image(places, b"".join(pieces)), tmp_path / "image")
    assert read[: 3 << 16] == b"a" * 0x10000 + b"b" * 0x10000 + b"c" * 0x10000


def test_compressed_clusters_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """Blocks of nothing lead to the same bytes from many places: 100 kB could say that they are a terabyte."""
    piece = deflated(bytes(0x10000))
    image = compressed_image([0] * 8192, piece, size=512 * MIB)
    assert 8192 * len(piece) > len(image)
    with pytest.raises(InputError, match="compressed clusters that share bytes"):
        reading(image, tmp_path / "image")


def test_what_an_image_takes_in_memory_is_less_than_it_has_in_the_file(tmp_path: Path) -> None:
    """The cheapest thing that an image can name is a compressed cluster of the smallest kind: 16 bytes with its entry;
    here they lie backwards, so that no two that are read one after the other follow each other in the file."""
    count, cluster = 20_000, 512
    piece, tables = deflated(bytes(cluster)), -(-count * 8 // cluster)
    first, behind = 0x10000, 0x10000 + tables * cluster
    image = image_of(bits=9, size=count * cluster, l1_entries=tables, l1_offset=0x1000, l1=0, l2_0=0)
    image = image.ljust(behind + count * len(piece), b"\0")
    for table in range(tables):
        struct.pack_into(">Q", image, 0x1000 + 8 * table, first + table * cluster)
    for number in range(count):
        place = behind + (count - 1 - number) * len(piece)
        sectors = (place % 512 + len(piece) - 1) // 512
        struct.pack_into(">Q", image, first + 8 * number, 1 << 62 | sectors << 61 | place)
        image[place : place + len(piece)] = piece
    path = tmp_path / "image"
    path.write_bytes(image)
    with qcow2_disk(path, HOST) as disk:
        window = memoryview(bytearray(64 << 10))
        tracemalloc.start()
        for start, end in disk.data():
            for at in range(start, end, len(window)):
                disk.readinto([window[: min(len(window), end - at)]], at)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert held < count * (len(piece) + 8)
