"""Chunks, manifests and sweeps."""

from __future__ import annotations

import itertools
import random
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK, ZERO_NAME, ChunkError, compressed, fetch, keep, name_of
from celaje.disk.description import VolumeDescription
from celaje.disk.files import CREATE, WRITE, aside, is_aside, opened, write_fully
from celaje.disk.layout import store_lock
from celaje.disk.manifest import Manifest, read_manifest, read_summary
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.errors import InputError, NotFound
from celaje.zstandard import compress
from tests.disk.crash import Disk

CONTENT = random.Random(3).randbytes(CHUNK)


@pytest.fixture
def made(store: VolumeStore) -> VolumeStore:
    store.layout.make(store.files)
    return store


def put_file(store: VolumeStore, path: Path, content: bytes) -> None:
    with opened(store.files, path, CREATE) as fd:
        write_fully(store.files, fd, [content], 0)


def test_a_chunk_comes_back_and_is_kept_once(made: VolumeStore, disk: Disk) -> None:
    name = keep(made.chunks, CONTENT)
    writes = len(disk.events)
    assert keep(made.chunks, CONTENT) == name
    assert len(disk.events) == writes
    assert fetch(made.chunks, name) == CONTENT
    assert list(made.chunks.list()) == [name]


def test_zeros_are_never_kept(made: VolumeStore) -> None:
    assert keep(made.chunks, bytes(CHUNK)) == ZERO_NAME
    assert fetch(made.chunks, ZERO_NAME) == bytes(CHUNK)
    assert not list(made.chunks.list())


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (compressed(CONTENT[::-1]), "its BLAKE3 hash is"),
        (compress(bytes(CHUNK * 1000)), f"it holds more than {CHUNK} bytes"),
        (compress(CONTENT[:-1]), f"it holds less than {CHUNK} bytes"),
        (compressed(CONTENT)[:-4], "is altered"),
        (b"", "is altered"),
        (b"nonsense", "is altered"),
    ],
)
def test_a_chunk_whose_content_is_not_what_its_name_says_is_refused(frame: bytes, says: str, made: VolumeStore) -> None:
    made.chunks.put(name_of(CONTENT), frame)
    with pytest.raises(ChunkError, match=says) as refused:
        fetch(made.chunks, name_of(CONTENT))
    assert made.chunks.where(name_of(CONTENT)) in str(refused.value)


def manifest(size: int = 3 * CHUNK + 512) -> Manifest:
    return Manifest("snap-0123456789abcdef0", "vol-0123456789abcdef0", size, 7, "ok: é", b"n" * 64 + bytes(64))


def test_a_manifest_reads_as_it_was_written(made: VolumeStore) -> None:
    path = made.layout.manifest("snap-0123456789abcdef0")
    put_file(made, path, b"".join(manifest().parts()))
    assert read_manifest(made.files, path) == manifest()
    summary = read_summary(made.files, path)
    assert (summary.snapshot, summary.size, summary.description) == ("snap-0123456789abcdef0", 3 * CHUNK + 512, "ok: é")
    assert manifest().distinct() == {b"n" * 32}
    assert manifest().name(9) == ZERO_NAME


@given(
    own=st.lists(st.sampled_from([b"a" * 32, b"b" * 32, bytes(32)]), max_size=40),
    other=st.none() | st.lists(st.sampled_from([b"a" * 32, b"b" * 32, bytes(32)]), max_size=40),
    first=st.integers(0, 45),
    stretch=st.integers(1, 5),
)
def test_what_differs_between_manifests_is_what_differs_name_by_name(
    own: list[bytes], other: list[bytes] | None, first: int, stretch: int
) -> None:
    here, there = (
        None if one is None else Manifest("", "", len(one) * CHUNK, 0, "", b"".join(one)) for one in (own, other)
    )
    assert here is not None
    found = list(here.differing(there, first, stretch))
    names = itertools.zip_longest(own, other or [], fillvalue=bytes(32))
    assert found == [at for at, (one, another) in enumerate(names) if one != another and at >= first]


@given(at=st.integers(0, 256 + 128 + 31), bit=st.integers(0, 7), cut=st.booleans())
def test_a_manifest_of_which_anything_was_altered_is_refused(at: int, bit: int, cut: bool) -> None:
    disk = Disk()
    store = VolumeStore(Path("/home"), files=disk, threads=0)
    store.layout.make(disk)
    content = bytearray(b"".join(manifest().parts()))
    if cut:
        del content[at:]
    else:
        content[at] ^= 1 << bit
    path = store.layout.manifest("snap-0123456789abcdef0")
    put_file(store, path, bytes(content))
    with pytest.raises(InputError, match="manifest"):
        read_manifest(disk, path)
    assert check(store).damage


