"""Interfaces at instances, and their private addresses, as clients ask for them. What machines do is tested apart."""

from __future__ import annotations

from typing import Any

import pytest

from celaje.cloud.reconcile.networks import Documents
from celaje.cloud.state.instances import RUNNING, STOPPED, Instance
from celaje.cloud.state.networks import NetworkInterface
from tests.cloud.ec2.test_instances import _images, become, launched, shown
from tests.cloud.served import ServedCloud, refusal

__all__ = ["_images"]


@pytest.fixture
def subnet(ec2: Any) -> dict[str, Any]:
    """Of the first zone, where instances are launched."""
    [found] = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1a"]}])["Subnets"]
    return dict(found)


def address(subnet: dict[str, Any], last: int) -> str:
    """For a test in which nobody has been given one at random that might be the same."""
    return f"{subnet['CidrBlock'].rpartition('.')[0]}.{last}"


def created(ec2: Any, subnet: dict[str, Any], **request: Any) -> dict[str, Any]:
    return dict(ec2.create_network_interface(SubnetId=subnet["SubnetId"], **request)["NetworkInterface"])


def described(ec2: Any, interface: str) -> dict[str, Any]:
    [found] = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    return dict(found)


def addresses(found: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(one["PrivateIpAddress"], one["Primary"]) for one in found["PrivateIpAddresses"]]


def running(cloud: ServedCloud, ec2: Any, **request: Any) -> str:
    [instance] = launched(ec2, InstanceType="t3.small", **request)
    become(cloud, instance, RUNNING)
    return instance


def test_an_interface_has_the_addresses_that_it_is_made_with(ec2: Any, subnet: dict[str, Any]) -> None:
    first, second = address(subnet, 50), address(subnet, 51)
    said = [{"PrivateIpAddress": second, "Primary": False}, {"PrivateIpAddress": first, "Primary": True}]
    found = created(ec2, subnet, PrivateIpAddresses=said)
    assert addresses(found) == [(first, True), (second, False)]
    assert refusal(ec2.create_network_interface, SubnetId=subnet["SubnetId"], PrivateIpAddress=second)[0] == (
        "InvalidIPAddress.InUse"
    )
    many = created(ec2, subnet, SecondaryPrivateIpAddressCount=3)
    assert [primary for _, primary in addresses(many)] == [True, False, False, False]
    [seen] = ec2.describe_network_interfaces(Filters=[{"Name": "addresses.private-ip-address", "Values": [second]}])[
        "NetworkInterfaces"
    ]
    assert seen["NetworkInterfaceId"] == found["NetworkInterfaceId"]
    free = ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"][0]["AvailableIpAddressCount"]
    ec2.delete_network_interface(NetworkInterfaceId=many["NetworkInterfaceId"])
    again = ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"][0]["AvailableIpAddressCount"]
    assert again - free == 4


def test_secondary_addresses_are_assigned_move_and_are_taken_away(ec2: Any, subnet: dict[str, Any]) -> None:
    interface, other = (
        created(ec2, subnet, PrivateIpAddress=address(subnet, last))["NetworkInterfaceId"] for last in (61, 62)
    )
    wanted = address(subnet, 60)
    answer = ec2.assign_private_ip_addresses(NetworkInterfaceId=interface, PrivateIpAddresses=[wanted])
    assert answer["AssignedPrivateIpAddresses"] == [{"PrivateIpAddress": wanted}]
    assert refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=other, PrivateIpAddresses=[wanted])[0] == (
        "InvalidIPAddress.InUse"
    )
    ec2.assign_private_ip_addresses(NetworkInterfaceId=other, PrivateIpAddresses=[wanted], AllowReassignment=True)
    assert addresses(described(ec2, interface))[1:] == []
    assert addresses(described(ec2, other))[1:] == [(wanted, False)]
    assert (
        len(
            ec2.assign_private_ip_addresses(NetworkInterfaceId=other, SecondaryPrivateIpAddressCount=2)[
                "AssignedPrivateIpAddresses"
            ]
        )
        == 2
    )
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=other, PrivateIpAddresses=[wanted])
    assert (wanted, False) not in addresses(described(ec2, other))
    primary = described(ec2, other)["PrivateIpAddress"]
    for wrong in (wanted, primary):
        code, _ = refusal(ec2.unassign_private_ip_addresses, NetworkInterfaceId=other, PrivateIpAddresses=[wrong])
        assert code == "InvalidParameterValue"
    assert refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=other)[0] == "InvalidParameterCombination"
    assert refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=other, SecondaryPrivateIpAddressCount=-1)[0] == (
        "InvalidParameterValue"
    )
    assert (
        refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=other, SecondaryPrivateIpAddressCount=60)[0]
        == "PrivateIpAddressLimitExceeded"
    )


