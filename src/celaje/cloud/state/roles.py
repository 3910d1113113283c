"""Identities of an account: users, groups, roles, instance profiles, and the policies that they carry. They have no
region."""

from __future__ import annotations

import datetime
import secrets
import string

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Structure

_LETTERS = string.ascii_uppercase + string.digits
_SESSION_KEY = "session"


class Identity:
    """The columns of users, roles, profiles and policies. `id` is AWS's unique id (AIDA…, AROA…, AIPA…, ANPA…); names
    are unique in an account whatever their case, which `folded` is for."""

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    folded: Mapped[str]
    path: Mapped[str] = mapped_column(default="/")
    created: Mapped[datetime.datetime]


class User(Identity, Base):
    """Somebody with own keys."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("account", "folded"),)


class Role(Identity, Base):
    """Somebody that others become for a while. `trust` is the policy document that says who may, and `trusted` whom its
    principals were when it was written, by their unique ids; `longest_session` is in seconds."""

    __tablename__ = "roles"
    __table_args__ = (UniqueConstraint("account", "folded"),)

    trust: Mapped[str]
    trusted: Mapped[tuple[tuple[str, str], ...] | None] = mapped_column(Structure(tuple[tuple[str, str], ...]))
    description: Mapped[str] = mapped_column(default="")
    longest_session: Mapped[int] = mapped_column(default=3600)


class Group(Identity, Base):
    """Users who have its policies beside their own."""

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("account", "folded"),)


class GroupMember(Base):
    """That a user is in a group, by their ids."""

    __tablename__ = "group_members"

    group: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column(primary_key=True, index=True)


class Boundary(Base):
    """The policy, by its ARN, that bounds what a user or role can have; `holder` is its id."""

    __tablename__ = "boundaries"

    holder: Mapped[str] = mapped_column(primary_key=True)
    arn: Mapped[str]


class InstanceProfile(Identity, Base):
    """What an instance is launched with to have a role; `role` is its id, "" for none yet."""

    __tablename__ = "instance_profiles"
    __table_args__ = (UniqueConstraint("account", "folded"),)

    role: Mapped[str] = mapped_column(default="", index=True)


class ManagedPolicy(Identity, Base):
    """A policy of the account's that identities attach by its ARN. `version` is the number of the one that counts,
    `versions` how many there ever were: a number is used once."""

    __tablename__ = "managed_policies"
    __table_args__ = (UniqueConstraint("account", "folded"),)

    description: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column(default=1)
    versions: Mapped[int] = mapped_column(default=1)
    updated: Mapped[datetime.datetime]


class PolicyVersion(Base):
    """A document of a managed policy's; `policy` is its id."""

    __tablename__ = "policy_versions"

    policy: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    document: Mapped[str]
    created: Mapped[datetime.datetime]


class InlinePolicy(Base):
    """A policy that is a part of one user, group or role; `holder` is its id."""

    __tablename__ = "inline_policies"

    holder: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str]


class AttachedPolicy(Base):
    """That a user, group or role has a managed policy, the account's or one of AWS's own, by its ARN."""

    __tablename__ = "attached_policies"

    holder: Mapped[str] = mapped_column(primary_key=True)
    arn: Mapped[str] = mapped_column(primary_key=True)


class IdentityTag(Base):
    """A tag of a user, role or profile; `holder` is its id."""

    __tablename__ = "identity_tags"

    holder: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ServerKey(Base):
    """A secret of this cloud's own. The one named session signs the credentials of role sessions."""

    __tablename__ = "server_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[bytes]


def new_unique_id(prefix: str) -> str:
    """A fresh unique id of IAM's, such as AROA3XFRBF535PLBIFPI4 for `AROA`."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(17))


def ensure_session_key(session: Session) -> None:
    """Make the key of role sessions, once in a cloud's life: at its first start, before it answers."""
    if session.get(ServerKey, _SESSION_KEY) is None:
        session.add(ServerKey(name=_SESSION_KEY, secret=secrets.token_bytes(32)))


def session_key(session: Session) -> bytes:
    """The key of role sessions."""
    return session.get_one(ServerKey, _SESSION_KEY).secret
