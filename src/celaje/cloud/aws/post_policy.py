"""What a page's form may do: the policy that its maker signed (Amazon S3 API reference, "POST Policy").

    {"expiration": "2026-12-01T12:00:00Z",
     "conditions": [{"bucket": "pictures"}, ["starts-with", "$key", "user/"], ["content-length-range", 0, 1048576]]}

Signed is the document in base64, as the form has it: by version 4, as boto3 does where it is told to, or by version 2,
as it does otherwise. Every field of the form must be in a condition, and every condition hold; so nobody can do with
a form what its maker did not think of.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from celaje.cloud.aws.action import Caller
from celaje.cloud.aws.denials import Denial, Reason
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.identity import ANONYMOUS, Identities
from celaje.cloud.aws.presigned_v2 import ClaimedLink
from celaje.cloud.aws.signature import (
    ALGORITHM,
    UNSIGNED,
    Claimed,
    Verified,
    credential_of,
    credential_scope,
    not_expired,
    signing_key,
)

_SIGNED = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
SIGNING = (*_SIGNED, "x-amz-security-token")
"""Fields that are about the signature alone."""
_NOT_ASKED_FOR = ("file", "policy", "x-amz-signature", "awsaccesskeyid", "signature")


@dataclass(frozen=True, slots=True)
class Allowed:
    """How many bytes the file may have; `most` is None where the policy does not say."""

    least: int = 0
    most: int | None = None


def missing_field(name: str) -> AwsError:
    """A form lacks what it must have."""
    return AwsError(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields.",
        fields={"ArgumentName": name, "ArgumentValue": ""},
    )


def claimed_by_form(fields: Mapping[str, str]) -> Claimed | ClaimedLink | None:
    """The signature that a form has, None for one that nobody signed. AwsError InvalidArgument, Denial."""
    if "policy" not in fields:
        if "signature" in fields or "x-amz-signature" in fields:
            raise missing_field("policy")
        return None
    token = fields.get("x-amz-security-token")
    if "x-amz-signature" not in fields and "x-amz-algorithm" not in fields:
        for name, shown in (("awsaccesskeyid", "AWSAccessKeyId"), ("signature", "signature")):
            if not fields.get(name):
                raise missing_field(shown)
        return ClaimedLink(fields["awsaccesskeyid"], 0, fields["signature"], token)
    for name in _SIGNED:
        if not fields.get(name):
            raise missing_field(name)
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise Denial(Reason.INCOMPLETE, f"x-amz-algorithm only supports {ALGORITHM}")
    access_key, scope = credential_scope(fields["x-amz-credential"])
    if scope.service != "s3":
        raise Denial(Reason.INCOMPLETE, "the credential of a form must be for the service s3")
    return Claimed(access_key, scope, (), fields["x-amz-signature"], fields["x-amz-date"], True, 0, token)


def verify_form(
    fields: Mapping[str, str],
    signed: Claimed | ClaimedLink | None,
    identities: Identities,
    now: datetime.datetime,
    *,
    any_key: bool = False,
) -> Verified:
    """Who allowed the form. Denial if that cannot be believed. `any_key`: as in `signature.verify`."""
    if signed is None:
        return Verified(ANONYMOUS, UNSIGNED)
    credential = credential_of(signed, identities, any_key=any_key)
    if isinstance(credential, Caller):
        return Verified(credential, UNSIGNED)
    policy = fields["policy"].encode()
    if isinstance(signed, ClaimedLink):
        key = credential.secret.encode()
        computed = base64.b64encode(hmac.digest(key, policy, hashlib.sha1)).decode()
    else:
        key = signing_key(credential.secret, signed.scope)
        computed = hmac.digest(key, policy, "sha256").hex()
    if not hmac.compare_digest(computed.encode(), signed.signature.encode()):
        raise Denial(
            Reason.MISMATCH,
            access_key=signed.access_key,
            string_to_sign=fields["policy"],
            signature=signed.signature,
        )
    not_expired(credential, signed.access_key, now)
    return Verified(credential.caller, UNSIGNED, key)


def allowed(fields: Mapping[str, str], now: datetime.datetime) -> Allowed:
    """What the form's policy allows, if it allows this form: `fields` are the form's, with the bucket, and with the
    key as it will be. AwsError InvalidPolicyDocument; AccessDenied, which names the condition that does not hold."""
    document = _document(fields["policy"])
    for name in ("expiration", "conditions"):
        if name not in document:
            raise _invalid(f"Policy missing {name}.")
    if _moment(document["expiration"]) <= now:
        raise _denied("Policy expired.")
    conditions = document["conditions"]
    if not isinstance(conditions, list):
        raise _invalid("Invalid 'conditions' value: must be a List.")
    asked: set[str] = set()
    size = Allowed()
    for condition in conditions:
        operator, name, value = _condition(condition)
        if operator == "content-length-range":
            size = Allowed(int(name), int(value))
            continue
        asked.add(name)
        if not _holds(operator, fields.get(name), value, name == "content-type"):
            raise _denied(f'Policy Condition failed: ["{operator}", "${name}", {json.dumps(value)}]')
    extra = [
        name
        for name in fields
        if name not in asked and name not in _NOT_ASKED_FOR and not name.startswith("x-ignore-")
    ]
    if extra:
        raise _denied(f"Extra input fields: {', '.join(extra)[:200]}")
    return size


def _document(text: str) -> Mapping[str, object]:
    try:
        document = json.loads(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON: a policy is an object.")
    return document


def _moment(text: object) -> datetime.datetime:
    if isinstance(text, str):
        for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"):
            try:
                return datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC)
            except ValueError:
                continue
    raise _invalid(f"Invalid 'expiration' value: '{str(text)[:60]}'")


def _condition(condition: object) -> tuple[str, str, str]:
    """Operator, name (in lower case) and value; of a range, its two numbers."""
    if isinstance(condition, dict):
        if len(condition) != 1:
            raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        [(name, value)] = condition.items()
        if not isinstance(value, str):
            raise _invalid("Invalid Simple-Condition: value must be a string.")
        return "eq", name.lower(), value
    if not (isinstance(condition, list) and len(condition) == 3 and isinstance(condition[0], str)):
        raise _invalid("Invalid Condition: must be an object with one property, or a List of three.")
    operator = condition[0].lower()
    if operator == "content-length-range":
        numbers = [_number(each) for each in condition[1:]]
        return operator, str(numbers[0]), str(numbers[1])
    name, value = condition[1:]
    if operator not in ("eq", "starts-with") or not (isinstance(name, str) and isinstance(value, str)):
        raise _invalid(f"Invalid Condition: unknown operation '{operator[:40]}', or an argument that is no string.")
    if not name.startswith("$"):
        raise _invalid("Invalid Condition: a field's name begins with $.")
    return operator, name[1:].lower(), value


def _number(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise _invalid("Invalid content-length-range: the bounds are numbers of bytes.")
    return value


def _holds(operator: str, value: str | None, wanted: str, listed: bool) -> bool:
    if value is None:
        return False
    if operator == "eq":
        return value == wanted
    if listed:  # each of several types
        return all(each.strip().startswith(wanted) for each in value.split(","))
    return value.startswith(wanted)


def _invalid(what: str) -> AwsError:
    return AwsError("InvalidPolicyDocument", f"Invalid Policy: {what}")


def _denied(what: str) -> AwsError:
    return AwsError("AccessDenied", f"Invalid according to Policy: {what}", 403)
