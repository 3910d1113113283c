"""What a document must be to be taken, and the sentences with which AWS refuses it.

    IDENTITY   of users, groups, roles, sessions and boundaries: says resources, and names nobody
    TRUST      of roles, who may assume them: names somebody, and says no resources
    RESOURCE   of any resource: names somebody
    BUCKET     of buckets: names somebody, and says resources within the bucket; S3 has words of its own
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from celaje.cloud.policy import bucket_actions
from celaje.cloud.policy.conditions import BadDate, BadValue, compiled
from celaje.cloud.policy.patterns import glob
from celaje.errors import InputError

_TOP = {"Version", "Id", "Statement"}
_ELEMENTS = {
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
}
_EFFECTS = ("Allow", "Deny")
VERSIONS = ("2008-10-17", "2012-10-17")
_VENDOR = re.compile(r"[A-Za-z0-9\-.*?]+\Z")
_SID = re.compile(r"[A-Za-z0-9]*\Z")
_PRINCIPALS = {"AWS", "Service", "Federated", "CanonicalUser"}
_ACCOUNT = re.compile(r"[0-9]{12}\Z")
_CANONICAL = re.compile(r"[0-9a-f]{64}\Z")
# Names have no wildcards: nobody would match one, and a denial that has one would be of nobody.
_NAME = r"[\x21-\x29\x2b-\x3e\x40-\x7e]+"
_PRINCIPAL_ARN = re.compile(
    rf"arn:aws:(iam::[0-9]{{12}}:(root|(user|role)/{_NAME})|sts::[0-9]{{12}}:(assumed-role|federated-user)/{_NAME})\Z"
)
_PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "*")
_IAM_PATHS = (
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
)
# What is known of a request to S3. A denial under a condition that nothing is known of would never hold.
_S3_KEYS = (
    "delimiter", "locationconstraint", "max-keys", "prefix", "requestobjecttagkeys", "resourceaccount", "tlsversion",
    "versionid", "x-amz-acl", "x-amz-copy-source", "x-amz-grant-full-control", "x-amz-grant-read",
    "x-amz-grant-read-acp", "x-amz-grant-write", "x-amz-grant-write-acp", "x-amz-metadata-directive",
    "x-amz-object-ownership", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm", "x-amz-storage-class",
)  # fmt: skip
_S3_TAGS = ("s3:existingobjecttag/", "s3:requestobjecttag/")


class Kind(enum.Enum):
    IDENTITY = enum.auto()
    TRUST = enum.auto()
    RESOURCE = enum.auto()
    BUCKET = enum.auto()


class PolicyError(InputError):
    """A document that is no policy of its kind; the text is AWS's sentence."""


def read(text: str) -> dict[str, Any]:
    """The document as JSON. PolicyError if it is none, or says a name twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise PolicyError("Syntax errors in policy.")
        return found

    def no_constant(name: str) -> None:
        raise PolicyError("Syntax errors in policy.")

    try:
        document = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # half a pair of surrogates is no character
    except (ValueError, RecursionError):
        raise PolicyError("This policy contains invalid Json") from None
    if not isinstance(document, dict):
        raise PolicyError("Syntax errors in policy.")
    return document


def statements_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The statements; a single one may stand without a list. PolicyError if it is neither."""
    found = document.get("Statement") or []
    if not isinstance(found, dict | list):
        raise PolicyError("Syntax errors in policy.")
    return [found] if isinstance(found, dict) else list(found)


def listed(value: object) -> list[str]:
    """One text or a list of them, as a list. A null among resources is none of them, as at AWS. TypeError for anything
    else, which a policy that was not checked may have."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise TypeError(f"a policy has one text or a list of them, and not {value!r}")
    return [each for each in value if each is not None]


def conditions_of(statement: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Operator to key to values as texts. PolicyError if it is not that."""
    block = statement.get("Condition", {})
    if not isinstance(block, dict):
        raise PolicyError("Syntax errors in policy.")
    found: dict[str, dict[str, list[str]]] = {}
    for operator, keys in block.items():
        if not isinstance(keys, dict):
            raise PolicyError("Syntax errors in policy.")
        for key, values in keys.items():
            texts = values if isinstance(values, list) else [values]
            if not all(isinstance(each, str | bool | int | float) for each in texts):
                raise PolicyError("Syntax errors in policy.")
            found.setdefault(operator, {})[key] = [
                str(each).lower() if isinstance(each, bool) else str(each) for each in texts
            ]
    return found


