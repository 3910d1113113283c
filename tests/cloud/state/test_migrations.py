"""Tables of an older celaje become this one's, and nobody touches a newer one's."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from celaje.cloud.state.database import Database
from celaje.cloud.state.migrations import current, head, run_revisions, upgrade
from celaje.cloud.state.tables import metadata
from celaje.errors import InputError


def test_the_revisions_make_the_tables_that_this_celaje_has(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'state.sqlite3'}")
    run_revisions(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata()) == []
    assert current(engine) == head()
    engine.dispose()


def test_a_new_database_is_at_the_last_revision(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'state.sqlite3'}")
    upgrade(engine, "it")
    assert current(engine) == head()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata()) == []
    engine.dispose()


def test_a_database_of_a_newer_celaje_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.sqlite3")
    database.prepare()
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match=r"state.sqlite3 was made by a newer celaje \(revision 9999"):
        database.prepare()
    database.close()
