"""Where statistics go: whole or not at all, and through what is no plain file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from celaje.cli.statistics_file import statistics_file
from celaje.errors import InputError


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    with statistics_file(str(path)) as write:
        assert not path.exists()
        write({"instructions": 3})
        assert json.loads(path.read_text()) == {"instructions": 3}
    assert os.listdir(tmp_path) == ["stats.json"]


def test_nothing_is_left_of_a_run_that_failed_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), statistics_file(str(path)):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["stats.json"]
    assert path.read_text() == "old"


def test_a_link_is_written_through_and_stays_a_link(tmp_path: Path) -> None:
    """/dev/stdout is one, and may lead to a plain file."""
    (tmp_path / "target").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("target")
    with statistics_file(str(link)) as write:
        write({})
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "{}\n"


def test_a_pipe_is_written_to() -> None:
    reader, writer = os.pipe()
    with statistics_file(f"/proc/self/fd/{writer}") as write:
        write({"a": 1})
    os.close(writer)
    with open(reader) as file:
        assert json.load(file) == {"a": 1}


@pytest.mark.parametrize("name", ["nowhere/stats.json", "", "."])
def test_a_place_that_takes_no_file_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="statistics cannot be written to"), statistics_file(name):
        pytest.fail("the machine would have run")
    assert os.listdir(tmp_path) == []


def test_without_a_path_nothing_is_written() -> None:
    with statistics_file(None) as write:
        write({"instructions": 3})
