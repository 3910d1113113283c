"""VPCs and what lies in them, made, changed and ended by clients: what a network comes to be told of it, and what is
refused with nothing changed."""

from __future__ import annotations

from typing import Any

import pytest

from celaje.cloud.reconcile.nat_gateways import NatGateways
from celaje.cloud.reconcile.topologies import vpc_topology
from celaje.cloud.state.networks import Vpc
from celaje.network.topology import AccessRule, DhcpOptions, NatGateway, Route, SubnetPlan, Topology
from celaje.network.topology_plan import plan_of
from tests.cloud.served import Owner, refusal

ABSENT = "0123456789abcdef0"


def by(name: str, *values: str) -> list[dict[str, object]]:
    return [{"Name": name, "Values": list(values)}]


def told(owner: Owner, vpc: str) -> Topology:
    """What the VPC's network is told; it is one that a network takes."""
    with owner.cloud.database.read() as session:
        topology = vpc_topology(session, session.get_one(Vpc, vpc))
    plan_of(topology)
    return topology


def settled(owner: Owner) -> None:
    """As the controller of networks does."""
    NatGateways(owner.cloud.database).settle(())


class Made:
    """A VPC of 10.0.0.0/16 with a subnet of 10.0.1.0/24."""

    def __init__(self, ec2: Any) -> None:
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        in_vpc = by("vpc-id", self.vpc)
        self.main = ec2.describe_route_tables(Filters=in_vpc)["RouteTables"][0]["RouteTableId"]
        self.acl = ec2.describe_network_acls(Filters=in_vpc)["NetworkAcls"][0]["NetworkAclId"]

    def gateway(self, ec2: Any) -> str:
        """An internet gateway, attached."""
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        return str(gateway)

    def routes(self, owner: Owner) -> tuple[Route, ...]:
        """Of the subnet's table."""
        topology = told(owner, self.vpc)
        return topology.route_tables[topology.subnets[0].routes]

    def rules(self, owner: Owner) -> tuple[AccessRule, ...]:
        """Of the subnet's list, both ways."""
        topology = told(owner, self.vpc)
        return topology.access_lists[topology.subnets[0].access]


@pytest.fixture
def made(ec2: Any) -> Made:
    return Made(ec2)


# VPCs.


def test_a_vpc_is_born_with_what_terraform_reads_of_one_and_ends_with_it(ec2: Any, owner: Owner) -> None:
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "mine"}]}]
    vpc = ec2.create_vpc(CidrBlock="10.1.2.3/16", TagSpecifications=tags)["Vpc"]
    assert (vpc["CidrBlock"], vpc["State"], vpc["IsDefault"]) == ("10.1.0.0/16", "pending", False)
    ec2.get_waiter("vpc_available").wait(VpcIds=[vpc["VpcId"]])
    [found] = ec2.describe_vpcs(Filters=by("tag:Name", "mine"))["Vpcs"]
    assert found["VpcId"] == vpc["VpcId"]
    in_vpc = by("vpc-id", vpc["VpcId"])
    [table] = ec2.describe_route_tables(Filters=[*in_vpc, *by("association.main", "true")])["RouteTables"]
    assert [(route["DestinationCidrBlock"], route["GatewayId"]) for route in table["Routes"]] == [
        ("10.1.0.0/16", "local")
    ]
    assert len(ec2.describe_network_acls(Filters=[*in_vpc, *by("default", "true")])["NetworkAcls"]) == 1
    [group] = ec2.describe_security_groups(Filters=in_vpc)["SecurityGroups"]
    assert group["GroupName"] == "default"
    default = ec2.describe_vpcs(Filters=by("is-default", "true"))["Vpcs"][0]
    assert found["DhcpOptionsId"] == default["DhcpOptionsId"]
    assert told(owner, vpc["VpcId"]).blocks == ("10.1.0.0/16",)
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    assert refusal(ec2.describe_vpcs, VpcIds=[vpc["VpcId"]])[0] == "InvalidVpcID.NotFound"
    assert ec2.describe_route_tables(Filters=in_vpc)["RouteTables"] == []
    assert ec2.describe_security_groups(Filters=in_vpc)["SecurityGroups"] == []


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "10.0.0.0/29", "127.0.0.0/16", "169.254.0.0/24", "224.0.0.0/16"])
def test_networks_that_no_vpc_can_have_are_refused(ec2: Any, cidr: str) -> None:
    assert refusal(ec2.create_vpc, CidrBlock=cidr)[0] == "InvalidVpc.Range"
    assert len(ec2.describe_vpcs()["Vpcs"]) == 1


def test_what_is_no_network_at_all_is_told_apart(ec2: Any) -> None:
    for text in ("10.0.0.0", "10.0.0.0/33", "10.0.0/16", "::/64", "x/y", "10.0.0.0/ 16"):
        assert refusal(ec2.create_vpc, CidrBlock=text)[0] == "InvalidParameterValue", text
    asked = {"CidrBlock": "10.0.0.0/16"}
    assert refusal(ec2.create_vpc, **asked, InstanceTenancy="dedicated")[0] == "UnsupportedOperation"
    encrypted = {"VpcEncryptionControl": {"Mode": "enforce"}}
    assert refusal(ec2.create_vpc, **asked, **encrypted)[0] == "UnsupportedOperation"
    assert refusal(ec2.create_vpc, **asked, AmazonProvidedIpv6CidrBlock=True)[0] == "UnsupportedOperation"


