"""A process that is started in the background says when it is up, or its log says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from celaje import background

MODULE = """
import os, sys, time
print("begins with", os.environ["WORD"], flush=True)
said, do = int(sys.argv[1]), sys.argv[2]
if do == "fails":
    raise SystemExit("it failed, and this is why")
if os.fork():
    os._exit(0)
os.write(said, b"+")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_module.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_module"


def start(module: str, log: Path, do: str, seconds: float = 60) -> bytes:
    return background.start(module, lambda says: [str(says), do, "0"], log, seconds, {"WORD": "this"})


def test_the_byte_is_returned_and_the_output_is_in_the_log(module: str, tmp_path: Path) -> None:
    log = tmp_path / "log" / "it.log"
    assert start(module, log, "runs") == b"+"
    assert background.last_line(log) == "begins with this"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_process_that_fails_says_nothing_and_its_last_line_says_why(module: str, tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    assert start(module, log, "fails") == b""
    assert background.last_line(log) == "it failed, and this is why"
    assert background.last_line(tmp_path / "none").startswith("(nothing: ")


def test_who_waits_long_is_told(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0)
    told: list[str] = []
    assert background.start(
        module, lambda says: [str(says), "runs", "0"], tmp_path / "log", 60, {"WORD": "x"}, lambda: told.append("waits")
    ) == b"+"  # fmt: skip
    assert told == ["waits"]
