"""What a VPC's route tables, gateways, access lists, groups, addresses and DHCP options say, packets of real guests do.

The checks share guests (cloud_vpc.py): each changes something and changes it back. Those of this file are of ways
out of a subnet; network_action_checks.py has the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celaje import paths
from celaje.network import spawn
from tests.cloud.served import refusal
from tests.network.namespace import far_host, in_namespace, ip
from tests.system import network_action_checks as checks
from tests.system.cloud_host import cloud_host, until, until_state
from tests.system.cloud_vpc import (
    ANSWER,
    ASKER,
    DATA,
    ECHO,
    ELSEWHERE,
    NAMES,
    OUTSIDE,
    POOL,
    PORT,
    THIRD,
    UNREACHED,
    WEB,
    Vpc,
    page,
    public_name,
)
from tests.system.network_refusal_checks import what_is_in_use_cannot_go_and_goes_on
from tests.system.standing_talks import TALKER, Talks

IMAGE = "CELAJE_TEST_IMAGE"


@pytest.mark.timeout(2000)
def test_packets_do_what_network_actions_say(built_image: Callable[[str], Path]) -> None:
    in_namespace(scenario, 1800.0, **{IMAGE: str(built_image("debian-mini"))})


def scenario() -> None:
    """See the test."""
    with far_host(POOL) as far:
        ip("route", "add", "local", POOL, "dev", "lo")
        server = far(ECHO)
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        with (
            cloud_host(paths.home(), Path(os.environ[IMAGE]), public_pool=POOL) as cloud,
            closing(Vpc(cloud, far(ASKER), far(TALKER))) as vpc,
        ):
            a_default_vpc_that_was_made_leads_out_and_in(vpc)
            a_guest_without_the_check_is_a_way_for_others(vpc)
            for check in checks.ALL:
                check(vpc)
            only_gateways_lead_out(vpc)
            a_gateway_that_is_detached_cuts_what_stands(vpc)
            no_process_waits_for_machines(vpc)


def a_default_vpc_that_was_made_leads_out_and_in(vpc: Vpc) -> None:
    """CreateDefaultVpc and CreateDefaultSubnet are enough for an instance that names no subnet."""
    told = vpc.described(vpc.plain)
    address, private = told["PublicIpAddress"], told["PrivateIpAddress"]
    assert told["SubnetId"] == vpc.default_subnet
    vpc.until_on(vpc.plain, OUTSIDE, address)
    vpc.until_asks(address, told["PrivateDnsName"].partition(".")[0])
    assert vpc.on(vpc.plain, f"nslookup {public_name(address)} | grep -c 'Address.*{private}'") == "1"
    vpc.ec2.terminate_instances(InstanceIds=[vpc.plain])


def a_guest_without_the_check_is_a_way_for_others(vpc: Vpc) -> None:
    """A route to an interface leads there once its source/destination check is off, and back again: to what the guest
    has itself, and through it to others."""
    ec2, interface = vpc.ec2, vpc.interface(vpc.web)
    route: dict[str, Any] = {"RouteTableId": vpc.main, "DestinationCidrBlock": "192.168.99.0/24"}
    ec2.create_route(**route, NetworkInterfaceId=interface)
    assert vpc.on(vpc.data, page(ELSEWHERE)) == UNREACHED
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": False})
    vpc.until_on(vpc.data, page(ELSEWHERE), NAMES[WEB])
    ec2.reset_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck="true")
    vpc.until_on(vpc.data, page(ELSEWHERE), UNREACHED)
    ec2.modify_instance_attribute(InstanceId=vpc.web, SourceDestCheck={"Value": False})
    vpc.until_on(vpc.data, page(ELSEWHERE), NAMES[WEB])
    ec2.delete_route(**route)
    vpc.until_on(vpc.data, page(ELSEWHERE), UNREACHED)

    counted = "grep ^Ip: /proc/net/snmp | tail -n 1 | cut -d ' ' -f 7"  # packets that were passed on
    vpc.on(vpc.web, "echo 1 > /proc/sys/net/ipv4/ip_forward")
    before = int(vpc.on(vpc.web, counted))
    assert vpc.reaches(vpc.data, THIRD) == NAMES[THIRD]
    assert int(vpc.on(vpc.web, counted)) == before
    through = {"RouteTableId": vpc.main, "DestinationCidrBlock": "10.0.3.0/24"}
    ec2.create_route(**through, InstanceId=vpc.web)

    def passed_on() -> bool:
        return vpc.on(vpc.data, page(THIRD)) == NAMES[THIRD] and int(vpc.on(vpc.web, counted)) > before

    until(passed_on, "packets by way of the first guest")
    ec2.reset_instance_attribute(InstanceId=vpc.web, Attribute="sourceDestCheck")
    vpc.until_on(vpc.data, page(THIRD), UNREACHED)
    vpc.on(vpc.web, "echo 0 > /proc/sys/net/ipv4/ip_forward")
    ec2.delete_route(**through)
    vpc.until_on(vpc.data, page(THIRD), NAMES[THIRD])


def only_gateways_lead_out(vpc: Vpc) -> None:
    """`web` by the internet gateway, `data` by a NAT gateway and in its name, nobody in by that, and nobody out by a
    private one."""
    ec2 = vpc.ec2
    vpc.until_on(vpc.web, OUTSIDE, vpc.address)
    assert vpc.asks(vpc.address, ANSWER) == NAMES[WEB]
    assert vpc.on(vpc.data, OUTSIDE) == UNREACHED
    made = ec2.allocate_address()
    public = made["PublicIp"]
    gateway = ec2.create_nat_gateway(SubnetId=vpc.public, AllocationId=made["AllocationId"])["NatGateway"]
    private = ec2.create_nat_gateway(SubnetId=vpc.public, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
    assert private is not None
    ec2.get_waiter("nat_gateway_available").wait(
        NatGatewayIds=[gateway["NatGatewayId"], private], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    through = {"RouteTableId": vpc.main, "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.create_route(**through, NatGatewayId=gateway["NatGatewayId"])
    vpc.until_on(vpc.data, OUTSIDE, public)
    assert vpc.asks(public) == UNREACHED
    ec2.replace_route(**through, NatGatewayId=private)
    vpc.until_on(vpc.data, OUTSIDE, UNREACHED)
    ec2.replace_route(**through, NatGatewayId=gateway["NatGatewayId"])
    vpc.until_on(vpc.data, OUTSIDE, public)
    ec2.delete_nat_gateway(NatGatewayId=private)
    ec2.replace_route(**through, GatewayId=vpc.gateway)  # for those with a public address
    vpc.until_on(vpc.data, OUTSIDE, UNREACHED)
    other = ec2.create_route_table(VpcId=vpc.vpc)["RouteTable"]["RouteTableId"]
    assert other is not None
    ec2.create_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway["NatGatewayId"])
    [table] = ec2.describe_route_tables(RouteTableIds=[vpc.main])["RouteTables"]
    [as_main] = [one["RouteTableAssociationId"] for one in table["Associations"] if one["Main"]]
    as_main = ec2.replace_route_table_association(AssociationId=as_main, RouteTableId=other)["NewAssociationId"]
    vpc.until_on(vpc.data, OUTSIDE, public)  # another main table
    ec2.replace_route_table_association(AssociationId=as_main, RouteTableId=vpc.main)
    vpc.until_on(vpc.data, OUTSIDE, UNREACHED)
    second = ec2.allocate_address()
    association = ec2.associate_address(AllocationId=second["AllocationId"], InstanceId=vpc.data)["AssociationId"]
    vpc.until_on(vpc.data, OUTSIDE, second["PublicIp"])
    ec2.replace_route(**through, NatGatewayId=gateway["NatGatewayId"])
    vpc.until_on(vpc.data, OUTSIDE, public)
    ec2.disassociate_address(AssociationId=association)
    ec2.release_address(AllocationId=second["AllocationId"])
    what_is_in_use_cannot_go_and_goes_on(vpc, gateway["NatGatewayId"], made["AllocationId"])
    ec2.delete_nat_gateway(NatGatewayId=gateway["NatGatewayId"])
    vpc.until_on(vpc.data, OUTSIDE, UNREACHED)
    until(lambda: "NetworkInterfaceId" not in ec2.describe_addresses()["Addresses"][0], "the gateway's address")

    # The address is an instance's now, then another's, which has none of its own meanwhile, then nobody's.
    ec2.replace_route(**through, GatewayId=vpc.gateway)
    ec2.associate_address(AllocationId=made["AllocationId"], InstanceId=vpc.data)
    vpc.until_on(vpc.web, page(public), NAMES[DATA])  # by the gateway, which turns it
    vpc.until_asks(public, NAMES[DATA])
    own = vpc.address
    association = ec2.associate_address(AllocationId=made["AllocationId"], InstanceId=vpc.web)["AssociationId"]
    vpc.until_asks(public, NAMES[WEB])
    assert vpc.asks(own) == UNREACHED
    vpc.until_on(vpc.data, OUTSIDE, UNREACHED)
    ec2.disassociate_address(AssociationId=association)
    vpc.until_asks(public, UNREACHED)
    vpc.until_on(vpc.web, OUTSIDE, vpc.address)
    ec2.release_address(AllocationId=made["AllocationId"])

    association = checks.association(vpc, vpc.table)
    ec2.disassociate_route_table(AssociationId=association)  # the main table's from now on, which leads out too
    vpc.until_on(vpc.web, OUTSIDE, vpc.address)
    ec2.delete_route(**through)
    vpc.until_on(vpc.web, OUTSIDE, UNREACHED)
    assert vpc.asks(vpc.address) == UNREACHED
    association = ec2.associate_route_table(RouteTableId=vpc.table, SubnetId=vpc.public)["AssociationId"]
    vpc.until_on(vpc.web, OUTSIDE, vpc.address)
    association = ec2.replace_route_table_association(AssociationId=association, RouteTableId=vpc.main)[
        "NewAssociationId"
    ]
    vpc.until_on(vpc.web, OUTSIDE, UNREACHED)
    ec2.replace_route_table_association(AssociationId=association, RouteTableId=vpc.table)
    vpc.until_on(vpc.web, OUTSIDE, vpc.address)
    ec2.delete_route(**vpc.route)
    vpc.until_on(vpc.web, OUTSIDE, UNREACHED)
    assert vpc.asks(vpc.address) == UNREACHED


def a_gateway_that_is_detached_cuts_what_stands(vpc: Vpc) -> None:
    """It can be once nobody has a public address; a route to it leads nowhere until it is attached again, and nobody
    comes in by it. What stands falls silent: a connection outward goes on afterwards, one inward is made again."""
    ec2 = vpc.ec2
    ec2.create_route(RouteTableId=vpc.main, DestinationCidrBlock="0.0.0.0/0", GatewayId=vpc.gateway)
    made = ec2.allocate_address()
    to_data: dict[str, str] = {"AllocationId": made["AllocationId"], "InstanceId": vpc.data}
    association = ec2.associate_address(**to_data)["AssociationId"]
    vpc.until_on(vpc.data, OUTSIDE, made["PublicIp"])
    talks = Talks(vpc, vpc.data, vpc.data, made["PublicIp"], PORT)
    ec2.terminate_instances(InstanceIds=[vpc.web])
    until_state(ec2, vpc.web, "terminated")
    gateway = {"InternetGatewayId": vpc.gateway, "VpcId": vpc.vpc}
    assert refusal(ec2.detach_internet_gateway, **gateway)[0] == "DependencyViolation"
    talks.go_on()
    stood = talks.heard
    ec2.disassociate_address(AssociationId=association)
    ec2.detach_internet_gateway(**gateway)
    talks.fall_silent()
    [table] = ec2.describe_route_tables(RouteTableIds=[vpc.main])["RouteTables"]
    assert [one["State"] for one in table["Routes"] if one["DestinationCidrBlock"] == "0.0.0.0/0"] == ["blackhole"]
    assert refusal(ec2.associate_address, **to_data)[0] == "Gateway.NotAttached"
    assert vpc.on(vpc.data, OUTSIDE) == vpc.asks(made["PublicIp"]) == UNREACHED
    ec2.attach_internet_gateway(**gateway)
    ec2.associate_address(**to_data)
    vpc.until_on(vpc.data, OUTSIDE, made["PublicIp"])
    vpc.until_asks(made["PublicIp"], NAMES[DATA])
    talks.go_on()
    assert talks.heard.outward_connections == stood.outward_connections
    assert talks.heard.inward_connections > stood.inward_connections


def no_process_waits_for_machines(vpc: Vpc) -> None:
    """The network's process ends with its last instance."""
    assert vpc.vpc in spawn.running()
    vpc.ec2.terminate_instances(InstanceIds=[vpc.data, vpc.third])
    until(lambda: vpc.vpc not in spawn.running(), "the end of the network's process")
