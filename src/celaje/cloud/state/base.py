"""What all tables share: the declarative base, and the types of columns."""

from __future__ import annotations

import datetime
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import BigInteger, Index, LargeBinary, String, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from celaje.typed_data import json_decoder

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)

StructType = TypeVar("StructType")


class Moment(TypeDecorator[datetime.datetime]):
    """A point in time, aware and in UTC, kept as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime.datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class Structure(TypeDecorator[StructType], Generic[StructType]):
    """A msgspec type, such as a Struct or a list of them, kept as JSON: for what is read and written whole and never
    looked for. Replace it, do not change it in place."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, of: type[StructType]) -> None:
        super().__init__()
        self.of = of
        self._decoder = json_decoder(of)
        self._encoder = msgspec.json.Encoder()

    def process_bind_param(self, value: StructType | None, dialect: Dialect) -> bytes | None:
        return None if value is None else self._encoder.encode(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> StructType | None:
        return None if value is None else self._decoder.decode(value)


class Base(DeclarativeBase):
    """Of every table."""

    type_annotation_map = {datetime.datetime: Moment, str: String}  # noqa: RUF012  SQLAlchemy reads it so

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        table = cls.__table__
        if issubclass(cls, Resource) and isinstance(table, Table):
            # What nearly every request asks for: all of one kind that an account has in a region.
            Index(f"ix_{table.name}_owner", table.columns.account, table.columns.region)


class Resource:
    """The columns of whatever an account owns in a region: its identifier (`i-…`), its owner, and when it was made.
    A table's class is `class Volume(Resource, Base)`."""

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str]
    region: Mapped[str]
    created: Mapped[datetime.datetime]
