"""What clients ask before they do anything, and what is truly empty here."""

from __future__ import annotations

from typing import Any

import pytest

from celaje.cloud.ec2.nothing_here import ACTIONS
from celaje.cloud.state.volumes import Volume
from tests.cloud.served import ServedCloud, refusal

NAMED = [
    ("describe_placement_groups", {"GroupNames": ["x"]}, "InvalidPlacementGroup.Unknown"),
    ("describe_spot_instance_requests", {"SpotInstanceRequestIds": ["sir-1"]}, "InvalidSpotInstanceRequestID.NotFound"),
    ("describe_hosts", {"HostIds": ["h-0123456789abcdef0"]}, "InvalidHostID.NotFound"),
]


@pytest.mark.parametrize("action", [action.name for action in ACTIONS])
def test_what_nobody_can_make_is_an_empty_list(ec2: Any, action: str) -> None:
    answer = getattr(ec2, action)()
    [found] = [value for name, value in answer.items() if name != "ResponseMetadata"]
    assert found == []


@pytest.mark.parametrize(("action", "request_", "code"), NAMED)
def test_an_identifier_of_what_cannot_be_is_not_found(ec2: Any, action: str, request_: Any, code: str) -> None:
    assert refusal(getattr(ec2, action), **request_)[0] == code


def test_volumes_are_not_encrypted_and_it_is_said(ec2: Any) -> None:
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert refusal(ec2.enable_ebs_encryption_by_default)[0] == "UnsupportedOperation"
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)
    assert volume["Encrypted"] is False


def test_defaults_are_those_that_launches_have(ec2: Any) -> None:
    assert ec2.get_instance_metadata_defaults()["AccountLevel"] == {}
    assert ec2.get_serial_console_access_status()["SerialConsoleAccessEnabled"] is False
    assert ec2.get_snapshot_block_public_access_state()["State"] == "unblocked"
    assert ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "unblocked"
    assert ec2.disable_serial_console_access()["SerialConsoleAccessEnabled"] is False
    assert ec2.disable_snapshot_block_public_access()["State"] == "unblocked"
    assert ec2.disable_image_block_public_access()["ImageBlockPublicAccessState"] == "unblocked"
    assert refusal(ec2.enable_image_block_public_access, ImageBlockPublicAccessState="block-new-sharing")[0] == (
        "UnsupportedOperation"
    )
    assert ec2.get_allowed_images_settings()["State"] == "disabled"
    credits = ec2.get_default_credit_specification(InstanceFamily="t3")["InstanceFamilyCreditSpecification"]
    assert credits == {"InstanceFamily": "t3", "CpuCredits": "unlimited"}
    assert refusal(ec2.get_default_credit_specification, InstanceFamily="m5")[0] == "InvalidParameterValue"


def test_a_volumes_io_cannot_be_set_to_be_enabled_again(served_cloud: ServedCloud, ec2: Any) -> None:
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    with served_cloud.database.write() as session:
        session.get_one(Volume, volume).state = "available"
    ec2.modify_volume_attribute(VolumeId=volume, AutoEnableIO={"Value": False})
    code, _ = refusal(ec2.modify_volume_attribute, VolumeId=volume, AutoEnableIO={"Value": True})
    assert code == "UnsupportedOperation"
    assert ec2.describe_volume_attribute(VolumeId=volume, Attribute="autoEnableIO")["AutoEnableIO"]["Value"] is False
