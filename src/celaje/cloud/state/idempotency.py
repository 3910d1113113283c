"""Answers of requests that carried an idempotency token, so that a repeated one gets what the first one got."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import msgspec
from sqlalchemy import delete
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base
from celaje.typed_data import from_msgpack

KEPT = datetime.timedelta(hours=24)  # as EC2 keeps them


class Idempotent(Base):
    """One answered request. `token` is the client's; `parameters` a digest of all others; `answer` as `answered` reads
    it. Written in the transaction of the request itself: there is never the one without the other."""

    __tablename__ = "idempotency"

    account: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(primary_key=True)  # ec2:RunInstances
    token: Mapped[str] = mapped_column(primary_key=True)
    parameters: Mapped[bytes]
    answer: Mapped[bytes]
    created: Mapped[datetime.datetime] = mapped_column(index=True)


def remembered(
    session: Session, account: str, region: str, operation: str, token: str, now: datetime.datetime
) -> Idempotent | None:
    """The earlier request of that token, None if there is none, or none any more."""
    earlier = session.get(Idempotent, (account, region, operation, token))
    return earlier if earlier is not None and earlier.created > now - KEPT else None


def answered(earlier: Idempotent) -> Mapping[str, object]:
    """What it was answered."""
    return from_msgpack(earlier.answer, dict[str, object])


def remember(
    session: Session,
    account: str,
    region: str,
    operation: str,
    token: str,
    parameters: bytes,
    answer: Mapping[str, object],
    now: datetime.datetime,
) -> None:
    """Keep an answer for a day; those that are older go."""
    session.execute(delete(Idempotent).where(Idempotent.created <= now - KEPT))
    session.add(
        Idempotent(
            account=account,
            region=region,
            operation=operation,
            token=token,
            parameters=parameters,
            answer=msgspec.msgpack.encode(dict(answer)),
            created=now,
        )
    )
