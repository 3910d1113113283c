"""Documents made ready: read once, then each request is asked of the few statements that concern its action."""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from celaje.cloud.policy.conditions import BadValue, Condition, compiled
from celaje.cloud.policy.grammar import VERSIONS, PolicyError, conditions_of, listed, read, statements_of
from celaje.cloud.policy.patterns import Context, Match, glob, has_variable, resolved

_ACTIONS_REMEMBERED = 2048  # of one document; a request may make names up
_CHARACTERS_REMEMBERED = 4 << 20  # of all documents: tenants can write as many as they like
_LEAST_COUNTED = 100  # what the smallest document takes, as so many characters


class Grade(enum.IntEnum):
    """How plainly a document names somebody. What is said of an account its own policies hand on; what is said of a
    role its sessions have as far as they are not narrowed; what is said of a user, a session or everybody is had."""

    NOT = 0
    ACCOUNT = 1
    ROLE = 2
    PLAIN = 3


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever asks, by the names that a Principal may call them. `account` is "" for an anonymous request. `arn` is a
    user's, a role session's, or the root's; `role` the ARN of the session's role; `identifier` the unique id of the
    user, or of that role. `canonical` is S3's name of the account, `service` what acts for nobody but itself
    (ec2.amazonaws.com)."""

    account: str = ""
    arn: str = ""
    role: str = ""
    canonical: str = ""
    service: str = ""
    identifier: str = ""

    @property
    def is_root(self) -> bool:
        """Whether it is the account itself."""
        return bool(self.account) and self.arn == f"arn:aws:iam::{self.account}:root"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: may `action` (`ec2:RunInstances`) be done to `resource` (an ARN, `*` where there is none)?"""

    action: str
    resource: str
    context: Context


@dataclass(frozen=True, slots=True)
class _Texts:
    """Patterns of which one must match; `negated`: none may. Those with variables are made anew for each request."""

    matches: tuple[Match, ...]
    varying: tuple[str, ...]
    negated: bool
    everything: bool

    def hold(self, text: str, context: Context) -> bool:
        if self.everything:
            return not self.negated
        found = any(match(text) for match in self.matches)
        if not found:
            for each in self.varying:
                pattern = resolved(each, context)
                if pattern is not None and glob(pattern)(text):
                    found = True
                    break
        return found is not self.negated


def _texts(values: Sequence[str], *, negated: bool, variables: bool) -> _Texts:
    varying = tuple(value for value in values if variables and has_variable(value))
    matches = tuple(glob(value) for value in values if value not in varying)
    return _Texts(matches, varying, negated, "*" in values)


@dataclass(frozen=True, slots=True)
class _Principals:
    """Whom a statement is about; `negated`: everybody else."""

    names: frozenset[str]
    services: frozenset[str]
    negated: bool

    def grade(self, who: Who) -> Grade:
        grade = self._named(who)
        if self.negated:
            return Grade.PLAIN if grade is Grade.NOT else Grade.NOT
        return grade

    def _named(self, who: Who) -> Grade:
        names = self.names
        if "*" in names:
            return Grade.PLAIN
        if who.service:
            return Grade.PLAIN if who.service in self.services else Grade.NOT
        if not who.account:
            return Grade.NOT
        if who.identifier and who.identifier in names:
            return Grade.ROLE if who.role else Grade.PLAIN
        if who.arn in names and not who.is_root:
            return Grade.PLAIN
        if who.role and who.role in names:
            return Grade.ROLE
        account = (who.account, f"arn:aws:iam::{who.account}:root", who.canonical)
        return Grade.ACCOUNT if any(each and each in names for each in account) else Grade.NOT


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `sid` is "" where it has none; `number` is its place, from 1."""

    sid: str
    number: int
    allows: bool
    actions: _Texts
    resources: _Texts | None
    principals: _Principals | None
    condition: Condition | None
    source: Mapping[str, Any] = field(repr=False)

    def holds(self, asked: Asked) -> bool:
        """Whether resource and condition are the request's; its action is known to be."""
        if self.resources is not None and not self.resources.hold(asked.resource, asked.context):
            return False
        return self.condition is None or self.condition(asked.context)


