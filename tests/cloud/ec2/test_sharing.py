"""Images and snapshots that others may use, or no longer; images that are deprecated, disabled, copied, registered."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from celaje.cloud.reconcile.images import DEREGISTERED_IS_KNOWN, ImagesController
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.snapshots import Snapshot
from tests.cloud.ec2.acting import NOW
from tests.cloud.ec2.test_instances import _images  # noqa: F401  room on the host, for all tests
from tests.cloud.served import REGION, Owner, ServedCloud, refusal


@pytest.fixture
def other(served_cloud: ServedCloud) -> Owner:
    """Another account."""
    return served_cloud.owner()


def made(cloud: ServedCloud, owner: Owner, name: str = "mine", **changed: Any) -> tuple[str, str]:
    """An image of the owner's and its snapshot, as controllers leave them."""
    snapshot = Snapshot(
        id=new_id("snap"), account=owner.account, region=REGION, created=NOW, volume="", size=2, state="completed",
        progress=100,
    )  # fmt: skip
    columns = {
        "id": new_id("ami"), "account": owner.account, "region": REGION, "created": NOW, "name": name,
        "architecture": "riscv64", "state": "available", "host_image": "none", "root_device": "/dev/sda1",
        "devices": [BlockDevice(device="/dev/sda1", snapshot=snapshot.id, size=2)],
    }  # fmt: skip
    image = Image(**(columns | changed))
    found = image.id, snapshot.id
    with cloud.database.write() as session:
        session.add_all([snapshot, image])
    return found


def ids(ec2: Any, **request: Any) -> set[str]:
    return {one["ImageId"] for one in ec2.describe_images(**request)["Images"]}


def launch(ec2: Any, image: str) -> dict[str, Any]:
    [instance] = ec2.run_instances(ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1)["Instances"]
    return dict(instance)