def test_a_vpc_with_something_in_it_stays(ec2: Any, made: Made) -> None:
    assert refusal(ec2.delete_vpc, VpcId=made.vpc)[0] == "DependencyViolation"
    gateway = made.gateway(ec2)
    ec2.delete_subnet(SubnetId=made.subnet)
    assert refusal(ec2.delete_vpc, VpcId=made.vpc)[0] == "DependencyViolation"
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=made.vpc)
    table = ec2.create_route_table(VpcId=made.vpc)["RouteTable"]["RouteTableId"]
    assert refusal(ec2.delete_vpc, VpcId=made.vpc)[0] == "DependencyViolation"
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_vpc(VpcId=made.vpc)


def test_further_networks_come_and_go(ec2: Any, owner: Owner, made: Made) -> None:
    answer = ec2.associate_vpc_cidr_block(VpcId=made.vpc, CidrBlock="10.5.0.0/16")["CidrBlockAssociation"]
    assert answer["CidrBlockState"]["State"] == "associating"
    [vpc] = ec2.describe_vpcs(Filters=by("cidr-block-association.cidr-block", "10.5.0.0/16"))["Vpcs"]
    assert [one["CidrBlock"] for one in vpc["CidrBlockAssociationSet"]] == ["10.0.0.0/16", "10.5.0.0/16"]
    subnet = ec2.create_subnet(VpcId=made.vpc, CidrBlock="10.5.1.0/24")["Subnet"]["SubnetId"]
    assert Route("10.5.0.0/16", "local") in made.routes(owner)
    assert told(owner, made.vpc).blocks == ("10.0.0.0/16", "10.5.0.0/16")
    for cidr in ("10.0.5.0/24", "10.5.0.0/16"):
        assert refusal(ec2.associate_vpc_cidr_block, VpcId=made.vpc, CidrBlock=cidr)[0] == "InvalidVpc.Range"
    gone = {"AssociationId": answer["AssociationId"]}
    assert refusal(ec2.disassociate_vpc_cidr_block, **gone)[0] == "InvalidCidrBlock.InUse"
    ec2.delete_subnet(SubnetId=subnet)
    ec2.disassociate_vpc_cidr_block(**gone)
    assert told(owner, made.vpc).blocks == ("10.0.0.0/16",)
    assert made.routes(owner) == (Route("10.0.0.0/16", "local"),)
    assert refusal(ec2.disassociate_vpc_cidr_block, **gone)[0] == "InvalidVpcCidrBlockAssociationID.NotFound"
    first = vpc["CidrBlockAssociationSet"][0]["AssociationId"]
    assert refusal(ec2.disassociate_vpc_cidr_block, AssociationId=first)[0] == "OperationNotPermitted"


APART = [
    ("10.0.0.0/16", "172.16.0.0/16"),
    ("10.0.0.0/16", "192.168.0.0/16"),
    ("10.0.0.0/16", "198.19.0.0/16"),
    ("10.0.0.0/24", "10.0.1.0/24"),
    ("10.1.0.0/16", "10.0.0.0/16"),
    ("172.16.0.0/16", "172.31.0.0/16"),
    ("172.16.0.0/16", "10.0.0.0/16"),
    ("192.168.0.0/16", "10.0.0.0/16"),
    ("198.19.0.0/16", "192.168.0.0/24"),
    ("100.64.0.0/16", "10.0.0.0/16"),
    ("8.8.0.0/16", "198.19.0.0/16"),
]
TOGETHER = [
    ("10.0.0.0/16", "10.1.0.0/16"),
    ("10.2.0.0/16", "10.0.0.0/16"),
    ("10.0.0.0/16", "100.64.0.0/16"),
    ("10.0.0.0/16", "8.8.0.0/16"),
    ("172.16.0.0/16", "172.20.0.0/16"),
    ("192.168.0.0/24", "192.168.1.0/24"),
    ("198.19.0.0/16", "100.64.0.0/16"),
    ("100.64.0.0/16", "8.8.0.0/16"),
]


@pytest.mark.parametrize(("first", "further"), APART)
def test_networks_that_aws_keeps_apart_are_not_one_vpcs(ec2: Any, first: str, further: str) -> None:
    vpc = ec2.create_vpc(CidrBlock=first)["Vpc"]["VpcId"]
    code, message = refusal(ec2.associate_vpc_cidr_block, VpcId=vpc, CidrBlock=further)
    assert code == "InvalidVpc.Range"
    assert message.startswith(f"The CIDR '{further}' is restricted.")
    [described] = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
    assert [one["CidrBlock"] for one in described["CidrBlockAssociationSet"]] == [first]


@pytest.mark.parametrize(("first", "further"), TOGETHER)
def test_networks_that_aws_puts_together_are(ec2: Any, first: str, further: str) -> None:
    vpc = ec2.create_vpc(CidrBlock=first)["Vpc"]["VpcId"]
    ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock=further)
    [described] = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
    assert [one["CidrBlock"] for one in described["CidrBlockAssociationSet"]] == [first, further]


