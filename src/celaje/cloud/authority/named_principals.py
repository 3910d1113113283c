"""Whom the principals of a policy are: users and roles by their unique ids, as AWS keeps them.

A trust policy or a bucket's is about whoever had the name when it was written. One that was deleted and made anew under
the same name is somebody else; one that was renamed is the same. Read back, the policy has the ARN that each has by
then, and the unique id of one that is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.policy.grammar import PolicyError, listed, read, statements_of
from celaje.cloud.state.accounts import Account
from celaje.cloud.state.roles import Identity, Role, User

Principals = tuple[tuple[str, str], ...]  # ARN and unique id
NOBODY = "-"  # stands for a user or role of an account that this cloud does not have
_ARN = re.compile(r"arn:aws:iam::(?P<account>[0-9]{12}):(?P<sort>user|role)(?P<path>/(?:.+/)?)(?P<name>[^/]+)")
_TABLES: dict[str, type[Identity]] = {"user": User, "role": Role}
_SAYING = ("Principal", "NotPrincipal")


def principals_of(session: Session, text: str) -> Principals:
    """Whom the users and roles are that a policy, which has been checked, names. PolicyError where an account of this
    cloud has no such one."""
    found: dict[str, str] = {}
    for name in _named(read(text)):
        match = _ARN.fullmatch(name)
        if match is None or name in found:
            continue
        table = _TABLES[match["sort"]]
        rows = select(table).where(table.account == match["account"], table.folded == match["name"].lower())
        row = session.scalars(rows).one_or_none()
        if row is not None and (row.path, row.name) == (match["path"], match["name"]):
            found[name] = row.id
        elif session.get(Account, match["account"]) is not None:
            raise PolicyError(f'Invalid principal in policy: "AWS":"{name[:200]}"')
        else:
            found[name] = NOBODY
    return tuple(found.items())


def shown(session: Session, text: str, principals: Principals) -> str:
    """The policy with the names that its principals have now."""
    now = {arn: _name_now(session, identifier) for arn, identifier in principals if identifier != NOBODY}
    if all(arn == name for arn, name in now.items()):
        return text
    content = read(text)
    for statement in statements_of(content):
        for member in _SAYING:
            given = statement.get(member)
            if isinstance(given, dict) and "AWS" in given:
                names = given["AWS"]
                given["AWS"] = (
                    now.get(names, names) if isinstance(names, str) else [now.get(name, name) for name in names]
                )
    return json.dumps(content)


def _named(content: Mapping[str, Any]) -> Iterator[str]:
    for statement in statements_of(content):
        for member in _SAYING:
            given = statement.get(member)
            if isinstance(given, dict):
                yield from listed(given.get("AWS", []))


def _name_now(session: Session, identifier: str) -> str:
    for sort, table in _TABLES.items():
        row = session.get(table, identifier)
        if row is not None:
            return f"arn:aws:iam::{row.account}:{sort}{row.path}{row.name}"
    return identifier
