"""Imports: disks that lie in buckets become snapshots and images.

Whoever asks for one must be allowed to read the object, by all policies and lists that GetObject would be held to, at
that time; and the object that was there then is what is read, or none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import images, snapshots, volumes
from celaje.cloud.ec2.image_copies import checked_architecture
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.import_tasks import ImportTask, take_away
from celaje.cloud.state.prepared import owned
from celaje.cloud.state.tags import answered_tags, set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

# Version and ETag of the object of a bucket and a key, "" for both where there is none. AwsError where the caller may
# not read it.
Look = Callable[[Call, str, str], tuple[str, str]]
ACTIONS = Actions("ec2")
CONTROLLER = "imports"
FORMATS = ("RAW", "QCOW2")
ACTIVE = "active"
AT_ONCE = 20  # of an account in a region
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", re.DOTALL)
_BUCKET_BYTES, _KEY_BYTES = 63, 1024
_OF_SNAPSHOTS, _OF_IMAGES = "import-snap", "import-ami"


def _place(container: Mapping[str, Any]) -> tuple[str, str]:
    """Bucket and key. AwsError."""
    bucket, url = container.get("UserBucket") or {}, container.get("Url")
    if url and not bucket:
        found = _URL.fullmatch(url)
        if found is None:
            raise AwsError("InvalidParameter", "The URL of a disk must be s3://BUCKET/KEY; others are not supported")
        return found[1], found[2]
    name, key = bucket.get("S3Bucket"), bucket.get("S3Key")
    if not name or not key or url:
        raise AwsError(
            "MissingParameter", "A disk container needs either a Url or a UserBucket with S3Bucket and S3Key"
        )
    if len(name) > _BUCKET_BYTES or len(key.encode()) > _KEY_BYTES:
        raise AwsError("InvalidParameter", "S3Bucket and S3Key are longer than names of buckets and objects can be")
    return str(name), str(key)


def _task(
    look: Look, call: Call, prefix: str, container: Mapping[str, Any], description: str | None
) -> ImportTask:
    if container.get("SnapshotId") or container.get("DeviceName"):
        raise AwsError(
            "InvalidParameter",
            "A disk is taken from a bucket as the root device; leave SnapshotId and "
            "DeviceName out, or use RegisterImage",
        )
    kind = (container.get("Format") or "").upper()
    if kind not in FORMATS:
        raise AwsError(
            "InvalidParameter",
            f"Unsupported disk format '{kind[:32]}': disks are imported as {' or '.join(FORMATS)}; qemu-img converts",
        )
    active = select(func.count()).where(
        ImportTask.account == call.account, ImportTask.region == call.region, ImportTask.status == ACTIVE
    )
    if (call.session.scalar(active) or 0) >= AT_ONCE:
        raise AwsError("ResourceLimitExceeded", f"{AT_ONCE} imports are active already; wait until one has ended")
    bucket, key = _place(container)
    version, etag = look(call, bucket, key)
    task = ImportTask(
        id=new_id(prefix),
        account=call.account,
        region=call.region,
        created=call.now,
        bucket=bucket,
        key=key,
        format=kind,
        description=snapshots.checked_description(description or container.get("Description")),
        architecture="",
        status=ACTIVE,
        message="pending",
        progress=0,
        size=0,
        snapshot=new_id("snap"),
        image="",
        version=version,
        etag=etag,
    )
    call.session.add(task)
    call.wake(CONTROLLER)
    return task


class ImportActions:
    """What begins an import. `look` tells which object there is, if whoever calls may read it."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def import_snapshot(self, call: Call, request: ec2.ImportSnapshotRequestTypeDef) -> Answer:
        """Of a disk in a bucket of the account's own."""
        volumes.refuse_encryption(request.get("Encrypted") or bool(request.get("KmsKeyId")))
        tags = tags_for(request.get("TagSpecifications"), "import-snapshot-task")
        task = _task(
            self._look, call, _OF_SNAPSHOTS, request.get("DiskContainer") or {}, request.get("Description")
        )
        set_tags(call.session, task.id, "import-snapshot-task", call.account, call.region, tags)
        return _described_snapshot(task, tags)

    def import_image(self, call: Call, request: ec2.ImportImageRequestTypeDef) -> Answer:
        """Of a root disk in a bucket of the account's own."""
        volumes.refuse_encryption(request.get("Encrypted") or bool(request.get("KmsKeyId")))
        containers = request.get("DiskContainers") or []
        if len(containers) != 1:
            raise AwsError("InvalidParameter", "An image is imported of one disk, its root: give one disk container")
        if (request.get("Platform") or "Linux") != "Linux":
            raise AwsError("Unsupported", "The platform must be Linux")
        if request.get("BootMode") == "legacy-bios":
            raise AwsError("Unsupported", "There is no legacy BIOS; leave BootMode out.")
        architecture = checked_architecture(call, request.get("Architecture"))
        tags = tags_for(request.get("TagSpecifications"), "import-image-task")
        task = _task(self._look, call, _OF_IMAGES, containers[0], request.get("Description"))
        task.architecture = architecture
        task.image = new_id("ami")
        set_tags(call.session, task.id, "import-image-task", call.account, call.region, tags)
        return _described_image(task, tags)