def test_a_vpc_has_five_networks_and_none_in_which_a_route_ends(ec2: Any, made: Made) -> None:
    gateway = made.gateway(ec2)
    ec2.create_route(RouteTableId=made.main, DestinationCidrBlock="10.20.1.0/24", GatewayId=gateway)
    for cidr in ("10.20.0.0/16", "10.20.1.0/24"):
        assert refusal(ec2.associate_vpc_cidr_block, VpcId=made.vpc, CidrBlock=cidr)[0] == "InvalidVpc.Range"
    for number in range(1, 5):
        ec2.associate_vpc_cidr_block(VpcId=made.vpc, CidrBlock=f"10.{number}.0.0/16")
    assert refusal(ec2.associate_vpc_cidr_block, VpcId=made.vpc, CidrBlock="10.5.0.0/16") == (
        "CidrLimitExceeded",
        f"This network {made.vpc} has met its maximum number of allowed CIDRs: 5",
    )


def test_attributes_of_a_vpc_change_one_at_a_time(ec2: Any, owner: Owner, made: Made) -> None:
    assert told(owner, made.vpc).dns
    owner.cloud.woken.clear()
    ec2.modify_vpc_attribute(VpcId=made.vpc, EnableDnsSupport={"Value": False})
    assert "networks" in owner.cloud.woken
    assert not told(owner, made.vpc).dns
    ec2.modify_vpc_attribute(VpcId=made.vpc, EnableDnsHostnames={"Value": True})
    for attribute, member, value in (
        ("enableDnsSupport", "EnableDnsSupport", False),
        ("enableDnsHostnames", "EnableDnsHostnames", True),
        ("enableNetworkAddressUsageMetrics", "EnableNetworkAddressUsageMetrics", False),
    ):
        assert ec2.describe_vpc_attribute(VpcId=made.vpc, Attribute=attribute)[member] == {"Value": value}
    both = {"EnableDnsSupport": {"Value": True}, "EnableDnsHostnames": {"Value": True}}
    assert refusal(ec2.modify_vpc_attribute, VpcId=made.vpc, **both)[0] == "InvalidParameterCombination"
    metrics = {"EnableNetworkAddressUsageMetrics": {"Value": True}}
    assert refusal(ec2.modify_vpc_attribute, VpcId=made.vpc, **metrics)[0] == "UnsupportedOperation"


def test_public_names_are_given_where_the_vpc_says_so(ec2: Any, made: Made) -> None:
    made.gateway(ec2)
    interface = ec2.create_network_interface(SubnetId=made.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    address = ec2.allocate_address()
    ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=interface)

    def name() -> str:
        [found] = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
        return str(found["Association"]["PublicDnsName"])

    assert name() == ""
    ec2.modify_vpc_attribute(VpcId=made.vpc, EnableDnsHostnames={"Value": True})
    assert name() == address["PublicIp"]
    ec2.modify_vpc_attribute(VpcId=made.vpc, EnableDnsSupport={"Value": False})
    assert name() == ""


# Subnets.


def test_subnets_lie_in_their_vpc_and_do_not_overlap(ec2: Any, owner: Owner, made: Made) -> None:
    for cidr in ("10.0.1.0/24", "10.0.0.0/16", "10.0.1.128/25"):
        code, message = refusal(ec2.create_subnet, VpcId=made.vpc, CidrBlock=cidr)
        assert (code, message) == ("InvalidSubnet.Conflict", f"The CIDR '{cidr}' conflicts with another subnet")
    for cidr in ("10.1.0.0/24", "10.0.0.0/15", "10.0.2.0/29"):
        assert refusal(ec2.create_subnet, VpcId=made.vpc, CidrBlock=cidr)[0] == "InvalidSubnet.Range"
    asked = {"VpcId": made.vpc, "CidrBlock": "10.0.2.0/24"}
    assert refusal(ec2.create_subnet, **asked, AvailabilityZone="us-east-1z")[0] == "InvalidParameterValue"
    assert len(told(owner, made.vpc).subnets) == 1
    other = ec2.create_subnet(**asked, AvailabilityZoneId="use1-az2")["Subnet"]
    assert (other["AvailabilityZone"], other["MapPublicIpOnLaunch"], other["AvailableIpAddressCount"]) == (
        "us-east-1b",
        False,
        251,
    )
    assert told(owner, made.vpc).subnets[-1].access == made.acl
    assert SubnetPlan("10.0.2.0/24", made.main, made.acl) in told(owner, made.vpc).subnets


