"""Statements that are made once.

SQLAlchemy takes longer to build a statement than SQLite to answer it, and longer to carry one out. Those of nearly
every request are built once, and told by parameters what they look for.

    _TAGS = select(Tag.resource, Tag.key, Tag.value).where(Tag.resource.in_(IDENTIFIERS))

    for resource, key, value in values_of(session, _TAGS, resources): …

Where the ORM has nothing to keep they go past it: SQLAlchemy says once what the statement is in SQL and how its columns
are read, and the driver does the rest. That is so for columns, and for all that a session which only reads
(Database.read) asks for: what it gives of a table are objects of the table's class that belong to no session. They are
to be read; to change one is an AttributeError. In a session that writes they are the session's own.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple, cast

from sqlalchemy import BindParameter, Executable, Select, bindparam, select
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session, class_mapper

from celaje.cloud.state.base import Base, Resource
from celaje.cloud.state.database import DIALECT, ReadSession

AT_ONCE = 512  # identifiers in one query: a database has a limit
IDENTIFIERS: BindParameter[list[str]] = bindparam("identifiers", expanding=True)

Columns = TypeVarTuple("Columns")
ResourceType = TypeVar("ResourceType", bound=Resource)
BaseType = TypeVar("BaseType", bound=Base)

_OWNED: dict[type[Resource], Select[Any]] = {}
_ONE: dict[type[Resource], Select[Any]] = {}
_OWNER: dict[type[Resource], Select[str, str]] = {}


def rows_of(session: Session, statement: Select[*Columns], identifiers: Sequence[str]) -> Iterator[tuple[*Columns]]:
    """The rows of `statement`, which names IDENTIFIERS; in its order for each AT_ONCE of them."""
    prepared = _prepared(statement)
    for at in range(0, len(identifiers), AT_ONCE):
        some = identifiers[at : at + AT_ONCE]
        if isinstance(session, ReadSession):
            yield from prepared.rows(session.driver(), {}, some)
        else:
            yield from cast("Iterable[tuple[*Columns]]", session.execute(statement, {IDENTIFIERS.key: some}))


def values_of(session: Session, statement: Select[*Columns], identifiers: Sequence[str]) -> Iterator[tuple[*Columns]]:
    """`rows_of` for statements that name columns only, which go past the ORM in sessions that write too."""
    prepared, driver = _prepared(statement), _driver(session)
    for at in range(0, len(identifiers), AT_ONCE):
        yield from prepared.rows(driver, {}, identifiers[at : at + AT_ONCE])


def matching(session: Session, statement: Select[*Columns], **values: str) -> list[tuple[*Columns]]:
    """The rows of `statement`, whose parameters have these values."""
    prepared = _prepared(statement)
    if prepared.values_only or isinstance(session, ReadSession):
        return prepared.rows(_driver(session), values)
    return list(cast("Iterable[tuple[*Columns]]", session.execute(statement, values)))


def owned(session: Session, table: type[ResourceType], account: str, region: str) -> list[ResourceType]:
    """All that an account has of one table in a region."""
    if (statement := _OWNED.get(table)) is None:
        owner = (table.account == bindparam("account"), table.region == bindparam("region"))
        statement = _OWNED[table] = select(table).where(*owner)
    return [row for (row,) in matching(session, statement, account=account, region=region)]


def one(session: Session, table: type[ResourceType], identifier: str) -> ResourceType | None:
    """The row of an identifier, None if there is none: as session.get."""
    if not isinstance(session, ReadSession):
        return session.get(table, identifier)
    if (statement := _ONE.get(table)) is None:
        statement = _ONE[table] = select(table).where(table.id == bindparam("identifier"))
    rows = matching(session, statement, identifier=identifier)
    return rows[0][0] if rows else None


def owner(session: Session, table: type[ResourceType], identifier: str) -> tuple[str, str] | None:
    """The account and the region of the resource of an identifier, None if there is none."""
    if (statement := _OWNER.get(table)) is None:
        statement = select(table.account, table.region).where(table.id == bindparam("identifier"))
        _OWNER[table] = statement
    rows = matching(session, statement, identifier=identifier)
    return rows[0] if rows else None


_Read = Callable[[Any], Any]


class _Sql:
    """A statement as the driver takes it: its text, and its parameters in their order."""

    def __init__(self, statement: Select[Any], size: int, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        given = dict(compiled.params) | ({IDENTIFIERS.key: [""] * size} if size else {})
        expanded = compiled.construct_expanded_state(given)
        self.text = expanded.statement
        self._names = tuple(expanded.positiontup or ())
        self._constants = dict(expanded.parameters)
        self._items = tuple(f"{IDENTIFIERS.key}_{number}" for number in range(1, size + 1))
        self._plain = self._names == self._items

    def parameters(self, values: Mapping[str, str], identifiers: Sequence[str]) -> Sequence[object]:
        if self._plain:
            return identifiers
        known = {**self._constants, **values, **dict(zip(self._items, identifiers, strict=True))}
        return [known[name] for name in self._names]


class _Prepared:
    """A statement past SQLAlchemy."""

    def __init__(self, statement: Select[*Columns], dialect: Dialect) -> None:
        self._dialect = dialect
        self._sizes: dict[int, _Sql] = {}
        columns: list[Any] = []
        self._parts: list[_Part] = []
        for description in statement.column_descriptions:
            expression, at = description["expr"], len(columns)
            if isinstance(expression, type):
                attributes = list(class_mapper(expression).column_attrs)
                columns += [attribute.columns[0] for attribute in attributes]
                self._parts.append(_Part(at, expression, tuple(attribute.key for attribute in attributes)))
            else:
                columns.append(expression)
                self._parts.append(_Part(at, None, ()))
        self._statement = statement.with_only_columns(*columns)
        self._reads: list[tuple[int, _Read]] = []
        for index, column in enumerate(columns):
            read = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if read is not None:
                self._reads.append((index, read))
        self._only = self._parts[0] if len(self._parts) == 1 and self._parts[0].table is not None else None
        self.values_only = all(part.table is None for part in self._parts)

    def rows(self, driver: sqlite3.Connection, values: Mapping[str, str], identifiers: Sequence[str] = ()) -> list[Any]:
        """The rows, as tuples."""
        size = len(identifiers)
        if size:
            # A statement for each power of two is enough: to ask for the last one again finds nothing more.
            size = 1 << (size - 1).bit_length()
            identifiers = [*identifiers, *[identifiers[-1]] * (size - len(identifiers))]
        sql = self._sizes.get(size)
        if sql is None:
            sql = self._sizes[size] = _Sql(self._statement, size, self._dialect)
        found = driver.execute(sql.text, sql.parameters(values, identifiers)).fetchall()
        reads = self._reads
        if not reads and self.values_only:
            return found
        only = self._only
        answer: list[Any] = []
        for row in found:
            read = list(row)
            for index, each in reads:
                read[index] = each(read[index])
            if only is not None:
                answer.append((only.made(read),))
            elif self.values_only:
                answer.append(tuple(read))
            else:
                answer.append(tuple(part.made(read) for part in self._parts))
        return answer


class _Part:
    """What a statement gives one of in each row: a table's object, or a value (`table` is None)."""

    def __init__(self, at: int, table: type[Base] | None, keys: tuple[str, ...]) -> None:
        self.at = at
        self.table = table
        self.keys = keys

    def made(self, row: Sequence[Any]) -> Any:
        if self.table is None:
            return row[self.at]
        made = self.table.__new__(self.table)
        made.__dict__.update(zip(self.keys, row[self.at :] if self.at else row, strict=False))
        return made


_known: weakref.WeakKeyDictionary[Executable, _Prepared] = weakref.WeakKeyDictionary()


def _prepared(statement: Select[*Columns]) -> _Prepared:
    known = _known.get(statement)
    if known is None:
        known = _known[statement] = _Prepared(statement, DIALECT)
    return known


def _driver(session: Session) -> sqlite3.Connection:
    """The driver's connection, in the session's transaction, with all that the session has changed."""
    if isinstance(session, ReadSession):
        return session.driver()
    if session.autoflush:
        session.flush()
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver
