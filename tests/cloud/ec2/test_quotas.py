"""How many of a kind an account may have."""

from __future__ import annotations

import base64

from celaje.cloud.ec2 import quotas
from tests.cloud.ec2.test_instances import AMI, _images
from tests.cloud.ec2.test_key_pairs import ED25519
from tests.cloud.served import REGION, refusal

__all__ = ["_images"]


def test_an_account_that_makes_things_in_a_loop_is_stopped_and_others_are_not(ec2, served_cloud, monkeypatch):
    for name in ("VOLUMES", "KEY_PAIRS", "NETWORK_INTERFACES"):
        monkeypatch.setattr(quotas, name, 1)
    [subnet, *_] = ec2.describe_subnets()["Subnets"]
    zone = f"{REGION}a"
    for client in (ec2, served_cloud.owner().client()):
        client.create_volume(AvailabilityZone=zone, Size=1)
        client.import_key_pair(KeyName="one", PublicKeyMaterial=b"ssh-ed25519 " + base64.b64encode(ED25519))
    ec2.create_network_interface(SubnetId=subnet["SubnetId"])
    code, message = refusal(ec2.create_volume, AvailabilityZone=zone, Size=1)
    assert code == "VolumeLimitExceeded"
    assert "delete some first" in message
    assert refusal(ec2.create_key_pair, KeyName="two", KeyType="ed25519")[0] == "ResourceLimitExceeded"
    code, _ = refusal(ec2.create_network_interface, SubnetId=subnet["SubnetId"])
    assert code == "NetworkInterfaceLimitExceeded"
    launch = {"ImageId": AMI, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"}
    assert refusal(ec2.run_instances, **launch)[0] == "NetworkInterfaceLimitExceeded"
    monkeypatch.setattr(quotas, "NETWORK_INTERFACES", 2)
    assert refusal(ec2.run_instances, **launch)[0] == "VolumeLimitExceeded"
    assert ec2.describe_instances()["Reservations"] == []


def test_an_account_has_so_many_images(ec2, monkeypatch):
    monkeypatch.setattr(quotas, "IMAGES", 0)
    mapping = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}
    code, message = refusal(
        ec2.register_image, Name="one more", RootDeviceName="/dev/sda1", BlockDeviceMappings=[mapping]
    )
    assert code == "ResourceLimitExceeded"
    assert "0 images" in message