def test_a_subnet_with_an_interface_stays(ec2: Any, made: Made) -> None:
    interface = ec2.create_network_interface(SubnetId=made.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    assert refusal(ec2.delete_subnet, SubnetId=made.subnet)[0] == "DependencyViolation"
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    ec2.delete_subnet(SubnetId=made.subnet)
    [acl] = ec2.describe_network_acls(NetworkAclIds=[made.acl])["NetworkAcls"]
    assert acl["Associations"] == []


def test_a_default_subnet_is_made_again_where_it_is_missing(ec2: Any) -> None:
    first = ec2.describe_subnets(Filters=by("availability-zone", "us-east-1a"))["Subnets"][0]
    code = refusal(ec2.create_default_subnet, AvailabilityZone="us-east-1a")[0]
    assert code == "DefaultSubnetAlreadyExistsInAvailabilityZone"
    ec2.delete_subnet(SubnetId=first["SubnetId"])
    again = ec2.create_default_subnet(AvailabilityZone="us-east-1a")["Subnet"]
    assert (again["CidrBlock"], again["DefaultForAz"]) == ("172.31.0.0/20", True)


def test_attributes_of_subnets_that_are_fixed_may_be_said_as_they_are(ec2: Any, made: Made) -> None:
    ec2.modify_subnet_attribute(SubnetId=made.subnet, EnableDns64={"Value": False})
    ec2.modify_subnet_attribute(SubnetId=made.subnet, PrivateDnsHostnameTypeOnLaunch="ip-name")
    others: list[dict[str, Any]] = [
        {"PrivateDnsHostnameTypeOnLaunch": "resource-name"},
        {"EnableLniAtDeviceIndex": 1},
        {"DisableLniAtDeviceIndex": {"Value": True}},
        {"EnableDns64": {}},
    ]
    for asked in others:
        assert refusal(ec2.modify_subnet_attribute, SubnetId=made.subnet, **asked)[0] == "InvalidParameterCombination"


# Route tables.


def test_a_route_to_an_internet_gateway_leads_outside_as_long_as_that_is_attached(
    ec2: Any, owner: Owner, made: Made
) -> None:
    gateway = made.gateway(ec2)
    owner.cloud.woken.clear()
    route = {"RouteTableId": made.main, "DestinationCidrBlock": "0.0.0.0/0"}
    assert ec2.create_route(**route, GatewayId=gateway)["Return"]
    assert "networks" in owner.cloud.woken
    assert made.routes(owner) == (Route("10.0.0.0/16", "local"), Route("0.0.0.0/0", "internet"))
    assert refusal(ec2.create_route, **route, GatewayId=gateway) == (
        "RouteAlreadyExists",
        "The route identified by 0.0.0.0/0 already exists.",
    )
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=made.vpc)
    assert made.routes(owner)[1] == Route("0.0.0.0/0", "nowhere")
    [table] = ec2.describe_route_tables(RouteTableIds=[made.main])["RouteTables"]
    assert [(one["State"], one["GatewayId"]) for one in table["Routes"]] == [
        ("active", "local"),
        ("blackhole", gateway),
    ]
    [holed] = ec2.describe_route_tables(Filters=by("route.state", "blackhole"))["RouteTables"]
    assert holed["RouteTableId"] == made.main
    ec2.delete_route(**route)
    assert made.routes(owner) == (Route("10.0.0.0/16", "local"),)
    assert refusal(ec2.delete_route, **route)[0] == "InvalidRoute.NotFound"
    assert refusal(ec2.replace_route, **route, GatewayId=gateway)[0] == "InvalidParameterValue"


def test_routes_that_cannot_be_are_refused(ec2: Any, owner: Owner, made: Made) -> None:
    gateway = made.gateway(ec2)
    other = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    [foreign] = ec2.describe_route_tables(Filters=by("vpc-id", other))["RouteTables"]
    route: dict[str, str] = {"RouteTableId": made.main, "DestinationCidrBlock": "0.0.0.0/0"}
    assert refusal(ec2.create_route, **route)[0] == "MissingParameter"
    two = {"GatewayId": gateway, "NatGatewayId": f"nat-{ABSENT}"}
    assert refusal(ec2.create_route, **route, **two)[0] == "InvalidParameterCombination"
    for absent in (f"igw-{ABSENT}", f"nat-{ABSENT}", f"eni-{ABSENT}", f"vgw-{ABSENT}", "elsewhere"):
        assert refusal(ec2.create_route, **route, GatewayId=absent) == (
            "InvalidGatewayID.NotFound",
            f"The gateway ID '{absent}' does not exist",
        )
    assert refusal(ec2.create_route, **route, TransitGatewayId=f"tgw-{ABSENT}")[0] == "UnsupportedOperation"
    alien = {**route, "RouteTableId": foreign["RouteTableId"]}
    assert refusal(ec2.create_route, **alien, GatewayId=gateway)[0] == "InvalidParameterValue"
    for cidr, code in (
        ("10.0.0.0/16", "RouteAlreadyExists"),
        ("10.0.1.0/24", "InvalidParameterValue"),
        ("everywhere", "InvalidParameterValue"),
    ):
        asked = {**route, "DestinationCidrBlock": cidr}
        assert refusal(ec2.create_route, **asked, GatewayId=gateway)[0] == code
    local = {"RouteTableId": made.main, "DestinationCidrBlock": "10.0.0.0/16"}
    assert refusal(ec2.delete_route, **local)[0] == "InvalidParameterValue"
    assert refusal(ec2.replace_route, **local, GatewayId=gateway)[0] == "InvalidParameterValue"
    ipv6 = {"RouteTableId": made.main, "DestinationIpv6CidrBlock": "::/0", "GatewayId": gateway}
    assert refusal(ec2.create_route, **ipv6)[0] == "UnsupportedOperation"
    assert made.routes(owner) == (Route("10.0.0.0/16", "local"),)


