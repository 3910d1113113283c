"""A bucket behaves as a dictionary does, whatever is done to it in whatever order (hypothesis)."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

KEYS = st.sampled_from(["a", "a/", "a/b", "a//b", "../a", "é/b", "b c", "z" * 900]) | st.text(
    # XML has no control characters, so no client can name such keys in a body (nor be told of them in one).
    st.characters(exclude_categories=["Cs", "Cc", "Cn"]),
    min_size=1,
    max_size=5,
)
SIZES = st.sampled_from([0, 1, 1000, 65_536, 65_537, 200_000])
NAMES = (f"model-{number}" for number in itertools.count())


class BucketModel(RuleBasedStateMachine):
    """Each change is made to a bucket and to `expected`; then they are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="celaje-s3-"))
        self.expected: dict[str, bytes] = {}
        self.served = Served(self.home)
        self.served.__enter__()
        self.client = client_of(self.served.endpoint)

    @initialize()
    def make(self) -> None:
        self.bucket = next(NAMES)
        self.client.create_bucket(Bucket=self.bucket)

    @rule(key=KEYS, size=SIZES, seed=st.integers(0, 255))
    def put(self, key: str, size: int, seed: int) -> None:
        self.expected[key] = bytes([seed]) * size
        self.client.put_object(Bucket=self.bucket, Key=key, Body=self.expected[key])

    @rule(key=KEYS, size=SIZES)
    def put_in_parts(self, key: str, size: int) -> None:
        names = {"Bucket": self.bucket, "Key": key}
        upload = self.client.create_multipart_upload(**names)["UploadId"]  # type: ignore[arg-type]
        body = b"p" * size
        etag = self.client.upload_part(**names, UploadId=upload, PartNumber=7, Body=body)["ETag"]
        parts = {"Parts": [{"PartNumber": 7, "ETag": etag}]}
        self.client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload=parts)  # type: ignore[arg-type]
        self.expected[key] = body

    @rule(key=KEYS)
    def give_up_parts(self, key: str) -> None:
        upload = self.client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        self.client.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x")
        self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    @rule(key=KEYS)
    def put_if_absent(self, key: str) -> None:
        if key in self.expected:
            with refused("PreconditionFailed", 412):
                self.client.put_object(Bucket=self.bucket, Key=key, Body=b"absent", IfNoneMatch="*")
        else:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=b"absent", IfNoneMatch="*")
            self.expected[key] = b"absent"

    @rule(source=KEYS, key=KEYS)
    def copy(self, source: str, key: str) -> None:
        def copied() -> None:
            self.client.copy_object(
                Bucket=self.bucket,
                Key=key,
                CopySource={"Bucket": self.bucket, "Key": source},
                MetadataDirective="REPLACE",
            )

        if source in self.expected:
            copied()
            self.expected[key] = self.expected[source]
        else:
            with refused("NoSuchKey", 404):
                copied()

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4, unique=True))
    def delete(self, keys: list[str]) -> None:
        if len(keys) == 1:
            self.client.delete_object(Bucket=self.bucket, Key=keys[0])
        else:
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys]})
        for key in keys:
            self.expected.pop(key, None)

    @rule(key=KEYS, first=st.integers(0, 70_000), length=st.integers(1, 70_000))
    def get_range(self, key: str, first: int, length: int) -> None:
        body = self.expected.get(key)
        text = f"bytes={first}-{first + length - 1}"
        if body is None or first >= len(body):
            with refused("NoSuchKey" if body is None else "InvalidRange"):
                self.client.get_object(Bucket=self.bucket, Key=key, Range=text)
        else:
            answer = self.client.get_object(Bucket=self.bucket, Key=key, Range=text)
            assert answer["Body"].read() == body[first : first + length]

    @rule(prefix=st.sampled_from(["", "a", "a/", "é"]), size=st.integers(1, 4))
    def list_rolled_up(self, prefix: str, size: int) -> None:
        keys, prefixes = [], []
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"PageSize": size}
        )
        for page in pages:
            keys += [each["Key"] for each in page.get("Contents", [])]
            prefixes += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        begin = [key for key in self.expected if key.startswith(prefix)]
        rests = {key: key[len(prefix) :] for key in begin}
        assert keys == in_order(key for key in begin if "/" not in rests[key])
        assert prefixes == in_order({prefix + rests[key].split("/")[0] + "/" for key in begin if "/" in rests[key]})

    @rule()
    def start_again(self) -> None:
        self.client.close()
        self.served.__exit__(None, None, None)
        self.served = Served(self.home)
        self.served.__enter__()
        self.client = client_of(self.served.endpoint)

    @invariant()
    def is_as_expected(self) -> None:
        if not hasattr(self, "bucket"):
            return
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        assert [each["Key"] for each in found] == in_order(self.expected)
        for each in found:
            body = self.expected[each["Key"]]
            assert each["Size"] == len(body)
            if "-" not in each["ETag"]:
                assert each["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        assert self.served.store.usage().size == sum(map(len, self.expected.values()))

    def teardown(self) -> None:
        for key, body in self.expected.items():
            assert self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() == body
        self.client.close()
        self.served.__exit__(None, None, None)
        shutil.rmtree(self.home)


def in_order(keys: object) -> list[str]:
    return sorted(keys, key=str.encode)  # type: ignore[call-overload, no-any-return]  # an iterable of texts


TestBucketModel = BucketModel.TestCase
TestBucketModel.settings = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
