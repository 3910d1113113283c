"""Statements that go past the ORM find what it would."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from sqlalchemy import bindparam, select

from celaje.cloud.state.database import Database
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.prepared import AT_ONCE, IDENTIFIERS, matching, one, owned, owner, rows_of, values_of
from celaje.cloud.state.tags import Tag, set_tags, tags_of

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, 123456, datetime.UTC)
OWNER = {"account": "111111111111", "region": "us-east-1"}
DEVICES = [BlockDevice(device="/dev/sda1", snapshot="snap-1", size=8)]
_BY_ID = select(Image).where(Image.id.in_(IDENTIFIERS)).order_by(Image.id)
_NAMES = select(Image.id, Image.created, Image.devices).where(
    Image.state != "deregistered", Image.account == bindparam("account"), Image.region == bindparam("region")
)
_WITH_TAG = (
    select(Image, Tag.value).join(Tag, Tag.resource == Image.id).where(Image.id.in_(IDENTIFIERS)).order_by(Image.id)
)


@pytest.fixture
def database(tmp_path: Path):
    database = Database(tmp_path / "state.sqlite3")
    database.prepare()
    yield database
    database.close()


def image(number: int, **others: object) -> Image:
    fields: dict[str, object] = {
        "id": f"ami-{number:04}",
        "created": NOW,
        "name": f"image {number}",
        "architecture": "arm64",
        "devices": DEVICES,
        "host_image": "debian-mini",
        "public": number % 2 == 0,
        **OWNER,
    }
    return Image(**fields | others)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, AT_ONCE, 2 * AT_ONCE + 3])
def test_every_identifier_is_looked_for_however_many_there_are(database: Database, count: int) -> None:
    with database.write() as session:
        session.add_all(image(number) for number in range(count + 1))
    wanted = [f"ami-{number:04}" for number in range(count)]
    with database.read() as session:
        found = [row for (row,) in rows_of(session, _BY_ID, wanted)]
        assert [row.id for row in found] == wanted
        assert [row.public for row in found] == [number % 2 == 0 for number in range(count)]
        assert list(rows_of(session, _BY_ID, [])) == []


def test_values_are_read_as_their_types_say(database: Database) -> None:
    with database.write() as session:
        session.add_all([image(1), image(2, state="deregistered"), image(3, account="222222222222")])
    with database.read() as session:
        assert matching(session, _NAMES, **OWNER) == [("ami-0001", NOW, DEVICES)]
        (row,) = owned(session, Image, **OWNER)[:1]
        assert (row.created, row.devices, row.public, row.reboot_pending) == (NOW, DEVICES, False, False)
        assert owner(session, Image, "ami-0003") == ("222222222222", "us-east-1")
        assert (one(session, Image, "ami-0004"), owner(session, Image, "ami-0004")) == (None, None)


def test_a_table_and_a_value_stand_in_one_row(database: Database) -> None:
    with database.write() as session:
        session.add_all([image(1), image(2)])
        set_tags(session, "ami-0002", "image", **OWNER, tags={"Name": "two"})
    with database.read() as session:
        found = [(row.id, row.name, value) for row, value in rows_of(session, _WITH_TAG, ["ami-0001", "ami-0002"])]
        assert found == [("ami-0002", "image 2", "two")]


def test_who_only_reads_cannot_change_what_was_found(database: Database) -> None:
    with database.write() as session:
        session.add(image(1))
    with database.read() as session:
        found = one(session, Image, "ami-0001")
        assert found is not None
        with pytest.raises(AttributeError):
            found.name = "another"


def test_who_writes_finds_what_is_not_yet_flushed_and_may_change_it(database: Database) -> None:
    with database.write() as session:
        session.add(image(1))
        assert owner(session, Image, "ami-0001") == tuple(OWNER.values())
        (found,) = owned(session, Image, **OWNER)
        found.name = "another"
        set_tags(session, found.id, "image", **OWNER, tags={"a": "1", "b": "2"})
        set_tags(session, found.id, "image", **OWNER, tags={"b": "3", "c": "4"})
        assert tags_of(session, [found.id]) == {found.id: {"a": "1", "b": "3", "c": "4"}}
        assert matching(session, select(Image.name).where(Image.id == bindparam("id")), id=found.id) == [("another",)]
    with database.read() as session:
        assert [row.name for row in owned(session, Image, **OWNER)] == ["another"]


def test_a_session_that_is_used_again_sees_what_was_written_since(database: Database) -> None:
    names = select(Image.name).where(Image.id.in_(IDENTIFIERS))
    for name in ("first", "second"):
        with database.write() as session:
            session.merge(image(1, name=name))
        with database.read() as session:
            assert list(values_of(session, names, ["ami-0001"])) == [(name,)]
            with database.write() as other:
                other.get_one(Image, "ami-0001").name = "meanwhile"
            assert list(values_of(session, names, ["ami-0001"])) == [(name,)]
            assert session.get_one(Image, "ami-0001").name == name


def test_a_block_that_raises_leaves_nothing_to_the_next_reader(database: Database) -> None:
    def fail() -> None:
        with database.read() as session:
            session.scalars(select(Image)).all()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.write() as writer:
        writer.add(image(1))
    with database.read() as session:
        assert [row.id for row in session.scalars(select(Image))] == ["ami-0001"]