class Document:
    """A policy. Threads may share it."""

    __slots__ = ("_by_action", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = tuple(statements)
        self._by_action: dict[str, tuple[Statement, ...]] = {}

    def denials(self) -> Document:
        """The statements that deny, alone."""
        return Document([each for each in self.statements if not each.allows])

    def concerning(self, asked: Asked) -> tuple[Statement, ...]:
        """The statements about the action, denials first."""
        found = self._by_action.get(asked.action)
        if found is None:
            action = asked.action.lower()
            found = tuple(each for each in self.statements if each.actions.hold(action, asked.context))
            found = tuple(sorted(found, key=lambda statement: statement.allows))
            if len(self._by_action) >= _ACTIONS_REMEMBERED:
                self._by_action = {}
            self._by_action[asked.action] = found
        return found

    def denial(self, asked: Asked, who: Who | None = None) -> Statement | None:
        """The statement that denies, None if none does. `who`: only where the document says whom it is about."""
        for statement in self.concerning(asked):
            if statement.allows:
                return None
            if _concerns(statement, who) is not Grade.NOT and statement.holds(asked):
                return statement
        return None

    def allowance(self, asked: Asked, who: Who | None = None) -> tuple[Grade, Statement | None]:
        """How plainly it is allowed, and by which statement; denials are not looked at."""
        best, by = Grade.NOT, None
        for statement in self.concerning(asked):
            if statement.allows:
                grade = _concerns(statement, who)
                if grade > best and statement.holds(asked):
                    best, by = grade, statement
                    if best is Grade.PLAIN:
                        break
        return best, by


def _concerns(statement: Statement, who: Who | None) -> Grade:
    if who is None or statement.principals is None:
        return Grade.PLAIN
    return statement.principals.grade(who)


Principals = tuple[tuple[str, str], ...]  # unique ids that stand for ARNs: (ARN, unique id)


class _Remembered:
    """Documents by their texts, of so many characters together: made ready, one takes fifty bytes and more for each."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, Principals], Document] = {}
        self._characters = 0
        self._lock = threading.Lock()

    def get(self, text: str, principals: Principals = ()) -> Document:
        known = self._documents.get((text, principals))
        if known is None:
            known = unremembered(text, principals)
            with self._lock:
                self._characters += len(text) + _LEAST_COUNTED
                if self._characters > _CHARACTERS_REMEMBERED:
                    self._documents, self._characters = {}, len(text) + _LEAST_COUNTED
                self._documents[text, principals] = known
        return known


document = _Remembered().get
"""A document made ready; the same text is read once, unless there are very many. `principals` stand for ARNs in it.
PolicyError if it is no policy."""


def unremembered(text: str, principals: Principals = ()) -> Document:
    """The same, of a text that comes once. PolicyError."""
    content = read(text)
    variables = content.get("Version") == VERSIONS[1]
    return Document(
        [_statement(each, number, variables, dict(principals)) for number, each in enumerate(statements_of(content), 1)]
    )


def _statement(source: Mapping[str, Any], number: int, variables: bool, ids: Mapping[str, str]) -> Statement:
    if not isinstance(source, dict) or source.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError("Syntax errors in policy.")
    try:
        resources = None
        if "Resource" in source or "NotResource" in source:
            resources = _texts(
                listed(source.get("Resource", source.get("NotResource"))),
                negated="NotResource" in source,
                variables=variables,
            )
        return Statement(
            sid=str(source.get("Sid") or ""),
            number=number,
            allows=source["Effect"] == "Allow",
            actions=_texts(
                [action.lower() for action in listed(source.get("Action", source.get("NotAction")))],
                negated="NotAction" in source,
                variables=False,
            ),
            resources=resources,
            principals=_principals(source, ids),
            condition=compiled(conditions_of(source), variables=variables),
            source=source,
        )
    except (BadValue, TypeError, AttributeError):
        raise PolicyError("Syntax errors in policy.") from None


def _principals(source: Mapping[str, Any], ids: Mapping[str, str]) -> _Principals | None:
    if "Principal" not in source and "NotPrincipal" not in source:
        return None
    given = source.get("Principal", source.get("NotPrincipal"))
    negated = "NotPrincipal" in source
    if given == "*":
        return _Principals(frozenset("*"), frozenset(), negated)
    if not isinstance(given, dict):
        raise PolicyError("Syntax errors in policy.")
    # Everybody is "*" of AWS alone: of another sort it is nobody's name.
    aws = frozenset(ids.get(name, name) for name in listed(given.get("AWS", [])))
    names = aws | (frozenset(listed(given.get("CanonicalUser", []))) - {"*"})
    return _Principals(names, frozenset(listed(given.get("Service", []))), negated)