def test_a_sweep_waits_for_whoever_counts_on_chunks(made: VolumeStore) -> None:
    keep(made.chunks, CONTENT)
    with store_lock(made.files, made.layout, exclusive=False):
        assert made.sweep() is None
        assert any("being made" in note for note in check(made).notes)
    swept = made.sweep()
    assert swept is not None
    assert swept.chunks == 1


@pytest.mark.parametrize("when", ["before its manifest is read", "before it is looked for"])
def test_a_snapshot_that_is_removed_beside_a_sweep_is_durably_gone_before_its_chunks(
    made: VolumeStore, disk: Disk, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    made.create("data", size=CHUNK)
    with closing(made.open("data")) as volume:
        volume.write([memoryview(CONTENT)], 0)
        taken = made.snapshot(volume).id
    path = made.layout.manifest(taken)
    names = disk.names

    def removed(where: Path) -> list[str]:
        """Somebody takes the manifest's name away, and has not made that durable yet."""
        found = names(where)
        if where == made.layout.snapshots and path.name in found:
            disk.unlink(path)
            return found if when.endswith("read") else names(where)
        return found

    monkeypatch.setattr(disk, "names", removed)
    before = len(disk.events)
    swept = made.sweep()
    assert swept is not None
    assert swept.chunks == 1
    snapshots = disk._must(made.layout.snapshots).number
    events = [(event.kind, event.node == snapshots) for event in disk.events[before:]]
    gone = events.index(("leave", True))
    assert ("sync-directory", True) in events[gone : events.index(("leave", False))]


def test_a_volume_that_is_removed_beside_a_check_is_no_damage(
    made: VolumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.create("data", size=CHUNK)
    with closing(made.open("data")) as volume:
        volume.write([memoryview(CONTENT)], 0)
        taken = made.snapshot(volume).id
    made.create("copy", source=SnapshotSource(taken))
    describe = made.describe

    def removed(name: str) -> VolumeDescription:
        found = describe(name)
        if name == "copy":
            made.remove("copy")
        return found

    monkeypatch.setattr(made, "describe", removed)
    assert check(made).damage == []
    assert made.names() == ["data"]


def test_a_sweep_that_cannot_read_a_manifest_takes_nothing_away(made: VolumeStore, disk: Disk) -> None:
    name = keep(made.chunks, CONTENT)
    put_file(made, made.layout.manifest("snap-0123456789abcdef0"), b"nonsense")
    with pytest.raises(InputError, match="is no manifest"):
        made.sweep()
    assert made.chunks.has(name)


def test_sweeping_and_checking_where_there_is_nothing_make_nothing(store: VolumeStore, disk: Disk) -> None:
    before = len(disk.events)
    assert store.sweep() is not None
    assert not check(store).damage
    assert store.list() == store.snapshots.list() == []
    assert len(disk.events) == before


@pytest.mark.parametrize("name", ["snap-0123456789abcdef0", "../lock", "x", "snap-/../../lock"])
def test_a_snapshot_that_there_is_not_is_not_found(name: str, made: VolumeStore) -> None:
    for work in (made.snapshots.describe, made.snapshots.manifest, made.snapshots.remove):
        with pytest.raises(NotFound, match="celaje vm volume snapshots"):
            work(name)


def test_names_aside_are_told_from_others(made: VolumeStore) -> None:
    place = made.layout.volumes / "data.1"
    assert is_aside(aside(place).name)
    assert is_aside(aside(aside(place)).name)
    assert not any(map(is_aside, ("data", ".data", "data.0123456789abcdef", ".0123456789abcdef", "volume.json")))


def test_a_deep_check_finds_a_byte_that_was_altered_in_a_chunk_and_in_a_clean_cluster(
    store: VolumeStore, disk: Disk
) -> None:
    store.create("data", size=2 * CHUNK)
    volume = store.open("data")
    volume.write([memoryview(CONTENT)], 0)
    store.snapshot(volume)
    volume.close()
    assert not check(store, deep=True).damage
    with opened(disk, store.layout.volumes / "data" / "head", WRITE) as fd:
        disk.pwritev(fd, [b"x"], 5000)
    (line,) = check(store, deep=True).damage
    assert "chunk 0 of the volume data differs from snap-" in line
    (name,) = store.chunks.list()
    path = store.layout.chunks / name.hex()[:2] / name.hex()
    with opened(disk, path, WRITE) as fd:
        disk.pwritev(fd, [b"x"], 1000)
    assert not any("altered" in line for line in check(store).damage)
    assert sum("is altered" in line for line in check(store, deep=True).damage) == 1