def test_a_route_to_an_interface_is_its_address_and_a_black_hole_without_an_instance(
    ec2: Any, owner: Owner, made: Made
) -> None:
    asked = {"SubnetId": made.subnet, "PrivateIpAddress": "10.0.1.77"}
    interface = ec2.create_network_interface(**asked)["NetworkInterface"]["NetworkInterfaceId"]
    subnet = ec2.create_subnet(VpcId=made.vpc, CidrBlock="10.0.2.0/24")["Subnet"]["SubnetId"]
    for cidr in ("192.168.0.0/16", "10.0.2.0/24"):
        ec2.create_route(RouteTableId=made.main, DestinationCidrBlock=cidr, NetworkInterfaceId=interface)
        assert Route(cidr, "address:10.0.1.77") in made.routes(owner)
    [table] = ec2.describe_route_tables(RouteTableIds=[made.main])["RouteTables"]
    assert [(one["State"], one.get("NetworkInterfaceId")) for one in table["Routes"][1:]] == [
        ("blackhole", interface)
    ] * 2
    narrow = {"RouteTableId": made.main, "DestinationCidrBlock": "10.0.2.0/25", "NetworkInterfaceId": interface}
    assert refusal(ec2.create_route, **narrow)[0] == "InvalidParameterValue"
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    assert Route("192.168.0.0/16", "nowhere") in made.routes(owner)
    assert subnet


def test_a_subnet_goes_by_the_table_that_it_is_associated_with(ec2: Any, owner: Owner, made: Made) -> None:
    table = ec2.create_route_table(VpcId=made.vpc)["RouteTable"]["RouteTableId"]
    asked = {"RouteTableId": table, "SubnetId": made.subnet}
    association = ec2.associate_route_table(**asked)["AssociationId"]
    assert ec2.associate_route_table(**asked)["AssociationId"] == association
    assert told(owner, made.vpc).subnets[0].routes == table
    [found] = ec2.describe_route_tables(Filters=by("association.subnet-id", made.subnet))["RouteTables"]
    assert found["RouteTableId"] == table
    elsewhere = {"RouteTableId": made.main, "SubnetId": made.subnet}
    assert refusal(ec2.associate_route_table, **elsewhere)[0] == "Resource.AlreadyAssociated"
    assert refusal(ec2.delete_route_table, RouteTableId=table)[0] == "DependencyViolation"
    replaced = ec2.replace_route_table_association(AssociationId=association, RouteTableId=made.main)
    assert told(owner, made.vpc).subnets[0].routes == made.main
    ec2.disassociate_route_table(AssociationId=replaced["NewAssociationId"])
    assert refusal(ec2.disassociate_route_table, AssociationId=association)[0] == "InvalidAssociationID.NotFound"
    ec2.delete_route_table(RouteTableId=table)


def test_another_table_may_become_the_main_one(ec2: Any, owner: Owner, made: Made) -> None:
    table = ec2.create_route_table(VpcId=made.vpc)["RouteTable"]["RouteTableId"]
    [main] = ec2.describe_route_tables(RouteTableIds=[made.main])["RouteTables"]
    association = main["Associations"][0]["RouteTableAssociationId"]
    assert refusal(ec2.disassociate_route_table, AssociationId=association)[0] == "InvalidParameterValue"
    ec2.replace_route_table_association(AssociationId=association, RouteTableId=table)
    assert told(owner, made.vpc).subnets[0].routes == table
    assert refusal(ec2.delete_route_table, RouteTableId=table)[0] == "DependencyViolation"
    ec2.delete_route_table(RouteTableId=made.main)


# Internet gateways.


def test_a_gateway_is_one_vpcs_and_stays_while_something_has_a_public_address(ec2: Any, made: Made) -> None:
    interface = ec2.create_network_interface(SubnetId=made.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    address = ec2.allocate_address()
    asked = {"AllocationId": address["AllocationId"], "NetworkInterfaceId": interface}
    assert refusal(ec2.associate_address, **asked)[0] == "Gateway.NotAttached"
    gateway = made.gateway(ec2)
    attached = {"InternetGatewayId": gateway, "VpcId": made.vpc}
    assert refusal(ec2.attach_internet_gateway, **attached)[0] == "Resource.AlreadyAssociated"
    second = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    taken = {"InternetGatewayId": second, "VpcId": made.vpc}
    assert refusal(ec2.attach_internet_gateway, **taken)[0] == "InvalidParameterValue"
    assert refusal(ec2.detach_internet_gateway, **taken)[0] == "Gateway.NotAttached"
    assert refusal(ec2.delete_internet_gateway, InternetGatewayId=gateway)[0] == "DependencyViolation"
    association = ec2.associate_address(**asked)["AssociationId"]
    assert refusal(ec2.detach_internet_gateway, **attached)[0] == "DependencyViolation"
    ec2.disassociate_address(AssociationId=association)
    ec2.detach_internet_gateway(**attached)
    for one in (gateway, second):
        ec2.delete_internet_gateway(InternetGatewayId=one)
    missing = {"InternetGatewayId": gateway}
    assert refusal(ec2.delete_internet_gateway, **missing)[0] == "InvalidInternetGatewayID.NotFound"


# NAT gateways.


def test_a_nat_gateway_goes_through_its_states_and_keeps_its_address_meanwhile(
    ec2: Any, owner: Owner, made: Made
) -> None:
    made.gateway(ec2)
    address = ec2.allocate_address()
    asked = {"SubnetId": made.subnet, "AllocationId": address["AllocationId"]}
    gateway = ec2.create_nat_gateway(**asked, ClientToken="once")["NatGateway"]
    assert gateway["State"] == "pending"
    identifier, held = gateway["NatGatewayId"], gateway["NatGatewayAddresses"][0]
    assert held["PublicIp"] == address["PublicIp"]
    ec2.create_route(RouteTableId=made.main, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=identifier)
    expected = NatGateway("10.0.1.0/24", held["PrivateIp"], address["PublicIp"])
    assert told(owner, made.vpc).gateways == {identifier: expected}
    assert made.routes(owner)[1] == Route("0.0.0.0/0", f"nat:{identifier}")
    settled(owner)
    ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[identifier])
    interface = held["NetworkInterfaceId"]
    [found] = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    assert (found["Status"], found["InterfaceType"], found["SourceDestCheck"]) == ("in-use", "nat_gateway", False)
    assert found["Description"] == f"Interface for NAT Gateway {identifier}"
    assert refusal(ec2.delete_network_interface, NetworkInterfaceId=interface)[0] == "InvalidParameterValue"
    assert refusal(ec2.disassociate_address, PublicIp=address["PublicIp"])[0] == "AuthFailure"
    assert refusal(ec2.create_nat_gateway, **asked)[0] == "Resource.AlreadyAssociated"
    assert refusal(ec2.delete_vpc, VpcId=made.vpc)[0] == "DependencyViolation"
    ec2.delete_nat_gateway(NatGatewayId=identifier)
    assert ec2.describe_nat_gateways(Filter=by("state", "deleting"))["NatGateways"][0]["NatGatewayId"] == identifier
    assert made.routes(owner)[1] == Route("0.0.0.0/0", "nowhere")
    settled(owner)
    ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[identifier])
    [gone] = ec2.describe_nat_gateways(NatGatewayIds=[identifier])["NatGateways"]
    assert "DeleteTime" in gone
    ec2.release_address(AllocationId=address["AllocationId"])
    ec2.delete_subnet(SubnetId=made.subnet)