def test_an_account_that_is_named_launches_the_image_until_it_is_not(
    served_cloud: ServedCloud, owner: Owner, other: Owner
) -> None:
    image, snapshot = made(served_cloud, owner)
    mine, theirs = owner.client(), other.client()
    assert refusal(launch, ec2=theirs, image=image)[0] == "InvalidAMIID.NotFound"
    mine.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": other.account}]})
    assert image in ids(theirs)
    assert image in ids(theirs, ExecutableUsers=["self"])
    assert image not in ids(served_cloud.owner().client())
    instance = launch(theirs, image)
    [device] = instance["BlockDeviceMappings"]
    [volume] = theirs.describe_volumes(VolumeIds=[device["Ebs"]["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["SnapshotId"]) == (2, snapshot)
    shared = mine.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]
    assert shared == [{"UserId": other.account}]
    assert refusal(theirs.describe_image_attribute, ImageId=image, Attribute="launchPermission")[0] == "AuthFailure"
    mine.modify_image_attribute(
        ImageId=image, Attribute="launchPermission", OperationType="remove", UserIds=[other.account]
    )
    assert image not in ids(theirs)
    assert refusal(launch, ec2=theirs, image=image)[0] == "InvalidAMIID.NotFound"


def test_a_public_image_is_everybodys_until_it_is_reset(served_cloud: ServedCloud, owner: Owner, other: Owner) -> None:
    image, _ = made(served_cloud, owner)
    mine, theirs = owner.client(), other.client()
    mine.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    assert image in ids(theirs, ExecutableUsers=["all"])
    [found] = theirs.describe_images(ImageIds=[image])["Images"]
    assert (found["Public"], found["OwnerId"]) == (True, owner.account)
    launch(theirs, image)
    mine.reset_image_attribute(ImageId=image, Attribute="launchPermission")
    assert refusal(launch, ec2=theirs, image=image)[0] == "InvalidAMIID.NotFound"
    assert mine.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"] == []


def test_a_public_image_does_not_take_the_name_of_celajes_own(served_cloud: ServedCloud, owner: Owner) -> None:
    image, _ = made(served_cloud, owner, "trusted-name")
    owner.client().modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    found = owner.client("ssm").get_parameters(Names=["/aws/service/celaje/trusted-name/latest/image-id"])
    assert found["Parameters"] == []


def test_volumes_are_made_of_a_shared_snapshot_until_it_is_not(
    served_cloud: ServedCloud, owner: Owner, other: Owner
) -> None:
    _, snapshot = made(served_cloud, owner)
    mine, theirs = owner.client(), other.client()
    asked = {"AvailabilityZone": "us-east-1a", "SnapshotId": snapshot}
    assert refusal(theirs.create_volume, **asked)[0] == "InvalidSnapshot.NotFound"
    permission = {"Add": [{"UserId": other.account}]}
    mine.modify_snapshot_attribute(SnapshotId=snapshot, CreateVolumePermission=permission)
    assert theirs.create_volume(**asked)["SnapshotId"] == snapshot
    listed = theirs.describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]
    assert snapshot in {one["SnapshotId"] for one in listed}
    shared = mine.describe_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission")
    assert shared["CreateVolumePermissions"] == [{"UserId": other.account}]
    assert refusal(theirs.delete_snapshot, SnapshotId=snapshot)[0] == "AuthFailure"
    mine.reset_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission")
    assert refusal(theirs.create_volume, **asked)[0] == "InvalidSnapshot.NotFound"
    mine.modify_snapshot_attribute(
        SnapshotId=snapshot, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"]
    )
    assert theirs.create_volume(**asked)["State"] == "creating"


def test_an_owner_that_nobody_can_be_is_refused(ec2: Any) -> None:
    for action, member in (
        (ec2.describe_images, "Owners"),
        (ec2.describe_images, "ExecutableUsers"),
        (ec2.describe_snapshots, "OwnerIds"),
        (ec2.describe_snapshots, "RestorableByUserIds"),
    ):
        for user in ("somebody", "123", "1234-5678-9012"):
            assert refusal(action, **{member: [user]}) == ("InvalidUserID.Malformed", f'Invalid user id: "{user}"')
        assert action(**{member: ["self", "123456789012"]})


def test_whom_others_share_with_is_not_told(served_cloud: ServedCloud, owner: Owner, other: Owner) -> None:
    image, _ = made(served_cloud, owner)
    third = served_cloud.owner()
    owner.client().modify_image_attribute(
        ImageId=image, LaunchPermission={"Add": [{"Group": "all"}, {"UserId": third.account}]}
    )
    assert image not in ids(other.client(), ExecutableUsers=[third.account])
    assert image in ids(owner.client(), ExecutableUsers=[third.account])


@pytest.mark.parametrize(
    ("permission", "code"),
    [
        ({"Add": [{"UserId": "12345"}]}, "InvalidAMIAttributeItemValue"),
        ({"Add": [{"Group": "some"}]}, "InvalidParameterValue"),
        ({"Add": [{"OrganizationArn": "arn:aws:organizations::1:organization/o-1"}]}, "UnsupportedOperation"),
        ({}, "InvalidParameterCombination"),
    ],
)
def test_permissions_for_nobody_are_refused(
    served_cloud: ServedCloud, owner: Owner, permission: dict[str, Any], code: str
) -> None:
    image, _ = made(served_cloud, owner)
    assert refusal(owner.client().modify_image_attribute, ImageId=image, LaunchPermission=permission)[0] == code


def test_an_image_is_shared_with_a_thousand_accounts_and_no_more(served_cloud: ServedCloud, owner: Owner) -> None:
    image, _ = made(served_cloud, owner)
    ec2 = owner.client()
    many = [{"UserId": f"{number:012d}"} for number in range(1001)]
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": many[1:]})
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": many[1:3]})
    code, _ = refusal(ec2.modify_image_attribute, ImageId=image, LaunchPermission={"Add": many[:1]})
    assert code == "ResourceLimitExceeded"
    found = ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]
    assert found == many[1:]


def test_a_description_that_no_image_is_made_with_is_none_that_one_is_given(
    served_cloud: ServedCloud, owner: Owner
) -> None:
    image, _ = made(served_cloud, owner)
    code, _ = refusal(owner.client().modify_image_attribute, ImageId=image, Description={"Value": "x" * 256})
    assert code == "InvalidParameterValue"


