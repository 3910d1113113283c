"""Who calls: the names that policies may call them by, and the documents that they hold.

What was read is remembered until identities or policies change. The change counts before its request is answered, and
who reads notes the count first; so what an acknowledged request has changed is never overlooked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import select, union_all
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Caller, Narrowing
from celaje.cloud.policy.decision import NOTHING, Held
from celaje.cloud.policy.documents import Document, Who, document
from celaje.cloud.policy.grammar import PolicyError
from celaje.cloud.policy.managed import document_of
from celaje.cloud.state.roles import (
    AttachedPolicy,
    Boundary,
    GroupMember,
    IdentityTag,
    InlinePolicy,
    ManagedPolicy,
    PolicyVersion,
    Role,
    User,
)

_REMEMBERED = 1024  # callers; each session may have a document of its own
# In place of a document that cannot be read: what it was to deny is not known, so it denies everything.
_UNREADABLE = '{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}'


@dataclass(frozen=True, slots=True)
class Principal:
    """`name` is a user's, "" for others. `tags` are of the user, of the role, and of the session over those."""

    who: Who
    held: Held
    name: str
    kind: str
    tags: Mapping[str, str]


def canonical_user(account: str) -> str:
    """The 64 hexadecimal digits by which S3 names an account's owner."""
    return hashlib.sha256(f"canonical user of {account}".encode()).hexdigest()


class Identities:
    """Principals by callers. Threads may share it."""

    def __init__(self) -> None:
        self._changes = 0
        self._known: dict[Caller, tuple[int, Principal]] = {}

    def changed(self) -> None:
        """What was read before counts no more."""
        self._changes += 1

    def known(self, caller: Caller) -> Principal | None:
        """What is remembered of a caller, if it still counts."""
        found = self._known.get(caller)
        return found[1] if found is not None and found[0] == self._changes else None

    def of(self, session: Session, caller: Caller) -> Principal:
        """The principal that calls. The transaction has seen nothing yet, or is one that writes."""
        found = self._known.get(caller)
        changes = self._changes
        if found is not None and found[0] == changes:
            return found[1]
        principal = read_principal(session, caller)
        if len(self._known) >= _REMEMBERED:
            self._known = {}
        self._known[caller] = (changes, principal)
        return principal


def read_principal(session: Session, caller: Caller) -> Principal:
    """The same, past what is remembered."""
    account = caller.account
    canonical = canonical_user(account) if account else ""
    if not account:
        return Principal(Who(), NOTHING, "", "Anonymous", {})
    if caller.is_root:
        return Principal(Who(account, f"arn:aws:iam::{account}:root", canonical=canonical), NOTHING, "", "Account", {})
    holder, colon, _ = caller.user_id.partition(":")
    tags = identity_tags(session, holder)
    narrowing = caller.narrowing
    if colon:
        role = session.get(Role, holder)
        arn = f"arn:aws:iam::{account}:role{role.path}{role.name}" if role is not None else ""
        held = held_by(session, [holder], holder, narrowing) if role is not None else NOTHING
        who = Who(account, caller.arn, arn, canonical, identifier=holder if role is not None else "")
        return Principal(who, held, "", "AssumedRole", tags | dict(caller.tags))
    user = session.get(User, holder)
    if user is None:
        return Principal(Who(account, caller.arn, canonical=canonical), NOTHING, "", "User", {})
    groups = session.scalars(select(GroupMember.group).where(GroupMember.user == holder)).all()
    held = held_by(session, [holder, *groups], holder, narrowing)
    return Principal(Who(account, caller.arn, canonical=canonical, identifier=holder), held, user.name, "User", tags)


def identity_tags(session: Session, holder: str) -> dict[str, str]:
    """Key to value of the tags of a user, group, role, profile or policy, by its id."""
    rows = select(IdentityTag.key, IdentityTag.value).where(IdentityTag.holder == holder)
    return dict(session.execute(rows).all())


def held_by(session: Session, holders: list[str], bounded: str, narrowing: Narrowing | None = None) -> Held:
    """The documents of a user with groups, or of a role; the first may have a boundary."""
    inline = session.scalars(select(InlinePolicy.document).where(InlinePolicy.holder.in_(holders)))
    attached = session.scalars(select(AttachedPolicy.arn).where(AttachedPolicy.holder.in_(holders)))
    identity = (*map(_readable, inline.all()), *managed_documents(session, attached.all()))
    boundary = session.scalar(select(Boundary.arn).where(Boundary.holder == bounded))
    narrowed = None
    if narrowing is not None:
        narrowed = (*map(_readable, narrowing.documents), *managed_documents(session, narrowing.managed))
    return Held(identity, None if boundary is None else tuple(managed_documents(session, [boundary])), narrowed)


def managed_documents(session: Session, arns: Iterable[str]) -> list[Document]:
    """What managed policies say now, an account's or AWS's own. One of AWS's that this cloud does not know, or that is
    gone, allows nothing."""
    found, own = [], []
    for arn in dict.fromkeys(arns):
        text = document_of(arn)
        if text is not None:
            found.append(_readable(text))
        else:
            own.append(arn)
    return found + [_readable(text) for text in _own_documents(session, own)]


def _own_documents(session: Session, arns: list[str]) -> list[str]:
    wanted = []
    for arn in arns:
        parts = arn.split(":", 5)
        if len(parts) == 6 and parts[4].isdigit():
            wanted.append((parts[4], parts[5].rpartition("/")[2].lower()))
    if not wanted:
        return []
    current = (ManagedPolicy.id == PolicyVersion.policy) & (ManagedPolicy.version == PolicyVersion.number)
    queries = [
        select(PolicyVersion.document)
        .join(ManagedPolicy, current)
        .where(ManagedPolicy.account == account, ManagedPolicy.folded == name)
        for account, name in wanted
    ]
    return list(session.scalars(union_all(*queries)))


def _readable(text: str) -> Document:
    try:
        return document(text)
    except PolicyError:
        return document(_UNREADABLE)
