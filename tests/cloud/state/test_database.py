"""What transactions promise."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from celaje.cloud.state.accounts import AccessKey, Account, new_account
from celaje.cloud.state.database import Database
from celaje.cloud.state.tags import remove_tags, set_tags, tags_of

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, 123456, datetime.UTC)


@pytest.fixture
def database(tmp_path: Path):
    database = Database(tmp_path / "state.sqlite3")
    database.prepare()
    yield database
    database.close()


def test_a_moment_comes_back_as_it_was_given(database: Database) -> None:
    with database.write() as session:
        account, key = new_account(session, "root", NOW)
    with database.read() as session:
        assert session.get_one(Account, account.id).created == NOW
        assert session.get_one(AccessKey, key.id).secret == key.secret


def test_a_block_that_raises_has_changed_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            new_account(session, "root", NOW)
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as session:
        assert session.scalars(select(Account)).all() == []


def test_who_reads_sees_one_moment_and_waits_for_nobody(database: Database) -> None:
    with database.read() as reader:
        assert reader.scalars(select(Account)).all() == []
        with database.write() as writer:
            new_account(writer, "root", NOW)
        reader.expire_all()
        assert reader.scalars(select(Account)).all() == []
    with database.read() as reader:
        assert len(reader.scalars(select(Account)).all()) == 1


def test_who_only_reads_cannot_keep_others_from_writing(database: Database) -> None:
    with database.read() as reader:
        reader.execute(select(Account))
        done = threading.Event()

        def write() -> None:
            with database.write() as session:
                new_account(session, "one", NOW)
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        thread.join(60)
        assert done.is_set()


def test_two_accounts_cannot_have_one_name(database: Database) -> None:
    with database.write() as session:
        new_account(session, "one", NOW)
    with pytest.raises(Exception, match="UNIQUE"), database.write() as session:
        new_account(session, "one", NOW)


def test_tags_are_told_by_resource_and_go_with_it(database: Database) -> None:
    with database.write() as session:
        set_tags(session, "i-1", "instance", "1" * 12, "us-east-1", {"b": "2", "a": "1"})
        set_tags(session, "i-1", "instance", "1" * 12, "us-east-1", {"b": "3"})
        session.flush()
        assert tags_of(session, ["i-1", "i-2"]) == {"i-1": {"a": "1", "b": "3"}, "i-2": {}}
        remove_tags(session, "i-1")
        assert tags_of(session, ["i-1"]) == {"i-1": {}}