def test_an_elastic_address_belongs_to_one_private_address(ec2: Any, subnet: dict[str, Any]) -> None:
    second = address(subnet, 70)
    interface = created(ec2, subnet, PrivateIpAddress=address(subnet, 71))["NetworkInterfaceId"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=interface, PrivateIpAddresses=[second])
    made = [ec2.allocate_address(Domain="vpc") for _ in range(2)]
    ec2.associate_address(AllocationId=made[0]["AllocationId"], NetworkInterfaceId=interface)
    association = ec2.associate_address(
        AllocationId=made[1]["AllocationId"], NetworkInterfaceId=interface, PrivateIpAddress=second
    )["AssociationId"]
    found = described(ec2, interface)
    assert found["Association"]["PublicIp"] == made[0]["PublicIp"]
    assert [one["Association"]["PublicIp"] for one in found["PrivateIpAddresses"]] == [one["PublicIp"] for one in made]
    [seen] = ec2.describe_addresses(Filters=[{"Name": "private-ip-address", "Values": [second]}])["Addresses"]
    assert (seen["AssociationId"], seen["PrivateIpAddress"]) == (association, second)
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=interface, PrivateIpAddresses=[second])
    [seen] = ec2.describe_addresses(AllocationIds=[made[1]["AllocationId"]])["Addresses"]
    assert "AssociationId" not in seen
    code, _ = refusal(
        ec2.associate_address,
        AllocationId=made[1]["AllocationId"],
        NetworkInterfaceId=interface,
        PrivateIpAddress=second,
    )
    assert code == "InvalidParameterValue"


def test_an_interface_is_attached_until_it_is_detached(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any]
) -> None:
    instance = running(served_cloud, ec2)
    interface = created(ec2, subnet)["NetworkInterfaceId"]
    served_cloud.woken.clear()
    attachment = ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=3)[
        "AttachmentId"
    ]
    assert "interfaces" in served_cloud.woken
    found = described(ec2, interface)
    assert found["Status"] == "in-use"
    assert found["Attachment"]["AttachmentId"] == attachment
    assert (found["Attachment"]["InstanceId"], found["Attachment"]["DeviceIndex"]) == (instance, 3)
    assert (found["Attachment"]["Status"], found["Attachment"]["DeleteOnTermination"]) == ("attaching", False)
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=interface, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
    )
    assert described(ec2, interface)["Attachment"]["DeleteOnTermination"] is True
    assert [one["Attachment"]["DeviceIndex"] for one in shown(ec2, instance)["NetworkInterfaces"]] == [0, 3]
    assert refusal(ec2.delete_network_interface, NetworkInterfaceId=interface)[0] == "InvalidParameterValue"
    ec2.detach_network_interface(AttachmentId=attachment, Force=True)
    assert described(ec2, interface)["Attachment"]["Status"] == "detaching"


def test_what_cannot_be_attached_or_detached_is_refused_with_awss_code(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any]
) -> None:
    instance = running(served_cloud, ec2)
    made = [created(ec2, subnet)["NetworkInterfaceId"] for _ in range(3)]
    [elsewhere] = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1b"]}])["Subnets"]
    far = created(ec2, elsewhere)["NetworkInterfaceId"]

    def attach(interface: str, index: int = 1, target: str = instance) -> Any:
        return refusal(ec2.attach_network_interface, NetworkInterfaceId=interface, InstanceId=target, DeviceIndex=index)

    assert attach(far)[0] == "InvalidParameterCombination"
    assert attach(made[0], 0) == (
        "InvalidParameterValue",
        f"Instance '{instance}' already has an interface attached at device index '0'.",
    )
    assert attach(made[0], target="i-00000000000000000")[0] == "InvalidInstanceID.NotFound"
    assert attach("eni-00000000000000000")[0] == "InvalidNetworkInterfaceID.NotFound"
    for index in (0, 1):
        ec2.attach_network_interface(NetworkInterfaceId=made[index], InstanceId=instance, DeviceIndex=index + 1)
    assert attach(made[0])[0] == "InvalidNetworkInterface.InUse"
    assert attach(made[2], 3) == ("AttachmentLimitExceeded", "Interface count 4 exceeds the limit for t3.small")
    [pending] = launched(ec2)
    assert attach(made[2], target=pending)[0] == "IncorrectInstanceState"
    [first] = [one for one in shown(ec2, instance)["NetworkInterfaces"] if one["Attachment"]["DeviceIndex"] == 0]
    assert refusal(ec2.detach_network_interface, AttachmentId=first["Attachment"]["AttachmentId"])[0] == (
        "OperationNotPermitted"
    )
    assert refusal(ec2.detach_network_interface, AttachmentId="eni-attach-00000000000000000")[0] == (
        "InvalidAttachmentID.NotFound"
    )
    code, _ = refusal(ec2.assign_private_ip_addresses, NetworkInterfaceId=made[0], SecondaryPrivateIpAddressCount=4)
    assert code == "PrivateIpAddressLimitExceeded"
    for request in ({"SourceDestCheck": {"Value": False}}, {"Groups": [first["Groups"][0]["GroupId"]]}):
        code, _ = refusal(ec2.modify_instance_attribute, InstanceId=instance, **request)
        assert code == "InvalidInstanceID", "which of its interfaces is meant must be said"
    become(served_cloud, instance, STOPPED, "stopped")
    code, text = refusal(ec2.modify_instance_attribute, InstanceId=instance, InstanceType={"Value": "t3.nano"})
    assert (code, text) == ("AttachmentLimitExceeded", "Interface count 3 exceeds the limit for t3.nano")