def check(text: str, kind: Kind, *, bucket: str = "") -> None:
    """PolicyError where the document is no policy of that kind; of a bucket's policy, for that bucket."""
    if kind is Kind.BUCKET:
        _check_bucket(text, bucket)
        return
    document = read(text)
    wrong_date = _check_syntax(document)
    statements = statements_of(document)
    if kind is Kind.IDENTITY and document.get("Version") != VERSIONS[1]:
        raise PolicyError("Policy document must be version 2012-10-17 or greater.")
    # What AWS's older parser does not take, which comes next.
    effects = {statement["Effect"] for statement in statements}
    if wrong_date or not effects <= set(_EFFECTS) or any(map(_cut_short, statements)):
        raise PolicyError("The policy failed legacy parsing")
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if not all(_SID.match(sid) for sid in sids):
        raise PolicyError(
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression "
            "[0-9A-Za-z]*"
        )
    if len(set(sids)) < len(sids):
        raise PolicyError("Statement IDs (SID) in a single policy must be unique.")
    if not all(map(_actions, statements)):
        raise PolicyError("Policy statement must contain actions.")
    if kind is Kind.IDENTITY:
        for statement in statements:
            _check_resources(statement)
    for statement in statements:
        if kind is Kind.IDENTITY:
            _check_actions(statement)
            if not _resources(statement):
                raise PolicyError("Policy statement must contain resources.")
        elif kind is Kind.RESOURCE:
            _check_actions(statement)
            _check_principal(statement)
        else:
            _check_trust(statement)


def _cut_short(statement: Mapping[str, Any]) -> bool:
    """Whether a statement has an ARN with too few parts, or without its service."""
    arns = [each for each in _resources(statement) if ":" in each and each.split(":", 2)[1] in _PARTITIONS]
    return any(("::" in each and each.count(":") < 5) or each.split(":", 3)[2:3] == [""] for each in arns)


def _check_syntax(document: Mapping[str, Any]) -> bool:
    """PolicyError; returns whether a date of a condition is none."""
    wrong_date = False
    syntax = PolicyError("Syntax errors in policy.")
    if set(document) - _TOP or document.get("Version", VERSIONS[0]) not in VERSIONS:
        raise syntax
    statements = document.get("Statement")
    if not isinstance(document.get("Id", ""), str) or not isinstance(statements, dict | list) or not statements:
        raise syntax
    for statement in statements_of(document):
        if not isinstance(statement, dict) or set(statement) - _ELEMENTS:
            raise syntax
        effect = statement.get("Effect")
        if not isinstance(effect, str) or effect.capitalize() not in _EFFECTS:
            raise syntax
        if not isinstance(statement.get("Sid", ""), str):
            raise syntax
        for pair in (("Action", "NotAction"), ("Resource", "NotResource"), ("Principal", "NotPrincipal")):
            if set(pair) <= statement.keys():
                raise syntax
        for name in ("Action", "NotAction", "Resource", "NotResource"):
            if name in statement and not _is_texts(statement[name], nulls=name.endswith("Resource")):
                raise syntax
        try:
            compiled(conditions_of(statement), variables=document.get("Version") == VERSIONS[1])
        except BadDate:
            wrong_date = True
        except BadValue:
            raise syntax from None
    return wrong_date


def _is_texts(value: object, *, nulls: bool = False) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) or (nulls and each is None) for each in value)
    return isinstance(value, str)


def _actions(statement: Mapping[str, Any]) -> list[str]:
    return listed(statement.get("Action", statement.get("NotAction", [])))


