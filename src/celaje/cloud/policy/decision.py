"""How documents of several kinds decide together (IAM User Guide, "Policy evaluation logic").

    1  a denial that holds, in whichever document, ends it
    2  in the resource's own account: what its policy says plainly of a user, of a session or of everybody is enough;
       otherwise the identity's policies must allow it, or for a session the resource's policy its role;
       and so must the permissions boundary, and the session's policies
    3  from another account: the resource's policy must allow it, and everything on the identity's side as well
    4  the root of an account has what its identity's side could give; nobody else has anything that is not allowed

A role is had by whom its trust policy names, and by nobody else, in its own account too: there point 2 begins with the
role's policy, and what an identity's policies say of sts:AssumeRole comes after it.

Boundaries and session policies narrow: they allow nothing by themselves.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from celaje.cloud.policy.documents import Asked, Document, Grade, Statement, Who


class Source(enum.Enum):
    """Which kind of document decided, in the words of AWS's refusals."""

    IDENTITY = "identity-based policy"
    RESOURCE = "resource-based policy"
    BOUNDARY = "permissions boundary"
    SESSION = "session policy"


@dataclass(frozen=True, slots=True)
class Held:
    """The identity's side: its own documents and its groups', the boundary (None: none), the session's (None: it is not
    narrowed). A boundary or a session of no document that allows leaves nothing."""

    identity: tuple[Document, ...] = ()
    boundary: tuple[Document, ...] | None = None
    session: tuple[Document, ...] | None = None


NOTHING = Held()


@dataclass(frozen=True, slots=True)
class Side:
    """The resource's side: the account that it belongs to, the policy that is attached to it, and what an access
    control list gives whoever asks. `trusts`: it is a role, which nobody has whom its policy does not name."""

    account: str
    policy: Document | None = None
    listed: Grade = Grade.NOT
    trusts: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`denied`: by a statement; otherwise what is not allowed was allowed by nothing. `source` says where the denial
    is, or what does not allow it. `matched` are the statements that it follows from."""

    allowed: bool
    denied: bool = False
    source: Source | None = None
    matched: tuple[Statement, ...] = field(default=(), repr=False)


def decide(asked: Asked, who: Who, held: Held, side: Side) -> Decision:
    """What comes of a question."""
    for source, documents in (
        (Source.IDENTITY, held.identity),
        (Source.BOUNDARY, held.boundary or ()),
        (Source.SESSION, held.session or ()),
    ):
        for each in documents:
            if (statement := each.denial(asked)) is not None:
                return Decision(False, True, source, (statement,))
    given, by = side.listed, None
    if side.policy is not None:
        if (statement := side.policy.denial(asked, who)) is not None:
            return Decision(False, True, Source.RESOURCE, (statement,))
        grade, by = side.policy.allowance(asked, who)
        given = max(given, grade)
    matched = (by,) if by is not None else ()
    if not who.account:
        return _given(given, matched)
    own = who.account == side.account
    if who.is_root:
        return Decision(True, matched=matched) if own and not side.trusts else _given(given, matched)
    if own and not (side.trusts and given is Grade.NOT):
        if given is Grade.PLAIN:
            return Decision(True, matched=matched)
        return _identity_side(asked, held, matched, by_role=given is Grade.ROLE)
    if given is Grade.NOT:
        return Decision(False, source=Source.RESOURCE)
    return _identity_side(asked, held, matched, by_role=False)


def _given(given: Grade, matched: tuple[Statement, ...]) -> Decision:
    if given is Grade.NOT:
        return Decision(False, source=Source.RESOURCE)
    return Decision(True, matched=matched)


def _identity_side(asked: Asked, held: Held, matched: tuple[Statement, ...], *, by_role: bool) -> Decision:
    statement = _allowing(held.identity, asked)
    if statement is None and not by_role:
        return Decision(False, source=Source.IDENTITY)
    if statement is not None:
        matched = (*matched, statement)
    for source, documents in ((Source.BOUNDARY, held.boundary), (Source.SESSION, held.session)):
        if documents is not None:
            statement = _allowing(documents, asked)
            if statement is None:
                return Decision(False, source=source)
            matched = (*matched, statement)
    return Decision(True, matched=matched)


def _allowing(documents: Sequence[Document], asked: Asked) -> Statement | None:
    for each in documents:
        grade, statement = each.allowance(asked)
        if grade is not Grade.NOT:
            return statement
    return None
