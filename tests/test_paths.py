from __future__ import annotations

import stat
from pathlib import Path

import pytest

from celaje import paths
from celaje.errors import HostError


def test_directories_are_in_the_home_directory_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CELAJE_HOME", raising=False)
    monkeypatch.delenv("CELAJE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.home() == tmp_path / ".local/share/celaje"
    assert paths.cache() == tmp_path / ".cache/celaje"
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("CELAJE_CACHE", "~/c")
    assert paths.home() == tmp_path / "h"
    assert paths.cache() == tmp_path / "c"


def test_what_is_made_is_the_owners_alone(tmp_path: Path) -> None:
    made = paths.made(tmp_path / "a" / "b")
    for directory in (made, made.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostError, match="file/x"):
        paths.made(tmp_path / "file" / "x")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    short = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    return short


def test_the_directory_for_sockets_is_private(runtime: Path) -> None:
    place = paths.runtime_directory()
    assert place == runtime / "celaje"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert paths.runtime_directory() == place
    place.chmod(0o755)
    with pytest.raises(HostError, match="0700"):
        paths.runtime_directory()
    place.rmdir()
    place.symlink_to(runtime)
    with pytest.raises(HostError, match="0700"):
        paths.runtime_directory()


def test_a_directory_too_long_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 80)))
    with pytest.raises(HostError, match="shorter"):
        paths.runtime_directory()
