"""Access control lists: what grants give whoever asks, and how requests say them ("ACL overview").

Lists count only in buckets whose owner has not taken all objects (ObjectOwnership); by default they are off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import select

from celaje.cloud.authority.identities import canonical_user
from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.policy.documents import Grade
from celaje.cloud.s3.store.records import Attributes, Bucket, BucketSettings, Grant, Upload
from celaje.cloud.s3.store.refusals import access_denied, invalid_argument
from celaje.cloud.state.accounts import Account

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"
_PUBLIC = (ALL_USERS, AUTHENTICATED)
ENFORCED, PREFERRED, WRITER = "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"
FULL = "FULL_CONTROL"
PERMISSIONS = (FULL, "READ", "WRITE", "READ_ACP", "WRITE_ACP")
MOST_GRANTS = 100
# What each permission gives, on a bucket and on an object.
_ON_BUCKET = {
    "READ": ("s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"),
    "WRITE": ("s3:PutObject", "s3:DeleteObject"),
    "READ_ACP": ("s3:GetBucketAcl",),
    "WRITE_ACP": ("s3:PutBucketAcl",),
}
_ON_OBJECT = {
    "READ": ("s3:GetObject", "s3:GetObjectVersion"),
    "READ_ACP": ("s3:GetObjectAcl", "s3:GetObjectVersionAcl"),
    "WRITE_ACP": ("s3:PutObjectAcl", "s3:PutObjectVersionAcl"),
}
_HEADERS = {
    "GrantFullControl": FULL,
    "GrantRead": "READ",
    "GrantWrite": "WRITE",
    "GrantReadACP": "READ_ACP",
    "GrantWriteACP": "WRITE_ACP",
}
_LONGEST_GRANTEE = 300  # characters; white space may stand in several places
_GRANTEE = re.compile(r'\s*(id|uri|emailAddress)\s*=\s*"?([^",]+)"?\s*')

Grants = tuple[Grant, ...]


def counts(settings: BucketSettings) -> bool:
    """Whether lists are looked at in a bucket."""
    return settings.ownership != ENFORCED


def grade_of(call: Call, action: str, grants: Grants, settings: BucketSettings, *, of_object: bool) -> Grade:
    """What a list gives whoever calls."""
    table = _ON_OBJECT if of_object else _ON_BUCKET
    ignored = "IgnorePublicAcls" in (settings.blocked or ())
    canonical = canonical_user(call.account) if call.account else ""
    best = Grade.NOT
    for grant in grants:
        permissions = table if grant.permission == FULL else (grant.permission,)
        if not any(action in table.get(permission, ()) for permission in permissions):
            continue
        if grant.grantee in _PUBLIC:
            if ignored or (grant.grantee == AUTHENTICATED and not call.account):
                continue
            best = max(best, Grade.PLAIN if grant.grantee == ALL_USERS else Grade.ACCOUNT)
        elif canonical and grant.grantee == canonical:
            best = max(best, Grade.ACCOUNT)
    return best


def owners(account: str) -> Grants:
    """The list of what its owner alone has."""
    return (Grant(canonical_user(account), FULL),)


def is_public(grants: Grants) -> bool:
    """Whether a list gives something to everybody."""
    return any(grant.grantee in _PUBLIC for grant in grants)


def canned(name: str, owner: str, bucket_owner: str) -> Grants:
    """The list that a name stands for. InvalidArgument."""
    own = owners(owner)
    more: dict[str, Grants] = {
        "private": (),
        "public-read": (Grant(ALL_USERS, "READ"),),
        "public-read-write": (Grant(ALL_USERS, "READ"), Grant(ALL_USERS, "WRITE")),
        "authenticated-read": (Grant(AUTHENTICATED, "READ"),),
        "bucket-owner-read": () if owner == bucket_owner else (Grant(canonical_user(bucket_owner), "READ"),),
        "bucket-owner-full-control": () if owner == bucket_owner else owners(bucket_owner),
        "log-delivery-write": (Grant(LOG_DELIVERY, "WRITE"), Grant(LOG_DELIVERY, "READ_ACP")),
    }
    if name not in more:
        raise invalid_argument("x-amz-acl", name[:100], "")
    return own + more[name]


def requested(call: Call, request: Mapping[str, object], owner: str, bucket_owner: str) -> Grants | None:
    """The list that a request gives, by name, by headers or whole; None if it gives none. InvalidArgument,
    MalformedACLError, InvalidRequest, UnresolvableGrantByEmailAddress."""
    name = request.get("ACL")
    headers = [(member, str(request[member])) for member in _HEADERS if request.get(member) is not None]
    if name is not None and headers:
        raise AwsError("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if name is not None:
        return canned(str(name), owner, bucket_owner)
    whole = request.get("AccessControlPolicy")
    given = whole.get("Grants") if isinstance(whole, Mapping) and not headers else None
    members = given if isinstance(given, list) else []
    # Before each of them is looked up.
    if len(members) + sum(text.count(",") + 1 for _, text in headers) > MOST_GRANTS:
        raise AwsError("MalformedACLError", f"An access control list has at most {MOST_GRANTS} grants")
    found: list[Grant] = []
    for member, text in headers:
        for each in text.split(","):
            match = _GRANTEE.fullmatch(each) if len(each) <= _LONGEST_GRANTEE else None
            if match is None:
                raise invalid_argument(member, text[:200], "Argument format not recognized")
            found.append(_grant(call, match[1], match[2], _HEADERS[member]))
    if not headers and not isinstance(whole, Mapping):
        return None
    found += [_member(call, one) for one in members]
    return tuple(dict.fromkeys(found))


def _member(call: Call, grant: Mapping[str, object]) -> Grant:
    grantee = grant.get("Grantee")
    permission = str(grant.get("Permission") or "")
    if not isinstance(grantee, Mapping) or permission not in PERMISSIONS:
        raise AwsError(
            "MalformedACLError", "The XML you provided was not well-formed or did not validate against our schema"
        )
    for name, word in (("ID", "id"), ("URI", "uri"), ("EmailAddress", "emailAddress")):
        if grantee.get(name):
            return _grant(call, word, str(grantee[name]), permission)
    raise AwsError("MalformedACLError", "Each grant names its grantee by ID or URI")


def _grant(call: Call, word: str, value: str, permission: str) -> Grant:
    if word == "uri":
        if value not in (*_PUBLIC, LOG_DELIVERY):
            raise invalid_argument("uri", value[:200], "Invalid group uri")
        return Grant(value, permission)
    if word == "emailAddress":
        raise AwsError(
            "UnresolvableGrantByEmailAddress", "The e-mail address you provided does not match any account on record."
        )
    with call.reading() as session:
        known = {canonical_user(account) for account in session.scalars(select(Account.id))}
    if value not in known:
        raise invalid_argument("id", value[:200], "Invalid id")
    return Grant(value, permission)


def of_new_object(call: Call, bucket: Bucket, request: Mapping[str, object]) -> tuple[str, Grants | None]:
    """The owner ("": the bucket's) and the list of an object that is put. AccessControlListNotSupported,
    AccessDenied."""
    settings = bucket.settings
    acl = request.get("ACL")
    if not counts(settings):
        gives = any(request.get(member) is not None for member in _HEADERS)
        if gives or acl not in (None, "bucket-owner-full-control"):
            raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
        return "", None
    # What nobody signed belongs to the bucket's owner.
    foreign = call.account not in ("", bucket.account)
    if settings.ownership == PREFERRED and acl == "bucket-owner-full-control":
        foreign = False
    owner = call.account if foreign else bucket.account
    grants = requested(call, request, owner, bucket.account)
    if grants is not None:
        refuse_public(settings, grants)
        if grants == owners(owner):
            grants = None
    return call.account if foreign else "", grants


def refuse_public(settings: BucketSettings, grants: Grants) -> None:
    """AccessDenied for a list that gives to everybody where the public access block is against it."""
    if "BlockPublicAcls" in (settings.blocked or ()) and is_public(grants):
        raise access_denied()


def owner_of_object(bucket: Bucket, attributes: Attributes) -> str:
    """The account that an object belongs to: its bucket's, where lists do not count."""
    return attributes.owner if attributes.owner and counts(bucket.settings) else bucket.account


def initiator_of(bucket: Bucket, upload: Upload) -> dict[str, str]:
    """Whoever began an upload: an account as owners are told, a user or a session by its ARN."""
    arn = upload.plan.initiator
    if arn and not arn.endswith(":root"):
        return {"ID": arn, "DisplayName": arn.rpartition("/")[2]}
    account = arn.split(":")[4] if arn else upload.plan.attributes.owner or bucket.account
    return {"ID": canonical_user(account)}


def answered(owner: str, grants: Grants | None) -> dict[str, object]:
    """A list as GetBucketAcl and GetObjectAcl answer it."""
    return {
        "Owner": {"ID": canonical_user(owner)},
        "Grants": [
            {"Grantee": _grantee(grant.grantee), "Permission": grant.permission}
            for grant in (grants if grants is not None else owners(owner))
        ],
    }


def _grantee(grantee: str) -> dict[str, str]:
    if grantee.startswith("http"):
        return {"Type": "Group", "URI": grantee}
    return {"Type": "CanonicalUser", "ID": grantee}


