"""A row never names a file that is not whole, whatever a loss of power leaves (`tests/disk/crash.py`).

The rows are SQLite's; here a *mark* stands for a commit. Of each prefix of a course of events, disks are made as a loss
of power may leave them, and every file that a committed row names is held against what was put. Then each sync is taken
away in turn, and must be missed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from celaje.cloud.s3.store.checksums import ALGORITHMS
from celaje.cloud.s3.store.contents import Contents
from celaje.cloud.s3.store.receive import Receiver
from celaje.disk.files import contents as content_of
from tests.disk.crash import Disk, crashes

HOME = Path("/s3")
DIRECTORY = HOME / "contents"
MIXTURES = int(os.environ.get("CELAJE_CRASHES", "2"))


def course(disk: Disk) -> None:
    """Puts, a copy, replacements and removals; marks say what rows name from then on."""
    disk.mkdir(HOME)
    disk.sync_directory(Path("/"))
    contents = Contents(DIRECTORY, disk, digits=1)
    chance = random.Random(1)
    rows: dict[bytes, bytes] = {}

    def committed() -> None:
        disk.mark(dict(rows))

    def put(size: int) -> bytes:
        body = chance.randbytes(size)
        receiver = Receiver(contents, disk, ALGORITHMS["CRC32"], always_file=True)
        for at in range(0, size, 3000):
            receiver.take(body[at : at + 3000])
        content = receiver.finish().content
        assert content is not None
        rows[content] = body
        committed()
        contents.kept([content])
        return content

    first = put(8000)
    put(0)
    copy = contents.share(first)
    assert copy is not None
    rows[copy] = rows[first]
    committed()
    del rows[first]
    committed()
    contents.remove([first])
    put(700)
    given_up = Receiver(contents, disk, ALGORITHMS["SHA256"], always_file=True)
    given_up.take(b"given up")
    given_up.abandon()


def check(disk: Disk, marks: Sequence[object]) -> None:
    rows = marks[-1] if marks else {}
    assert isinstance(rows, dict)
    if disk.identity(HOME) is None:
        assert not rows
        disk.mkdir(HOME)
    contents = Contents(DIRECTORY, disk, digits=1)
    contents.sweep(lambda ids: rows.keys() & set(ids))
    for content, body in rows.items():
        assert content_of(disk, contents.path(content)) == body
    there = [name for shelf in disk.names(DIRECTORY) for name in disk.names(DIRECTORY / shelf)]
    assert sorted(there) == sorted(content.hex() for content in rows)


def made(forgets: frozenset[str] = frozenset()) -> Disk:
    disk = Disk(forgets=forgets)
    course(disk)
    return disk


def test_what_rows_name_is_whole_and_nothing_else_is_left() -> None:
    for length, chooser, marks, disk in crashes(made(), MIXTURES):
        try:
            check(disk, marks)
        except Exception as error:
            raise AssertionError(f"after {length} events, {chooser.name}") from error


@pytest.mark.parametrize("site", sorted(made().sites - {""}))  # the course's own has no name
def test_each_sync_is_needed(site: str) -> None:
    def missed() -> bool:
        for _, _, marks, disk in crashes(made(frozenset({site})), MIXTURES):
            try:
                check(disk, marks)
            except (AssertionError, OSError):
                return True
        return False

    assert missed(), f"nothing is lost without the sync in {site}"