def import_actions(look: Look) -> Actions:
    """The actions that begin imports of the objects that `look` finds."""
    actions, own = Actions("ec2"), ImportActions(look)
    actions.action(own.import_snapshot)
    actions.action(own.import_image)
    return actions


def _found(call: Call, identifier: str) -> ImportTask:
    task = call.session.get(ImportTask, identifier)
    if task is None or (task.account, task.region) != (call.account, call.region):
        raise AwsError("InvalidConversionTaskId", f"The import task ID '{identifier[:64]}' does not exist")
    return task


@ACTIONS.action
def cancel_import_task(call: Call, request: ec2.CancelImportTaskRequestTypeDef) -> Answer:
    """One that is active."""
    task = _found(call, request.get("ImportTaskId") or "")
    if task.status != ACTIVE:
        raise AwsError("IncorrectState", f"The import task {task.id} is {task.status}; only an active one is cancelled")
    task.status, task.message = "deleted", f"Cancelled: {(request.get('CancelReason') or 'by its user')[:200]}"
    take_away(call.session, task)
    for controller in (CONTROLLER, images.CONTROLLER, snapshots.CONTROLLER):
        call.wake(controller)
    return {"ImportTaskId": task.id, "PreviousState": ACTIVE, "State": task.status}


_FILTERS = Filters[ImportTask]({"task-state": lambda one: one.status, "status": lambda one: one.status})
_Describe = Callable[[ImportTask, Mapping[str, str]], dict[str, object]]


def _listed(
    call: Call,
    request: Mapping[str, Any],
    filters: Sequence[Mapping[str, Any]] | None,
    prefix: str,
    describe: _Describe,
) -> tuple[list[dict[str, object]], str | None]:
    wanted = request.get("ImportTaskIds")
    rows = (
        [_found(call, one) for one in wanted] if wanted else owned(call.session, ImportTask, call.account, call.region)
    )
    matches = _FILTERS.matcher(filters)
    rows = [row for row in rows if row.id.startswith(prefix) and matches(row)]
    shown, token = page(call, request, rows, lambda one: f"{one.created:%Y%m%d%H%M%S%f} {one.id}", least=1)
    tags = tags_of(call.session, [one.id for one in shown])
    return [describe(one, tags[one.id]) for one in shown], token


@ACTIONS.action
def describe_import_snapshot_tasks(call: Call, request: ec2.DescribeImportSnapshotTasksRequestTypeDef) -> Answer:
    """How far they are; for a week after their ends."""
    shown, token = _listed(call, request, request.get("Filters"), _OF_SNAPSHOTS, _described_snapshot)
    return {"ImportSnapshotTasks": shown, "NextToken": token}


@ACTIONS.action
def describe_import_image_tasks(call: Call, request: ec2.DescribeImportImageTasksRequestTypeDef) -> Answer:
    """How far they are; for a week after their ends."""
    shown, token = _listed(call, request, request.get("Filters"), _OF_IMAGES, _described_image)
    return {"ImportImageTasks": shown, "NextToken": token}


def _detail(task: ImportTask) -> dict[str, object]:
    active = task.status == ACTIVE
    return {
        "Description": task.description or None,
        "DiskImageSize": float(task.size) if task.size else None,
        "Format": task.format,
        "Progress": str(task.progress) if active else None,
        "SnapshotId": task.snapshot if task.status == "completed" else None,
        "Status": task.status,
        "UserBucket": {"S3Bucket": task.bucket, "S3Key": task.key},
    }


def _described_snapshot(task: ImportTask, tags: Mapping[str, str]) -> dict[str, object]:
    detail = {**_detail(task), "StatusMessage": task.message or None}
    return {
        "Description": task.description or None,
        "ImportTaskId": task.id,
        "SnapshotTaskDetail": detail,
        "Tags": answered_tags(tags) or None,
    }


def _described_image(task: ImportTask, tags: Mapping[str, str]) -> dict[str, object]:
    completed = task.status == "completed"
    return {
        "Architecture": task.architecture,
        "Description": task.description or None,
        "Encrypted": False,
        "ImageId": task.image if completed else None,
        "ImportTaskId": task.id,
        "LicenseType": "BYOL",
        "Platform": "Linux",
        "Progress": str(task.progress) if task.status == ACTIVE else None,
        "SnapshotDetails": [{**_detail(task), "DeviceName": "/dev/sda1"}],
        "Status": task.status,
        "StatusMessage": task.message or None,
        "Tags": answered_tags(tags) or None,
    }
