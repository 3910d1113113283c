"""Statements that are made once.

SQLAlchemy takes longer to build a statement than SQLite to answer it. Those of nearly every request are built once, and
told by parameters what they look for.

    _TAGS = select(Tag.resource, Tag.key, Tag.value).where(Tag.resource.in_(IDENTIFIERS))

    for resource, key, value in values_of(session, _TAGS, resources): …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import BindParameter, Row, Select, bindparam, select
from sqlalchemy.orm import Session

from celaje.cloud.state.base import Resource

AT_ONCE = 500  # identifiers in one query: a database has a limit
IDENTIFIERS: BindParameter[list[str]] = bindparam("identifiers", expanding=True)

Columns = TypeVarTuple("Columns")
ResourceType = TypeVar("ResourceType", bound=Resource)

_OWNED: dict[type[Resource], Select[Any]] = {}


def rows_of(session: Session, statement: Select[*Columns], identifiers: Sequence[str]) -> Iterator[Row[*Columns]]:
    """The rows of `statement`, which names IDENTIFIERS; in its order for each AT_ONCE of them."""
    for at in range(0, len(identifiers), AT_ONCE):
        yield from session.execute(statement, {"identifiers": identifiers[at : at + AT_ONCE]})


def values_of(session: Session, statement: Select[*Columns], identifiers: Sequence[str]) -> Iterator[Row[*Columns]]:
    """`rows_of` for statements that name columns only: past the ORM, in half the time."""
    if session.autoflush:
        session.flush()
    connection = session.connection()
    for at in range(0, len(identifiers), AT_ONCE):
        yield from connection.execute(statement, {"identifiers": identifiers[at : at + AT_ONCE]})


def owned(session: Session, table: type[ResourceType], account: str, region: str) -> list[ResourceType]:
    """All that an account has of one table in a region."""
    if (statement := _OWNED.get(table)) is None:
        owner = (table.account == bindparam("account"), table.region == bindparam("region"))
        statement = _OWNED[table] = select(table).where(*owner)
    return list(session.scalars(statement, {"account": account, "region": region}))