def test_an_instance_does_not_become_one_of_a_type_that_has_fewer_addresses(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any]
) -> None:
    instance = running(served_cloud, ec2)
    [primary] = shown(ec2, instance)["NetworkInterfaces"]
    ec2.assign_private_ip_addresses(
        NetworkInterfaceId=primary["NetworkInterfaceId"], SecondaryPrivateIpAddressCount=3
    )
    become(served_cloud, instance, STOPPED, "stopped")
    code, _ = refusal(ec2.modify_instance_attribute, InstanceId=instance, InstanceType={"Value": "t3.nano"})
    assert code == "PrivateIpAddressLimitExceeded"


def test_an_instance_is_launched_with_several_interfaces(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any]
) -> None:
    existing = created(ec2, subnet, PrivateIpAddress=address(subnet, 82))["NetworkInterfaceId"]
    asked = [
        {"DeviceIndex": 1, "NetworkInterfaceId": existing},
        {
            "DeviceIndex": 0,
            "SubnetId": subnet["SubnetId"],
            "PrivateIpAddresses": [
                {"PrivateIpAddress": address(subnet, 80), "Primary": True},
                {"PrivateIpAddress": address(subnet, 81), "Primary": False},
            ],
        },
    ]
    [instance] = launched(ec2, NetworkInterfaces=asked)
    found = shown(ec2, instance)
    assert found["PrivateIpAddress"] == address(subnet, 80)
    assert "PublicIpAddress" not in found, "AWS gives none where there are several interfaces"
    first, second = sorted(found["NetworkInterfaces"], key=lambda one: one["Attachment"]["DeviceIndex"])
    assert addresses(first) == [(address(subnet, 80), True), (address(subnet, 81), False)]
    assert second["NetworkInterfaceId"] == existing
    assert [one["Attachment"]["DeleteOnTermination"] for one in (first, second)] == [True, False]
    free = created(ec2, subnet)["NetworkInterfaceId"]
    refused = [
        ([{"DeviceIndex": 1, "SubnetId": subnet["SubnetId"]}], "InvalidParameterValue"),
        ([{"DeviceIndex": 0}, {"DeviceIndex": 0}], "InvalidParameterValue"),
        ([{"DeviceIndex": 0}, {"Description": "nowhere"}], "InvalidParameterValue"),
        ([{"DeviceIndex": 0, "AssociatePublicIpAddress": True}, {"DeviceIndex": 1}], "InvalidParameterCombination"),
        ([{"DeviceIndex": index} for index in range(3)], "AttachmentLimitExceeded"),
        ([{"DeviceIndex": 0, "SecondaryPrivateIpAddressCount": 2}], "PrivateIpAddressLimitExceeded"),
        ([{"DeviceIndex": 0, "NetworkInterfaceId": existing}], "InvalidNetworkInterface.InUse"),
        (
            [{"DeviceIndex": 0, "NetworkInterfaceId": free, "SubnetId": subnet["SubnetId"]}],
            "InvalidParameterCombination",
        ),
        ([{"DeviceIndex": 0, "NetworkInterfaceId": free, "Groups": ["sg-1"]}], "InvalidParameterCombination"),
    ]
    elsewhere = {"AvailabilityZone": "us-east-1b"}
    one = {"DeviceIndex": 0, "NetworkInterfaceId": free}
    code, _ = refusal(
        ec2.run_instances, ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=1, InstanceType="t3.nano",
        NetworkInterfaces=[one], Placement=elsewhere,
    )  # fmt: skip
    assert code == "InvalidParameterValue"
    for interfaces, code in refused:
        request = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano", "NetworkInterfaces": interfaces}
        assert refusal(ec2.run_instances, ImageId="ami-0123456789abcdef0", **request)[0] == code, interfaces


