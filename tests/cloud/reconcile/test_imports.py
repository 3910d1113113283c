"""Imports through boto3, on a real store of objects and a real store of chunks: what a volume of them reads, and what
is refused. Whether a machine boots an imported image is tested with machines.
"""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from celaje.cloud.reconcile.imports import ImportsController
from celaje.cloud.reconcile.volumes import GIB
from celaje.cloud.state.images import Image
from celaje.disk.files import HOST
from celaje.disk.qcow2_writer import export_qcow2
from celaje.disk.volumes import SnapshotSource, VolumeStore
from tests.cloud.ec2.test_instances import _images  # noqa: F401  a host with an architecture
from tests.cloud.served import Owner, ServedCloud, refusal

PATIENCE_SECONDS = 60
CONTENT = bytes(range(256)) * 64


class Importing:
    """A bucket, and the controller that imports from it."""

    def __init__(self, cloud: ServedCloud, owner: Owner, directory: Path) -> None:
        self.cloud, self.owner, self.directory = cloud, owner, directory
        self.store = VolumeStore(directory / "home")
        self.ec2, self.s3 = owner.client(), owner.client("s3")
        self.bucket = f"disks-{owner.account}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.again()

    def again(self) -> None:
        """A controller that knows nothing: the daemon was killed."""
        self.controller = ImportsController(
            self.cloud.database, lambda names: None, self.cloud.store, self.directory / "scratch", self.store
        )

    def put(self, key: str, content: bytes) -> dict[str, str]:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        return {"S3Bucket": self.bucket, "S3Key": key}

    def snapshot(self, place: dict[str, str], kind: str = "RAW") -> str:
        answer = self.ec2.import_snapshot(DiskContainer={"Format": kind, "UserBucket": place}, Description="of a test")
        assert answer["SnapshotTaskDetail"]["Status"] == "active"
        return str(answer["ImportTaskId"])

    def ended(self, task: str) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_SECONDS
        while (found := self.task(task))["Status"] == "active":
            self.controller.step()
            assert time.monotonic() < until, found
        return found

    def task(self, task: str) -> dict[str, Any]:
        [one] = self.ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"]
        return dict(one["SnapshotTaskDetail"])

    def content(self, snapshot: str, length: int) -> bytes:
        """What a volume of the snapshot begins with."""
        described = self.store.create(size=None, source=SnapshotSource(snapshot))
        found = bytearray(length)
        with contextlib.closing(self.store.open(described.id, read_only=True)) as volume:
            volume.readinto([memoryview(found)], 0)
        self.store.remove(described.id)
        return bytes(found)


@pytest.fixture
def importing(served_cloud: ServedCloud, owner: Owner, tmp_path: Path) -> Importing:
    return Importing(served_cloud, owner, tmp_path)