def test_a_deprecated_image_is_found_by_who_knows_it(served_cloud: ServedCloud, owner: Owner, other: Owner) -> None:
    image, _ = made(served_cloud, owner, public=True)
    mine, theirs = owner.client(), other.client()
    now = datetime.datetime.now(datetime.UTC)
    mine.enable_image_deprecation(ImageId=image, DeprecateAt=now + datetime.timedelta(days=1))
    assert image in ids(theirs)
    with served_cloud.database.write() as session:
        session.get_one(Image, image).deprecated = now - datetime.timedelta(minutes=1)
    assert image not in ids(theirs)
    assert image in ids(theirs, IncludeDeprecated=True)
    assert image in ids(theirs, ImageIds=[image])
    assert image in ids(mine)
    launch(theirs, image)
    mine.disable_image_deprecation(ImageId=image)
    assert image in ids(theirs)
    past = now - datetime.timedelta(days=1)
    assert refusal(mine.enable_image_deprecation, ImageId=image, DeprecateAt=past)[0] == "InvalidParameterValue"


def test_nothing_is_launched_of_a_disabled_image(served_cloud: ServedCloud, owner: Owner, other: Owner) -> None:
    image, _ = made(served_cloud, owner, public=True)
    mine = owner.client()
    mine.disable_image(ImageId=image)
    assert refusal(launch, ec2=mine, image=image)[0] == "InvalidAMIID.Unavailable"
    assert image not in ids(mine, Owners=["self"])
    assert image not in ids(other.client())
    assert image in ids(mine, Owners=["self"], IncludeDisabled=True)
    mine.enable_image(ImageId=image)
    launch(mine, image)
    assert image not in ids(other.client())


def test_a_deregistered_image_is_unavailable_to_who_had_it_and_then_not_found(
    served_cloud: ServedCloud, owner: Owner, other: Owner
) -> None:
    image, _ = made(served_cloud, owner)
    mine, theirs = owner.client(), other.client()
    mine.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": other.account}]})
    mine.deregister_image(ImageId=image)
    assert image not in ids(mine, Owners=["self"])
    gone = ("InvalidAMIID.Unavailable", f"The image ID '{image}' is no longer available")
    assert ids(mine, ImageIds=[image]) == set()
    assert refusal(mine.describe_image_attribute, ImageId=image, Attribute="description") == gone
    assert refusal(launch, ec2=mine, image=image) == gone
    assert refusal(mine.deregister_image, ImageId=image) == gone
    assert refusal(theirs.describe_images, ImageIds=[image])[0] == "InvalidAMIID.NotFound"
    made(served_cloud, owner)  # its name is free
    controller = ImagesController(served_cloud.database, lambda names: None)
    wait = controller.step()
    assert wait is not None
    assert wait > 60
    assert ids(mine, ImageIds=[image]) == set()
    with served_cloud.database.write() as session:
        session.get_one(Image, image).deregistered = NOW - 2 * DEREGISTERED_IS_KNOWN
    controller.step()
    assert refusal(mine.describe_images, ImageIds=[image])[0] == "InvalidAMIID.NotFound"


def test_an_image_is_copied_to_another_region_with_snapshots_of_its_own(
    served_cloud: ServedCloud, owner: Owner
) -> None:
    image, snapshot = made(served_cloud, owner)
    owner.client().create_tags(Resources=[image], Tags=[{"Key": "a", "Value": "b"}])
    there = owner.client(region="eu-west-1")
    asked = {"Name": "copied", "SourceImageId": image, "SourceRegion": REGION}
    copied = there.copy_image(**asked, CopyImageTags=True)["ImageId"]
    [found] = there.describe_images(ImageIds=[copied])["Images"]
    assert (found["State"], found["Name"], found["SourceImageId"], found["SourceImageRegion"]) == (
        "pending", "copied", image, REGION,
    )  # fmt: skip
    assert found["Tags"] == [{"Key": "a", "Value": "b"}]
    ebs = found["BlockDeviceMappings"][0]["Ebs"]
    assert ebs["SnapshotId"] != snapshot
    assert ebs["VolumeSize"] == 2
    [behind] = there.describe_snapshots(SnapshotIds=[ebs["SnapshotId"]])["Snapshots"]
    assert (behind["State"], behind["VolumeId"]) == ("pending", "vol-ffffffff")
    assert copied in behind["Description"]
    assert {"images", "snapshots"} <= served_cloud.woken
    assert refusal(there.copy_image, **asked)[0] == "InvalidAMIName.Duplicate"
    assert refusal(there.copy_image, **(asked | {"Name": "other", "SourceRegion": "eu-west-1"}))[0] == (
        "InvalidAMIID.NotFound"
    )
    assert refusal(there.copy_image, **(asked | {"Name": "other", "SourceRegion": "mars-1"}))[0] == (
        "InvalidParameterValue"
    )


