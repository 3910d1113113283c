"""Lifecycles: boto3 sets them, the controller carries them out at moments that a test says."""

from __future__ import annotations

import datetime
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from celaje.cloud.reconcile.object_lifecycle import LifecycleController
from celaje.cloud.s3.expiry import Calendar
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAY = 86_400


class Carried:
    """The controller, at a clock that is so many days ahead."""

    def __init__(self, served: Served) -> None:
        self.ahead = 0.0
        self._controller = LifecycleController(served.store, clock=lambda: time.time() + self.ahead * DAY)

    def after(self, days: float) -> None:
        """Carry everything out as it is due `days` days from now."""
        self.ahead = days
        assert self._controller.step() is not None


@pytest.fixture
def carried(served: Served) -> Carried:
    return Carried(served)


def rule(**more: object) -> dict[str, Any]:
    filtered: dict[str, Any] = {} if "Prefix" in more or "Filter" in more else {"Filter": {"Prefix": ""}}
    return {"ID": "a rule", "Status": "Enabled", **filtered, **more}


def set_rules(client: S3Client, bucket: str, *rules: dict[str, Any]) -> None:
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


def keys(client: S3Client, bucket: str) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", ())]


def versions(client: S3Client, bucket: str) -> tuple[list[str], list[str]]:
    listed = client.list_object_versions(Bucket=bucket)
    return [each["VersionId"] for each in listed.get("Versions", ())], [
        each["VersionId"] for each in listed.get("DeleteMarkers", ())
    ]


def test_objects_go_at_the_midnight_after_their_days(client: S3Client, bucket: str, carried: Carried) -> None:
    set_rules(client, bucket, rule(Filter={"Prefix": "logs/"}, Expiration={"Days": 2}))
    put = client.put_object(Bucket=bucket, Key="logs/a", Body=b"x" * 100_000)
    client.put_object(Bucket=bucket, Key="kept", Body=b"")
    made = client.head_object(Bucket=bucket, Key="logs/a")["LastModified"]
    midnight = (int(made.timestamp()) // DAY + 3) * DAY
    date = datetime.datetime.fromtimestamp(midnight, datetime.UTC)
    told = f'expiry-date="{date:%a, %d %b %Y %H:%M:%S} GMT", rule-id="a%20rule"'
    assert put["Expiration"] == told == client.head_object(Bucket=bucket, Key="logs/a")["Expiration"]
    assert "Expiration" not in client.get_object(Bucket=bucket, Key="kept")
    for days in (0, 1, 1.9, (midnight - 60 - time.time()) / DAY):
        carried.after(days)
    assert keys(client, bucket) == ["kept", "logs/a"]
    carried.after((midnight + 1 - time.time()) / DAY)
    assert keys(client, bucket) == ["kept"]


def test_a_filter_holds_tags_and_sizes_as_well(client: S3Client, bucket: str, carried: Carried) -> None:
    both = {"Prefix": "a", "Tags": [{"Key": "go", "Value": "1"}], "ObjectSizeGreaterThan": 1, "ObjectSizeLessThan": 4}
    set_rules(client, bucket, rule(Filter={"And": both}, Expiration={"Days": 1}))
    for key, size, tagging in (
        ("a1", 2, "go=1&x=y"),
        ("a2", 2, "go=2"),
        ("a3", 1, "go=1"),
        ("a4", 4, "go=1"),
        ("b1", 2, "go=1"),
    ):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * size, Tagging=tagging)
    carried.after(3)
    assert keys(client, bucket) == ["a2", "a3", "a4", "b1"]