class _Bytes:
    """A disk in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def readinto(self, buffers: Any, offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self._content[offset : offset + len(buffer)]
            offset += len(buffer)

    def data(self) -> Any:
        yield 0, self.size


def test_a_raw_disk_becomes_a_snapshot_of_the_same_bytes(importing: Importing) -> None:
    found = importing.ended(importing.snapshot(importing.put("disk.raw", CONTENT)))
    assert (found["Status"], found["DiskImageSize"]) == ("completed", len(CONTENT))
    [snapshot] = importing.ec2.describe_snapshots(SnapshotIds=[found["SnapshotId"]])["Snapshots"]
    assert (snapshot["State"], snapshot["VolumeSize"], snapshot["VolumeId"]) == ("completed", 1, "vol-ffffffff")
    assert snapshot["Description"] == "of a test"
    assert importing.content(found["SnapshotId"], len(CONTENT) + 512) == CONTENT + bytes(512)
    assert importing.store.snapshots.describe(found["SnapshotId"]).size == GIB


def test_an_object_of_several_parts_is_one_disk(importing: Importing) -> None:
    parts = [bytes([number]) * (5 << 20) for number in (1, 2)] + [CONTENT]
    upload = importing.s3.create_multipart_upload(Bucket=importing.bucket, Key="parts")["UploadId"]
    asked = {"Bucket": importing.bucket, "Key": "parts", "UploadId": upload}
    done = [
        {"PartNumber": number, "ETag": importing.s3.upload_part(**asked, PartNumber=number, Body=part)["ETag"]}
        for number, part in enumerate(parts, 1)
    ]
    importing.s3.complete_multipart_upload(**asked, MultipartUpload={"Parts": done})
    found = importing.ended(importing.snapshot({"S3Bucket": importing.bucket, "S3Key": "parts"}))
    whole = b"".join(parts)
    assert importing.content(found["SnapshotId"], len(whole)) == whole
    assert not list((importing.directory / "scratch").iterdir())


def test_a_qcow2_image_becomes_a_snapshot_of_its_disk(importing: Importing, tmp_path: Path) -> None:
    export_qcow2(_Bytes(CONTENT), tmp_path / "disk.qcow2", HOST)
    place = importing.put("disk.qcow2", (tmp_path / "disk.qcow2").read_bytes())
    found = importing.ended(importing.snapshot(place, "qcow2"))
    assert found["Status"] == "completed"
    assert importing.content(found["SnapshotId"], len(CONTENT)) == CONTENT


def test_hostile_and_wrong_disks_are_refused_with_the_reason(importing: Importing, tmp_path: Path) -> None:
    export_qcow2(_Bytes(CONTENT), tmp_path / "disk.qcow2", HOST)
    good = (tmp_path / "disk.qcow2").read_bytes()
    outside = bytearray(good)
    struct.pack_into(">Q", outside, 40, 1 << 50)  # its L1 table lies beyond its end
    backed = bytearray(good)
    struct.pack_into(">QI", backed, 8, 512, 11)
    backed[512:523] = b"/etc/shadow"
    huge = bytearray(good)
    struct.pack_into(">Q", huge, 24, 1 << 55)
    for name, content, kind in (
        ("outside", bytes(outside), "QCOW2"),
        ("backed", bytes(backed), "QCOW2"),
        ("huge", bytes(huge), "QCOW2"),
        ("cut", good[:100], "QCOW2"),
        ("raw", CONTENT, "QCOW2"),
        ("mislabelled", good, "RAW"),
        ("empty", b"", "RAW"),
    ):
        found = importing.ended(importing.snapshot(importing.put(name, content), kind))
        assert found["Status"] == "deleted", name
        assert found["StatusMessage"].startswith("ClientError: Disk validation failed ["), name
        assert "SnapshotId" not in found
    assert importing.store.snapshots.ids() == []


def test_anothers_bucket_is_none(importing: Importing, served_cloud: ServedCloud) -> None:
    other = served_cloud.owner()
    client = other.client("s3")
    client.create_bucket(Bucket="theirs-alone")
    client.put_object(Bucket="theirs-alone", Key="disk", Body=CONTENT)
    theirs = importing.ended(importing.snapshot({"S3Bucket": "theirs-alone", "S3Key": "disk"}))
    nobodys = importing.ended(importing.snapshot({"S3Bucket": "nobodys-at-all", "S3Key": "disk"}))
    assert theirs["StatusMessage"].replace("theirs-alone", "") == nobodys["StatusMessage"].replace("nobodys-at-all", "")
    missing = importing.ended(importing.snapshot({"S3Bucket": importing.bucket, "S3Key": "nothing"}))
    assert missing["Status"] == "deleted"


def test_a_snapshot_that_was_published_before_the_kill_is_the_tasks(importing: Importing) -> None:
    place = importing.put("disk.raw", CONTENT)
    task = importing.snapshot(place)
    importing.controller.step()
    found = importing.task(task)
    with importing.cloud.database.write() as session:
        from celaje.cloud.state.import_tasks import ImportTask
        from celaje.cloud.state.snapshots import Snapshot

        session.get_one(ImportTask, task).status = "active"
        session.delete(session.get_one(Snapshot, found["SnapshotId"]))
    importing.s3.delete_object(Bucket=importing.bucket, Key="disk.raw")
    importing.again()
    assert importing.ended(task)["SnapshotId"] == found["SnapshotId"]


def test_an_image_that_has_nothing_to_boot_is_taken_away_again(importing: Importing) -> None:
    place = importing.put("disk.raw", CONTENT)
    answer = importing.ec2.import_image(DiskContainers=[{"Format": "raw", "UserBucket": place}])
    importing.controller.step()
    [task] = importing.ec2.describe_import_image_tasks(ImportTaskIds=[answer["ImportTaskId"]])["ImportImageTasks"]
    assert (task["Status"], task["StatusMessage"], task["Architecture"]) == ("active", "preparing ami", "riscv64")
    with importing.cloud.database.write() as session:
        [image] = [one for one in session.query(Image) if one.name == answer["ImportTaskId"]]
        image.state, image.problem = "failed", "it has no kernel"
    importing.controller.step()
    [task] = importing.ec2.describe_import_image_tasks()["ImportImageTasks"]
    assert task["Status"] == "deleted"
    assert "it has no kernel" in task["StatusMessage"]
    assert importing.ec2.describe_images(Owners=["self"])["Images"] == []


def test_an_import_that_is_cancelled_leaves_nothing(importing: Importing) -> None:
    task = importing.snapshot(importing.put("disk.raw", CONTENT))
    assert importing.ec2.cancel_import_task(ImportTaskId=task)["PreviousState"] == "active"
    importing.controller.step()
    assert importing.task(task)["Status"] == "deleted"
    assert importing.store.snapshots.ids() == []
    assert refusal(importing.ec2.cancel_import_task, ImportTaskId=task)[0] == "IncorrectState"


@pytest.mark.parametrize(
    ("container", "code"),
    [
        ({"Format": "VMDK", "UserBucket": {"S3Bucket": "b", "S3Key": "k"}}, "InvalidParameter"),
        ({"Format": "RAW"}, "MissingParameter"),
        ({"Format": "RAW", "Url": "https://example.com/disk"}, "InvalidParameter"),
        ({"Format": "RAW", "UserBucket": {"S3Bucket": "b"}}, "MissingParameter"),
    ],
)
def test_what_is_no_disk_is_refused_at_once(ec2: Any, container: dict[str, Any], code: str) -> None:
    assert refusal(ec2.import_snapshot, DiskContainer=container)[0] == code


def test_a_task_of_nobodys_is_not_found(ec2: Any) -> None:
    code, _ = refusal(ec2.describe_import_snapshot_tasks, ImportTaskIds=["import-snap-00000000000000000"])
    assert code == "InvalidConversionTaskId"