def test_nat_gateways_that_cannot_be_are_refused_and_leave_nothing(ec2: Any, made: Made) -> None:
    address = ec2.allocate_address()["AllocationId"]
    assert refusal(ec2.create_nat_gateway, SubnetId=made.subnet)[0] == "MissingParameter"
    public = {"SubnetId": made.subnet, "AllocationId": address}
    both = {**public, "ConnectivityType": "private"}
    assert refusal(ec2.create_nat_gateway, **both)[0] == "InvalidParameterCombination"
    absent = {"SubnetId": f"subnet-{ABSENT}", "AllocationId": address}
    assert refusal(ec2.create_nat_gateway, **absent)[0] == "InvalidSubnetID.NotFound"
    assert refusal(ec2.delete_nat_gateway, NatGatewayId=f"nat-{ABSENT}")[0] == "NatGatewayNotFound"
    assert ec2.describe_nat_gateways()["NatGateways"] == []
    ec2.delete_subnet(SubnetId=made.subnet)


def test_a_nat_gateways_interface_is_as_it_is(ec2: Any, made: Made) -> None:
    gateway = ec2.create_nat_gateway(SubnetId=made.subnet, ConnectivityType="private")["NatGateway"]
    interface = {"NetworkInterfaceId": gateway["NatGatewayAddresses"][0]["NetworkInterfaceId"]}
    [before] = ec2.describe_network_interfaces(Filters=by("subnet-id", made.subnet))["NetworkInterfaces"]
    group = ec2.describe_security_groups(Filters=by("vpc-id", made.vpc))["SecurityGroups"][0]["GroupId"]
    requests: list[tuple[Any, dict[str, Any]]] = [
        (ec2.modify_network_interface_attribute, {"Groups": [group]}),
        (ec2.modify_network_interface_attribute, {"SourceDestCheck": {"Value": True}}),
        (ec2.reset_network_interface_attribute, {"SourceDestCheck": "true"}),
        (ec2.assign_private_ip_addresses, {"SecondaryPrivateIpAddressCount": 1}),
    ]
    for action, request in requests:
        assert refusal(action, **interface, **request)[0] == "AuthFailure"
    assert refusal(ec2.detach_network_interface, AttachmentId=before["Attachment"]["AttachmentId"]) == (
        "OperationNotPermitted",
        "You are not allowed to manage 'ela-attach' attachments.",
    )
    assert refusal(ec2.delete_network_interface, **interface)[0] == "InvalidParameterValue"
    assert ec2.describe_network_interfaces(Filters=by("subnet-id", made.subnet))["NetworkInterfaces"] == [before]


def test_a_nat_gateway_fails_in_a_vpc_without_an_internet_gateway(ec2: Any, owner: Owner, made: Made) -> None:
    address = ec2.allocate_address()["AllocationId"]
    asked = {"SubnetId": made.subnet, "AllocationId": address}
    gateway = ec2.create_nat_gateway(**asked)["NatGateway"]["NatGatewayId"]
    settled(owner)
    [failed] = ec2.describe_nat_gateways(NatGatewayIds=[gateway])["NatGateways"]
    assert (failed["State"], failed["FailureCode"]) == ("failed", "Gateway.NotAttached")
    assert told(owner, made.vpc).gateways == {}
    ec2.release_address(AllocationId=address)
    ec2.delete_nat_gateway(NatGatewayId=gateway)
    assert ec2.describe_nat_gateways(NatGatewayIds=[gateway])["NatGateways"][0]["State"] == "deleted"
    ec2.delete_subnet(SubnetId=made.subnet)
    ec2.delete_vpc(VpcId=made.vpc)