def test_a_date_is_for_all_that_is_there_from_it_on(client: S3Client, bucket: str, carried: Carried) -> None:
    midnight = datetime.datetime.fromtimestamp((int(time.time()) // DAY + 2) * DAY, datetime.UTC)
    set_rules(client, bucket, rule(Prefix="", Expiration={"Date": midnight}))
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    carried.after(0)
    assert keys(client, bucket) == ["key"]
    carried.after(2)
    assert keys(client, bucket) == []


def test_a_rule_that_is_disabled_or_gone_does_nothing(client: S3Client, bucket: str, carried: Carried) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"")
    set_rules(client, bucket, rule(Expiration={"Days": 1}, Status="Disabled"))
    carried.after(9)
    set_rules(client, bucket, rule(Expiration={"Days": 1}))
    client.delete_bucket_lifecycle(Bucket=bucket)
    carried.after(9)
    assert keys(client, bucket) == ["key"]
    with refused("NoSuchLifecycleConfiguration", 404):
        client.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_what_is_put_again_after_the_look_stays(client: S3Client, bucket: str, served: Served) -> None:
    old = client.put_object(Bucket=bucket, Key="key", Body=b"old")["ETag"].strip('"')
    found = served.store.buckets.get(bucket)
    assert found is not None
    (standing,) = served.store.objects.standings(found)
    client.put_object(Bucket=bucket, Key="key", Body=b"new")
    assert not served.store.objects.expire(found, standing.version, lambda now: now.version.etag == old).result()
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"new"


def test_of_versions_the_current_gets_a_marker_and_the_noncurrent_go(
    client: S3Client, bucket: str, carried: Carried
) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    ids = [client.put_object(Bucket=bucket, Key="key", Body=b"x" * 70_000)["VersionId"] for _ in range(5)]
    noncurrent = {"NoncurrentDays": 3, "NewerNoncurrentVersions": 2}
    set_rules(client, bucket, rule(Expiration={"Days": 9}, NoncurrentVersionExpiration=noncurrent))
    carried.after(2.9)
    assert versions(client, bucket) == (ids[::-1], [])
    carried.after(5)
    assert versions(client, bucket) == (ids[:1:-1], [])
    carried.after(11)
    told, markers = versions(client, bucket)
    assert (told, len(markers)) == (ids[:1:-1], 1)
    assert keys(client, bucket) == []


def test_a_marker_that_nothing_is_behind_goes(client: S3Client, bucket: str, carried: Carried) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = client.put_object(Bucket=bucket, Key="key", Body=b"")["VersionId"]
    client.delete_object(Bucket=bucket, Key="key")
    set_rules(client, bucket, rule(Expiration={"ExpiredObjectDeleteMarker": True}))
    carried.after(0)
    told, markers = versions(client, bucket)
    assert (told, len(markers)) == ([version], 1)
    client.delete_object(Bucket=bucket, Key="key", VersionId=version)
    carried.after(0)
    assert versions(client, bucket) == ([], [])


def test_uploads_that_are_not_completed_are_aborted(client: S3Client, bucket: str, carried: Carried) -> None:
    set_rules(client, bucket, rule(Filter={"Prefix": "a"}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}))
    going = client.create_multipart_upload(Bucket=bucket, Key="a")
    assert going["AbortRuleId"] == "a rule"
    kept = client.create_multipart_upload(Bucket=bucket, Key="b")
    assert "AbortDate" not in kept
    client.upload_part(Bucket=bucket, Key="a", UploadId=going["UploadId"], PartNumber=1, Body=b"x")
    carried.after(0.1)
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2
    carried.after(2)
    assert [each["Key"] for each in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["b"]
    with refused("NoSuchUpload"):
        client.list_parts(Bucket=bucket, Key="a", UploadId=going["UploadId"])


def test_a_configuration_is_told_as_it_came(client: S3Client, bucket: str) -> None:
    tag = {"Key": "k", "Value": "v"}
    date = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    rules = [
        {"ID": "1", "Status": "Enabled", "Prefix": "p", "Expiration": {"Days": 3}},
        {"ID": "2", "Status": "Disabled", "Filter": {}, "Expiration": {"Date": date}},
        {"ID": "3", "Status": "Enabled", "Filter": {"Tag": tag}, "Expiration": {"Days": 3}},
        {
            "ID": "4",
            "Status": "Enabled",
            "Filter": {"And": {"Prefix": "x", "Tags": [tag]}},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2},
        },
        {
            "ID": "5",
            "Status": "Enabled",
            "Filter": {"ObjectSizeLessThan": 10},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        },
        {
            "ID": "6",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
    ]
    set_rules(client, bucket, *rules)
    answer = client.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert answer["Rules"] == rules
    assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("InvalidArgument", rule(Expiration={"Days": 0})),
        ("InvalidArgument", rule(Expiration={"Date": datetime.datetime(2030, 1, 1, 1, tzinfo=datetime.UTC)})),
        ("InvalidArgument", rule(ID="x" * 256, Expiration={"Days": 1})),
        ("InvalidRequest", rule()),
        ("MalformedXML", rule(Status="On", Expiration={"Days": 1})),
        ("MalformedXML", rule(Prefix="a", Filter={"Prefix": "a"}, Expiration={"Days": 1})),
        ("MalformedXML", rule(Filter={"Prefix": "a", "Tag": {"Key": "a", "Value": "b"}}, Expiration={"Days": 1})),
        ("MalformedXML", rule(Expiration={"Days": 1, "ExpiredObjectDeleteMarker": True})),
        ("NotImplemented", rule(Transitions=[{"Days": 1, "StorageClass": "GLACIER"}])),
        (
            "InvalidRequest",
            rule(
                Filter={"Tag": {"Key": "a", "Value": "b"}}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}
            ),
        ),
    ],
)
def test_a_rule_that_cannot_be_carried_out_is_refused(
    client: S3Client, bucket: str, code: str, wrong: dict[str, Any]
) -> None:
    with refused(code):
        set_rules(client, bucket, wrong)
    with refused("NoSuchLifecycleConfiguration"):
        client.get_bucket_lifecycle_configuration(Bucket=bucket)
    with refused("InvalidArgument"):
        set_rules(client, bucket, rule(Expiration={"Days": 1}), rule(Expiration={"Days": 2}))


