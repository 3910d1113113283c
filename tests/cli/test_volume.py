"""`celaje volume` and `celaje snapshot`, as a person types them."""

from __future__ import annotations

import json
import os
import random
from contextlib import closing
from pathlib import Path

import pytest

from celaje.cli import command
from celaje.cli.byte_size import byte_size
from celaje.disk.volumes import VolumeStore


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))


def run(*words: str) -> int:
    return command.main(list(words))


def test_empty_lists_say_how_to_make_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vm", "volume", "ls") == run("vm", "volume", "snapshots") == 0
    assert "celaje vm volume create NAME --size 8G" in capsys.readouterr().out


def test_a_volume_lives_from_create_to_rm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("vm", "volume", "create", "data", "--size", "1M") == 0
    store = VolumeStore()
    with closing(store.open("data")) as volume:
        volume.write([memoryview(b"x" * 4096)], 8192)
    assert run("vm", "volume", "snapshot", "data", "--description", "before\nthe change") == 0
    assert run("vm", "volume", "grow", "data", "2M") == 0
    capsys.readouterr()
    assert run("vm", "volume", "ls", "--json") == run("vm", "volume", "snapshots", "--json") == 0
    volumes, snapshots = capsys.readouterr().out.split("]\n[")
    (volume,) = json.loads(volumes + "]")
    (snapshot,) = json.loads("[" + snapshots)
    assert (volume["name"], volume["size"], volume["last_snapshot"]) == ("data", 2 << 20, snapshot["id"])
    assert (snapshot["size"], snapshot["description"]) == (1 << 20, "before the change")
    assert run("vm", "volume", "create", "copy", "--from-snapshot", snapshot["id"]) == 0
    assert run("vm", "volume", "export", "copy", str(tmp_path / "copy.raw")) == 0
    assert (tmp_path / "copy.raw").read_bytes() == (bytes(8192) + b"x" * 4096).ljust(1 << 20, b"\0")
    assert run("vm", "volume", "ls") == run("vm", "volume", "snapshots") == run("vm", "volume", "check", "--deep") == 0
    assert run("vm", "volume", "rm-snapshot", snapshot["id"]) == 0
    assert run("vm", "volume", "rm", "data", volume["id"]) == 2
    assert run("vm", "volume", "check") == 0
    assert store.names() == ["copy"]
    assert run("vm", "volume", "rm", "copy") == 0
    assert not list(store.chunks.list())


def test_a_file_goes_in_and_out_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = random.Random(1).randbytes(700_000 // 512 * 512) + bytes(1 << 20)
    (tmp_path / "in.raw").write_bytes(content)
    assert run("vm", "volume", "import", "disk", str(tmp_path / "in.raw"), "--size", "4M") == 0
    assert run("vm", "volume", "export", "disk", str(tmp_path / "out.raw")) == 0
    assert (tmp_path / "out.raw").read_bytes() == content.ljust(4 << 20, b"\0")
    assert os.stat(tmp_path / "out.raw").st_blocks * 512 < 2 << 20
    assert run("vm", "volume", "export", "disk", str(tmp_path / "out.raw")) == 2
    assert "there is a file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--compress", "zlib"], ["--compress", "zstd"]], ids=" ".join)
def test_a_qcow2_image_goes_out_and_in(words: list[str], tmp_path: Path) -> None:
    content = random.Random(2).randbytes(300_000 // 512 * 512) + bytes(1 << 20)
    (tmp_path / "in.raw").write_bytes(content)
    assert run("vm", "volume", "import", "disk", str(tmp_path / "in.raw")) == 0
    assert run("vm", "volume", "export", "disk", str(tmp_path / "disk.qcow2"), *words) == 0
    assert run("vm", "volume", "import", "again", str(tmp_path / "disk.qcow2")) == 0
    assert run("vm", "volume", "export", "again", str(tmp_path / "out.raw")) == 0
    assert (tmp_path / "out.raw").read_bytes() == content
    assert run("vm", "volume", "import", "bytes", str(tmp_path / "disk.qcow2"), "--format", "raw") == 0
    assert VolumeStore().describe("bytes").size == (tmp_path / "disk.qcow2").stat().st_size


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "a", "out.raw", "--compress", "zlib"], "not compressed; give --format qcow2"),
        (["import", "a", __file__, "--format", "qcow2"], "is no qcow2 image"),
        (["create", "a"], "needs a size"),
        (["create", "../a", "--size", "1G"], "letters, digits"),
        (["create", "a", "--size", "1G", "--image", "nothing"], "there is no image"),
        (["create", "a", "--from-snapshot", "snap-0"], "there is no snapshot snap-0; celaje vm volume snapshots"),
        (["import", "a", "/nowhere/disk.raw"], "there is no file /nowhere/disk.raw"),
        (["import", "a", "/"], "is a directory"),
        (["grow", "a", "1G"], "there is no volume 'a'; there are none yet"),
        (["rm", "a"], "celaje vm volume create NAME --size 8G"),
        (["export", "a", "/nowhere/disk.raw"], "there is no volume 'a'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("vm", "volume", *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_volume_in_use_is_not_opened_twice_and_says_by_whom(capsys: pytest.CaptureFixture[str]) -> None:
    run("vm", "volume", "create", "data", "--size", "1M")
    with closing(VolumeStore().open("data")):
        assert run("vm", "volume", "snapshot", "data") == run("vm", "volume", "rm", "data") == 2
        assert f"in use by process {os.getpid()} (" in capsys.readouterr().err
        assert run("vm", "volume", "check") == 0
        assert "note: the volume data is in use" in capsys.readouterr().out
    assert run("vm", "volume", "rm", "data") == 0


def test_damage_is_named_and_nothing_is_removed_because_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    run("vm", "volume", "create", "data", "--size", "1M")
    store = VolumeStore()
    with closing(store.open("data")) as volume:
        volume.write([memoryview(b"x" * 4096)], 8192)
        store.snapshot(volume)
    (name,) = store.chunks.list()
    os.unlink(store.chunks.where(name))
    capsys.readouterr()
    assert run("vm", "volume", "check", "--repair") == 1
    assert f"damage: the snapshot {store.snapshots.ids()[0]} needs it: the chunk" in capsys.readouterr().out
    assert run("vm", "volume", "check", "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["damage"]) == 1


def test_garbage_is_removed_by_repair(capsys: pytest.CaptureFixture[str]) -> None:
    run("vm", "volume", "create", "data", "--size", "1M")
    store = VolumeStore()
    (store.layout.volumes / ".half.0123456789abcdef").mkdir()
    (store.layout.volumes / ".half.0123456789abcdef" / "head").write_bytes(b"x")
    store.chunks.put(b"n" * 32, b"frame")
    assert run("vm", "volume", "check") == 0
    assert capsys.readouterr().out.count("\ngarbage: ") == 2
    assert run("vm", "volume", "check", "--repair") == 0
    assert run("vm", "volume", "check") == 0
    assert "garbage" not in capsys.readouterr().out.splitlines()[-1]
    assert os.listdir(store.layout.volumes) == ["data"]


def test_sizes_read_as_they_are_typed() -> None:
    assert [byte_size(size) for size in (0, 512, 4096, 3 << 19, 8 << 30, 1023 << 30)] == [
        "0", "512", "4K", "1.5M", "8G", "1023G",
    ]  # fmt: skip
