"""Who else may use images and snapshots: accounts that their owner named."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base


class Permission(Base):
    """`grantee`, an account, may launch the image or make volumes of the snapshot `resource`, which is `account`'s."""

    __tablename__ = "permissions"

    resource: Mapped[str] = mapped_column(primary_key=True)
    grantee: Mapped[str] = mapped_column(primary_key=True, index=True)
    account: Mapped[str] = mapped_column(index=True)


def is_granted(session: Session, resource: str, grantee: str) -> bool:
    """Whether an account was named for it."""
    return session.get(Permission, (resource, grantee)) is not None


def grantees(session: Session, resource: str) -> list[str]:
    """The accounts that were named for it."""
    query = select(Permission.grantee).where(Permission.resource == resource).order_by(Permission.grantee)
    return list(session.scalars(query))


def granted_to(session: Session, accounts: Iterable[str]) -> set[str]:
    """What any of these accounts was named for."""
    return set(session.scalars(select(Permission.resource).where(Permission.grantee.in_(list(accounts)))))


def change(session: Session, resource: str, account: str, add: Iterable[str], remove: Iterable[str]) -> None:
    """Name accounts, and take others' names away."""
    there = set(grantees(session, resource))
    fresh = [grantee for grantee in dict.fromkeys(add) if grantee not in there]
    session.add_all(Permission(resource=resource, grantee=grantee, account=account) for grantee in fresh)
    session.flush()
    gone = list(remove)
    if gone:
        session.execute(delete(Permission).where(Permission.resource == resource, Permission.grantee.in_(gone)))


def revoke_all(session: Session, resource: str) -> None:
    """It is its owner's alone, or gone."""
    session.execute(delete(Permission).where(Permission.resource == resource))
