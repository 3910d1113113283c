"""A volume in a machine snapshot's file, and the volume that is made from it there."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from celaje.disk.base import BLOCK
from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK
from celaje.disk.cluster_map import CLUSTER
from celaje.disk.description import ImageBelow, NothingBelow, SectionBelow, section_is_sound
from celaje.disk.section import MachineCut, decoded_base
from celaje.disk.volume import Volume
from celaje.disk.volumes import ImageSource, SectionSource, SnapshotSource, VolumeStore
from celaje.errors import InputError, NotFound

SIZE = 5 * CHUNK + 3 * CLUSTER


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "home", threads=0)


def content(volume: Volume) -> bytes:
    block = bytearray(volume.size)
    volume.readinto([memoryview(block)], 0)
    return bytes(block)


def put(volume: Volume, offset: int, data: bytes) -> None:
    volume.write([memoryview(data)], offset)


def written(cut: MachineCut, path: Path, offset: int = 3 * CLUSTER) -> SectionSource:
    """The cut's clusters in a file, from `offset` on."""
    with open(path, "wb") as file:
        file.truncate(offset)
        file.seek(offset)
        for first, count in cut.extents:
            file.write(cut.read(first, count))
    return SectionSource(path, offset, cut.extents, cut.size, decoded_base(cut.base))


