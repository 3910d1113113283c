"""What a caller is told who may not: AWS's sentences, and EC2's encoded reason.

The reason is encrypted with a key of the cloud's and bound to the caller's account: only that account may have it
decoded (sts:DecodeAuthorizationMessage), and who sees a log learns nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import zlib
from collections.abc import Mapping, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from celaje.cloud.authority.facts import Facts
from celaje.cloud.aws.action import Caller
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.question import Question
from celaje.cloud.policy.decision import Decision, Source
from celaje.cloud.policy.documents import Statement

_NONCE = 12
_LONGEST = 10_240
_JSON_SERVICES = ("ssm", "organizations", "ebs", "servicequotas")


def reason(decision: Decision, action: str) -> str:
    """Why not, as the end of AWS's sentence; "" where AWS does not say: of another account's resource."""
    if decision.source is None:
        return ""
    word = decision.source.value
    article = "an" if word[0] in "aeiou" else "a"
    if decision.denied:
        return f" with an explicit deny in {article} {word}"
    return f" because no {word} allows the {action} action"


def sentence(caller: Caller, question: Question, decision: Decision, *, foreign: bool = False) -> str:
    """Who may not do what to what, and why."""
    why = "" if foreign and decision.source is Source.RESOURCE and not decision.denied else reason(
        decision, question.action
    )
    return f"User: {caller.arn} is not authorized to perform: {question.action} on resource: {question.resource}{why}"


def refused(
    service: str, caller: Caller, question: Question, decision: Decision, facts: Facts, key: bytes
) -> AwsError:
    """The refusal in the service's terms."""
    text = sentence(caller, question, decision)
    if service == "ec2":
        encoded = encode(key, caller.account, told(caller, question, decision, facts))
        return AwsError(
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. {text}. "
            f"Encoded authorization failure message: {encoded}",
            403,
        )
    if service in _JSON_SERVICES:
        return AwsError("AccessDeniedException", text, 403 if service == "ebs" else 400)
    return AwsError("AccessDenied", text, 403)


def told(caller: Caller, question: Question, decision: Decision, facts: Facts) -> Mapping[str, object]:
    """What DecodeAuthorizationMessage answers."""
    return {
        "allowed": decision.allowed,
        "explicitDeny": decision.denied,
        "matchedStatements": {"items": [_statement(each) for each in decision.matched]},
        "failures": {"items": []},
        "context": {
            "principal": {
                "id": caller.user_id,
                "name": caller.arn.rpartition("/")[2],
                "arn": caller.arn,
            },
            "action": question.action,
            "resource": question.resource,
            "conditions": {
                "items": [
                    {"key": key, "values": {"items": [{"value": value} for value in values]}}
                    for key, values in facts.shown().items()
                ]
            },
        },
    }


def _statement(statement: Statement) -> Mapping[str, object]:
    source = statement.source
    return {
        "statementId": statement.sid,
        "effect": "ALLOW" if statement.allows else "DENY",
        "principals": {"items": []},
        "actions": _items(source, "Action"),
        "notActions": _items(source, "NotAction"),
        "resources": _items(source, "Resource"),
        "notResources": _items(source, "NotResource"),
    }


def _items(source: Mapping[str, object], name: str) -> Mapping[str, Sequence[object]]:
    value = source.get(name)
    values = [] if value is None else value if isinstance(value, list) else [value]
    return {"items": [{"value": each} for each in values]}


def encode(key: bytes, account: str, content: Mapping[str, object]) -> str:
    """An encoded reason, for that account."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(key).encrypt(nonce, zlib.compress(msgspec.json.encode(content)), account.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")


def decode(key: bytes, account: str, text: str) -> str:
    """The reason as JSON. AwsError InvalidAuthorizationMessageException where it is none of the account's."""
    refusal = AwsError("InvalidAuthorizationMessageException", "The authorization message is not valid")
    try:
        sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(text) > _LONGEST or len(sealed) <= _NONCE:
            raise refusal
        return zlib.decompress(AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], account.encode())).decode()
    except (binascii.Error, ValueError, InvalidTag):
        raise refusal from None
