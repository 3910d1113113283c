"""Lists for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celaje.cli.terminal_text import printable


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their headings, columns as wide as they must be. Cells are safe for a terminal."""
    lines = [[printable(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
