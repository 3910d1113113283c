"""Bringing the tables of an older celaje to what this one knows, by Alembic.

A revision is a file in versions/, named by its number: 0001_first.py. After tables have changed, `python -m
celaje.cloud.state.migrations MESSAGE` writes the next one, to be read and mended before it is committed; a test
compares what the revisions make with the tables.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, inspect, text

from celaje.cloud.state.tables import metadata
from celaje.errors import InputError

DIRECTORY = Path(__file__).parent


def head() -> str:
    """The revision that this celaje knows."""
    return max(path.name.partition("_")[0] for path in (DIRECTORY / "versions").glob("[0-9]*.py"))


def current(engine: Engine) -> str | None:
    """The revision that a database is at; None for one without tables."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found


def upgrade(engine: Engine, where: str) -> None:
    """Bring a database to `head`, a new one at once: then, and where it is there already, Alembic is not even imported.
    InputError for one that a newer celaje has made; `where` names it."""
    found = current(engine)
    if found == head():
        return
    if found is None:
        _make(engine)
        return
    if found > head():
        raise InputError(
            f"{where} was made by a newer celaje (revision {found}, and this one knows {head()}); use that one"
        )
    run_revisions(engine)


def _make(engine: Engine) -> None:
    """All tables as they are now, in one transaction."""
    with engine.execution_options(writes=True).begin() as connection:
        metadata().create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": head()})


def run_revisions(engine: Engine, to: str = "head") -> None:
    """Every revision that a database does not have, up to `to`, in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, to)
