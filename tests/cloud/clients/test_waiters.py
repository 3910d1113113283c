"""boto3's waiters of what is implemented. Nothing reconciles here: what waits for a machine is told the state that a
controller notes, by the same rows; with real controllers, test_cloud_clients.py waits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import WaiterError

from celaje.cloud.state.instances import RUNNING, STOPPED, TERMINATED, Checks, Instance
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume
from tests.cloud.served import Owner

AT_ONCE = {"Delay": 1, "MaxAttempts": 1}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def waits(client: Any, name: str, **request: Any) -> None:
    """What is there already, no waiter waits for."""
    client.get_waiter(name).wait(**request, WaiterConfig=AT_ONCE)


def test_waiters_of_networks_and_keys(ec2: Any) -> None:
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    waits(ec2, "vpc_exists", VpcIds=[vpc["VpcId"]])
    waits(ec2, "vpc_available", VpcIds=[vpc["VpcId"]])
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    waits(ec2, "subnet_available", SubnetIds=[subnet])
    gateway = ec2.describe_internet_gateways()["InternetGateways"][0]["InternetGatewayId"]
    waits(ec2, "internet_gateway_exists", InternetGatewayIds=[gateway])
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    waits(ec2, "security_group_exists", GroupIds=[group])
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    waits(ec2, "network_interface_available", NetworkInterfaceIds=[interface])
    ec2.create_key_pair(KeyName="key")
    waits(ec2, "key_pair_exists", KeyNames=["key"])
    with pytest.raises(WaiterError, match="Max attempts exceeded"):
        waits(ec2, "vpc_exists", VpcIds=["vpc-0123456789abcdef0"])
    with pytest.raises(WaiterError, match="encountered a terminal failure state|NotFound"):
        waits(ec2, "network_interface_available", NetworkInterfaceIds=["eni-0123456789abcdef0"])


def test_waiters_of_volumes_and_snapshots(ec2: Any, owner: Owner) -> None:
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    with pytest.raises(WaiterError):
        waits(ec2, "volume_available", VolumeIds=[volume])
    with owner.cloud.database.write() as session:
        row = session.get_one(Volume, volume)
        row.state, row.made = "available", True
    waits(ec2, "volume_available", VolumeIds=[volume])
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    with owner.cloud.database.write() as session:
        session.get_one(Snapshot, snapshot).state = "completed"
    waits(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    ec2.delete_volume(VolumeId=volume)
    with owner.cloud.database.write() as session:
        session.delete(session.get_one(Volume, volume))
    waits(ec2, "volume_deleted", VolumeIds=[volume])


def test_waiters_of_instances_end_with_the_states_that_they_name(ec2: Any, owner: Owner, launched: str) -> None:
    waits(ec2, "instance_exists", InstanceIds=[launched])
    with pytest.raises(WaiterError, match="Max attempts exceeded"):
        waits(ec2, "instance_running", InstanceIds=[launched])
    now = ec2.describe_instances()["Reservations"][0]["Instances"][0]["LaunchTime"]
    for state, waiters in (
        (RUNNING, ("instance_running", "instance_status_ok", "system_status_ok")),
        (STOPPED, ("instance_stopped",)),
        (TERMINATED, ("instance_terminated",)),
    ):
        with owner.cloud.database.write() as session:
            row = session.get_one(Instance, launched)
            row.enter(state, now)
            row.checked = Checks(system="ok", instance="ok")
        for waiter in waiters:
            waits(ec2, waiter, InstanceIds=[launched])
    with pytest.raises(WaiterError, match="terminal failure state"):
        waits(ec2, "instance_running", InstanceIds=[launched])


def test_waiters_of_images_buckets_and_objects(ec2: Any, owner: Owner, image: str) -> None:
    waits(ec2, "image_exists", ImageIds=[image])
    waits(ec2, "image_available", ImageIds=[image])
    s3 = owner.client("s3")
    bucket = f"waited-for-{owner.account}"
    waits(s3, "bucket_not_exists", Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    waits(s3, "bucket_exists", Bucket=bucket)
    waits(s3, "object_not_exists", Bucket=bucket, Key="key")
    s3.put_object(Bucket=bucket, Key="key", Body=b"")
    waits(s3, "object_exists", Bucket=bucket, Key="key")


def test_waiters_of_identities(owner: Owner) -> None:
    iam = owner.client("iam")
    iam.create_user(UserName="user")
    waits(iam, "user_exists", UserName="user")
    iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(TRUST))
    waits(iam, "role_exists", RoleName="role")
    iam.create_instance_profile(InstanceProfileName="profile")
    waits(iam, "instance_profile_exists", InstanceProfileName="profile")
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    policy = iam.create_policy(PolicyName="policy", PolicyDocument=json.dumps(document))["Policy"]["Arn"]
    waits(iam, "policy_exists", PolicyArn=policy)