def test_a_day_is_as_long_as_it_is_set() -> None:
    calendar = Calendar(10)
    assert calendar.after(12_345, 1) == 30_000
    assert calendar.after(20_000, 1) == 30_000
    assert calendar.next_midnight(20_000) == 30_000


def test_what_goes_wrong_with_one_bucket_stops_no_other_and_is_tried_again(
    client: S3Client, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Something that is no error of the disk: a row of the one bucket's cannot be read any more."""
    broken, sound = "a-broken-bucket", "b-sound-bucket"
    for name in (broken, sound):
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="k", Body=b"x")
        set_rules(client, name, rule(Expiration={"Days": 1}))
    now = [time.time() + 3 * DAY]
    controller = LifecycleController(served.store, clock=lambda: now[0])
    number = served.store.buckets.get(broken).number  # type: ignore[union-attr]  # it was made above
    with sqlite3.connect(served.home / "cloud" / "s3" / "objects.sqlite3") as database:
        attributes = database.execute("SELECT attributes FROM objects WHERE bucket = ?", (number,)).fetchone()[0]
        database.execute("UPDATE objects SET attributes = x'c1' WHERE bucket = ?", (number,))
    pause = controller.step()
    assert keys(client, sound) == []
    assert pause is not None
    assert pause <= 1
    assert "a-broken-bucket" in caplog.text
    with sqlite3.connect(served.home / "cloud" / "s3" / "objects.sqlite3") as database:
        database.execute("UPDATE objects SET attributes = ? WHERE bucket = ?", (attributes, number))
    until = time.monotonic() + 60
    while keys(client, broken):
        controller.step()
        assert time.monotonic() < until
    assert controller.step() > 60  # type: ignore[operator]  # nothing is tried again
