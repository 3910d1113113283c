"""Elastic addresses and the interfaces that they are reached at."""

from __future__ import annotations

import ipaddress

import pytest

from celaje.cloud.ec2 import network_interfaces
from celaje.cloud.settings import Settings
from celaje.cloud.state.networks import NetworkInterface
from tests.cloud.belongings import instance_with
from tests.cloud.served import ServedCloud, refusal

POOL = ipaddress.IPv4Network(Settings().public_pool)


@pytest.fixture
def interface(ec2):
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    return ec2.create_network_interface(SubnetId=subnet, Description="mine")["NetworkInterface"]["NetworkInterfaceId"]


def public_of(ec2, interface):
    [found] = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    return found.get("Association", {}).get("PublicIp")


def test_addresses_come_from_the_pool_and_go_back_to_it(ec2):
    made = [ec2.allocate_address(Domain="vpc") for _ in range(5)]
    assert len({each["PublicIp"] for each in made}) == 5
    assert all(ipaddress.IPv4Address(each["PublicIp"]) in POOL for each in made)
    assert len(ec2.describe_addresses()["Addresses"]) == 5
    ec2.release_address(AllocationId=made[0]["AllocationId"])
    assert refusal(ec2.release_address, AllocationId=made[0]["AllocationId"]) == (
        "InvalidAllocationID.NotFound",
        f"The allocation ID '{made[0]['AllocationId']}' does not exist",
    )
    assert refusal(ec2.describe_addresses, PublicIps=[made[0]["PublicIp"]]) == (
        "InvalidAddress.NotFound",
        f"Address '{made[0]['PublicIp']}' not found.",
    )


def test_two_accounts_and_their_instances_never_have_the_same_address(tmp_path):
    cloud = ServedCloud(tmp_path, Settings(public_pool="127.64.0.0/29"))
    try:
        mine, other = cloud.owner().client(), cloud.owner().client()
        made = {client.allocate_address()["PublicIp"] for client in (mine, other) for _ in range(3)}
        assert len(made) == 6
        assert refusal(mine.allocate_address)[0] == "InsufficientAddressCapacity"
    finally:
        cloud.close()


def test_an_account_has_a_hundred_addresses_a_region(ec2):
    for _ in range(100):
        ec2.allocate_address()
    assert refusal(ec2.allocate_address) == (
        "AddressLimitExceeded",
        "The maximum number of addresses has been reached.",
    )


def test_an_instance_is_reached_at_its_elastic_address_until_that_goes(ec2, served_cloud, interface):
    instance = instance_with(served_cloud, interface)
    own = public_of(ec2, interface)
    assert own is not None
    made = ec2.allocate_address()
    served_cloud.woken.clear()
    association = ec2.associate_address(AllocationId=made["AllocationId"], InstanceId=instance)["AssociationId"]
    assert served_cloud.woken == {"networks"}
    assert public_of(ec2, interface) == made["PublicIp"]
    [found] = ec2.describe_addresses(Filters=[{"Name": "instance-id", "Values": [instance]}])["Addresses"]
    assert (found["AssociationId"], found["NetworkInterfaceId"]) == (association, interface)
    assert refusal(ec2.release_address, AllocationId=made["AllocationId"])[0] == "InvalidIPAddress.InUse"
    ec2.disassociate_address(AssociationId=association)
    again = public_of(ec2, interface)
    assert again is not None
    assert again != made["PublicIp"]
    assert refusal(ec2.disassociate_address, AssociationId=association)[0] == "InvalidAssociationID.NotFound"


def test_an_address_moves_unless_the_client_says_that_it_must_not(ec2, interface):
    subnet = ec2.describe_subnets()["Subnets"][1]["SubnetId"]
    second = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    made = ec2.allocate_address()["AllocationId"]
    first = ec2.associate_address(AllocationId=made, NetworkInterfaceId=interface)["AssociationId"]
    assert ec2.associate_address(AllocationId=made, NetworkInterfaceId=interface)["AssociationId"] == first
    assert refusal(ec2.associate_address, AllocationId=made, NetworkInterfaceId=second, AllowReassociation=False) == (
        "Resource.AlreadyAssociated",
        f"resource {made} is already associated with associate-id {first}",
    )
    ec2.associate_address(AllocationId=made, NetworkInterfaceId=second)
    assert public_of(ec2, interface) is None
    assert public_of(ec2, second) is not None
    other = ec2.allocate_address()["AllocationId"]
    ec2.associate_address(AllocationId=other, NetworkInterfaceId=second)
    [left] = ec2.describe_addresses(AllocationIds=[made])["Addresses"]
    assert "AssociationId" not in left


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"PublicIp": "127.64.9.9"}, "AuthFailure"),
        ({"AllocationId": "eipalloc-0123456789abcdef0"}, "InvalidAllocationID.NotFound"),
        ({"AllocationId": "nonsense"}, "InvalidElasticIpID.Malformed"),
        ({}, "MissingParameter"),
    ],
)
def test_an_address_that_is_not_there_is_refused(ec2, interface, request_, code):
    assert refusal(ec2.associate_address, NetworkInterfaceId=interface, **request_)[0] == code


def test_an_instance_that_cannot_have_an_address_yet_says_so(ec2, served_cloud, interface):
    instance = instance_with(served_cloud, interface, "pending")
    made = ec2.allocate_address()["AllocationId"]
    assert refusal(ec2.associate_address, AllocationId=made, InstanceId=instance) == (
        "InvalidInstanceID",
        f"The pending instance '{instance}' is not in a valid state for this operation.",
    )
    assert refusal(ec2.associate_address, AllocationId=made, InstanceId="i-0fedcba9876543210") == (
        "InvalidInstanceID.NotFound",
        "The instance ID 'i-0fedcba9876543210' does not exist",
    )
    assert refusal(ec2.associate_address, AllocationId=made)[0] == "MissingParameter"


def test_interfaces_are_made_described_changed_and_deleted(ec2, served_cloud, interface):
    [found] = ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": ["mine"]}])[
        "NetworkInterfaces"
    ]
    assert found["Status"] == "available"
    assert found["PrivateIpAddresses"][0]["PrivateIpAddress"] == found["PrivateIpAddress"]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Description={"Value": "yours"})
    described = ec2.describe_network_interface_attribute(NetworkInterfaceId=interface, Attribute="description")
    assert described["Description"] == {"Value": "yours"}
    for checked in (False, True):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": checked})
        described = ec2.describe_network_interface_attribute(NetworkInterfaceId=interface, Attribute="sourceDestCheck")
        assert described["SourceDestCheck"] == {"Value": checked}
    address = found["PrivateIpAddress"]
    assert refusal(ec2.create_network_interface, SubnetId=found["SubnetId"], PrivateIpAddress=address) == (
        "InvalidIPAddress.InUse",
        f"Address {address} is in use.",
    )
    instance_with(served_cloud, interface)
    assert refusal(ec2.delete_network_interface, NetworkInterfaceId=interface)[0] == "InvalidParameterValue"
    with served_cloud.database.write() as session:
        network_interfaces.detach(session, session.get_one(NetworkInterface, interface))
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    assert refusal(ec2.describe_network_interfaces, NetworkInterfaceIds=[interface]) == (
        "InvalidNetworkInterfaceID.NotFound",
        f"The networkInterface ID '{interface}' does not exist",
    )


def test_deleting_an_interface_frees_its_elastic_address(ec2, interface):
    made = ec2.allocate_address()["AllocationId"]
    ec2.associate_address(AllocationId=made, NetworkInterfaceId=interface)
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    ec2.release_address(AllocationId=made)
