"""The controller of S3's lifecycles: it takes away what the rules of buckets say, when it is time.

It looks at all that rules are for at each midnight of the calendar (s3/expiry.py), and when rules were changed. What it
finds due is asked once more at the very moment of the change, with the rules of that moment: an object that was put
again, given other tags, or whose rule is gone stays. It remembers nothing but what is to be tried
again, so it does not matter where it is killed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.s3.expiry import DAY, Calendar, abortion, is_due
from celaje.cloud.s3.lifecycle import LIFECYCLE
from celaje.cloud.s3.store.group_commit import Pending
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Bucket, LifecycleRule
from celaje.cloud.s3.store.versions import Standing
from celaje.errors import CelajeError

log = logging.getLogger(__name__)

_AT_ONCE = 256  # changes that are under way
_LONGEST_SLEEP = 3600.0  # a host that slept, or whose clock was set, is looked at again after this many seconds
_SETTLE_SECONDS = 0.05  # after a midnight, so that it is over by any clock's rounding


class LifecycleController:
    """Carries the lifecycles of `store`'s buckets out; a day has `day` seconds."""

    name = LIFECYCLE

    def __init__(self, store: ObjectStore, day: float = DAY, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._calendar = Calendar(day)
        self._clock = clock
        self._retries = Retries()
        self._failed: set[str] = set()  # names of buckets that are to be tried again

    def step(self) -> float | None:
        """Take away what is due in every bucket; seconds until the next midnight, or until one that failed is tried
        again."""
        now = self._now()
        buckets = [bucket for bucket in self._store.buckets if bucket.settings.lifecycle]
        for gone in self._failed - {bucket.name for bucket in buckets}:
            self._retries.succeeded(gone)
            self._failed.discard(gone)
        for bucket in buckets:
            if self._retries.due(bucket.name):
                self._carry_out(bucket, now)
        until = (self._calendar.next_midnight(now) - self._now()) / 1000 + _SETTLE_SECONDS
        return sooner(min(max(until, _SETTLE_SECONDS), _LONGEST_SLEEP), self._retries.next())

    def _carry_out(self, bucket: Bucket, now: int) -> None:
        """One bucket's. Whatever goes wrong with it stops no other, which may have something to give back where the
        disk is full; it is tried again."""
        try:
            gone = self._expire(bucket, now) + self._abort(bucket, now)
        except Exception as error:
            pause = self._retries.failed(bucket.name)
            self._failed.add(bucket.name)
            if not isinstance(error, OSError | CelajeError | AwsError):
                log.exception("a mistake in celaje itself at the lifecycle of bucket %s", bucket.name)
            log.warning(
                "the lifecycle of bucket %s is not carried out: %s; tried again in %.1f s", bucket.name, error, pause
            )
            return
        self._retries.succeeded(bucket.name)
        self._failed.discard(bucket.name)
        if gone:
            log.info("lifecycle of bucket %s: %d versions and uploads went", bucket.name, gone)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _rules(self, bucket: Bucket) -> tuple[LifecycleRule, ...]:
        """The bucket's rules by now."""
        now = self._store.buckets.get(bucket.name)
        return now.settings.lifecycle if now is not None and now.number == bucket.number else ()

    def _expire(self, bucket: Bucket, now: int) -> int:
        def due(standing: Standing) -> bool:
            return is_due(self._rules(bucket), standing, self._calendar, now)

        gone = 0
        under_way: deque[Pending[bool]] = deque()
        for prefix in _prefixes(bucket.settings.lifecycle):
            for standing in self._store.objects.standings(bucket, prefix):
                if due(standing):
                    under_way.append(self._store.objects.expire(bucket, standing.version, due))
                if len(under_way) >= _AT_ONCE:
                    gone += under_way.popleft().result()
        return gone + sum(each.result() for each in under_way)

    def _abort(self, bucket: Bucket, now: int) -> int:
        gone = 0
        after, after_upload = b"", ""
        while True:
            page = self._store.uploads.page(bucket, after=after, after_upload=after_upload)
            for upload in page.entries:
                going = abortion(self._rules(bucket), upload, self._calendar)
                if going is None or going[0] > now:
                    continue
                try:
                    self._store.uploads.abort(bucket, upload).result()
                    gone += 1
                except AwsError as refused:
                    if refused.code != "NoSuchUpload":  # completed or aborted by its owner meanwhile
                        raise
            if page.last is None:
                return gone
            after, after_upload = page.entries[-1].key, page.entries[-1].identifier


def _prefixes(rules: tuple[LifecycleRule, ...]) -> list[bytes]:
    """Prefixes that have every key which some rule is for, none of them within another."""
    result: list[bytes] = []
    for prefix in sorted({(rule.filter.prefix or "").encode() for rule in rules if rule.enabled}):
        if not result or not prefix.startswith(result[-1]):
            result.append(prefix)
    return result
