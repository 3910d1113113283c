"""Images and snapshots with real guests: what is made of a running one, what was imported, and what is written in
blocks; and what a guest sees of its disks while they change.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celaje import paths
from celaje.host import record
from tests.system.cloud_host import CloudHost, cloud_host, ssh, state, until, until_state
from tests.system.test_cloud import opened_to_ssh

BLOCK = 512 << 10
ABOUT = "http://169.254.169.254/latest/meta-data/block-device-mapping"
BOOT = "cat /proc/sys/kernel/random/boot_id"
PATIENTLY = {"Delay": 1, "MaxAttempts": 300}


@pytest.fixture
def cloud(tmp_path: Path, built_image: Callable[[str], Path]) -> Iterator[CloudHost]:
    with cloud_host(paths.home(), built_image("debian-mini")) as host:
        yield host


@pytest.fixture
def key(tmp_path: Path, tool: Callable[[str], str]) -> Path:
    path = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def run(ec2: Any, request: dict[str, Any], **changed: Any) -> str:
    instance = str(ec2.run_instances(**(request | changed))["Instances"][0]["InstanceId"])
    until_state(ec2, instance, "running")
    return instance


def available(ec2: Any, image: str) -> None:
    def whole() -> bool:
        [found] = ec2.describe_images(ImageIds=[image])["Images"]
        assert found["State"] in ("pending", "available"), found["StateReason"]
        return bool(found["State"] == "available")

    until(whole, f"{image} available")


def test_an_image_of_a_running_instance_has_what_its_guest_had_not_written_back(cloud: CloudHost, key: Path) -> None:
    ec2 = cloud.client()
    request: dict[str, Any] = opened_to_ssh(cloud, key)
    first = run(ec2, request)
    before = ssh(key, first, f"sudo sysctl -qw vm.dirty_writeback_centisecs=0; echo unwritten > kept; {BOOT}")
    picture = ec2.get_console_screenshot(InstanceId=first, WakeUp=True)["ImageData"]
    assert base64.b64decode(picture).startswith(b"\xff\xd8\xff")
    image = ec2.create_image(InstanceId=first, Name="of a running one")["ImageId"]
    available(ec2, image)
    assert state(ec2, first) == "running"
    assert ssh(key, first, BOOT) != before
    ec2.terminate_instances(InstanceIds=[first])
    until_state(ec2, first, "terminated")
    assert ec2.get_console_output(InstanceId=first)["Output"]
    assert record.names() == []
    second = run(ec2, request, ImageId=image)
    assert ssh(key, second, "cat kept; sudo dmesg | grep -c 'recovery complete' || true") == "unwritten\n0\n"
    there = cloud.client(region="eu-west-1")
    copied = there.copy_image(Name="copied", SourceImageId=image, SourceRegion="us-east-1")["ImageId"]
    own = there.copy_image(Name="own", SourceImageId=request["ImageId"], SourceRegion="us-east-1")["ImageId"]
    for each in (copied, own):
        available(there, each)


def test_a_guest_reads_what_was_written_in_blocks_and_sees_its_disk_come_grow_and_go(
    cloud: CloudHost, key: Path
) -> None:
    ec2, ebs = cloud.client(), cloud.client("ebs")
    instance = run(ec2, opened_to_ssh(cloud, key))
    content = b"by blocks".ljust(BLOCK, b"\0")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    ebs.put_snapshot_block(
        SnapshotId=snapshot,
        BlockIndex=1,
        BlockData=content,
        DataLength=BLOCK,
        Checksum=base64.b64encode(hashlib.sha256(content).digest()).decode(),
        ChecksumAlgorithm="SHA256",
    )
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig=PATIENTLY)
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=PATIENTLY)
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")

    def attached() -> bool:
        [one] = ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
        return bool(one["Attachments"] and one["Attachments"][0]["State"] == "attached")

    until(attached, "the attachment")
    until(lambda: "sdf" in ssh(key, instance, f"wget -qO- {ABOUT}/ebs1 || true"), "the metadata's disk")
    disk = "$(readlink -f /dev/disk/by-id/*" + volume.removeprefix("vol-")[:12] + "* | head -n 1)"
    read = f"sudo dd if={disk} bs=512k skip=1 count=1 2>/dev/null | head -c 9"
    assert until(lambda: ssh(key, instance, read), "the disk's content") == "by blocks"
    ec2.modify_volume(VolumeId=volume, Size=2)
    size = f"cat /sys/block/$(basename {disk})/size"
    until(lambda: ssh(key, instance, size).strip() == str((2 << 30) // 512), "the larger disk")

    def modified() -> bool:
        [one] = ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
        return bool(one["ModificationState"] == "completed")

    until(modified, "the modification's end")
    ec2.detach_volume(VolumeId=volume)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=PATIENTLY)
    until(lambda: "sdf" not in ssh(key, instance, f"wget -qO- {ABOUT}/ebs1 || true"), "the metadata without it")


def test_an_imported_disk_boots(cloud: CloudHost, key: Path, built_image: Callable[[str], Path]) -> None:
    ec2, s3 = cloud.client(), cloud.client("s3")
    request: dict[str, Any] = opened_to_ssh(cloud, key)
    s3.create_bucket(Bucket="disks")
    s3.upload_file(str(built_image("debian-mini") / "disk.raw"), "disks", "mini.raw")
    place = {"S3Bucket": "disks", "S3Key": "mini.raw"}
    task = ec2.import_image(DiskContainers=[{"Format": "RAW", "UserBucket": place}])["ImportTaskId"]

    def imported() -> Any:
        [found] = ec2.describe_import_image_tasks(ImportTaskIds=[task])["ImportImageTasks"]
        assert found["Status"] in ("active", "completed"), found
        return found.get("ImageId")

    image = until(imported, "the import")
    assert ssh(key, run(ec2, request, ImageId=image), "uname -m") == "riscv64\n"
    snapshot = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    mapping = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}]
    registered = ec2.register_image(Name="registered", RootDeviceName="/dev/sda1", BlockDeviceMappings=mapping)
    available(ec2, registered["ImageId"])
