"""Instances as clients launch, see, change and end them; what becomes of machines is tested beside the controllers."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from celaje.cloud.state.hosts import LOCAL, Host
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.instances import RUNNING, STOPPED, TERMINATED, Instance, held
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume
from tests.cloud.ec2.acting import NOW
from tests.cloud.served import REGION, Owner, ServedCloud, refusal

AMI, ARM = "ami-0123456789abcdef0", "ami-0123456789abcdef1"
SNAPSHOT = "snap-0123456789abcdef0"
UNKNOWN = "i-00000000000000000"
MEMORY = 8 * 512  # of the host, in MiB: eight t3.nano


@pytest.fixture(autouse=True)
def _images(served_cloud: ServedCloud) -> None:
    """Images for everybody, and a host with room for eight t3.nano, whatever others have launched."""
    root = served_cloud.root.account
    with served_cloud.database.write() as session:
        memory, cpus = held(session, LOCAL)
        session.merge(Host(id=LOCAL, memory=memory + MEMORY, cpus=cpus + 64, architectures="riscv64", noted=NOW))
        session.merge(
            Snapshot(
                id=SNAPSHOT, account=root, region=REGION, created=NOW, volume="", size=1, state="completed", public=True
            )
        )
        for identifier, architecture in ((AMI, "riscv64"), (ARM, "arm64")):
            session.merge(
                Image(
                    id=identifier,
                    account=root,
                    region=REGION,
                    created=NOW,
                    name="debian-mini",
                    architecture=architecture,
                    state="available",
                    public=True,
                    devices=[BlockDevice(device="/dev/sda1", snapshot=SNAPSHOT, size=1)],
                    host_image="debian-mini",
                    instance_metadata_v2_only=False,
                )
            )


@pytest.fixture
def cloud(served_cloud: ServedCloud) -> ServedCloud:
    """With what instances are launched of."""
    return served_cloud


def left(cloud: ServedCloud, owner: Owner) -> int:
    """How many instances, interfaces and volumes an account has."""
    with cloud.database.read() as session:
        return sum(
            session.query(one).filter_by(account=owner.account).count() for one in (Instance, NetworkInterface, Volume)
        )


def launched(ec2: Any, count: int = 1, **request: Any) -> list[str]:
    asked = {"ImageId": AMI, "MinCount": count, "MaxCount": count, "InstanceType": "t3.nano"} | request
    return [one["InstanceId"] for one in ec2.run_instances(**asked)["Instances"]]


def shown(ec2: Any, identifier: str) -> dict[str, Any]:
    [reservation] = ec2.describe_instances(InstanceIds=[identifier])["Reservations"]
    [found] = reservation["Instances"]
    return dict(found)


def become(cloud: ServedCloud, identifier: str, state: Any, wanted: str = "running") -> None:
    """As the controller notes it."""
    with cloud.database.write() as session:
        row = session.get_one(Instance, identifier)
        row.wanted = wanted
        row.enter(state, NOW)


def states(changes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["PreviousState"]["Name"], one["CurrentState"]["Name"]) for one in changes]


# Launching.


def test_an_instance_is_pending_with_a_place_in_the_default_vpc_and_a_root_volume(cloud: ServedCloud, ec2: Any) -> None:
    answer = ec2.run_instances(ImageId=AMI, MinCount=1, MaxCount=1, InstanceType="t3.nano")
    [instance] = answer["Instances"]
    assert answer["ReservationId"].startswith("r-")
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    assert instance["StateReason"] == {"Code": "pending", "Message": "pending"}
    assert instance["Placement"]["AvailabilityZone"] == "us-east-1a"
    assert instance["PublicIpAddress"].startswith("127.")
    [interface] = instance["NetworkInterfaces"]
    assert interface["PrivateIpAddress"] == instance["PrivateIpAddress"]
    assert interface["Groups"] == instance["SecurityGroups"]
    assert interface["Groups"][0]["GroupName"] == "default"
    [device] = instance["BlockDeviceMappings"]
    [volume] = ec2.describe_volumes(VolumeIds=[device["Ebs"]["VolumeId"]])["Volumes"]
    assert (volume["Size"], volume["SnapshotId"]) == (1, SNAPSHOT)
    assert shown(ec2, instance["InstanceId"]) == instance
    assert {"instances", "networks", "volumes"} <= cloud.woken


def test_many_are_launched_under_one_reservation_in_their_order(ec2: Any) -> None:
    answer = ec2.run_instances(ImageId=AMI, MinCount=3, MaxCount=3, InstanceType="t3.nano")
    assert [one["AmiLaunchIndex"] for one in answer["Instances"]] == [0, 1, 2]
    addresses = {one["PrivateIpAddress"] for one in answer["Instances"]}
    assert len(addresses) == 3
    [reservation] = ec2.describe_instances()["Reservations"]
    assert reservation["Instances"] == answer["Instances"]


def test_as_many_are_launched_as_the_host_has_memory_for(ec2: Any) -> None:
    assert len(launched(ec2, MinCount=1, MaxCount=20)) == 8
    code, message = refusal(ec2.run_instances, ImageId=AMI, MinCount=1, MaxCount=1, InstanceType="t3.nano")
    assert code == "InsufficientInstanceCapacity"
    assert "512 MiB" in message
    assert "of the host's" in message


def test_too_many_are_refused_and_nothing_half_made_stays(cloud: ServedCloud, owner: Owner, ec2: Any) -> None:
    code, _ = refusal(ec2.run_instances, ImageId=AMI, MinCount=9, MaxCount=9, InstanceType="t3.nano")
    assert code == "InsufficientInstanceCapacity"
    assert not left(cloud, owner)


def test_an_image_that_no_engine_runs_is_refused_with_the_reason(ec2: Any) -> None:
    code, message = refusal(ec2.run_instances, ImageId=ARM, MinCount=1, MaxCount=1, InstanceType="t3.nano")
    assert code == "Unsupported"
    assert "arm64" in message
    assert "riscv64" in message


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"ImageId": ""}, "MissingParameter"),
    "an unknown image": ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
    "a malformed image": ({"ImageId": "debian"}, "InvalidAMIID.Malformed"),
    "an unknown type": ({"InstanceType": "t3.enormous"}, "InvalidParameterValue"),
    "no instance": ({"MinCount": 0}, "InvalidParameterValue"),
    "fewer than none": ({"MaxCount": -1}, "InvalidParameterValue"),
    "more at least than at most": ({"MinCount": 3, "MaxCount": 2}, "InvalidParameterCombination"),
    "an unknown key pair": ({"KeyName": "mine"}, "InvalidKeyPair.NotFound"),
    "an unknown subnet": ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
    "a malformed subnet": ({"SubnetId": "here"}, "InvalidSubnetID.Malformed"),
    "an unknown zone": ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
    "an unknown zone's id": ({"Placement": {"AvailabilityZoneId": "use1-az9"}}, "InvalidParameterValue"),
    "a zone twice": (
        {"Placement": {"AvailabilityZone": "us-east-1a", "AvailabilityZoneId": "use1-az1"}},
        "InvalidParameterCombination",
    ),
    "other cores than the type's": ({"CpuOptions": {"CoreCount": 4, "ThreadsPerCore": 2}}, "Unsupported"),
    "other threads than the type's": ({"CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 1}}, "Unsupported"),
    "credits of what gathers none": (
        {"InstanceType": "m5.large", "CreditSpecification": {"CpuCredits": "unlimited"}},
        "InstanceCreditSpecification.NotSupported",
    ),
    "other credits": ({"CreditSpecification": {"CpuCredits": "many"}}, "InvalidParameterValue"),
    "names of its identifier": ({"PrivateDnsNameOptions": {"HostnameType": "resource-name"}}, "Unsupported"),
    "answers to its identifier": (
        {"PrivateDnsNameOptions": {"EnableResourceNameDnsARecord": True}},
        "Unsupported",
    ),
    "a dedicated host": ({"Placement": {"Tenancy": "dedicated"}}, "Unsupported"),
    "a placement group": ({"Placement": {"GroupName": "near"}}, "Unsupported"),
    "an unknown group": ({"SecurityGroupIds": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
    "too much user data": ({"UserData": "#" * 16_385}, "InvalidParameterValue"),
    "another behaviour": ({"InstanceInitiatedShutdownBehavior": "hibernate"}, "InvalidParameterValue"),
    "too many hops": ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
    "an unknown profile": ({"IamInstanceProfile": {"Name": "admin"}}, "InvalidParameterValue"),
    "a spot instance": ({"InstanceMarketOptions": {"MarketType": "spot"}}, "Unsupported"),
    "hibernation": ({"HibernationOptions": {"Configured": True}}, "UnsupportedHibernationConfiguration"),
    "one address for two": ({"MaxCount": 2, "PrivateIpAddress": "172.31.0.9"}, "InvalidParameterCombination"),
    "an address elsewhere": ({"PrivateIpAddress": "10.0.0.9"}, "InvalidParameterValue"),
    "two interfaces at one index": ({"NetworkInterfaces": 2 * [{"DeviceIndex": 0}]}, "InvalidParameterValue"),
    "a second interface": ({"NetworkInterfaces": [{"DeviceIndex": 1}]}, "InvalidParameterValue"),
    "a group beside interfaces": (
        {"NetworkInterfaces": [{"DeviceIndex": 0}], "SecurityGroupIds": ["sg-00000000000000000"]},
        "InvalidParameterCombination",
    ),
    "no root": (
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "NoDevice": ""}]},
        "InvalidBlockDeviceMapping",
    ),
    "more volumes than an instance takes": (
        {"BlockDeviceMappings": [{"DeviceName": f"/dev/xvdb{a}", "Ebs": {"VolumeSize": 1}} for a in range(32)]},
        "AttachmentLimitExceeded",
    ),
    "an interface with addresses of IPv6": (
        {"NetworkInterfaces": [{"DeviceIndex": 0, "Ipv6PrefixCount": 1}]},
        "Unsupported",
    ),
    "an interface of another type": (
        {"NetworkInterfaces": [{"DeviceIndex": 0, "InterfaceType": "efa"}]},
        "Unsupported",
    ),
    "an interface with a long description": (
        {"NetworkInterfaces": [{"DeviceIndex": 0, "Description": "x" * 256}]},
        "InvalidParameterValue",
    ),
    "tags of something else": (
        {"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a", "Value": "b"}]}]},
        "InvalidParameterValue",
    ),
}


@pytest.mark.parametrize(("request_", "code"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_is_refused_with_awss_code(
    cloud: ServedCloud, owner: Owner, ec2: Any, request_: dict[str, Any], code: str
) -> None:
    asked = {"ImageId": AMI, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"} | request_
    assert refusal(ec2.run_instances, **asked)[0] == code
    assert not left(cloud, owner)


def test_a_zone_is_named_by_its_id_too(ec2: Any) -> None:
    for zone in ec2.describe_availability_zones()["AvailabilityZones"]:
        [instance] = launched(ec2, Placement={"AvailabilityZoneId": zone["ZoneId"]})
        assert shown(ec2, instance)["Placement"]["AvailabilityZone"] == zone["ZoneName"]
        volume = ec2.create_volume(AvailabilityZoneId=zone["ZoneId"], Size=1)
        assert volume["AvailabilityZone"] == zone["ZoneName"]
    assert refusal(ec2.create_volume, AvailabilityZoneId="use1-az9", Size=1)[0] == "InvalidZone.NotFound"
    both = {"AvailabilityZone": "us-east-1a", "AvailabilityZoneId": "use1-az1"}
    assert refusal(ec2.create_volume, **both, Size=1)[0] == "InvalidParameterCombination"


def test_an_instance_has_the_cpus_of_its_type(ec2: Any) -> None:
    for name in ("t3.nano", "t2.micro", "t4g.nano"):
        [kind] = ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
        own = {
            "CoreCount": kind["VCpuInfo"]["DefaultCores"],
            "ThreadsPerCore": kind["VCpuInfo"]["DefaultThreadsPerCore"],
        }
        [instance] = launched(ec2, InstanceType=name, CpuOptions=own)
        assert shown(ec2, instance)["CpuOptions"] == own
        ec2.terminate_instances(InstanceIds=[instance])


def test_an_interface_says_where_and_whether_it_is_public(ec2: Any) -> None:
    subnet = ec2.describe_subnets()["Subnets"][-1]
    network = subnet["CidrBlock"].rpartition(".")[0]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet["SubnetId"],
        "AssociatePublicIpAddress": False,
        "PrivateIpAddress": f"{network}.77",
        "Description": "mine",
    }
    found = shown(ec2, launched(ec2, NetworkInterfaces=[interface])[0])
    assert found["PrivateIpAddress"] == f"{network}.77"
    assert found["SubnetId"] == subnet["SubnetId"]
    assert "PublicIpAddress" not in found
    assert found["NetworkInterfaces"][0]["Description"] == "mine"


def test_tags_go_to_what_they_are_for(ec2: Any) -> None:
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": f"my {kind}"}]}
        for kind in ("instance", "volume", "network-interface")
    ]
    [identifier] = launched(ec2, TagSpecifications=tags)
    found = shown(ec2, identifier)
    assert found["Tags"] == [{"Key": "Name", "Value": "my instance"}]
    volume = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    [described] = ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert described["Tags"] == [{"Key": "Name", "Value": "my volume"}]


# Finding.


def test_an_instance_that_there_is_not_is_not_found(ec2: Any) -> None:
    assert refusal(ec2.describe_instances, InstanceIds=[UNKNOWN]) == (
        "InvalidInstanceID.NotFound",
        f"The instance ID '{UNKNOWN}' does not exist",
    )
    assert refusal(ec2.describe_instances, InstanceIds=["web"])[0] == "InvalidInstanceID.Malformed"


def test_another_account_finds_nothing_and_reaches_nothing(cloud: ServedCloud, owner: Owner, ec2: Any) -> None:
    [identifier] = launched(ec2)
    other = cloud.owner().client()
    elsewhere = owner.client(region="eu-west-1")
    for stranger in (other, elsewhere):
        assert stranger.describe_instances()["Reservations"] == []
        for action in (stranger.stop_instances, stranger.terminate_instances, stranger.describe_instances):
            code, message = refusal(action, InstanceIds=[identifier])
            assert (code, message.replace(identifier, UNKNOWN)) == refusal(action, InstanceIds=[UNKNOWN])
        assert refusal(stranger.get_password_data, InstanceId=identifier)[0] == "InvalidInstanceID.NotFound"


FILTERS = {
    "instance-id": "id",
    "instance-state-name": "pending",
    "instance-state-code": "0",
    "image-id": AMI,
    "instance-type": "t3.nan?",
    "availability-zone": "us-east-1*",
    "availability-zone-id": "use1-az1",
    "architecture": "riscv64",
    "tag:Name": "web",
    "tag-key": "Name",
    "tenancy": "default",
    "private-ip-address": "172.31.*",
    "network-interface.addresses.private-ip-address": "172.31.*",
    "ip-address": "127.*",
    "root-device-name": "/dev/sda1",
    "block-device-mapping.device-name": "/dev/sda1",
    "group-name": "default",
    "instance.group-name": "default",
    "metadata-options.http-tokens": "optional",
    "monitoring-state": "disabled",
    "virtualization-type": "hvm",
    "launch-index": "0",
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_it_names_and_nothing_else(ec2: Any, name: str) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}]
    [identifier] = launched(ec2, TagSpecifications=tags)
    value = identifier if FILTERS[name] == "id" else FILTERS[name]
    [reservation] = ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])["Reservations"]
    assert reservation["Instances"][0]["InstanceId"] == identifier
    assert ec2.describe_instances(Filters=[{"Name": name, "Values": ["no-such"]}])["Reservations"] == []


def test_a_filter_that_there_is_not_is_refused(ec2: Any) -> None:
    assert (
        refusal(ec2.describe_instances, Filters=[{"Name": "colour", "Values": ["red"]}])[0] == "InvalidParameterValue"
    )


def test_pages_are_instances_and_together_everything(ec2: Any) -> None:
    wanted = set(launched(ec2, 8))
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = ec2.describe_instances(MaxResults=5, **token)
        page = [one["InstanceId"] for reservation in answer["Reservations"] for one in reservation["Instances"]]
        assert 1 <= len(page) <= 5
        found += page
        if not answer.get("NextToken"):
            break
        token = {"NextToken": answer["NextToken"]}
    assert sorted(found) == sorted(wanted)
    assert refusal(ec2.describe_instances, MaxResults=5, InstanceIds=list(wanted))[0] == "InvalidParameterCombination"


# Life.


def test_stop_and_start_go_through_awss_states(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    assert refusal(ec2.stop_instances, InstanceIds=[identifier])[0] == "IncorrectInstanceState"
    become(cloud, identifier, RUNNING)
    assert states(ec2.start_instances(InstanceIds=[identifier])["StartingInstances"]) == [("running", "running")]
    assert states(ec2.stop_instances(InstanceIds=[identifier])["StoppingInstances"]) == [("running", "stopping")]
    found = shown(ec2, identifier)
    assert found["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert found["StateTransitionReason"].startswith("User initiated (20")
    assert states(ec2.stop_instances(InstanceIds=[identifier])["StoppingInstances"]) == [("stopping", "stopping")]
    assert refusal(ec2.start_instances, InstanceIds=[identifier])[0] == "IncorrectInstanceState"
    become(cloud, identifier, STOPPED, "stopped")
    assert states(ec2.stop_instances(InstanceIds=[identifier])["StoppingInstances"]) == [("stopped", "stopped")]
    launched_before = shown(ec2, identifier)["LaunchTime"]
    assert states(ec2.start_instances(InstanceIds=[identifier])["StartingInstances"]) == [("stopped", "pending")]
    assert shown(ec2, identifier)["LaunchTime"] > launched_before


def test_a_stopped_instance_keeps_its_address_but_needs_room_to_start(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    address = shown(ec2, identifier)["PrivateIpAddress"]
    become(cloud, identifier, STOPPED, "stopped")
    launched(ec2, 8)
    assert refusal(ec2.start_instances, InstanceIds=[identifier])[0] == "InsufficientInstanceCapacity"
    assert shown(ec2, identifier)["PrivateIpAddress"] == address


@pytest.mark.parametrize("said", ["Force", "SkipOsShutdown"])
def test_a_guest_is_not_asked_to_shut_down_if_the_client_says_so(cloud: ServedCloud, ec2: Any, said: str) -> None:
    [identifier] = launched(ec2)
    become(cloud, identifier, RUNNING)
    ec2.stop_instances(InstanceIds=[identifier], **{said: True})
    with cloud.database.read() as session:
        assert session.get_one(Instance, identifier).forced


def test_terminated_is_the_end_and_is_listed_for_a_while(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    assert states(ec2.terminate_instances(InstanceIds=[identifier])["TerminatingInstances"]) == [
        ("pending", "shutting-down")
    ]
    become(cloud, identifier, TERMINATED, "terminated")
    assert states(ec2.terminate_instances(InstanceIds=[identifier])["TerminatingInstances"]) == [
        ("terminated", "terminated")
    ]
    for action in (ec2.start_instances, ec2.stop_instances, ec2.reboot_instances):
        assert refusal(action, InstanceIds=[identifier])[0] == "IncorrectInstanceState"
    assert shown(ec2, identifier)["State"] == {"Code": 48, "Name": "terminated"}


def test_protection_is_kept_until_it_is_taken_away(cloud: ServedCloud, ec2: Any) -> None:
    [guarded, other] = launched(ec2, 2, DisableApiTermination=True, DisableApiStop=True)
    for identifier in (guarded, other):
        become(cloud, identifier, RUNNING)
    ec2.modify_instance_attribute(InstanceId=other, DisableApiTermination={"Value": False})
    code, message = refusal(ec2.terminate_instances, InstanceIds=[other, guarded])
    assert code == "OperationNotPermitted"
    assert "disableApiTermination" in message
    assert shown(ec2, other)["State"]["Name"] == "running"
    assert refusal(ec2.stop_instances, InstanceIds=[guarded])[0] == "OperationNotPermitted"
    ec2.modify_instance_attribute(InstanceId=guarded, Attribute="disableApiStop", Value="false")
    ec2.stop_instances(InstanceIds=[guarded])


def test_one_wrong_instance_leaves_all_as_they_were(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    become(cloud, identifier, RUNNING)
    assert refusal(ec2.stop_instances, InstanceIds=[identifier, UNKNOWN])[0] == "InvalidInstanceID.NotFound"
    assert shown(ec2, identifier)["State"]["Name"] == "running"


def test_a_reboot_is_asked_of_what_runs(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    become(cloud, identifier, RUNNING)
    ec2.reboot_instances(InstanceIds=[identifier])
    with cloud.database.read() as session:
        assert session.get_one(Instance, identifier).reboot_asked is not None
    become(cloud, identifier, STOPPED, "stopped")
    assert refusal(ec2.reboot_instances, InstanceIds=[identifier])[0] == "IncorrectInstanceState"


# Attributes.


def test_what_can_change_only_in_a_stopped_instance_is_refused_in_a_running_one(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    become(cloud, identifier, RUNNING)
    changes: list[dict[str, Any]] = [
        {"InstanceType": {"Value": "t3.micro"}},
        {"UserData": {"Value": b"#!/bin/sh"}},
        {"EbsOptimized": {"Value": True}},
    ]
    for change in changes:
        assert refusal(ec2.modify_instance_attribute, InstanceId=identifier, **change)[0] == "IncorrectInstanceState"
    become(cloud, identifier, STOPPED, "stopped")
    for change in changes:
        ec2.modify_instance_attribute(InstanceId=identifier, **change)
    found = shown(ec2, identifier)
    assert (found["InstanceType"], found["EbsOptimized"]) == ("t3.micro", True)
    told = ec2.describe_instance_attribute(InstanceId=identifier, Attribute="userData")
    assert base64.b64decode(told["UserData"]["Value"]) == b"#!/bin/sh"


@pytest.mark.parametrize(
    ("attribute", "member", "value"),
    [
        ("instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior", {"Value": "stop"}),
        ("disableApiTermination", "DisableApiTermination", {"Value": False}),
        ("disableApiStop", "DisableApiStop", {"Value": False}),
        ("userData", "UserData", {}),
        ("instanceType", "InstanceType", {"Value": "t3.nano"}),
        ("sourceDestCheck", "SourceDestCheck", {"Value": True}),
        ("rootDeviceName", "RootDeviceName", {"Value": "/dev/sda1"}),
        ("kernel", "KernelId", {}),
        ("productCodes", "ProductCodes", []),
    ],
)
def test_each_attribute_is_told(ec2: Any, attribute: str, member: str, value: object) -> None:
    [identifier] = launched(ec2)
    told = ec2.describe_instance_attribute(InstanceId=identifier, Attribute=attribute)
    assert told["InstanceId"] == identifier
    assert told.get(member, []) == value


def test_groups_of_an_instance_are_replaced(ec2: Any) -> None:
    [identifier] = launched(ec2)
    vpc = shown(ec2, identifier)["VpcId"]
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    ec2.modify_instance_attribute(InstanceId=identifier, Groups=[group])
    assert shown(ec2, identifier)["SecurityGroups"] == [{"GroupId": group, "GroupName": "web"}]


def test_a_volume_may_outlive_its_instance(ec2: Any) -> None:
    [identifier] = launched(ec2)
    change = [{"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}}]
    ec2.modify_instance_attribute(InstanceId=identifier, BlockDeviceMappings=change)
    assert shown(ec2, identifier)["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is False
    missing = [{"DeviceName": "/dev/sdz", "Ebs": {"DeleteOnTermination": False}}]
    assert (
        refusal(ec2.modify_instance_attribute, InstanceId=identifier, BlockDeviceMappings=missing)[0]
        == "InvalidInstanceAttributeValue"
    )


def test_metadata_options_change_and_are_told(cloud: ServedCloud, ec2: Any) -> None:
    [identifier] = launched(ec2)
    cloud.woken.clear()
    ec2.modify_instance_metadata_options(InstanceId=identifier, HttpTokens="required", HttpPutResponseHopLimit=3)
    options = shown(ec2, identifier)["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"], options["HttpEndpoint"]) == (
        "required",
        3,
        "enabled",
    )
    assert "networks" in cloud.woken


@pytest.mark.parametrize("attribute", ["blockDeviceMapping", "groupSet"])
def test_lists_cannot_be_said_as_a_text(ec2: Any, attribute: str) -> None:
    [one] = launched(ec2)
    for value in ({}, {"Value": "sg-0123456789abcdef0"}):
        code, _ = refusal(ec2.modify_instance_attribute, InstanceId=one, Attribute=attribute, **value)
        assert code in ("MissingParameter", "InvalidParameterValue")


def test_two_attributes_at_once_and_none_are_refused(ec2: Any) -> None:
    [identifier] = launched(ec2)
    two = {"DisableApiStop": {"Value": True}, "DisableApiTermination": {"Value": True}}
    for change in (two, {}):
        assert (
            refusal(ec2.modify_instance_attribute, InstanceId=identifier, **change)[0] == "InvalidParameterCombination"
        )


# What is told besides.


def test_status_is_told_of_running_instances_and_of_all_if_asked(cloud: ServedCloud, ec2: Any) -> None:
    [running, stopped] = launched(ec2, 2)
    become(cloud, running, RUNNING)
    become(cloud, stopped, STOPPED, "stopped")
    [told] = ec2.describe_instance_status()["InstanceStatuses"]
    assert told["InstanceId"] == running
    assert told["InstanceStatus"]["Status"] == told["SystemStatus"]["Status"] == "initializing"
    everything = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert {one["InstanceId"]: one["InstanceStatus"]["Status"] for one in everything} == {
        running: "initializing",
        stopped: "not-applicable",
    }


def test_only_burstable_instances_have_credits(ec2: Any) -> None:
    [burstable] = launched(ec2)
    told = ec2.describe_instance_credit_specifications(InstanceIds=[burstable])["InstanceCreditSpecifications"]
    assert told == [{"InstanceId": burstable, "CpuCredits": "unlimited"}]


def test_there_is_no_password_and_no_uefi_data(ec2: Any) -> None:
    [identifier] = launched(ec2)
    assert ec2.get_password_data(InstanceId=identifier)["PasswordData"] == ""
    assert refusal(ec2.get_instance_uefi_data, InstanceId=identifier)[0] == "UnsupportedOperation"


def test_monitoring_is_remembered(ec2: Any) -> None:
    [identifier] = launched(ec2)
    ec2.monitor_instances(InstanceIds=[identifier])
    assert shown(ec2, identifier)["Monitoring"] == {"State": "enabled"}
    ec2.unmonitor_instances(InstanceIds=[identifier])
    assert shown(ec2, identifier)["Monitoring"] == {"State": "disabled"}


def test_an_image_that_wants_version_2_of_the_metadata_has_it(cloud: ServedCloud, ec2: Any) -> None:
    with cloud.database.write() as session:
        session.get_one(Image, AMI).instance_metadata_v2_only = True
    options = shown(ec2, launched(ec2)[0])["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 2)
