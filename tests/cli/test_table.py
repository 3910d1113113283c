"""Lists for people: as wide as they must be, and on a terminal no wider than it."""

from __future__ import annotations

import sys

import pytest

from celaje.cli.table import table

ROWS = [("web", "running", "all is well"), ("database", "stopped", "somebody has asked for it, " * 5)]


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert table(("NAME", "STATE"), [("a", "running"), ("bcdefg", "")]) == "NAME    STATE\na       running\nbcdefg"


def test_on_a_terminal_the_last_column_ends_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = table(("NAME", "STATE", "NOTE"), ROWS).splitlines()
    assert max(map(len, lines)) == 60
    assert lines[1].endswith("all is well")
    assert lines[2].endswith("…")


def test_into_a_file_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert ROWS[1][2].rstrip() in table(("NAME", "STATE", "NOTE"), ROWS)
