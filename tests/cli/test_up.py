"""`celaje up` where it cannot start anything: said in a line, without a traceback, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from celaje.cli.up import up
from celaje.errors import HostError, UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CELAJE_HOME in which nothing was ever done."""
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("port", ["65536", "-1", "web"])
def test_a_port_that_is_none_is_refused_before_anything_is_made(home: Path, port: str) -> None:
    with pytest.raises(UsageError, match=f"a port is a number from 0 to 65535, not '{port}'"):
        up(["--detach", f"--port={port}"])
    assert not home.exists()


def test_settings_that_cannot_be_are_told_as_the_daemon_tells_them(home: Path) -> None:
    (home / "cloud").mkdir(parents=True)
    (home / "cloud" / "settings.json").write_text('{"images": ["none"]}')
    with pytest.raises(HostError, match=r"^there is no recipe of an image 'none', .*names; there are: debian-mini"):
        up(["--detach", "--port=0"])


def test_a_place_where_nothing_can_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_HOME", "/proc/none")
    with pytest.raises(HostError, match="^cannot make the directory /proc/none/cloud: "):
        up(["--detach", "--port=0"])