def test_a_private_nat_gateway_has_no_way_out_of_the_vpc(ec2: Any, owner: Owner, made: Made) -> None:
    asked = {"SubnetId": made.subnet, "ConnectivityType": "private", "PrivateIpAddress": "10.0.1.99"}
    gateway = ec2.create_nat_gateway(**asked)["NatGateway"]
    assert gateway["ConnectivityType"] == "private"
    assert told(owner, made.vpc).gateways[gateway["NatGatewayId"]] == NatGateway("10.0.1.0/24", "10.0.1.99")
    assert refusal(ec2.create_nat_gateway, **asked)[0] == "InvalidIPAddress.InUse"


# Access lists.


def entry(number: int, egress: bool = False, **more: object) -> dict[str, object]:
    return {"RuleNumber": number, "Egress": egress, "RuleAction": "allow", "Protocol": "-1", **more}


def test_entries_are_asked_in_the_order_of_their_numbers(ec2: Any, owner: Owner, made: Made) -> None:
    ports = {"From": 80, "To": 90}
    owner.cloud.woken.clear()
    ec2.create_network_acl_entry(
        NetworkAclId=made.acl, **entry(50, Protocol="6", PortRange=ports, CidrBlock="10.0.2.7/24", RuleAction="deny")
    )
    assert "networks" in owner.cloud.woken
    echo = {"Type": 8, "Code": -1}
    ec2.create_network_acl_entry(
        NetworkAclId=made.acl, **entry(40, Protocol="icmp", IcmpTypeCode=echo, CidrBlock="0.0.0.0/0")
    )
    ec2.create_network_acl_entry(NetworkAclId=made.acl, **entry(60, Ipv6CidrBlock="::/0"))
    inward = [rule for rule in made.rules(owner) if rule.direction == "in"]
    assert inward == [
        AccessRule("in", True, "0.0.0.0/0", 1, icmp_type=8),
        AccessRule("in", False, "10.0.2.0/24", 6, 80, 90),
        AccessRule("in", True),
        AccessRule("in", False),
    ]
    ec2.replace_network_acl_entry(
        NetworkAclId=made.acl, **entry(50, Protocol="17", PortRange=ports, CidrBlock="10.0.2.0/24")
    )
    [acl] = ec2.describe_network_acls(Filters=by("entry.port-range.from", "80"))["NetworkAcls"]
    numbers = [(one["RuleNumber"], one["Protocol"]) for one in acl["Entries"] if not one["Egress"]]
    assert numbers == [(40, "1"), (50, "17"), (60, "-1"), (100, "-1"), (32767, "-1")]
    for number in (40, 50, 60, 100):
        ec2.delete_network_acl_entry(NetworkAclId=made.acl, RuleNumber=number, Egress=False)
    assert [rule for rule in made.rules(owner) if rule.direction == "in"] == [AccessRule("in", False)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"RuleNumber": 100}, "NetworkAclEntryAlreadyExists"),
        ({"RuleNumber": 0}, "InvalidParameterValue"),
        ({"RuleNumber": 32767}, "InvalidParameterValue"),
        ({"CidrBlock": "here"}, "InvalidParameterValue"),
        ({"Ipv6CidrBlock": "::/0"}, "MissingParameter"),
        ({"Protocol": "carrier-pigeon"}, "InvalidParameterValue"),
        ({"Protocol": "256"}, "InvalidParameterValue"),
        ({"Protocol": "\N{SUPERSCRIPT TWO}"}, "InvalidParameterValue"),
        ({"Protocol": "\N{ARABIC-INDIC DIGIT SIX}"}, "InvalidParameterValue"),
        ({"CidrBlock": "10.0.0.0/\N{FULLWIDTH DIGIT EIGHT}"}, "InvalidParameterValue"),
        ({"Protocol": "006"}, "MissingParameter"),  # TCP, which has ports
        ({"Protocol": "6"}, "MissingParameter"),
        ({"Protocol": "6", "PortRange": {"From": 9, "To": 8}}, "InvalidParameterValue"),
        ({"Protocol": "1"}, "MissingParameter"),
        ({"Protocol": "1", "IcmpTypeCode": {"Type": 256, "Code": 0}}, "InvalidParameterValue"),
    ],
)
def test_entries_that_cannot_be_are_refused(
    ec2: Any, owner: Owner, made: Made, changes: dict[str, object], code: str
) -> None:
    before = made.rules(owner)
    asked = {"NetworkAclId": made.acl, **entry(50, CidrBlock="0.0.0.0/0"), **changes}
    assert refusal(ec2.create_network_acl_entry, **asked)[0] == code
    assert made.rules(owner) == before


def test_a_subnet_has_another_list_after_its_association_was_replaced(ec2: Any, owner: Owner, made: Made) -> None:
    acl = ec2.create_network_acl(VpcId=made.vpc)["NetworkAcl"]["NetworkAclId"]
    [default] = ec2.describe_network_acls(NetworkAclIds=[made.acl])["NetworkAcls"]
    association = default["Associations"][0]["NetworkAclAssociationId"]
    replaced = ec2.replace_network_acl_association(AssociationId=association, NetworkAclId=acl)
    assert set(made.rules(owner)) == {AccessRule("in", False), AccessRule("out", False)}
    assert refusal(ec2.delete_network_acl, NetworkAclId=acl)[0] == "DependencyViolation"
    assert refusal(ec2.delete_network_acl, NetworkAclId=made.acl)[0] == "InvalidParameterValue"
    missing = {"AssociationId": association, "NetworkAclId": acl}
    assert refusal(ec2.replace_network_acl_association, **missing)[0] == "InvalidAssociationID.NotFound"
    ec2.replace_network_acl_association(AssociationId=replaced["NewAssociationId"], NetworkAclId=made.acl)
    ec2.delete_network_acl(NetworkAclId=acl)
    absent = {"NetworkAclId": made.acl, "RuleNumber": 7, "Egress": True}
    assert refusal(ec2.delete_network_acl_entry, **absent)[0] == "InvalidNetworkAclEntry.NotFound"


