"""What is refused since something is in use changes nothing for those who use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celaje.network.topology import topology_file
from tests.cloud.served import refusal
from tests.network.namespace import FAR
from tests.system.cloud_host import until
from tests.system.cloud_vpc import ANSWER, DATA, NAMES, PORT, THIRD, WEB
from tests.system.standing_talks import Talks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.cloud_vpc import Vpc

IN_USE, AS_IT_IS = "DependencyViolation", "InvalidParameterValue"


def what_is_in_use_cannot_go_and_goes_on(vpc: Vpc, nat: str, allocation: str) -> None:
    """`web` goes out by the internet gateway and `data` by the NAT gateway `nat`, which has the address `allocation`:
    all that they need is asked to go, in turn, while two connections stand."""
    ec2 = vpc.ec2
    of_nat = ec2.describe_nat_gateways(NatGatewayIds=[nat])["NatGateways"][0]["NatGatewayAddresses"][0]
    talks = Talks(vpc, vpc.data, vpc.web, vpc.address, PORT)
    begun = talks.heard
    used = ec2.create_security_group(GroupName="used", Description="has a member", VpcId=vpc.vpc)["GroupId"]
    ec2.modify_instance_attribute(InstanceId=vpc.data, Groups=[vpc.group, used])
    for action, request, code in asked(vpc, used, allocation, of_nat):
        assert refusal(action, **request)[0] == code, (action, request)
    talks.go_on()

    # Not even when the network is told anew what there is.
    further = {"RouteTableId": vpc.main, "DestinationCidrBlock": "192.0.2.0/24"}
    ec2.create_route(**further, NatGatewayId=nat)
    until(lambda: "192.0.2.0/24" in topology_file(vpc.vpc).read_text(), "the network's new routes")
    talks.go_on()
    assert (talks.heard.outward_connections, talks.heard.inward_connections) == (
        begun.outward_connections,
        begun.inward_connections,
    )
    talks.end()
    assert vpc.reaches(vpc.data, FAR, 80) == of_nat["PublicIp"]
    assert vpc.reaches(vpc.web, FAR, 80) == vpc.address
    assert vpc.asks(vpc.address, ANSWER) == NAMES[WEB]
    assert [vpc.reaches(vpc.web, one) for one in (DATA, THIRD)] == [NAMES[DATA], NAMES[THIRD]]
    ec2.delete_route(**further)
    ec2.modify_instance_attribute(InstanceId=vpc.data, Groups=[vpc.group])
    ec2.delete_security_group(GroupId=used)


def asked(vpc: Vpc, used: str, allocation: str, of_nat: Any) -> list[tuple[Callable[..., object], dict[str, Any], str]]:
    """What is asked, and how it is refused."""
    ec2 = vpc.ec2
    [web] = vpc.described(vpc.web)["NetworkInterfaces"]
    [found] = ec2.describe_vpcs(VpcIds=[vpc.vpc])["Vpcs"]
    [table] = ec2.describe_route_tables(RouteTableIds=[vpc.main])["RouteTables"]
    [as_main] = [one["RouteTableAssociationId"] for one in table["Associations"] if one["Main"]]
    gateway = {"InternetGatewayId": vpc.gateway}
    last = {"NetworkAclId": vpc.acl, "RuleNumber": 32767, "Egress": False}
    first_block = found["CidrBlockAssociationSet"][0]["AssociationId"]
    return [
        (ec2.delete_vpc, {"VpcId": vpc.vpc}, IN_USE),
        *((ec2.delete_subnet, {"SubnetId": one}, IN_USE) for one in (vpc.public, vpc.private)),
        *((ec2.delete_route_table, {"RouteTableId": one}, IN_USE) for one in (vpc.table, vpc.main)),
        (ec2.disassociate_route_table, {"AssociationId": as_main}, AS_IT_IS),
        (ec2.delete_route, {"RouteTableId": vpc.main, "DestinationCidrBlock": "10.0.0.0/16"}, AS_IT_IS),
        (ec2.delete_internet_gateway, gateway, IN_USE),
        (ec2.detach_internet_gateway, {**gateway, "VpcId": vpc.vpc}, IN_USE),
        (ec2.delete_network_acl, {"NetworkAclId": vpc.acl}, AS_IT_IS),
        (ec2.delete_network_acl_entry, last, AS_IT_IS),
        (ec2.delete_security_group, {"GroupId": vpc.group}, "CannotDelete"),
        (ec2.delete_security_group, {"GroupId": used}, IN_USE),
        (ec2.release_address, {"AllocationId": allocation}, "InvalidIPAddress.InUse"),
        (ec2.disassociate_address, {"PublicIp": of_nat["PublicIp"]}, "AuthFailure"),
        (ec2.delete_network_interface, {"NetworkInterfaceId": of_nat["NetworkInterfaceId"]}, AS_IT_IS),
        (ec2.delete_network_interface, {"NetworkInterfaceId": web["NetworkInterfaceId"]}, AS_IT_IS),
        (
            ec2.detach_network_interface,
            {"AttachmentId": web["Attachment"]["AttachmentId"], "Force": True},
            "OperationNotPermitted",
        ),
        (
            ec2.unassign_private_ip_addresses,
            {"NetworkInterfaceId": web["NetworkInterfaceId"], "PrivateIpAddresses": [WEB]},
            AS_IT_IS,
        ),
        (ec2.disassociate_vpc_cidr_block, {"AssociationId": first_block}, "OperationNotPermitted"),
    ]