def test_a_volume_of_an_image_travels_with_what_it_changed_and_only_that(store: VolumeStore, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(random.Random(1).randbytes(SIZE - CLUSTER))
    digest = sha256(image.read_bytes()).hexdigest()
    store.create("first", size=SIZE, source=ImageSource(image, digest))
    with closing(store.open("first")) as volume:
        put(volume, CHUNK + 512, b"changed" * 200)
        put(volume, SIZE - 512, b"e" * 512)
        cut = MachineCut(volume, "root")
        put(volume, 0, b"after the instant")
        put(volume, CHUNK + 512, b"AFTER" * 100)
        source = written(cut, tmp_path / "machine.snap")
        cut.close()
        expected = bytearray(image.read_bytes() + bytes(CLUSTER))
        expected[CHUNK + 512 : CHUNK + 512 + 1400] = b"changed" * 200
        expected[-512:] = b"e" * 512
    assert source.extents == [(128, 128), (5 * 128, 3)]
    assert source.lower == ImageBelow(digest, SIZE - CLUSTER)
    store.create("second", source=source)
    with closing(store.open("second")) as volume:
        assert content(volume) == expected
        put(volume, 2 * CHUNK - 512, b"x" * 1024)
        expected[2 * CHUNK - 512 : 2 * CHUNK + 512] = b"x" * 1024
        assert content(volume) == expected
        # The next generation has the first one's clusters, too, and needs no file but the image.
        again = MachineCut(volume, "root")
        third = written(again, tmp_path / "again.snap")
        again.close()
    os.unlink(tmp_path / "machine.snap")
    store.remove("first")
    (tmp_path / "latest.snap").symlink_to("again.snap")
    store.create("third", source=dataclasses.replace(third, path=tmp_path / "latest.snap"))
    store.remove("second")
    with closing(store.open("third")) as volume:
        assert content(volume) == expected


def test_a_snapshot_of_such_a_volume_has_all_of_it(store: VolumeStore, tmp_path: Path) -> None:
    store.create("first", size=SIZE)
    with closing(store.open("first")) as volume:
        put(volume, 0, b"a" * CHUNK)
        base = store.snapshot(volume)
    store.create("over", source=SnapshotSource(base.id))
    with closing(store.open("over")) as volume:
        put(volume, 3 * CHUNK, b"b" * CLUSTER)
        cut = MachineCut(volume, "root")
        source = written(cut, tmp_path / "machine.snap")
        cut.close()
    store.create("restored", source=source)
    with closing(store.open("restored")) as volume:
        put(volume, 4 * CHUNK, b"c" * CLUSTER)
        expected = content(volume)
        assert expected[:CHUNK] == b"a" * CHUNK
        taken = store.snapshot(volume)
    for name in ("first", "over", "restored"):
        store.remove(name)
    store.snapshots.remove(base.id)
    store.sweep(wait=True)
    store.create("last", source=SnapshotSource(taken.id))
    with closing(store.open("last")) as volume:
        assert content(volume) == expected


def test_chunks_under_a_restored_volume_are_not_swept(store: VolumeStore, tmp_path: Path) -> None:
    store.create("first", size=SIZE)
    with closing(store.open("first")) as volume:
        put(volume, 0, b"a" * CHUNK)
        base = store.snapshot(volume)
    store.create("over", source=SnapshotSource(base.id))
    with closing(store.open("over")) as volume:
        cut = MachineCut(volume, "root")
        source = written(cut, tmp_path / "machine.snap")
        cut.close()
    store.create("restored", source=source)
    store.remove("first")
    store.remove("over")
    store.snapshots.remove(base.id)
    store.sweep(wait=True)
    with closing(store.open("restored")) as volume:
        assert content(volume)[:CHUNK] == b"a" * CHUNK


def test_a_file_that_was_cut_short_is_refused_and_under_a_running_machine_an_io_error(
    store: VolumeStore, tmp_path: Path
) -> None:
    store.create("first", size=SIZE)
    with closing(store.open("first")) as volume:
        put(volume, 0, b"a" * CHUNK)
        cut = MachineCut(volume, "root")
        source = written(cut, tmp_path / "machine.snap")
        cut.close()
    store.create("second", source=source)
    with closing(store.open("second")) as volume:
        os.truncate(tmp_path / "machine.snap", CLUSTER)
        with pytest.raises(OSError, match="ends"):
            content(volume)
    with pytest.raises(InputError, match=r"machine snapshot that the volume second stands on, must have .* bytes"):
        store.open("second")


def hashes_of(source: SectionSource) -> bytes:
    """As a machine snapshot's index has them."""
    data = source.path.read_bytes()[source.offset :]
    blocks = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
    return b"".join(blake3(block).digest() if any(block) else bytes(32) for block in blocks)


@pytest.fixture
def checked(store: VolumeStore, tmp_path: Path) -> SectionSource:
    """A section of six chunks, one of them zeros, with hashes."""
    store.create("first", size=SIZE)
    with closing(store.open("first")) as volume:
        put(volume, 0, random.Random(2).randbytes(SIZE))
        put(volume, 3 * CHUNK, bytes(CHUNK))
        cut = MachineCut(volume, "root")
        source = written(cut, tmp_path / "machine.snap")
        cut.close()
    return dataclasses.replace(source, hashes=hashes_of(source))


def harm(source: SectionSource, at: int) -> None:
    """Change one byte of the section."""
    with open(source.path, "r+b") as file:
        file.seek(source.offset + at)
        byte = file.read(1)
        file.seek(source.offset + at)
        file.write(bytes((byte[0] ^ 1,)))


def test_a_block_that_was_altered_is_an_io_error_told_once_and_all_others_are_read(
    store: VolumeStore, checked: SectionSource, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(store.open("first")) as volume:
        expected = content(volume)
    store.create("second", source=checked)
    places = (70_000, 3 * CHUNK + 5, SIZE - 1)  # in the midst, in zeros, in the short last block
    for at in places:
        harm(checked, at)
    block = bytearray(CLUSTER)
    with closing(store.open("second")) as volume:
        for at in range(0, SIZE, CLUSTER):
            if at // BLOCK in {place // BLOCK for place in places}:
                with pytest.raises(OSError, match="bytes from .* were altered") as refused:
                    volume.readinto([memoryview(block)], at)
                assert refused.value.errno == errno.EIO
                assert not volume.readinto_at_once([memoryview(block)], at)
            else:
                volume.readinto([memoryview(block)], at)
                assert block == expected[at : at + CLUSTER]
        put(volume, 70_000 // BLOCK * BLOCK, b"n" * BLOCK)  # what the guest writes needs nothing that is below
        volume.readinto([memoryview(block)], 70_000 // CLUSTER * CLUSTER)
        assert block == b"n" * CLUSTER
        cut = MachineCut(volume, "root")
        with pytest.raises(OSError, match="were altered"):
            [cut.read(first, count) for first, count in cut.extents]
        cut.close()
    assert len(caplog.messages) == len(places)
    assert all("celaje vm verify FILE" in line for line in caplog.messages)
    report = check(store, deep=True)
    assert len(report.damage) == len(places)
    assert not check(store).damage


def test_a_block_is_compared_once_and_then_read_as_it_is(store: VolumeStore, checked: SectionSource) -> None:
    store.create("second", source=checked)
    block = bytearray(CLUSTER)
    with closing(store.open("second")) as volume:
        assert not volume.readinto_at_once([memoryview(block)], CHUNK)
        volume.readinto([memoryview(block)], CHUNK)
        harm(checked, CHUNK)
        volume.readinto([memoryview(block)], CHUNK)
        volume.readinto_at_once([memoryview(block)], CHUNK + BLOCK - CLUSTER)
    with closing(store.open("second")) as volume, pytest.raises(OSError, match="were altered"):
        volume.readinto([memoryview(block)], CHUNK + BLOCK - CLUSTER)


def test_hashes_that_are_too_few_or_altered_are_refused(store: VolumeStore, checked: SectionSource) -> None:
    assert checked.hashes is not None
    with pytest.raises(InputError, match="lacks hashes"):
        store.create("second", source=dataclasses.replace(checked, hashes=checked.hashes[:-32]))
    store.create("second", source=checked)
    place = store.layout.volumes / "second" / "section.hashes"
    kept = place.read_bytes()
    place.write_bytes(b"\xff" + kept[1:])
    with pytest.raises(InputError, match="is altered; put it back"):
        store.open("second")
    place.unlink()
    with pytest.raises(InputError, match="put it back from a copy"):
        store.open("second")
    store.remove("second")


def test_an_image_that_is_not_here_is_named(store: VolumeStore, tmp_path: Path) -> None:
    (tmp_path / "machine.snap").write_bytes(bytes(CHUNK))
    source = SectionSource(tmp_path / "machine.snap", 0, [(0, 1)], SIZE, ImageBelow("ab" * 32, SIZE))
    with pytest.raises(NotFound, match=r"needs the image whose disk has the SHA-256 (ab){32}"):
        store.create("second", source=source)
    assert store.names() == []


@pytest.mark.parametrize(
    "extents", [[(0, 2), (1, 1)], [(5, 0)], [(-1, 1)], [(0, 10_000)], [(1, 1), (0, 1)], [(SIZE // CLUSTER, 2)]]
)
def test_extents_that_cannot_be_are_refused(store: VolumeStore, tmp_path: Path, extents: list[tuple[int, int]]) -> None:
    (tmp_path / "machine.snap").write_bytes(bytes(CHUNK))
    source = SectionSource(tmp_path / "machine.snap", 0, extents, SIZE, NothingBelow())
    with pytest.raises(InputError, match="overlaps itself, or lies outside the file"):
        store.create("second", source=source)
    assert store.names() == []
    assert not section_is_sound(SectionBelow(CHUNK, 0, extents, SIZE, NothingBelow()))


@pytest.mark.parametrize(
    "base",
    [b"", b"{}", b'{"kind":"image"}', b'{"kind":"section"}', msgspec.json.encode(7), b"\xff", b'{"x":' * 100_000],
    ids=range(7),
)
def test_a_base_that_is_none_is_refused(base: bytes) -> None:
    with pytest.raises(ValueError, match="a disk's base is malformed"):
        decoded_base(base)
