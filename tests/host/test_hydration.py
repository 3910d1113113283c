"""What a volume's snapshot has is fetched in the background, when that disturbs nobody."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celaje import paths
from celaje.cli import command
from celaje.disk.chunk_store import CHUNK, FolderChunkStore
from celaje.disk.files import HOST
from celaje.disk.volume import Volume
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.host.hydration import Hydration
from celaje.host.record import MachineDirectory
from tests.machine_processes import Machines, wait_until

CHUNKS = 12
CONTENT = random.Random(5).randbytes(CHUNKS * CHUNK)
AN_HOUR = 3600.0


class CountingStore(FolderChunkStore):
    """Notes what is fetched of it."""

    def __init__(self, store: VolumeStore) -> None:
        super().__init__(store.layout.chunks, HOST)
        self.fetched = 0
        self.changed = threading.Event()

    def get(self, name: bytes) -> bytes:
        self.fetched += 1
        self.changed.set()
        return super().get(name)


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translated = paths.made(paths.cache() / "code")
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "code").symlink_to(translated)  # a machine that has to translate all starts late


@pytest.fixture
def chunks() -> CountingStore:
    store = VolumeStore()
    store.create("first", size=len(CONTENT) + 100 * CHUNK)
    with closing(store.open("first")) as volume:
        volume.write([memoryview(CONTENT)], 0)
        store.create("copy", source=SnapshotSource(store.snapshot(volume).id))
    return CountingStore(store)


@pytest.fixture
def volume(chunks: CountingStore) -> Iterator[Volume]:
    with closing(VolumeStore(chunks=chunks).open("copy")) as found:
        yield found


def wait_until_done(hydration: Hydration) -> None:
    wait_until(lambda: not hydration.active)


def test_a_volume_becomes_whole_and_needs_no_chunk_afterwards(
    volume: Volume, chunks: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = VolumeStore()
    assert store.hydrated("copy") == 0
    with caplog.at_level(logging.INFO):
        hydration = Hydration(volume, rate=1e12, quiet=0)
        hydration.start()
        wait_until_done(hydration)
    assert "has all of its snapshot now" in caplog.text
    assert volume.whole
    assert store.hydrated("copy") == 1  # durable, though the volume is still open
    for name in list(chunks.list()):
        chunks.delete(name)
    found = bytearray(len(CONTENT))
    volume.readinto([memoryview(found)], 0)
    assert found == CONTENT
    assert chunks.fetched == CHUNKS
    again = Hydration(volume)
    again.start()
    assert not again.active


def test_while_the_guest_asks_nothing_is_fetched(volume: Volume, chunks: CountingStore) -> None:
    volume.write([memoryview(b"x" * 4096)], len(CONTENT))
    hydration = Hydration(volume, rate=1e12, quiet=AN_HOUR)
    hydration.start()
    wait_until(lambda: not volume.asked)  # it has seen that, and looks again in an hour
    hydration.stop()
    assert not hydration.active
    assert not chunks.fetched


def test_the_rate_is_bounded_and_what_was_brought_is_where_the_next_one_goes_on(
    volume: Volume, chunks: CountingStore
) -> None:
    slow = Hydration(volume, rate=1, quiet=0)
    slow.start()
    assert chunks.changed.wait(60)
    wait_until(lambda: volume.states(127, 128) != b"\0")
    slow.stop()
    assert not slow.active
    assert chunks.fetched == 1
    fast = Hydration(volume, rate=1e12, quiet=0)
    fast.start()
    wait_until_done(fast)
    assert chunks.fetched == CHUNKS
    assert volume.whole


def test_a_disk_that_is_nearly_full_is_left_alone(
    volume: Volume, chunks: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    hydration = Hydration(volume, rate=1e12, quiet=0, reserve=1 << 62)
    with caplog.at_level(logging.WARNING):
        hydration.start()
        wait_until(lambda: "nearly full" in caplog.text)
    hydration.stop()
    assert not chunks.fetched


def test_a_chunk_that_is_missing_keeps_no_other_back_and_is_tried_again(
    volume: Volume, chunks: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    name = VolumeStore().snapshots.manifest(VolumeStore().snapshots.ids()[0]).name(3)
    frame = chunks.get(name)
    chunks.delete(name)
    hydration = Hydration(volume, rate=1e12, quiet=0, retry=0.01)
    hydration.start()
    wait_until(lambda: "fetches nothing more of its snapshot for now" in caplog.text)
    assert volume.states(0, CHUNKS * 128).count(0) == 128
    assert str(chunks.where(name)) in caplog.text
    chunks.put(name, frame)
    wait_until_done(hydration)
    assert volume.whole


def test_a_machines_disks_hydrate_while_it_runs_and_ls_shows_it(
    machines: Machines, chunks: CountingStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def here() -> dict[str, float | None]:
        capsys.readouterr()
        assert command.main(["vm", "volume", "ls", "--json"]) == 0
        return {each["name"]: each["hydrated"] for each in json.loads(capsys.readouterr().out)}

    assert here() == {"copy": 0, "first": None}
    assert command.main(["vm", "volume", "ls"]) == 0
    assert "(0% here)" in capsys.readouterr().out
    machines.started("one")
    assert command.main(["vm", "attach", "one", "copy"]) == 0
    wait_until(lambda: here()["copy"] == 1)
    assert command.main(["vm", "detach", "one", "copy"]) == 0
    assert "has all of its snapshot now" in MachineDirectory.of("one").log.read_text()
    for name in list(chunks.list()):
        chunks.delete(name)
    with closing(VolumeStore().open("copy")) as volume:
        found = bytearray(len(CONTENT))
        volume.readinto([memoryview(found)], 0)
    assert found == CONTENT


def test_a_disk_that_is_detached_while_it_hydrates_is_free_at_once(machines: Machines, chunks: CountingStore) -> None:
    machines.started("one")
    for _ in range(5):
        assert command.main(["vm", "attach", "one", "copy"]) == 0
        assert command.main(["vm", "detach", "one", "copy"]) == 0
        VolumeStore().open("copy").close()
