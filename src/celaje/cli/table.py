"""Lists for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

from celaje.cli.terminal_text import printable

LEAST = 12  # characters of a last column that is cut


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their headings, columns as wide as they must be. Cells are safe for a terminal, and on one the last
    column ends with the line."""
    lines = [[printable(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sys.stdout.isatty():
        left = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1])
        widths[-1] = min(widths[-1], max(left, LEAST))
    return "\n".join(
        "  ".join(_cell(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
