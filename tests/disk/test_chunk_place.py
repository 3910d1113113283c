"""Where chunks are kept is chosen, changed and refused, against an S3 server that others wrote."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celaje.cli import command
from celaje.disk import bucket as bucket_module
from celaje.disk import chunk_place
from celaje.disk.bucket import BucketChunkStore, Keys
from celaje.disk.check import check
from celaje.disk.chunk_place import BucketPlace
from celaje.disk.chunk_store import CHUNK, FolderChunkStore
from celaje.disk.files import HOST
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.errors import InputError
from tests.disk.object_server import BUCKET, ObjectServer, object_server

SECRET = "secret/with+signs"
CONTENT = random.Random(7).randbytes(3 * CHUNK)


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(bucket_module, "_PAUSE", 0)


@pytest.fixture(scope="module")
def shared() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


def run(*words: str) -> int:
    return command.main(list(words))


def there(server: ObjectServer, prefix: str) -> BucketChunkStore:
    """The chunks of a prefix, as somebody with the keys sees them."""
    return BucketChunkStore(server.endpoint, BUCKET, Keys("AKIDEXAMPLE", SECRET), prefix=prefix)


def choose(server: ObjectServer, prefix: str) -> int:
    return run("vm", "volume", "store", f"s3://{BUCKET}/{prefix}", "--endpoint", server.endpoint)


def written(store: VolumeStore, name: str = "data") -> str:
    """A snapshot of a volume that holds CONTENT."""
    store.create(name, size=len(CONTENT))
    with closing(store.open(name)) as volume:
        volume.write([memoryview(CONTENT)], 0)
        return store.snapshot(volume).id


def content(store: VolumeStore, name: str) -> bytes:
    found = bytearray(len(CONTENT))
    with closing(store.open(name)) as volume:
        volume.readinto([memoryview(found)], 0)
    return bytes(found)


def test_a_home_moves_to_a_bucket_and_back_with_all_that_it_needs(
    shared: ObjectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    store = VolumeStore()
    snapshot = written(store)
    store.create("early", source=SnapshotSource(snapshot))
    with closing(store.open("early")) as early:  # open since before, as by a machine that runs
        assert choose(shared, "one") == 0
        assert f"s3://{BUCKET}/one at {shared.endpoint} from now on; 3 were copied" in capsys.readouterr().out
        setting = store.layout.store / chunk_place.FILE_NAME
        assert setting.stat().st_mode & 0o777 == 0o600
        bucket = there(shared, "one")
        assert len(list(bucket.list())) == 3
        for name in list(store.chunks.list()):
            FolderChunkStore(store.layout.chunks, HOST).delete(name)
        block = bytearray(CHUNK)
        early.readinto([memoryview(block)], CHUNK)
        assert block == CONTENT[CHUNK : 2 * CHUNK]
        early.write([memoryview(b"later" * 100)], 0)
        later = store.snapshot(early).id
    assert len(list(bucket.list())) == 4
    store.create("copy", source=SnapshotSource(later))
    assert content(VolumeStore(), "copy") == b"later" * 100 + CONTENT[500:]
    assert run("vm", "volume", "check", "--deep") == 0

    assert run("vm", "volume", "store", "--json") == 0
    shown = capsys.readouterr().out
    assert json.loads(shown[shown.rindex("{") :])["prefix"] == "one"
    assert SECRET not in shown
    assert run("vm", "volume", "store", "folder") == 0
    assert "4 were copied" in capsys.readouterr().out
    assert not setting.exists()
    for name in bucket.list():
        bucket.delete(name)
    bucket.close()
    assert run("vm", "volume", "check", "--deep") == 0
    assert choose(shared, "one") == 0  # the prefix is this home's still


def test_what_can_be_no_place_is_refused_and_changes_nothing(
    shared: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusals = {
        ("s3://Upper",): "no bucket's name",
        (f"s3://{BUCKET}/a/../b",): "no two dots",
        ("bucket",): "s3://BUCKET",
        (f"s3://{BUCKET}/x", "--endpoint", "ftp://x"): "such as http://127.0.0.1:4566",
        (f"s3://{BUCKET}/x", "--endpoint", "http://user:word@127.0.0.1"): "such as http://127.0.0.1:4566",
        (f"s3://{BUCKET}/x", "--region", "Middle Earth"): "no region",
        ("s3://no-such-bucket/x", "--endpoint", shared.endpoint): "NoSuchBucket",
    }
    for words, reason in refusals.items():
        assert run("vm", "volume", "store", *words) == 2
        assert reason in capsys.readouterr().err
    assert choose(shared, "taken") == 0
    first = VolumeStore().layout.store
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "another"))
    assert choose(shared, "taken") == 2
    assert "belongs to another celaje home (home-" in capsys.readouterr().err
    assert chunk_place.chosen(HOST, VolumeStore().layout) is None
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert choose(shared, "free") == 2
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err
    assert (first / chunk_place.FILE_NAME).exists()


def test_a_home_stays_where_it_is_while_something_is_being_made_and_where_a_chunk_is_missing(
    shared: ObjectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    store = VolumeStore()
    written(store)
    with closing(store.open("data")) as volume:
        task = store.snapshots.begin(volume)
        assert choose(shared, "busy") == 2
        assert "try again when that is done" in capsys.readouterr().err
        task.run()
    store.chunks.delete(next(iter(store.chunks.list())))
    assert choose(shared, "busy") == 2
    assert "stay where they are" in capsys.readouterr().err
    assert chunk_place.chosen(HOST, store.layout) is None


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.chmod(0o644), "chmod 600"),
        (lambda path: path.write_text("{}"), "does not say where chunks are"),
        (lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": 2')), "version 2"),
        (lambda path: path.write_text(path.read_text().replace('"region"', '"regions"')), "volume store --help"),
    ],
)
def test_a_setting_that_cannot_be_trusted_is_an_error_and_no_folder(
    shared: ObjectServer, harm: object, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(harm)
    store = VolumeStore()
    snapshot = written(store)
    assert choose(shared, f"harmed-{abs(hash(reason))}") == 0
    harm(store.layout.store / chunk_place.FILE_NAME)
    with pytest.raises(InputError, match=reason):
        chunk_place.chosen(store.files, store.layout)
    store.create("copy", source=SnapshotSource(snapshot))
    with closing(store.open("copy")) as volume, pytest.raises(OSError, match=reason) as refused:
        volume.readinto([memoryview(bytearray(4096))], 0)
    assert refused.value.errno == errno.EIO
    assert run("vm", "volume", "snapshot", "copy") == 2
    assert reason in capsys.readouterr().err


def test_a_chunk_that_is_missing_or_altered_in_the_bucket_is_an_io_error_and_told(
    shared: ObjectServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose(shared, "harmed") == 0
    store = VolumeStore()
    store.create("copy", source=SnapshotSource(written(store)))
    bucket = there(shared, "harmed")
    names = store.snapshots.manifest(store.snapshots.ids()[0])
    bucket.delete(names.name(0))
    bucket.put(names.name(1), bucket.get(names.name(2)))
    with closing(store.open("copy")) as volume, caplog.at_level(logging.ERROR):
        for at, how in ((0, "is missing"), (CHUNK, "is altered")):
            with pytest.raises(OSError) as refused:
                volume.readinto([memoryview(bytearray(4096))], at)
            assert refused.value.errno == errno.EIO
            assert how in caplog.messages[-1]
            assert f"{shared.endpoint}/{BUCKET}/harmed/" in caplog.messages[-1]
        block = bytearray(CHUNK)
        volume.readinto([memoryview(block)], 2 * CHUNK)
        assert block == CONTENT[2 * CHUNK :]
    bucket.close()
    assert run("vm", "volume", "check", "--deep") == 1
    told = capsys.readouterr().out
    assert "is missing" in told
    assert "is altered" in told


def test_a_server_that_is_gone_fails_what_needs_it_with_one_line_and_nothing_else(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with object_server() as server:
        assert choose(server, "gone") == 0
        store = VolumeStore()
        store.create("copy", source=SnapshotSource(written(store)))
        with closing(store.open("copy")) as volume, closing(store.open("data")) as other:
            server.end()
            for at in (0, CHUNK):
                with caplog.at_level(logging.ERROR), pytest.raises(OSError):
                    volume.readinto([memoryview(bytearray(4096))], at)
            (line,) = caplog.messages
            assert f"{server.endpoint.removeprefix('http://')} cannot be used" in line
            volume.write([memoryview(CONTENT[:CHUNK])], 0)  # what is written needs no chunk
            volume.flush()
            other.write([memoryview(b"new" * 100)], 0)
            with pytest.raises(OSError, match="cannot be used"):
                store.snapshot(other)
            assert len(store.snapshots.ids()) == 1
        assert run("vm", "volume", "snapshot", "data") == 2
        assert "cannot be used" in capsys.readouterr().err
        assert run("vm", "volume", "store", "folder") == 2
        assert chunk_place.chosen(HOST, store.layout) is not None


_STAYS_IN_A_PUT = """
import sys, threading
from celaje.cli import command
from celaje.disk.bucket import BucketChunkStore
put, left, lock = BucketChunkStore.put, [3], threading.Lock()
def stays(store, name, frame):
    put(store, name, frame)
    with lock:  # no thread comes further than the third chunk, and no snapshot is complete
        left[0] -= 1
        if not left[0]:
            print("uploading", flush=True)
            threading.Event().wait()
