from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress, TextColumn

from celaje.image.progress import Silence, TerminalProgress, shown_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_said_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with shown_on(stream) as progress:
        progress.stage("Unpacking")
        progress.transfer("a.deb", 1, 2)
        assert isinstance(progress, Silence)
    assert stream.getvalue() == ""


def test_a_terminal_shows_the_stage_and_is_left_clean() -> None:
    stream = Terminal()
    with shown_on(stream) as progress:
        progress.stage("Unpacking [the] kernel")
        progress.transfer("a.deb", 1_000_000, 2_000_000)
    assert "Unpacking [the] kernel" in stream.getvalue()
    assert "1.0 of 2.0 MB" in stream.getvalue()


def test_a_stage_ends_with_the_next_and_a_transfer_with_its_last_byte() -> None:
    drawn = Progress(TextColumn("{task.description}"), console=Console(file=io.StringIO()), disable=True)
    progress = TerminalProgress(drawn)
    progress.stage("one")
    progress.transfer("a.deb", 1, 2)
    progress.stage("two")
    assert [task.description for task in drawn.tasks] == ["a.deb", "two"]
    progress.transfer("a.deb", 2, 2)
    progress.transfer("a.deb", 2, 2)
    assert [task.description for task in drawn.tasks] == ["two"]
