"""Volumes, snapshots and images: what is accepted, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import images, snapshots, volume_attachments, volumes
from celaje.cloud.ec2.block_devices import at_launch, release
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.instances import Instance, MetadataOptions, State
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume, VolumeAttachment, attached_to, root_volume
from tests.cloud.ec2.acting import NOW, OTHER, OWNER, Actor

ZONE = "us-east-1a"


@pytest.fixture
def database(tmp_path: Path):
    database = Database(tmp_path / "state.sqlite3")
    database.prepare()
    yield database
    database.close()


@pytest.fixture
def act(database: Database) -> Actor:
    return Actor(database)


def make(act: Actor, **request: object) -> str:
    """A volume as it is when the controller has made it."""
    asked: dict[str, object] = {"AvailabilityZone": ZONE} | ({} if "SnapshotId" in request else {"Size": 8})
    identifier = act(volumes.create_volume, **(asked | request))["VolumeId"]
    with act.database.write() as session:
        row = session.get_one(Volume, identifier)
        row.made, row.state = True, "available"
    return str(identifier)


def completed(act: Actor, volume: str) -> str:
    identifier = act(snapshots.create_snapshot, VolumeId=volume)["SnapshotId"]
    with act.database.write() as session:
        session.get_one(Snapshot, identifier).state = "completed"
    return str(identifier)


def instance(act: Actor, identifier: str = "i-00000000000000001", state: str = "running", **more: object) -> str:
    fields: dict[str, object] = {
        "id": identifier,
        "account": act.account,
        "region": act.region,
        "created": NOW,
        "reservation": "r-1",
        "image": "ami-00000000000000001",
        "architecture": "riscv64",
        "instance_type": "t3.nano",
        "zone": ZONE,
        "vpc": "vpc-1",
        "subnet": "subnet-1",
        "interface": "eni-1",
        "root_device": "/dev/sda1",
        "launched": NOW,
        "wanted": state,
        "state": state,
        "since": NOW,
        "memory": 512,
        "vcpus": 2,
        "metadata_options": MetadataOptions(),
    }
    with act.database.write() as session:
        session.add(Instance(**(fields | more)))
    return identifier


def public_image(act: Actor) -> Image:
    with act.database.write() as session:
        session.add(
            Snapshot(
                id="snap-00000000000000001", account=OTHER, region=act.region, created=NOW, volume="", size=1,
                state="completed", progress=100, host_image="debian-mini", public=True,
            )
        )  # fmt: skip
        image = Image(
            id="ami-00000000000000001", account=OTHER, region=act.region, created=NOW, name="debian-mini",
            architecture="riscv64", state="available", public=True, host_image="debian-mini", revision="1",
            root_device="/dev/sda1",
            devices=[BlockDevice(device="/dev/sda1", snapshot="snap-00000000000000001", size=1)],
        )  # fmt: skip
        session.add(image)
    return image


def refused(code: str, message: str = "") -> Any:
    return pytest.raises(AwsError, match=f"^{code}: .*{message}")


def test_a_volume_is_creating_until_its_file_is_there(act: Actor) -> None:
    answer = act(volumes.create_volume, AvailabilityZone=ZONE, Size=8)
    assert (answer["State"], answer["VolumeType"], answer["Iops"], answer["SnapshotId"]) == ("creating", "gp2", 100, "")
    assert act.woken == {"volumes"}


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({"Size": None}, "MissingParameter", "size/snapshot"),
        ({"AvailabilityZone": "us-east-1c"}, "InvalidZone.NotFound", "us-east-1c"),
        ({"Size": 16385}, "InvalidParameterValue", "maximum is 16384GiB"),
        ({"Size": 0}, "InvalidParameterValue", "minimum is 1GiB"),
        ({"VolumeType": "gp2", "Iops": 3000}, "InvalidParameterCombination", "iops is not supported"),
        ({"VolumeType": "io1"}, "MissingParameter", "iops must be specified"),
        ({"VolumeType": "io1", "Iops": 500}, "InvalidParameterValue", "ratio of 62.5"),
        ({"VolumeType": "gp3", "Iops": 2999}, "InvalidParameterValue", "too low"),
        ({"VolumeType": "gp3", "Throughput": 1000}, "InvalidParameterValue", "Throughput"),
        ({"VolumeType": "gp9"}, "UnknownVolumeType", "gp9"),
        ({"Encrypted": True}, "UnsupportedOperation", "not encrypted"),
        ({"SnapshotId": "snap-1"}, "InvalidSnapshotID.Malformed", "snap-1"),
        ({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound", "snap-0123456789abcdef0"),
    ],
)
def test_a_volume_that_ebs_would_refuse_is_refused(
    act: Actor, request_: dict[str, object], code: str, message: str
) -> None:
    request = {"AvailabilityZone": ZONE, "Size": 8} | request_
    with refused(code, message):
        act(volumes.create_volume, **{name: value for name, value in request.items() if value is not None})
    assert act(volumes.describe_volumes)["Volumes"] == []


def test_volumes_have_sixteen_tebibytes_together_and_no_more(act: Actor) -> None:
    made = [act(volumes.create_volume, AvailabilityZone=ZONE, Size=size)["VolumeId"] for size in (16_000, 384)]
    with refused("VolumeLimitExceeded", "16 TiB"):
        act(volumes.create_volume, AvailabilityZone=ZONE, Size=1)
    image = public_image(act)
    with refused("VolumeLimitExceeded"):
        launch(act, image, [])
    act(volumes.delete_volume, VolumeId=made[1])
    last = act(volumes.create_volume, AvailabilityZone=ZONE, Size=383)["VolumeId"]
    with act.database.write() as session:
        for volume in session.query(Volume).filter_by(state="creating"):
            volume.made, volume.state = True, "available"
    with refused("VolumeLimitExceeded"):
        act(volumes.modify_volume, VolumeId=made[0], Size=16_002)
    act(volumes.modify_volume, VolumeId=made[0], Size=16_001)
    with refused("VolumeLimitExceeded"):
        act(volumes.modify_volume, VolumeId=last, Size=384)
    act(volumes.modify_volume, VolumeId=last, VolumeType="gp3")


def test_a_volume_of_a_snapshot_is_at_least_as_large(act: Actor) -> None:
    snapshot = completed(act, make(act, Size=8))
    assert act(volumes.create_volume, AvailabilityZone=ZONE, SnapshotId=snapshot)["Size"] == 8
    with refused("InvalidParameterValue", "expect size >= 8GiB"):
        act(volumes.create_volume, AvailabilityZone=ZONE, SnapshotId=snapshot, Size=7)


def test_descriptions_are_filtered_by_every_fact(act: Actor) -> None:
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "data"}]}]
    first = make(act, Size=8, TagSpecifications=tags)
    make(act, Size=9)
    act(volume_attachments.attach_volume, VolumeId=first, InstanceId=instance(act), Device="/dev/sdf")

    def ids(name: str, value: str) -> list[str]:
        found = act(volumes.describe_volumes, Filters=[{"Name": name, "Values": [value]}])
        return [one["VolumeId"] for one in found["Volumes"]]

    for name, value in {
        "size": "8",
        "tag:Name": "d*",
        "status": "in-use",
        "attachment.device": "/dev/sdf",
        "attachment.instance-id": "i-00000000000000001",
        "attachment.delete-on-termination": "false",
    }.items():
        assert ids(name, value) == [first], name
    with refused("InvalidParameterValue", "The filter 'colour' is invalid"):
        ids("colour", "blue")


def test_a_volume_is_attached_once_and_in_its_zone(act: Actor) -> None:
    volume, other = make(act), make(act, AvailabilityZone="us-east-1b")
    machine = instance(act)
    with refused("InvalidVolume.ZoneMismatch"):
        act(volume_attachments.attach_volume, VolumeId=other, InstanceId=machine, Device="/dev/sdf")
    with refused("InvalidParameterValue", "/dev/null is not a valid EBS device name"):
        act(volume_attachments.attach_volume, VolumeId=volume, InstanceId=machine, Device="/dev/null")
    answer = act(volume_attachments.attach_volume, VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert answer["State"] == "attaching"
    with refused("VolumeInUse"):
        act(volume_attachments.attach_volume, VolumeId=volume, InstanceId=machine, Device="/dev/sdg")
    with refused("VolumeInUse", machine):
        act(volumes.delete_volume, VolumeId=volume)
    with refused("InvalidParameterValue", "already in use"):
        act(volume_attachments.attach_volume, VolumeId=make(act), InstanceId=machine, Device="/dev/sdf")


@pytest.mark.parametrize("state", ["pending", "stopping", "shutting-down", "terminated"])
def test_only_a_running_or_stopped_instance_takes_a_volume(act: Actor, state: str) -> None:
    with refused("IncorrectState", "is not 'running'"):
        act(
            volume_attachments.attach_volume,
            VolumeId=make(act),
            InstanceId=instance(act, state=state),
            Device="/dev/sdf",
        )


def test_a_root_is_detached_of_a_stopped_instance_only(act: Actor, database: Database) -> None:
    machine, volume = instance(act), make(act)
    with database.write() as session:
        session.get_one(Volume, volume).state = "in-use"
        session.add(
            VolumeAttachment(
                volume=volume, instance=machine, account=OWNER, region=act.region, device="/dev/sda1", is_root=True,
                state="attached", since=NOW,
            )
        )  # fmt: skip
    with refused("OperationNotPermitted", "Unable to detach root volume '/dev/sda1'"):
        act(volume_attachments.detach_volume, VolumeId=volume)
    with database.write() as session:
        session.get_one(Instance, machine).state = "stopped"
    assert act(volume_attachments.detach_volume, VolumeId=volume)["State"] == "detaching"


def test_what_is_not_attached_cannot_be_detached(act: Actor) -> None:
    with refused("IncorrectState", "'available' state"):
        act(volume_attachments.detach_volume, VolumeId=make(act))
    volume = make(act)
    act(volume_attachments.attach_volume, VolumeId=volume, InstanceId=instance(act), Device="/dev/sdf")
    with refused("InvalidAttachment.NotFound", "/dev/sdg"):
        act(volume_attachments.detach_volume, VolumeId=volume, Device="/dev/sdg")


def test_a_modification_is_checked_and_shown(act: Actor) -> None:
    volume = make(act, VolumeType="gp3")
    with refused("InvalidParameterValue", "cannot be smaller"):
        act(volumes.modify_volume, VolumeId=volume, Size=7)
    with refused("InvalidVolumeModification.NotFound"):
        act(volumes.describe_volumes_modifications, VolumeIds=[volume])
    answer = act(volumes.modify_volume, VolumeId=volume, Size=10, VolumeType="io2", Iops=1000)["VolumeModification"]
    assert (answer["OriginalSize"], answer["TargetSize"], answer["TargetIops"]) == (8, 10, 1000)
    with refused("IncorrectModificationState", "MODIFYING"):
        act(volumes.modify_volume, VolumeId=volume, Size=11)


def test_another_account_sees_nothing_of_it(act: Actor, database: Database) -> None:
    volume = make(act)
    snapshot = completed(act, volume)
    other, elsewhere = Actor(database, OTHER), Actor(database, region="eu-west-1")
    for actor in (other, elsewhere):
        assert actor(volumes.describe_volumes)["Volumes"] == []
        assert actor(snapshots.describe_snapshots)["Snapshots"] == []
        for action, request in (
            (volumes.describe_volumes, {"VolumeIds": [volume]}),
            (volumes.delete_volume, {"VolumeId": volume}),
            (volumes.modify_volume, {"VolumeId": volume, "Size": 20}),
            (snapshots.create_snapshot, {"VolumeId": volume}),
        ):
            with refused("InvalidVolume.NotFound"):
                actor(action, **request)
        with refused("InvalidSnapshot.NotFound"):
            actor(snapshots.delete_snapshot, SnapshotId=snapshot)


def test_a_snapshot_behind_an_image_stays(act: Actor, database: Database) -> None:
    snapshot = completed(act, make(act))
    with database.write() as session:
        session.add(
            Image(
                id="ami-00000000000000002", account=OWNER, region=act.region, created=NOW, name="mine",
                architecture="riscv64", state="available", host_image="ami-00000000000000002",
                devices=[BlockDevice(device="/dev/sda1", snapshot=snapshot, size=8)],
            )
        )  # fmt: skip
    with refused("InvalidSnapshot.InUse", "ami-00000000000000002"):
        act(snapshots.delete_snapshot, SnapshotId=snapshot)
    answer = act(images.deregister_image, ImageId="ami-00000000000000002", DeleteAssociatedSnapshots=True)
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshot, "ReturnCode": "success"}]
    assert act(snapshots.describe_snapshots)["Snapshots"] == []
    assert act(images.describe_images, ImageIds=["ami-00000000000000002"])["Images"] == []
    with refused("InvalidAMIID.Unavailable", "no longer available"):
        act(images.deregister_image, ImageId="ami-00000000000000002")


def test_everybody_sees_a_public_image_and_nobody_else_changes_it(act: Actor) -> None:
    image = public_image(act)
    (shown,) = act(images.describe_images, Owners=["amazon"])["Images"]
    assert shown["ImageId"] == image.id
    assert shown["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == "snap-00000000000000001"
    assert act(images.describe_images, Owners=["self"])["Images"] == []
    for actor in (act, Actor(act.database, OTHER)):  # it is of that account's name, and still nobody's to change
        with refused("AuthFailure"):
            actor(images.deregister_image, ImageId=image.id)
        with refused("AuthFailure"):
            actor(snapshots.delete_snapshot, SnapshotId="snap-00000000000000001")
        assert actor(images.describe_images, Owners=["self"])["Images"] == []


def test_an_image_that_is_not_ready_says_so(act: Actor, database: Database) -> None:
    image = public_image(act)
    with database.write() as session:
        row = session.get_one(Image, image.id)
        row.state, row.problem = "pending", "it is being built"

    def launchable(call: object, request: object) -> dict[str, object]:
        images.launchable(call, image.id)
        return {}

    with refused("InvalidAMIID.Unavailable", "pending: it is being built"):
        act(launchable)


def launch(act: Actor, image: Image, mappings: list[dict[str, object]]) -> str:
    identifier = instance(act, state="pending")

    def run(call, request) -> dict[str, object]:
        at_launch(call, identifier, ZONE, mappings, image, {"Name": "disk"})
        return {}

    act(run)
    return identifier


def test_a_launch_makes_the_images_volumes_as_the_request_changes_them(act: Actor, database: Database) -> None:
    image = public_image(act)
    mappings = [
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 20, "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5, "VolumeType": "gp3"}},
        {"DeviceName": "/dev/sdg", "NoDevice": ""},
    ]
    machine = launch(act, image, mappings)
    with database.read() as session:
        root = root_volume(session, machine)
        assert root is not None
        assert (root.size, root.snapshot, root.kind) == (20, "snap-00000000000000001", "gp3")
        rows = attached_to(session, [machine])[machine]
        assert [(one.device, one.is_root, one.delete_on_termination) for one in rows] == [
            ("/dev/sda1", True, False),
            ("/dev/sdf", False, True),
        ]
    with database.write() as session:
        for volume in session.query(Volume):
            volume.made, volume.state = True, "in-use"
        release(session, machine, NOW)
    shown = act(volumes.describe_volumes)["Volumes"]
    assert {one["State"] for one in shown if one["VolumeId"] == root.id} == {"available"}
    assert {one["State"] for one in shown if one["VolumeId"] != root.id} == {"deleting"}


@pytest.mark.parametrize(
    ("mapping", "code", "message"),
    [
        ({"DeviceName": "/dev/sda1", "NoDevice": ""}, "InvalidBlockDeviceMapping", "cannot be left out"),
        ({"DeviceName": "/dev/sdf"}, "MissingParameter", "/dev/sdf"),
        ({"DeviceName": "sdf/x", "Ebs": {"VolumeSize": 1}}, "InvalidParameterValue", "sdf/x"),
        ({"DeviceName": "/dev/sdf", "Ebs": {}}, "MissingParameter", "size"),
        ({"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-1"}}, "InvalidBlockDeviceMapping", "cannot change"),
        ({"DeviceName": "/dev/sdf", "VirtualName": "ephemeral99"}, "InvalidParameterValue", "ephemeral99"),
    ],
)
def test_a_mapping_that_contradicts_is_refused(act: Actor, mapping: dict[str, object], code: str, message: str) -> None:
    image = public_image(act)
    with refused(code, message):
        launch(act, image, [mapping])
    assert act(volumes.describe_volumes)["Volumes"] == []


def test_all_volumes_of_an_instance_are_kept_but_those_left_out(act: Actor, database: Database) -> None:
    machine = launch(act, public_image(act), [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5}}])
    with database.write() as session:
        for volume in session.query(Volume):
            volume.made, volume.state = True, "in-use"
    of_machine = {"InstanceId": machine}
    taken = act(snapshots.create_snapshots, InstanceSpecification=of_machine, Description="both")["Snapshots"]
    assert sorted((one["VolumeSize"], one["State"], one["Description"]) for one in taken) == [
        (1, "pending", "both"),
        (5, "pending", "both"),
    ]
    without_root = of_machine | {"ExcludeBootVolume": True}
    (data,) = act(snapshots.create_snapshots, InstanceSpecification=without_root)["Snapshots"]
    assert data["VolumeSize"] == 5


@pytest.mark.parametrize("state", ["pending", "stopping", "shutting-down", "terminated"])
def test_no_image_is_made_of_an_instance_that_is_on_its_way(act: Actor, database: Database, state: State) -> None:
    machine = launch(act, public_image(act), [])
    with database.write() as session:
        session.get_one(Instance, machine).state = state
    before = len(act(images.describe_images)["Images"])
    with refused("IncorrectState", "is not 'running' or 'stopped'"):
        act(images.create_image, InstanceId=machine, Name="of one that moves")
    assert len(act(images.describe_images)["Images"]) == before
    assert act(snapshots.describe_snapshots, OwnerIds=["self"])["Snapshots"] == []


def test_a_snapshot_is_kept_in_its_region_and_nowhere_else(act: Actor, database: Database) -> None:
    machine = launch(act, public_image(act), [])
    with database.write() as session:
        for volume in session.query(Volume):
            volume.made, volume.state = True, "in-use"
            identifier = volume.id
    for elsewhere in ({"OutpostArn": "arn:aws:outposts:us-east-1:123456789012:outpost/op-1"}, {"Location": "local"}):
        for action, asked in (
            (snapshots.create_snapshot, {"VolumeId": identifier}),
            (snapshots.create_snapshots, {"InstanceSpecification": {"InstanceId": machine}}),
        ):
            with pytest.raises(AwsError, match="UnsupportedOperation"):
                act(action, **asked, **elsewhere)
    act(snapshots.create_snapshot, VolumeId=identifier, Location="regional")


def test_an_image_is_made_of_an_instances_volumes(act: Actor, database: Database) -> None:
    machine = launch(act, public_image(act), [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 5}}])
    with database.write() as session:
        session.get_one(Instance, machine).state = "running"
        for volume in session.query(Volume):
            volume.made, volume.state = True, "in-use"
    identifier = act(images.create_image, InstanceId=machine, Name="mine")["ImageId"]
    (shown,) = act(images.describe_images, ImageIds=[identifier])["Images"]
    assert (shown["State"], shown["SourceInstanceId"]) == ("pending", machine)
    assert [one["DeviceName"] for one in shown["BlockDeviceMappings"]] == ["/dev/sda1", "/dev/sdf"]
    assert len(act(snapshots.describe_snapshots, OwnerIds=["self"])["Snapshots"]) == 2
    with refused("InvalidAMIName.Duplicate", identifier):
        act(images.create_image, InstanceId=machine, Name="mine")
    with refused("InvalidAMIName.Malformed"):
        act(images.create_image, InstanceId=machine, Name="no*")
    smaller = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 4}}]
    with refused("InvalidBlockDeviceMapping", "smaller than snapshot"):
        act(images.create_image, InstanceId=machine, Name="small", BlockDeviceMappings=smaller)
    assert len(act(snapshots.describe_snapshots, OwnerIds=["self"])["Snapshots"]) == 2, "nothing of it is left"
