"""Who a role's trust policy lets assume it.

A careful reading: a statement allows only where everything in it is understood, and denies also where it is not. What
is understood: principals (AWS, Service, "*"), actions with wildcards, and a condition on sts:ExternalId alone.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

ASSUME_ROLE = "sts:AssumeRole"


def trusts(document: str, principals: frozenset[str], *, service: str = "", external_id: str | None = None) -> bool:
    """Whether a trust policy lets somebody assume the role who goes by `principals` (ARNs and account ids), or the
    `service` (ec2.amazonaws.com)."""
    statements = json.loads(document)["Statement"]
    if isinstance(statements, Mapping):
        statements = [statements]
    allowed = False
    for statement in statements:
        understood = not {"NotPrincipal", "NotAction"} & statement.keys()
        concerned = not understood or (
            _names(statement.get("Principal"), principals, service) and _includes(statement.get("Action"))
        )
        if not concerned:
            continue
        conditions = statement.get("Condition") or {}
        if statement["Effect"] == "Deny":
            return False
        allowed = allowed or (understood and _met(conditions, external_id))
    return allowed


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _names(principal: Any, principals: frozenset[str], service: str) -> bool:
    if principal == "*":
        return True
    if not isinstance(principal, Mapping):
        return False
    if service and service in _listed(principal.get("Service")):
        return True
    named = _listed(principal.get("AWS"))
    return bool(principals) and ("*" in named or not principals.isdisjoint(named))


def _includes(action: Any) -> bool:
    return any(fnmatch.fnmatchcase(ASSUME_ROLE.lower(), pattern.lower()) for pattern in _listed(action))


def _met(conditions: Any, external_id: str | None) -> bool:
    if not conditions:
        return True
    if not isinstance(conditions, Mapping) or set(conditions) != {"StringEquals"}:
        return False
    test = conditions["StringEquals"]
    if not isinstance(test, Mapping) or {key.lower() for key in test} != {"sts:externalid"}:
        return False
    return external_id is not None and external_id in _listed(next(iter(test.values())))
