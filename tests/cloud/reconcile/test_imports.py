"""Imports through boto3, on a real store of objects and a real store of chunks: what a volume of them reads, and what
is refused. Whether a machine boots an imported image is tested with machines.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from celaje.cloud.reconcile.images import ImagesController
from celaje.cloud.reconcile.imports import OF_ONE_ACCOUNT, ImportsController
from celaje.cloud.reconcile.snapshots import SnapshotsController
from celaje.cloud.reconcile.volumes import GIB
from celaje.cloud.state.images import Image
from celaje.cloud.state.import_tasks import ImportTask
from celaje.disk.files import HOST
from celaje.disk.qcow2_writer import export_qcow2
from celaje.disk.volumes import SnapshotSource, VolumeStore
from tests.cloud.ec2.test_instances import _images  # noqa: F401  a host with an architecture
from tests.cloud.served import Owner, ServedCloud, User, refusal

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

    def step(self) -> None:
        """What there is to do now, to its end."""
        until = time.monotonic() + PATIENCE_SECONDS
        self.controller.step()
        while self.controller.busy:
            time.sleep(0.005)
            assert time.monotonic() < until

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
            self.step()
            assert time.monotonic() < until, found
        if found["Status"] == "completed":
            self.ec2.get_waiter("snapshot_imported").wait(ImportTaskIds=[task])
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
    importing.step()
    found = importing.task(task)
    with importing.cloud.database.write() as session:
        from celaje.cloud.state.snapshots import Snapshot

        session.get_one(ImportTask, task).status = "active"
        session.delete(session.get_one(Snapshot, found["SnapshotId"]))
    importing.s3.delete_object(Bucket=importing.bucket, Key="disk.raw")
    importing.again()
    assert importing.ended(task)["SnapshotId"] == found["SnapshotId"]


def test_an_image_that_has_nothing_to_boot_is_taken_away_again(importing: Importing) -> None:
    place = importing.put("disk.raw", CONTENT)
    answer = importing.ec2.import_image(DiskContainers=[{"Format": "raw", "UserBucket": place}])
    importing.step()
    [task] = importing.ec2.describe_import_image_tasks(ImportTaskIds=[answer["ImportTaskId"]])["ImportImageTasks"]
    assert (task["Status"], task["StatusMessage"], task["Architecture"]) == ("active", "preparing ami", "riscv64")
    with importing.cloud.database.write() as session:
        [image] = [one for one in session.query(Image) if one.name == answer["ImportTaskId"]]
        image.state, image.problem = "failed", "it has no kernel"
    importing.step()
    [task] = importing.ec2.describe_import_image_tasks()["ImportImageTasks"]
    assert task["Status"] == "deleted"
    assert "it has no kernel" in task["StatusMessage"]
    assert importing.ec2.describe_images(Owners=["self"])["Images"] == []


def test_an_import_that_is_cancelled_leaves_nothing(importing: Importing) -> None:
    task = importing.snapshot(importing.put("disk.raw", CONTENT))
    assert importing.ec2.cancel_import_task(ImportTaskId=task)["PreviousState"] == "active"
    importing.step()
    assert importing.task(task)["Status"] == "deleted"
    assert importing.store.snapshots.ids() == []
    assert refusal(importing.ec2.cancel_import_task, ImportTaskId=task)[0] == "IncorrectState"


def test_an_import_that_is_cancelled_while_its_image_is_prepared_leaves_nothing(importing: Importing) -> None:
    place = importing.put("disk.raw", CONTENT)
    task = importing.ec2.import_image(DiskContainers=[{"Format": "raw", "UserBucket": place}])["ImportTaskId"]
    importing.step()
    [shown] = importing.ec2.describe_import_image_tasks(ImportTaskIds=[task])["ImportImageTasks"]
    assert shown["StatusMessage"] == "preparing ami"
    assert importing.store.snapshots.ids()
    importing.ec2.cancel_import_task(ImportTaskId=task)
    assert importing.ec2.describe_images(Owners=["self"])["Images"] == []
    assert importing.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    database = importing.cloud.database
    ImagesController(database, lambda names: None, importing.store).step()
    SnapshotsController(database, lambda names: None, importing.store).step()
    importing.step()
    assert importing.store.snapshots.ids() == []
    with database.read() as session:
        assert not [one for one in session.query(Image) if one.account == importing.owner.account]


def test_a_snapshot_that_was_published_for_an_import_that_was_cancelled_goes(importing: Importing) -> None:
    task = importing.snapshot(importing.put("disk.raw", CONTENT))
    with importing.cloud.database.read() as session:
        snapshot = session.get_one(ImportTask, task).snapshot
    importing.store.snapshots.of_disk(_Bytes(CONTENT), GIB, snapshot, "", lambda done, of: None)  # then: a kill
    importing.ec2.cancel_import_task(ImportTaskId=task)
    importing.again()
    importing.step()
    assert importing.store.snapshots.ids() == []


def test_a_denial_of_the_buckets_policy_refuses_its_own_user(importing: Importing) -> None:
    place = importing.put("disk.raw", CONTENT)
    user = User(importing.owner, "importer", "ec2:*", "s3:*")
    task = user.client().import_snapshot(DiskContainer={"Format": "RAW", "UserBucket": place})["ImportTaskId"]
    assert importing.ended(task)["Status"] == "completed"
    statement = {
        "Effect": "Deny", "Principal": {"AWS": user.arn}, "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{importing.bucket}/*",
    }  # fmt: skip
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    importing.s3.put_bucket_policy(Bucket=importing.bucket, Policy=json.dumps(policy))
    for action, request in (
        (user.client().import_snapshot, {"DiskContainer": {"Format": "RAW", "UserBucket": place}}),
        (user.client().import_image, {"DiskContainers": [{"Format": "RAW", "UserBucket": place}]}),
    ):
        code, message = refusal(action, **request)
        assert code == "AccessDenied"
        assert "explicit deny in a resource-based policy" in message
    assert len(importing.ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]) == 1


def test_an_object_that_was_put_after_the_import_was_asked_for_is_not_read(importing: Importing) -> None:
    task = importing.snapshot(importing.put("disk.raw", CONTENT))
    importing.put("disk.raw", b"a secret that came later" * 64)
    found = importing.ended(task)
    assert (found["Status"], "another one" in found["StatusMessage"]) == ("deleted", True)
    assert importing.store.snapshots.ids() == []
    later = importing.snapshot({"S3Bucket": importing.bucket, "S3Key": "later"})
    importing.put("later", CONTENT)
    assert importing.ended(later)["Status"] == "deleted"


def test_the_version_that_was_there_is_the_one_that_is_imported(importing: Importing) -> None:
    importing.s3.put_bucket_versioning(Bucket=importing.bucket, VersioningConfiguration={"Status": "Enabled"})
    task = importing.snapshot(importing.put("disk.raw", CONTENT))
    importing.put("disk.raw", bytes(len(CONTENT)))
    found = importing.ended(task)
    assert found["Status"] == "completed"
    assert importing.content(found["SnapshotId"], len(CONTENT)) == CONTENT


def test_an_account_with_many_imports_does_not_keep_others_waiting(
    importing: Importing, served_cloud: ServedCloud, tmp_path: Path
) -> None:
    """Its disks are held as they are being read, and another's is imported meanwhile."""
    held, entered = threading.Event(), threading.Semaphore(0)
    ours = importing.owner.account

    class Held(ImportsController):
        def _disk(self, task: ImportTask) -> Any:
            if task.account == ours:
                entered.release()
                assert held.wait(PATIENCE_SECONDS)
            return super()._disk(task)

    place = importing.put("disk.raw", CONTENT)
    many = [importing.snapshot(place) for _ in range(6)]
    importing.controller = Held(
        served_cloud.database, lambda names: None, served_cloud.store, tmp_path / "held", importing.store
    )
    importing.controller.step()
    for _ in range(OF_ONE_ACCOUNT):
        assert entered.acquire(timeout=PATIENCE_SECONDS)  # side by side
    other = Importing(served_cloud, served_cloud.owner(), tmp_path / "other")
    other.controller = importing.controller
    other.store = importing.store
    task = other.snapshot(other.put("disk.raw", CONTENT))
    until = time.monotonic() + PATIENCE_SECONDS
    while other.task(task)["Status"] == "active":
        importing.controller.step()
        assert time.monotonic() < until
    assert not entered.acquire(blocking=False)  # the account has no more places
    held.set()
    assert {importing.ended(one)["Status"] for one in many} == {"completed"}