BucketChunkStore.put = stays
command.main(sys.argv[1:])
"""


def test_a_snapshot_that_is_killed_while_it_uploads_is_none_and_the_next_one_is_whole(shared: ObjectServer) -> None:
    assert choose(shared, "killed") == 0
    store = VolumeStore()
    size = 64 * CHUNK
    store.create("data", size=size)
    chance = random.Random(3)
    held = bytearray(chance.randbytes(size))
    with closing(store.open("data")) as volume:
        volume.write([memoryview(held)], 0)
    bucket = there(shared, "killed")
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _STAYS_IN_A_PUT, "vm", "volume", "snapshot", "data"],
            stdout=subprocess.PIPE,
            env=os.environ,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"uploading\n"
            process.send_signal(signal.SIGKILL)
        assert len(list(bucket.list())) > round_ * 2
        assert store.snapshots.ids() == []
        report = check(store, deep=True)
        assert not report.damage
        assert any("chunks of the chunk store are in no snapshot" in line for line in report.garbage)
    with closing(store.open("data")) as volume:
        taken = store.snapshot(volume).id
    store.create("copy", source=SnapshotSource(taken))
    found = bytearray(size)
    with closing(store.open("copy")) as volume:
        volume.readinto([memoryview(found)], 0)
    assert found == held
    assert not check(store, deep=True, repair=True).damage
    assert len(list(bucket.list())) == 64
    bucket.close()


def test_a_place_shows_no_secret() -> None:
    place = BucketPlace(
        endpoint="https://x", bucket="b", prefix="p", region="r", access_key="AKID", secret_key=SECRET
    )
    assert SECRET not in f"{place!r} {place}"
