"""The master key is durable before anything is encrypted with it, whatever a loss of power leaves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.encryption import HEAD, BodyCipher, KeyUnusable, MasterKey
from celaje.cloud.s3.store.group_commit import GroupCommit
from celaje.disk.files import Files
from tests.disk.crash import Disk, crashes

HOME = Path("/s3")
PLAIN = bytes(range(256)) * 9


@contextlib.contextmanager
def key_on(disk: Files, rows: Path) -> Iterator[MasterKey]:
    database = Database(rows)
    commit = GroupCommit(database.writer)
    try:
        yield MasterKey(HOME, disk, database, commit)
    finally:
        commit.close()
        database.close()


def new_disk(forgets: frozenset[str] = frozenset()) -> Disk:
    disk = Disk(forgets=forgets)
    disk.mkdir(HOME)
    disk.sync_directory(Path("/"))
    return disk


def encrypted(cipher: BodyCipher) -> bytes:
    return cipher.head + cipher.next(PLAIN)


def test_what_was_encrypted_is_read_with_the_key_that_any_crash_leaves(tmp_path: Path) -> None:
    disk = new_disk()
    with key_on(disk, tmp_path / "rows") as key:
        kept = encrypted(key.cipher())
        disk.mark("used")
        disk.mkdir(HOME / "later")
    used = 0
    for number, (_, _, marks, after) in enumerate(crashes(disk, 2)):
        if marks:
            used += 1
            with key_on(after, tmp_path / "rows") as key:
                assert key.plain(kept) == PLAIN
        else:  # the row was not committed: there is none of the key, or all of it
            if after.identity(HOME) is None:
                after.mkdir(HOME)
            with key_on(after, tmp_path / f"rows-{number}") as key:
                another = encrypted(key.cipher())
                assert key.plain(another) == PLAIN
    assert used


def test_each_sync_of_the_key_is_needed(tmp_path: Path) -> None:
    whole = new_disk()
    with key_on(whole, tmp_path / "rows") as key:
        key.cipher()
    sites = whole.sites - {""}  # the course's own has no name
    assert len(sites) == 2
    for number, site in enumerate(sites):
        disk = new_disk(frozenset({site}))
        with key_on(disk, tmp_path / f"rows-{number}") as key:
            kept = encrypted(key.cipher())
            disk.mark("used")
        disk.mkdir(HOME / "later")
        missed = 0
        for _, _, marks, after in crashes(disk, 2):
            if marks:
                try:
                    with key_on(after, tmp_path / f"rows-{number}") as key:
                        assert key.plain(kept) == PLAIN
                except KeyUnusable:
                    missed += 1
        assert missed, f"nothing is lost without the sync in {site}"


def test_a_body_is_decrypted_from_anywhere_and_says_nothing_of_itself(tmp_path: Path) -> None:
    with key_on(new_disk(), tmp_path / "rows") as key:
        cipher = key.cipher()
        stored = cipher.head + b"".join(cipher.next(PLAIN[at : at + 77]) for at in range(0, len(PLAIN), 77))
        assert len(stored) == HEAD + len(PLAIN)
        body_key = key.body_key(stored[:HEAD])
        for start in (0, 1, 15, 16, 17, 1000, len(PLAIN) - 1):
            body_key.begin(start)
            assert body_key.next(stored[HEAD + start :]) == PLAIN[start:]
        assert encrypted(key.cipher()) != stored


def test_a_key_is_made_once_and_the_leftover_of_a_crash_is_taken_away(tmp_path: Path) -> None:
    disk = new_disk()
    leftover = HOME / f".master-key.{os.urandom(8).hex()}"
    disk.close(disk.open(leftover, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    with key_on(disk, tmp_path / "rows") as key:
        heads = [key.cipher().head for _ in range(3)]
    assert len({head[8:16] for head in heads}) == 1
    assert disk.names(HOME) == ["master-key"]