def _resources(statement: Mapping[str, Any]) -> list[str]:
    return listed(statement.get("Resource", statement.get("NotResource", [])))


def _check_actions(statement: Mapping[str, Any]) -> None:
    actions = _actions(statement)
    if not actions:
        raise PolicyError("Policy statement must contain actions.")
    for action in actions:
        vendor, colon, name = action.partition(":")
        if action == "*":
            continue
        if not colon or not vendor:
            raise PolicyError("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
        if ":" in name:
            raise PolicyError("Actions/Condition can contain only one colon.")
        if not _VENDOR.match(vendor):
            raise PolicyError(f"Vendor {vendor[:100]} is not valid")


def _check_resources(statement: Mapping[str, Any]) -> None:
    """Of an identity's policy, which names nobody."""
    if "Principal" in statement or "NotPrincipal" in statement:
        raise PolicyError("Policy document should not specify a principal.")
    for resource in _resources(statement):
        if resource != "*":
            _check_arn(resource)


def _check_arn(resource: str) -> None:
    if ":" not in resource:
        raise PolicyError(f'Resource {resource[:200]} must be in ARN format or "*".')
    parts = resource.split(":", 5)
    if parts[1] not in _PARTITIONS:
        filled = ":".join([*parts[1:], *["*"] * (6 - len(parts))])
        raise PolicyError(f'Partition "{parts[1][:50]}" is not valid for resource "arn:{filled[:200]}".')
    if parts[0] not in ("arn", "*"):
        raise PolicyError(f'Resource {resource[:200]} must be in ARN format or "*".')
    if len(parts) < 3 or not parts[2]:
        raise PolicyError("Resource vendor must be fully qualified and cannot contain regexes.")
    if parts[2] == "iam" and len(parts) == 6:
        if parts[3] not in ("", "*"):
            raise PolicyError(f"IAM resource {resource[:200]} cannot contain region information.")
        path = parts[5]
        if not path.startswith(_IAM_PATHS) and "*" not in path.partition("/")[0] and path != "root":
            raise PolicyError(f'IAM resource path must either be "*" or start with {", ".join(_IAM_PATHS)}.')
    regional = parts[2] == "s3" and len(parts) == 6 and parts[3] not in ("", "*")
    if regional and not parts[5].startswith("accesspoint/"):
        raise PolicyError(f"Resource {resource[:200]} can not contain region information.")


def _check_trust(statement: Mapping[str, Any]) -> None:
    if "Resource" in statement or "NotResource" in statement:
        raise PolicyError("Has prohibited field Resource")
    _check_actions(statement)
    _check_principal(statement)
    if "Action" in statement and any(
        not action.lower().startswith("sts:") and action != "*" for action in _actions(statement)
    ):
        raise PolicyError("AssumeRole policy may only specify STS AssumeRole actions.")


def _check_principal(statement: Mapping[str, Any]) -> None:
    if not ("Principal" in statement or "NotPrincipal" in statement):
        raise PolicyError("Missing required field Principal")
    if wrong := _wrong_principal(statement):
        raise PolicyError(f"Invalid principal in policy: {wrong}")


def _wrong_principal(statement: Mapping[str, Any]) -> str:
    """What in a Principal is none, "" if all is well."""
    given = statement.get("Principal", statement.get("NotPrincipal"))
    if given == "*":
        return ""
    if not isinstance(given, dict) or not given:
        return f'"{str(given)[:100]}"'
    for sort, values in given.items():
        # An empty list beside others names nobody: modules of Terraform write one for what was not asked for.
        if sort not in _PRINCIPALS or not _is_texts(values) or values == "":
            return f'"{str(sort)[:50]}":"{str(values)[:200]}"'
        for value in listed(values):
            if sort == "AWS" and not (value == "*" or _ACCOUNT.match(value) or _PRINCIPAL_ARN.match(value)):
                return f'"AWS":"{value[:200]}"'
            if sort == "CanonicalUser" and not _CANONICAL.match(value):
                return f'"CanonicalUser":"{value[:200]}"'
    return "" if any(given.values()) else f'"{next(iter(given))}":"[]"'


def _check_bucket(text: str, bucket: str) -> None:
    if not text.lstrip().startswith("{"):
        raise PolicyError("Policies must be valid JSON and the first byte must be '{'")
    try:
        document = read(text)
    except PolicyError:
        raise PolicyError("Policies must be valid JSON and the first byte must be '{'") from None
    if unknown := set(document) - _TOP:
        raise PolicyError(f"Unknown field {min(unknown)[:100]}")
    if "Statement" not in document:
        raise PolicyError("Missing required field Statement")
    if document.get("Version", VERSIONS[0]) not in VERSIONS:
        raise PolicyError("The policy must contain a valid version string")
    statements = statements_of(document) if isinstance(document["Statement"], dict | list) else []
    if not statements:
        raise PolicyError("Could not parse the policy: Statement is empty!")
    sids = [str(each["Sid"]) for each in statements if isinstance(each, dict) and each.get("Sid")]
    if len(set(sids)) < len(sids):
        raise PolicyError("Statement IDs (SID) in a single policy must be unique.")
    for statement in statements:
        if not isinstance(statement, dict):
            raise PolicyError("Policies must be valid JSON and the first byte must be '{'")
        _check_of_bucket(statement, bucket, variables=document.get("Version") == VERSIONS[1])


def _check_of_bucket(statement: Mapping[str, Any], bucket: str, *, variables: bool) -> None:
    if unknown := set(statement) - _ELEMENTS:
        raise PolicyError(f"Unknown field {min(unknown)[:100]}")
    if "Effect" not in statement:
        raise PolicyError("Missing required field Effect")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise PolicyError(f"Invalid effect: {str(statement['Effect'])[:100]}")
    for names in (("Principal", "NotPrincipal"), ("Action", "NotAction"), ("Resource", "NotResource")):
        present = [name for name in names if name in statement]
        if not present:
            raise PolicyError(f"Missing required field {names[0]}")
        if len(present) > 1 or (names[0] != "Principal" and not _is_texts(statement[present[0]])):
            raise PolicyError(f"Policy has invalid {names[0].lower()}")
    if _wrong_principal(statement):
        raise PolicyError("Invalid principal in policy")
    actions = _actions(statement)
    for action in actions:
        vendor, colon, name = action.partition(":")
        if action != "*" and not (colon and vendor.lower() == "s3" and name and ":" not in name):
            raise PolicyError("Policy has invalid action")
    resources = _resources(statement)
    if not actions or not all(map(bucket_actions.named, actions)):
        raise PolicyError("Policy has invalid action")
    # A pattern may be of more than this bucket, but must be of it.
    if not resources or not all(glob(each.partition("/")[0])(f"arn:aws:s3:::{bucket}") for each in resources):
        raise PolicyError("Policy has invalid resource")
    if {"Action", "Resource"} <= statement.keys() and not _fit(actions, resources, bucket):
        raise PolicyError("Action does not apply to any resource(s) in statement")
    try:
        conditions = conditions_of(statement)
        compiled(conditions, variables=variables)
    except (BadValue, PolicyError):
        raise PolicyError("Policy has an invalid condition key") from None
    if not all(_is_key_of_s3(key.lower()) for keys in conditions.values() for key in keys):
        raise PolicyError("Policy has an invalid condition key")


def _fit(actions: Sequence[str], resources: Sequence[str], bucket: str) -> bool:
    """Whether each action is one that is done to some of the resources: to the bucket, or to objects in it."""
    possible: frozenset[str] = frozenset()
    for resource in resources:
        if glob(resource)(f"arn:aws:s3:::{bucket}"):
            possible |= bucket_actions.ON_BUCKETS
        if "/" in resource or "*" in resource:
            possible |= bucket_actions.ON_OBJECTS
    return all(possible & bucket_actions.named(action) for action in actions)


def _is_key_of_s3(key: str) -> bool:
    return key.startswith(("aws:", *_S3_TAGS)) or (key.startswith("s3:") and key[3:] in _S3_KEYS)