def test_documents_and_metadata_have_every_interface_with_all_of_its_addresses(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any], tmp_path: Any
) -> None:
    instance = running(served_cloud, ec2, PrivateIpAddress=address(subnet, 91))
    interface = created(ec2, subnet, PrivateIpAddress=address(subnet, 92))
    identifier, second = interface["NetworkInterfaceId"], address(subnet, 90)
    ec2.attach_network_interface(NetworkInterfaceId=identifier, InstanceId=instance, DeviceIndex=5)
    ec2.assign_private_ip_addresses(NetworkInterfaceId=identifier, PrivateIpAddresses=[second])
    ec2.modify_network_interface_attribute(NetworkInterfaceId=identifier, SourceDestCheck={"Value": False})
    made = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=made["AllocationId"], NetworkInterfaceId=identifier, PrivateIpAddress=second)
    documents = Documents(served_cloud.settings, tmp_path)

    def now() -> Any:
        with served_cloud.database.read() as session:
            return documents.one(session, session.get_one(Instance, instance))

    held = now()
    assert (held[0].interface, held[1].interface) == (instance, identifier)
    assert (held[1].mac, held[1].address) == (interface["MacAddress"], interface["PrivateIpAddress"])
    assert (held[0].source_dest_check, held[1].source_dest_check) == (True, False)
    [further] = held[1].secondary
    assert (further.address, further.public_address) == (second, made["PublicIp"])
    leaves = held[1].metadata.extra
    assert held[0].metadata == held[1].metadata
    place = f"network/interfaces/macs/{interface['MacAddress']}"
    assert leaves[f"{place}/device-number"] == "5"
    assert leaves[f"{place}/local-ipv4s"] == f"{interface['PrivateIpAddress']}\n{second}"
    assert leaves[f"{place}/ipv4-associations/{made['PublicIp']}"] == second
    assert leaves["mac"] == held[0].mac
    ec2.reset_network_interface_attribute(NetworkInterfaceId=identifier, SourceDestCheck="true")
    assert now()[1].source_dest_check is True
    ec2.detach_network_interface(AttachmentId=described(ec2, identifier)["Attachment"]["AttachmentId"])
    assert list(now()) == [0]
    with served_cloud.database.read() as session:
        assert session.get_one(NetworkInterface, identifier).card == 1


def test_an_interface_of_another_vpc_is_in_that_vpcs_network(
    served_cloud: ServedCloud, ec2: Any, tmp_path: Any
) -> None:
    instance = running(served_cloud, ec2)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    asked = {"VpcId": vpc, "CidrBlock": "10.0.1.0/24", "AvailabilityZone": "us-east-1a"}
    interface = created(ec2, ec2.create_subnet(**asked)["Subnet"])
    ec2.attach_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"], InstanceId=instance, DeviceIndex=1)
    with served_cloud.database.read() as session:
        held = Documents(served_cloud.settings, tmp_path).one(session, session.get_one(Instance, instance))
    home = shown(ec2, instance)["VpcId"]
    assert [held[card].network.name for card in (0, 1)] == [home, vpc]
    assert home != vpc


def test_private_addresses_that_an_interface_cannot_have_are_refused(ec2: Any, subnet: dict[str, Any]) -> None:
    one, other = address(subnet, 70), [{"PrivateIpAddress": address(subnet, 71), "Primary": True}]
    before = ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"]
    for asked, code in (
        ({"PrivateIpAddresses": [{"PrivateIpAddress": one}, {"PrivateIpAddress": one}]}, "InvalidParameterValue"),
        ({"SecondaryPrivateIpAddressCount": -1}, "InvalidParameterValue"),
        ({"SecondaryPrivateIpAddressCount": 50}, "PrivateIpAddressLimitExceeded"),
        ({"PrivateIpAddress": address(subnet, 3)}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "10.9.9.9"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "here"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": one, "PrivateIpAddresses": other}, "InvalidParameterCombination"),
        ({"EnablePrimaryIpv6": True}, "UnsupportedOperation"),
        ({"InterfaceType": "efa"}, "UnsupportedOperation"),
    ):
        assert refusal(ec2.create_network_interface, SubnetId=subnet["SubnetId"], **asked)[0] == code
    assert ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"] == before
