"""The versions of keys are a list each, whatever is done to them in whatever order, restarts included (hypothesis)."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import ENABLED, SUSPENDED, Attributes, Bucket
from celaje.cloud.s3.store.versions import Standing

KEYS = st.sampled_from([b"a", b"a/b", b"b"])
SIZES = st.sampled_from([0, 1, 70_000])


@dataclass
class Key:
    """(id, body) of each version, the newest first; a delete marker has None for its body."""

    versions: list[tuple[str, bytes | None]] = field(default_factory=list)

    def body(self) -> bytes | None:
        return self.versions[0][1] if self.versions else None


class VersionsModel(RuleBasedStateMachine):
    """Each change is made to the store and to `keys`; then they are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="celaje-versions-"))
        self.store = ObjectStore(self.home)
        self.store.buckets.create("a-bucket", "1", "us-east-1").result()
        self.keys: dict[bytes, Key] = {}

    @property
    def bucket(self) -> Bucket:
        found = self.store.buckets.get("a-bucket")
        assert found is not None
        return found

    def _add(self, key: bytes, version: str, body: bytes | None) -> None:
        known = self.keys.setdefault(key, Key())
        if not version:
            known.versions = [each for each in known.versions if each[0]]
        assert version not in [each for each, _ in known.versions]
        known.versions.insert(0, (version, body))

    @rule(status=st.sampled_from([ENABLED, SUSPENDED]))
    def set_versioning(self, status: str) -> None:
        self.store.buckets.set(self.bucket, versioning=status).result()

    @rule(key=KEYS, size=SIZES, seed=st.integers(0, 255))
    def put(self, key: bytes, size: int, seed: int) -> None:
        body = bytes([seed]) * size
        receiver = self.store.receiver()
        receiver.take(body)
        made = self.store.objects.put(self.bucket, key, receiver.finish(), Attributes()).result().after
        assert made is not None
        assert bool(made.version) == (self.bucket.settings.versioning == ENABLED)
        self._add(key, made.version, body)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        marker = self.store.objects.delete(self.bucket, key).result().after
        if marker is None:
            assert not self.bucket.settings.versioning
            self.keys.pop(key, None)
        else:
            self._add(key, marker.version, None)

    @rule(key=KEYS, at=st.integers(0, 3))
    def delete_version(self, key: bytes, at: int) -> None:
        known = self.keys.get(key)
        if known is None or at >= len(known.versions):
            assert self.store.objects.delete(self.bucket, key, version="A" * 32).result().before is None
            return
        version, _ = known.versions.pop(at)
        gone = self.store.objects.delete(self.bucket, key, version=version).result().before
        assert gone is not None
        assert gone.version == version

    @rule(key=KEYS, at=st.integers(0, 3))
    def expire(self, key: bytes, at: int) -> None:
        """As a lifecycle does: the current one is deleted as by a client, others for good."""
        known = self.keys.get(key)
        if known is None or at >= len(known.versions):
            return
        seen: list[Standing] = []
        version, body = known.versions[at]
        found = self.store.objects.find(self.bucket, key, version)
        assert found is not None

        def due(standing: Standing) -> bool:
            seen.append(standing)
            return True

        assert self.store.objects.expire(self.bucket, found, due).result()
        assert seen[0].newer == at
        assert (seen[0].replaced is None) == (at == 0)
        assert seen[0].alone == (body is None and len(known.versions) == 1)
        if at or body is None:
            known.versions.pop(at)
            return
        marker = self.store.objects.marker(self.bucket, key)
        if marker is None:
            known.versions.pop(0)
        else:
            self._add(key, marker.version, None)

    @rule()
    def start_again(self) -> None:
        self.store.close()
        self.store = ObjectStore(self.home)

    @invariant()
    def is_as_expected(self) -> None:
        expected = [
            (key, version, at == 0, body)
            for key in sorted(self.keys)
            for at, (version, body) in enumerate(self.keys[key].versions)
        ]
        found = []
        after: bytes = b""
        after_version: str | None = None
        while True:  # in pages of two
            page = self.store.objects.versions_page(self.bucket, after=after, after_version=after_version, limit=2)
            found += [(each.key, each.version, newest, each.marker) for each, newest in page.entries]
            if page.last is None:
                break
            after, after_version = page.entries[-1][0].key, page.entries[-1][0].version
        assert found == [(key, version, newest, body is None) for key, version, newest, body in expected]
        for key, version, _, body in expected:
            if body is not None:
                self._same(key, version, body)
        there = [each.key for each in self.store.objects.page(self.bucket).entries]
        assert there == [key for key in sorted(self.keys) if self.keys[key].body() is not None]
        for key in there:
            self._same(key, None, self.keys[key].body() or b"")
        standings = [(each.version.key, each.newer, each.alone) for each in self.store.objects.standings(self.bucket)]
        assert standings == [
            (key, at, body is None and len(self.keys[key].versions) == 1)
            for key in sorted(self.keys)
            for at, (_, body) in enumerate(self.keys[key].versions)
        ]
        assert self.store.usage().size == sum(len(body or b"") for *_, body in expected)

    def _same(self, key: bytes, version: str | None, body: bytes) -> None:
        opened = self.store.objects.open(self.bucket, key, version)
        try:
            if opened.body is not None:
                assert opened.body == body
            else:
                pieces = [path.read_bytes()[at : at + count] for path, at, count in opened.pieces(0, len(body))]
                assert b"".join(pieces) == body
        finally:
            opened.close()

    def teardown(self) -> None:
        for key, known in self.keys.items():
            for version, _ in known.versions:
                self.store.objects.delete(self.bucket, key, version=version).result()
        self.store.buckets.delete(self.bucket).result()
        self.store.close()
        assert not [path for path in (self.home / "contents").rglob("*") if path.is_file()]
        shutil.rmtree(self.home)


TestVersionsModel = VersionsModel.TestCase
TestVersionsModel.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
