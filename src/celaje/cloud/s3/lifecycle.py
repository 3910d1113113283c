"""Lifecycles of buckets: Put-, Get- and DeleteBucketLifecycleConfiguration. What carries them out is in
reconcile/object_lifecycle.py.

A configuration is checked when it comes, so that what is kept can be carried out; it is told again in the form in which
it came (a prefix of the rule's own, a filter, an And), since clients compare.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3 import tags
from celaje.cloud.s3.access import bucket_of, moment
from celaje.cloud.s3.expiry import DAY
from celaje.cloud.s3.names import LONGEST_KEY, of_header
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import LifecycleFilter, LifecycleRule
from celaje.cloud.s3.store.refusals import invalid_request

if TYPE_CHECKING:
    from mypy_boto3_s3 import type_defs as s3

LIFECYCLE = "lifecycle"
"""The name of the controller that carries rules out."""

_MOST_RULES = 1000
_LONGEST_ID = 255
_MOST_NEWER = 100
_MINIMA = ("all_storage_classes_128K", "varies_by_storage_class")
_TRANSITIONS = ("Transition", "Transitions", "NoncurrentVersionTransition", "NoncurrentVersionTransitions")
_MATCHERS = ("Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan", "And")


class LifecycleActions:
    """What is asked of a bucket's lifecycle."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put_bucket_lifecycle_configuration(
        self, call: Call, request: s3.PutBucketLifecycleConfigurationRequestTypeDef
    ) -> Answer:
        bucket = bucket_of(self._store, call, request)
        given = request.get("LifecycleConfiguration", {}).get("Rules", ())
        if not given:
            raise _malformed("a configuration has at least one Rule")
        if len(given) > _MOST_RULES:
            raise invalid_request(f"A lifecycle configuration has at most {_MOST_RULES} rules")
        minimum = request.get("TransitionDefaultMinimumObjectSize") or _MINIMA[0]
        if minimum not in _MINIMA:
            raise invalid_request(f"TransitionDefaultMinimumObjectSize is one of {', '.join(_MINIMA)}")
        rules = tuple(_rule(each) for each in given)
        if len({rule.identifier for rule in rules}) < len(rules):
            raise _argument("Rule ID must be unique. Found same ID for more than one rule", "ID", "")
        self._store.buckets.set(bucket, lifecycle=rules, transition_minimum=minimum).result()
        call.wake(LIFECYCLE)
        return {"TransitionDefaultMinimumObjectSize": minimum}

    def get_bucket_lifecycle_configuration(
        self, call: Call, request: s3.GetBucketLifecycleConfigurationRequestTypeDef
    ) -> Answer:
        bucket = bucket_of(self._store, call, request)
        rules = bucket.settings.lifecycle
        if not rules:
            raise AwsError(
                "NoSuchLifecycleConfiguration",
                "The lifecycle configuration does not exist",
                404,
                {"BucketName": bucket.name},
            )
        return {
            "Rules": [_told(rule) for rule in rules],
            "TransitionDefaultMinimumObjectSize": bucket.settings.transition_minimum,
        }

    def delete_bucket_lifecycle(self, call: Call, request: s3.DeleteBucketLifecycleRequestTypeDef) -> Answer:
        bucket = bucket_of(self._store, call, request)
        self._store.buckets.set(bucket, lifecycle=()).result()
        return {}


# --- what is given ---


def _rule(given: Mapping[str, object]) -> LifecycleRule:
    for member in _TRANSITIONS:
        if given.get(member):
            raise AwsError(
                "NotImplemented",
                f"Lifecycle rules with a {member} are not implemented: there is one kind of storage here. Leave it out;"
                " Expiration, NoncurrentVersionExpiration and AbortIncompleteMultipartUpload are carried out",
                501,
                {"Header": member},
            )
    identifier = str(given.get("ID") or "") or secrets.token_urlsafe(36)
    if len(identifier) > _LONGEST_ID:
        raise _argument(f"ID length should not exceed allowed limit of {_LONGEST_ID}", "ID", identifier[:300])
    of_header("ID", identifier)
    if given.get("Status") not in ("Enabled", "Disabled"):
        raise _malformed("Status is Enabled or Disabled")
    wanted = _filter(given)
    days, date, markers = _expiration(given, wanted)
    noncurrent = _structure(given, "NoncurrentVersionExpiration")
    abortion = _structure(given, "AbortIncompleteMultipartUpload")
    if noncurrent is not None and noncurrent.get("NoncurrentDays") is None:
        raise _malformed("NoncurrentVersionExpiration has NoncurrentDays")
    newer = None if noncurrent is None else noncurrent.get("NewerNoncurrentVersions")
    if newer is not None and not (isinstance(newer, int) and 1 <= newer <= _MOST_NEWER):
        raise _argument(
            f"'NewerNoncurrentVersions' must be between 1 and {_MOST_NEWER}", "NewerNoncurrentVersions", str(newer)
        )
    if abortion is not None and (wanted.tags or wanted.larger_than is not None or wanted.smaller_than is not None):
        raise invalid_request("AbortIncompleteMultipartUpload cannot be specified with Tags or object sizes.")
    if noncurrent is None and abortion is None and days is None and date is None and markers is None:
        raise invalid_request("At least one action needs to be specified in a rule.")
    return LifecycleRule(
        identifier,
        given.get("Status") == "Enabled",
        wanted,
        days,
        date,
        markers,
        _days(noncurrent, "NoncurrentDays", "NoncurrentVersionExpiration"),
        newer if isinstance(newer, int) else None,
        _days(abortion, "DaysAfterInitiation", "AbortIncompleteMultipartUpload"),
    )


