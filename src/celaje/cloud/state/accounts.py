"""Accounts, and the keys that sign for them."""

from __future__ import annotations

import datetime
import secrets
import string

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base

_KEY_LETTERS = string.ascii_uppercase + "234567"
_SECRET_LETTERS = string.ascii_letters + string.digits + "+/"


class Account(Base):
    """`id` has 12 digits. The first one is the root account, made when the cloud first starts."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(default="")
    created: Mapped[datetime.datetime]


class AccessKey(Base):
    """`user` is the unique id of an IAM user, "" for the account's root. `active` False: signs nothing any more.
    `used` is when it last signed a request, None for never; `used_for` and `used_in` that one's service and region."""

    __tablename__ = "access_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[str]
    account: Mapped[str] = mapped_column(index=True)
    user: Mapped[str] = mapped_column(default="")
    active: Mapped[bool] = mapped_column(default=True)
    created: Mapped[datetime.datetime]
    used: Mapped[datetime.datetime | None]
    used_for: Mapped[str] = mapped_column(default="", server_default="")
    used_in: Mapped[str] = mapped_column(default="", server_default="")


def new_account(session: Session, name: str, now: datetime.datetime) -> tuple[Account, AccessKey]:
    """An account with a key for its root. Whoever calls has checked the name."""
    taken = set(session.scalars(select(Account.id)))
    while (number := f"{secrets.randbelow(10**12):012}") in taken or number.startswith("0"):
        pass
    account = Account(id=number, name=name, created=now)
    session.add(account)
    return account, new_access_key(session, number, "", now)


def new_access_key(session: Session, account: str, user: str, now: datetime.datetime) -> AccessKey:
    """A key that signs for `user` of `account`."""
    key = AccessKey(
        id="AKIA" + "".join(secrets.choice(_KEY_LETTERS) for _ in range(16)),
        secret="".join(secrets.choice(_SECRET_LETTERS) for _ in range(40)),
        account=account,
        user=user,
        created=now,
    )
    session.add(key)
    return key