# DHCP options.


def test_a_vpcs_guests_are_told_the_options_that_it_is_associated_with(ec2: Any, owner: Owner, made: Made) -> None:
    said = [
        {"Key": "domain-name", "Values": ["corp.example"]},
        {"Key": "domain-name-servers", "Values": ["10.0.1.53", "10.0.1.54"]},
        {"Key": "ntp-servers", "Values": ["169.254.169.123"]},
        {"Key": "netbios-node-type", "Values": ["2"]},
    ]
    options = ec2.create_dhcp_options(DhcpConfigurations=said)["DhcpOptions"]["DhcpOptionsId"]
    ec2.associate_dhcp_options(DhcpOptionsId=options, VpcId=made.vpc)
    assert told(owner, made.vpc).dhcp == DhcpOptions(
        "corp.example", ("10.0.1.53", "10.0.1.54"), ("169.254.169.123",), netbios_node=2
    )
    assert refusal(ec2.delete_dhcp_options, DhcpOptionsId=options)[0] == "DependencyViolation"
    ec2.associate_dhcp_options(DhcpOptionsId="default", VpcId=made.vpc)
    assert ec2.describe_vpcs(VpcIds=[made.vpc])["Vpcs"][0]["DhcpOptionsId"] == "default"
    assert told(owner, made.vpc).dhcp == DhcpOptions(domain="")
    ec2.delete_dhcp_options(DhcpOptionsId=options)
    gone = {"DhcpOptionsId": options, "VpcId": made.vpc}
    assert refusal(ec2.associate_dhcp_options, **gone)[0] == "InvalidDhcpOptionID.NotFound"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("domain-name", ["a..b"]),
        ("domain-name", ["a.example", "b.example"]),
        ("domain-name", [" ".join(["corp.example"] * 19)]),
        ("domain-name-servers", ["10.0.0.1"] * 5),
        ("domain-name-servers", ["AmazonProvidedDNS", "10.0.0.1"]),
        ("ntp-servers", ["AmazonProvidedDNS"]),
        ("netbios-node-type", ["3"]),
        ("colour", ["red"]),
        ("ntp-servers", []),
    ],
)
def test_dhcp_options_that_cannot_be_are_refused(ec2: Any, key: str, values: list[str]) -> None:
    said = [{"Key": key, "Values": values}]
    assert refusal(ec2.create_dhcp_options, DhcpConfigurations=said)[0] == "InvalidParameterValue"
    assert len(ec2.describe_dhcp_options()["DhcpOptions"]) == 1


def test_everything_in_a_vpc_can_be_tagged_when_it_is_made_and_later(ec2: Any, made: Made) -> None:
    def named(resource_type: str) -> list[dict[str, object]]:
        return [{"ResourceType": resource_type, "Tags": [{"Key": "Name", "Value": resource_type}]}]

    ids = [
        ec2.create_route_table(VpcId=made.vpc, TagSpecifications=named("route-table"))["RouteTable"]["RouteTableId"],
        ec2.create_internet_gateway(TagSpecifications=named("internet-gateway"))["InternetGateway"]["InternetGatewayId"],
        ec2.create_network_acl(VpcId=made.vpc, TagSpecifications=named("network-acl"))["NetworkAcl"]["NetworkAclId"],
        ec2.create_nat_gateway(
            SubnetId=made.subnet, ConnectivityType="private", TagSpecifications=named("natgateway")
        )["NatGateway"]["NatGatewayId"],
    ]
    ec2.create_tags(Resources=ids, Tags=[{"Key": "colour", "Value": "red"}])
    found = ec2.describe_tags(Filters=[*by("key", "Name"), *by("resource-id", *ids)])["Tags"]
    assert {tag["Value"] for tag in found} == {"route-table", "internet-gateway", "network-acl", "natgateway"}
    assert len(ec2.describe_nat_gateways(Filter=by("tag:colour", "red"))["NatGateways"]) == 1


# What this cloud has none of.


def test_ways_to_other_networks_are_none_as_their_making_is_refused(ec2: Any, made: Made) -> None:
    assert ec2.describe_vpc_peering_connections(Filters=by("status-code", "active"))["VpcPeeringConnections"] == []
    assert ec2.describe_managed_prefix_lists()["PrefixLists"] == ec2.describe_prefix_lists()["PrefixLists"] == []
    assert ec2.describe_vpc_endpoints()["VpcEndpoints"] == []
    asked = {"VpcPeeringConnectionIds": [f"pcx-{ABSENT}"]}
    assert refusal(ec2.describe_vpc_peering_connections, **asked)[0] == "InvalidVpcPeeringConnectionID.NotFound"
    assert refusal(ec2.create_vpc_peering_connection, VpcId=made.vpc)[0] == "UnsupportedOperation"
    assert refusal(ec2.create_vpn_gateway, Type="ipsec.1")[0] == "UnsupportedOperation"
