"""What the rules of a lifecycle say of an object at a moment: nothing here changes anything.

A rule's day is counted as S3 counts it: so many days after the moment, then on to the next midnight in UTC ("Lifecycle
configuration elements", Amazon S3 User Guide). How long a day is, is a setting; midnights are the multiples of it since
1970, so that a day of ten seconds shows in a minute what else takes days. All moments are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.utils import format_datetime
from urllib.parse import quote

from celaje.cloud.aws.action import Call
from celaje.cloud.s3.access import moment
from celaje.cloud.s3.store.records import Bucket, LifecycleFilter, LifecycleRule, StoredObject, Upload
from celaje.cloud.s3.store.versions import Standing

DAY = 86_400.0
"""Seconds that a day has unless a setting says something else."""


class Calendar:
    """How days are counted: each has `day` seconds."""

    def __init__(self, day: float = DAY) -> None:
        self._day = max(1, round(day * 1000))

    def after(self, since: int, days: int) -> int:
        """The midnight that ends `days` days after a moment."""
        return -(-(since + days * self._day) // self._day) * self._day

    def next_midnight(self, now: int) -> int:
        """The first midnight after a moment."""
        return (now // self._day + 1) * self._day


def calendar_of(call: Call) -> Calendar:
    """The calendar of the cloud that is asked."""
    return Calendar(call.settings.lifecycle_day_seconds)


def matches(wanted: LifecycleFilter, found: StoredObject) -> bool:
    """Whether a rule with that filter is for an object."""
    if not found.key.startswith((wanted.prefix or "").encode()):
        return False
    if wanted.larger_than is not None and found.size <= wanted.larger_than:
        return False
    if wanted.smaller_than is not None and found.size >= wanted.smaller_than:
        return False
    return not wanted.tags or set(wanted.tags) <= set(found.attributes.tags)


def expiry(rules: Iterable[LifecycleRule], found: StoredObject, calendar: Calendar) -> tuple[int, str] | None:
    """When an object that is the current version goes, and the rule that says so; None if none does."""
    first: tuple[int, str] | None = None
    for rule in _applying(rules, found):
        if rule.days is not None:
            at = calendar.after(found.modified, rule.days)
        elif rule.date is not None:
            at = rule.date
        else:
            continue
        if first is None or at < first[0]:
            first = at, rule.identifier
    return first


def is_due(rules: Iterable[LifecycleRule], standing: Standing, calendar: Calendar, now: int) -> bool:
    """Whether a version is to go by now."""
    found = standing.version
    if standing.newer:
        assert standing.replaced is not None
        replaced = standing.replaced
        return any(
            rule.noncurrent_days is not None
            and standing.newer > (rule.newer or 0)
            and calendar.after(replaced, rule.noncurrent_days) <= now
            for rule in _applying(rules, found)
        )
    if not found.marker:
        going = expiry(rules, found, calendar)
        return going is not None and going[0] <= now
    if not standing.alone:
        return False
    going = expiry(rules, found, calendar)
    return (going is not None and going[0] <= now) or any(rule.markers for rule in _applying(rules, found))


def abortion(rules: Iterable[LifecycleRule], upload: Upload, calendar: Calendar) -> tuple[int, str] | None:
    """When an upload that is not completed is aborted, and the rule that says so; None if none does."""
    found = [
        (calendar.after(upload.initiated, rule.abort_days), rule.identifier)
        for rule in rules
        if rule.enabled
        and rule.abort_days is not None
        and upload.key.startswith((rule.filter.prefix or "").encode())
    ]
    return min(found, default=None)


def _applying(rules: Iterable[LifecycleRule], found: StoredObject) -> Iterator[LifecycleRule]:
    return (rule for rule in rules if rule.enabled and matches(rule.filter, found))


def expiration_told(bucket: Bucket, found: StoredObject, calendar: Calendar) -> str | None:
    """x-amz-expiration of an answer about a current version."""
    rules = bucket.settings.lifecycle
    going = expiry(rules, found, calendar) if rules else None
    if going is None:
        return None
    date = format_datetime(moment(going[0]), usegmt=True)
    return f'expiry-date="{date}", rule-id="{quote(going[1])}"'


def abortion_told(bucket: Bucket, upload: Upload, calendar: Calendar) -> dict[str, object]:
    """AbortDate and AbortRuleId of an answer about an upload."""
    rules = bucket.settings.lifecycle
    going = abortion(rules, upload, calendar) if rules else None
    return {} if going is None else {"AbortDate": moment(going[0]), "AbortRuleId": going[1]}
