"""Where the tests' networks keep their things."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from celaje.network import client, spawn


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Directories of the test's own; networks that it leaves running are stopped."""
    short = Path(tempfile.mkdtemp(prefix="cn-"))  # a socket's path has 108 bytes
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    yield short
    for name in spawn.running():
        client.stop(name)
    while short.exists():  # a process that ends takes its socket away itself, perhaps just now
        with suppress(FileNotFoundError):
            shutil.rmtree(short)
