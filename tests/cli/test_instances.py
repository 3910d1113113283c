"""Waiting for what becomes of instances: shown on a terminal, said nowhere else, and not for ever."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
from collections.abc import Callable, Iterator

import pytest

from celaje.cli.instances import Interrupted, wait
from celaje.errors import CelajeError


@contextlib.contextmanager
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What is complained of goes to a terminal; what its user has seen."""
    reads, writes = os.openpty()
    with open(writes, "w", encoding="utf-8") as file, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", file)
        yield lambda: _seen(reads, writes)
    os.close(reads)


def _seen(reads: int, writes: int) -> str:
    """All that was written by now: a terminal hands it on a moment later."""
    shown = b""
    os.write(writes, b"\0")
    while not shown.endswith(b"\0"):
        assert select.select([reads], [], [], 60)[0]
        shown += os.read(reads, 4096)
    return shown[:-1].decode()


def look() -> Iterator[tuple[str | None, str]]:
    yield None, "web (i-1) is pending"
    yield None, "web (i-1) is pending"
    yield "running", ""


def test_a_terminal_shows_what_is_waited_for_and_is_clean_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = look()
    with at_a_terminal(monkeypatch) as seen:
        assert wait(lambda: next(looks), "until it is running") == "running"
        shown = seen()
    assert len(re.findall(r"waiting until it is running: web \(i-1\) is pending \([0-9]+ s\)", shown)) == 2
    assert shown.endswith("\r\x1b[K")


def test_what_is_no_terminal_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    looks = look()
    assert wait(lambda: next(looks), "until it is running") == "running"
    assert capsys.readouterr() == ("", "")


def test_who_interrupts_finds_the_line_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> tuple[str | None, str]:
        if next(count) == 0:
            return None, "web (i-1) is pending"
        raise KeyboardInterrupt

    count = iter(range(2))
    with at_a_terminal(monkeypatch) as seen:
        with pytest.raises(Interrupted, match=r"the cloud goes on with what it was asked for: celaje status$") as told:
            wait(interrupted, "until it is running")
        assert seen().endswith("\r\x1b[K")
    assert told.value.exit_status == 130


def test_nobody_waits_for_ever() -> None:
    with pytest.raises(CelajeError, match=r"^waited 0 s until it is running: web is pending; look again: celaje ls$"):
        wait(lambda: (None, "web is pending"), "until it is running", seconds=0)