def test_an_import_that_ends_while_a_controller_looks_is_not_begun_again(
    importing: Importing, served_cloud: ServedCloud, tmp_path: Path
) -> None:
    """Its row was read as it was before the end."""
    let_go, ended = threading.Event(), threading.Event()
    begun: list[str] = []

    class Held(ImportsController):
        def _try(self, task: ImportTask) -> None:
            begun.append(task.id)
            assert let_go.wait(PATIENCE_SECONDS)
            super()._try(task)
            ended.set()

        def _begin(self, tasks: list[ImportTask]) -> None:
            if self.busy:
                let_go.set()
                assert ended.wait(PATIENCE_SECONDS)
            super()._begin(tasks)

    task = importing.snapshot(importing.put("disk.raw", CONTENT))
    importing.controller = Held(
        served_cloud.database, lambda names: None, served_cloud.store, tmp_path / "held", importing.store
    )
    importing.controller.step()
    importing.step()
    assert begun == [task]


@pytest.mark.parametrize(
    ("container", "code"),
    [
        ({"Format": "VMDK", "UserBucket": {"S3Bucket": "b", "S3Key": "k"}}, "InvalidParameter"),
        ({"Format": "RAW"}, "MissingParameter"),
        ({"Format": "RAW", "Url": "https://example.com/disk"}, "InvalidParameter"),
        ({"Format": "RAW", "UserBucket": {"S3Bucket": "b"}}, "MissingParameter"),
        ({"Format": "RAW", "UserBucket": {"S3Bucket": "bucket", "S3Key": "k" * 1025}}, "InvalidParameter"),
    ],
)
def test_what_is_no_disk_is_refused_at_once(ec2: Any, container: dict[str, Any], code: str) -> None:
    assert refusal(ec2.import_snapshot, DiskContainer=container)[0] == code


def test_a_task_of_nobodys_is_not_found(ec2: Any) -> None:
    code, _ = refusal(ec2.describe_import_snapshot_tasks, ImportTaskIds=["import-snap-00000000000000000"])
    assert code == "InvalidConversionTaskId"