def test_an_image_is_copied_by_others_only_with_its_snapshots(
    served_cloud: ServedCloud, owner: Owner, other: Owner
) -> None:
    image, snapshot = made(served_cloud, owner, public=True)
    asked = {"Name": "copied", "SourceImageId": image, "SourceRegion": REGION}
    assert refusal(other.client().copy_image, **asked)[0] == "InvalidRequest"
    owner.client().modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"UserId": other.account}]}
    )
    assert other.client().copy_image(**asked)["ImageId"].startswith("ami-")


def test_a_snapshot_is_copied_once_it_is_whole(served_cloud: ServedCloud, owner: Owner, other: Owner) -> None:
    _, snapshot = made(served_cloud, owner)
    asked = {"SourceRegion": REGION, "SourceSnapshotId": snapshot, "Description": "over there"}
    there = owner.client(region="eu-west-1")
    copied = there.copy_snapshot(
        **asked, TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}]
    )
    assert copied["Tags"] == [{"Key": "a", "Value": "b"}]
    [found] = there.describe_snapshots(SnapshotIds=[copied["SnapshotId"]])["Snapshots"]
    assert (found["State"], found["Description"], found["VolumeSize"]) == ("pending", "over there", 2)
    assert refusal(other.client().copy_snapshot, **asked)[0] == "InvalidSnapshot.NotFound"
    assert refusal(there.copy_snapshot, **asked, Encrypted=True)[0] == "UnsupportedOperation"
    with served_cloud.database.write() as session:
        session.get_one(Snapshot, snapshot).state = "pending"
    assert refusal(there.copy_snapshot, **asked)[0] == "IncorrectState"


def test_an_image_is_registered_of_a_snapshot(served_cloud: ServedCloud, owner: Owner) -> None:
    _, snapshot = made(served_cloud, owner)
    ec2 = owner.client()
    mapping = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 7}},
    ]
    image = ec2.register_image(
        Name="registered", Architecture="arm64", RootDeviceName="/dev/xvda", BlockDeviceMappings=mapping,
        VirtualizationType="hvm", EnaSupport=True, ImdsSupport="v2.0",
    )["ImageId"]  # fmt: skip
    [found] = ec2.describe_images(ImageIds=[image])["Images"]
    assert (found["State"], found["Architecture"], found["RootDeviceName"]) == ("pending", "arm64", "/dev/xvda")
    assert found["ImdsSupport"] == "v2.0"
    sizes = {one["DeviceName"]: one["Ebs"]["VolumeSize"] for one in found["BlockDeviceMappings"]}
    assert sizes == {"/dev/xvda": 2, "/dev/sdf": 7}
    assert found["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
    assert refusal(ec2.delete_snapshot, SnapshotId=snapshot)[0] == "InvalidSnapshot.InUse"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 1}}]}, "InvalidBlockDeviceMapping"),
        ({"RootDeviceName": "/dev/sdb"}, "InvalidBlockDeviceMapping"),
        ({"VirtualizationType": "paravirtual"}, "Unsupported"),
        ({"ImageLocation": "bucket/manifest.xml"}, "Unsupported"),
        ({"Name": "a*b"}, "InvalidAMIName.Malformed"),
    ],
)
def test_what_is_no_image_is_not_registered(
    served_cloud: ServedCloud, owner: Owner, changed: dict[str, Any], code: str
) -> None:
    _, snapshot = made(served_cloud, owner)
    mapping = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}]
    asked = {"Name": "registered", "BlockDeviceMappings": mapping, "Architecture": "riscv64"} | changed
    assert refusal(owner.client().register_image, **asked)[0] == code
    assert len(ids(owner.client(), Owners=["self"])) == 1


def test_anothers_snapshot_is_not_registered(served_cloud: ServedCloud, owner: Owner, other: Owner) -> None:
    _, snapshot = made(served_cloud, owner)
    mapping = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}]
    asked = {"Name": "registered", "BlockDeviceMappings": mapping, "Architecture": "riscv64"}
    assert refusal(other.client().register_image, **asked)[0] == "InvalidSnapshot.NotFound"