def _expiration(given: Mapping[str, object], wanted: LifecycleFilter) -> tuple[int | None, int | None, bool | None]:
    expiration = _structure(given, "Expiration")
    if expiration is None:
        return None, None, None
    if len([each for each in expiration.values() if each is not None]) != 1:
        raise _malformed("an Expiration has one of Days, Date and ExpiredObjectDeleteMarker")
    date = expiration.get("Date")
    when = None
    if isinstance(date, datetime.datetime):
        when = round(date.timestamp() * 1000)
        if when % round(DAY * 1000):
            raise _argument("'Date' must be at midnight GMT", "Date", date.isoformat())
    markers = expiration.get("ExpiredObjectDeleteMarker")
    if markers is not None and wanted.tags:
        raise invalid_request("ExpiredObjectDeleteMarker cannot be specified with tag-based filters.")
    return _days(expiration, "Days", "Expiration"), when, None if markers is None else bool(markers)


def _filter(given: Mapping[str, object]) -> LifecycleFilter:
    found = _structure(given, "Filter")
    if (found is None) == (given.get("Prefix") is None):
        raise _malformed("a rule has either a Filter or a Prefix")
    if found is None:
        return LifecycleFilter("Prefix", _text(given))
    named = [member for member in _MATCHERS if found.get(member) is not None]
    if len(named) > 1:
        raise _malformed("a Filter has one of Prefix, Tag, ObjectSizeGreaterThan, ObjectSizeLessThan and And")
    both = _structure(found, "And")
    if both is None:
        tag = _structure(found, "Tag")
        return _checked(LifecycleFilter("Filter", _text(found), _tags([tag] if tag else []), *_sizes(found)))
    listed = both.get("Tags")
    wanted = LifecycleFilter("And", _text(both), _tags(listed if isinstance(listed, list) else []), *_sizes(both))
    sizes = [each for each in _sizes(both) if each is not None]
    if (wanted.prefix is not None) + len(wanted.tags) + len(sizes) < 2:
        raise _malformed("And has at least two conditions")
    return _checked(wanted)


def _checked(wanted: LifecycleFilter) -> LifecycleFilter:
    if wanted.larger_than is not None and wanted.smaller_than is not None and wanted.smaller_than <= wanted.larger_than:
        raise invalid_request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'")
    return wanted


def _text(members: Mapping[str, object]) -> str | None:
    prefix = members.get("Prefix")
    if prefix is not None and len(str(prefix).encode()) > LONGEST_KEY:
        raise invalid_request(f"The maximum size of a prefix is {LONGEST_KEY}")
    return None if prefix is None else str(prefix)


def _tags(members: list[Mapping[str, object]]) -> tags.Tags:
    return tags.checked(
        ((str(each.get("Key", "")), str(each.get("Value", ""))) for each in members), tags.MOST_OF_OBJECT
    )


def _sizes(members: Mapping[str, object]) -> tuple[int | None, int | None]:
    sizes = []
    for member in ("ObjectSizeGreaterThan", "ObjectSizeLessThan"):
        size = members.get(member)
        if size is not None and (not isinstance(size, int) or size < 0):
            raise _argument(f"'{member}' must be zero or a positive integer", member, str(size))
        sizes.append(size if isinstance(size, int) else None)
    return sizes[0], sizes[1]


def _days(members: Mapping[str, object] | None, member: str, action: str) -> int | None:
    days = None if members is None else members.get(member)
    if days is None:
        return None
    if not isinstance(days, int) or not 0 < days < 1 << 31:
        raise _argument(f"'{member}' for {action} action must be a positive integer", member, str(days))
    return days


def _structure(given: Mapping[str, object], member: str) -> Mapping[str, object] | None:
    found = given.get(member)
    return found if isinstance(found, Mapping) else None


def _malformed(rule: str) -> AwsError:
    return AwsError(
        "MalformedXML",
        f"The XML you provided was not well-formed or did not validate against our published schema: {rule}",
    )


def _argument(message: str, name: str, value: str) -> AwsError:
    return AwsError("InvalidArgument", message, 400, {"ArgumentName": name, "ArgumentValue": value})


# --- what is told ---


def _told(rule: LifecycleRule) -> dict[str, object]:
    answer: dict[str, object] = {"ID": rule.identifier, "Status": "Enabled" if rule.enabled else "Disabled"}
    wanted = rule.filter
    conditions: dict[str, object] = {
        "Prefix": wanted.prefix,
        "ObjectSizeGreaterThan": wanted.larger_than,
        "ObjectSizeLessThan": wanted.smaller_than,
    }
    if wanted.form == "Prefix":
        answer["Prefix"] = wanted.prefix
    elif wanted.form == "And":
        answer["Filter"] = {"And": {**conditions, "Tags": tags.answered(wanted.tags) or None}}
    else:
        answer["Filter"] = {**conditions, "Tag": tags.answered(wanted.tags)[0] if wanted.tags else None}
    if rule.days is not None or rule.date is not None or rule.markers is not None:
        date = None if rule.date is None else moment(rule.date)
        answer["Expiration"] = {"Days": rule.days, "Date": date, "ExpiredObjectDeleteMarker": rule.markers}
    if rule.noncurrent_days is not None:
        answer["NoncurrentVersionExpiration"] = {
            "NoncurrentDays": rule.noncurrent_days,
            "NewerNoncurrentVersions": rule.newer,
        }
    if rule.abort_days is not None:
        answer["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule.abort_days}
    return answer
