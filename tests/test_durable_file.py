"""Small files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from celaje import durable_file
from celaje.errors import HostError


@pytest.mark.parametrize("durably", [True, False])
def test_a_file_holds_what_was_written_for_its_owner_only(tmp_path: Path, durably: bool) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"", b"two" * 100_000):
        durable_file.replace(path, data, durably)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_written_leaves_what_was_there_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(HostError, match=f"cannot write {path}: Is a directory; make room there"):
        durable_file.replace(path, b"x")
    assert os.listdir(tmp_path) == ["directory"]
    with pytest.raises(HostError, match="No such file or directory"):
        durable_file.replace(tmp_path / "nowhere" / "file", b"x")


def test_what_killed_writers_left_is_taken_away_and_what_others_are_writing_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kept = [f".file.{os.getpid()}.00", ".file.x", f".other.{gone.pid}.00"]
    for name in (f".file.{gone.pid}.00", *kept):
        (tmp_path / name).touch()
    durable_file.replace(tmp_path / "file", b"x")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "file"])


def test_a_file_is_removed_once(tmp_path: Path) -> None:
    durable_file.replace(tmp_path / "file", b"x")
    assert durable_file.remove(tmp_path / "file")
    assert not durable_file.remove(tmp_path / "file")
