"""When a bucket's policy is public ("Blocking public access: the meaning of public").

A policy is public unless each statement that allows names its principals, or holds what is asked to values that are
fixed: of an address, a source, an account, and so on.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from celaje.cloud.policy.grammar import conditions_of, listed, read, statements_of

_FIXING = (
    "aws:sourcearn",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:sourceowner",
    "aws:sourceaccount",
    "aws:userid",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "s3:dataaccesspointaccount",
    "s3:dataaccesspointarn",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
)
_POSITIVE = ("StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike")
_WIDEST_V4, _WIDEST_V6 = 8, 32  # bits of prefix below which a range of addresses is everybody


@functools.lru_cache(maxsize=1024)
def is_public(text: str) -> bool:
    """Whether a policy, which has been checked, gives something to everybody."""
    for statement in statements_of(read(text)):
        if statement["Effect"] != "Allow":
            continue
        principal = statement.get("Principal")
        everybody = "NotPrincipal" in statement or principal == "*"
        if isinstance(principal, dict) and "AWS" in principal:
            everybody = everybody or "*" in listed(principal["AWS"])
        fixed = any(
            _fixed(operator, key.lower(), values)
            for operator, keys in conditions_of(statement).items()
            for key, values in keys.items()
        )
        if everybody and not fixed:
            return True
    return False


def _fixed(operator: str, key: str, values: Sequence[str]) -> bool:
    if key == "aws:sourceip" and operator == "IpAddress":
        return all(_narrow(value) for value in values)
    if key not in _FIXING or operator.removeprefix("ForAnyValue:") not in _POSITIVE:
        return False
    return all("${" not in value and not _varies(value) for value in values)


def _varies(value: str) -> bool:
    account = value.split(":")[4] if value.startswith("arn:") and value.count(":") >= 5 else value
    return "*" in account or "?" in account


def _narrow(value: str) -> bool:
    network = ipaddress.ip_network(value, strict=False)
    return network.prefixlen >= (_WIDEST_V4 if network.version == 4 else _WIDEST_V6)
