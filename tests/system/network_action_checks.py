"""Checks of what network actions do to packets between the guests of cloud_vpc.py; test_cloud_routes.py runs them.

Each leaves the VPC as it found it.
"""

from __future__ import annotations

from typing import Any

from tests.cloud.served import refusal
from tests.system.cloud_host import until
from tests.system.cloud_vpc import (
    ANSWER,
    ANYWHERE,
    DATA,
    ITS_OTHER,
    NAMES,
    PORT,
    SECOND_CARD,
    SILENCE,
    THIRD,
    UNREACHED,
    WEB,
    Vpc,
    echo,
    page,
    public_name,
)

TALK = 7000
LISTENS = f"cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':{TALK:04X} .* 0A ' && echo yes"
MACS = "http://169.254.169.254/latest/meta-data"
# What DHCP tells a guest, which asks once more for it and changes nothing.
LEASE = (
    "printf '#!/bin/sh\\n[ $1 = bound ] && set\\n' > /tmp/told; chmod +x /tmp/told; "
    "udhcpc -n -q -f -t 20 -i eth0 -O ntpsrv -O search -s /tmp/told 2>/dev/null | "
    "grep -E '^(dns|search|domain|ntpsrv)=' | sort | tr -d \"'\""
)


def association(vpc: Vpc, table: str) -> str:
    """That of the one subnet which has the route table."""
    [found] = vpc.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    return found["Associations"][0]["RouteTableAssociationId"]


def access_lists_hold_for_each_packet(vpc: Vpc) -> None:
    """In the order of their numbers, both ways, and from the moment on that they change."""
    ec2 = vpc.ec2
    asked = page(DATA)
    vpc.until_on(vpc.web, asked, NAMES[DATA])
    denied: dict[str, Any] = {"NetworkAclId": vpc.acl, "RuleNumber": 50, "Egress": False}
    web_port: dict[str, Any] = {"Protocol": "6", "PortRange": {"From": PORT, "To": PORT}}
    ec2.create_network_acl_entry(**denied, **web_port, RuleAction="deny", CidrBlock="10.0.1.0/24")
    vpc.until_on(vpc.web, asked, UNREACHED)
    vpc.until_on(vpc.data, page(WEB), NAMES[WEB])
    ec2.delete_network_acl_entry(**denied)
    vpc.until_on(vpc.web, asked, NAMES[DATA])

    # A list of its own admits nothing, then what asks but no answers, then both.
    made = ec2.create_network_acl(VpcId=vpc.vpc)["NetworkAcl"]["NetworkAclId"]
    [theirs] = [
        one["NetworkAclAssociationId"]
        for one in ec2.describe_network_acls(NetworkAclIds=[vpc.acl])["NetworkAcls"][0]["Associations"]
        if one["SubnetId"] == vpc.private
    ]
    theirs = ec2.replace_network_acl_association(AssociationId=theirs, NetworkAclId=made)["NewAssociationId"]
    vpc.until_on(vpc.web, asked, UNREACHED)
    inward: dict[str, Any] = {"NetworkAclId": made, "Egress": False}
    outward: dict[str, Any] = {"NetworkAclId": made, "Egress": True, "CidrBlock": "10.0.0.0/16"}
    ec2.create_network_acl_entry(**inward, **web_port, RuleNumber=100, RuleAction="allow", CidrBlock="10.0.0.0/16")
    assert vpc.on(vpc.web, asked) == UNREACHED
    answers: dict[str, Any] = {"Protocol": "6", "PortRange": {"From": 1024, "To": 65535}}
    ec2.create_network_acl_entry(**outward, **answers, RuleNumber=100, RuleAction="allow")
    vpc.until_on(vpc.web, asked, NAMES[DATA])
    assert vpc.on(vpc.web, echo(DATA)) == UNREACHED
    for each, kind in ((inward | {"CidrBlock": "10.0.1.0/24"}, 8), (outward, 0)):
        ec2.create_network_acl_entry(
            **each, Protocol="1", IcmpTypeCode={"Type": kind, "Code": -1}, RuleNumber=110, RuleAction="allow"
        )
    vpc.until_on(vpc.web, echo(DATA), "reached")
    assert vpc.on(vpc.third, echo(DATA)) == UNREACHED

    # A lower number goes before; replaced, it is about somebody else.
    first = {**inward, **web_port, "RuleNumber": 90, "RuleAction": "deny"}
    ec2.create_network_acl_entry(**first, CidrBlock=f"{WEB}/32")
    vpc.until_on(vpc.web, asked, UNREACHED)
    assert vpc.reaches(vpc.third, DATA) == NAMES[DATA]
    ec2.replace_network_acl_entry(**first, CidrBlock=f"{THIRD}/32")
    vpc.until_on(vpc.web, asked, NAMES[DATA])
    assert vpc.on(vpc.third, asked) == UNREACHED
    assert refusal(ec2.delete_network_acl, NetworkAclId=made)[0] == "DependencyViolation"
    assert vpc.reaches(vpc.web, DATA) == NAMES[DATA]
    ec2.replace_network_acl_association(AssociationId=theirs, NetworkAclId=vpc.acl)
    vpc.until_on(vpc.third, asked, NAMES[DATA])
    ec2.delete_network_acl(NetworkAclId=made)


def groups_admit_members_of_groups_and_cut_what_they_no_longer_admit(vpc: Vpc) -> None:
    """Inward and outward, by addresses and by groups; for connections that stand as well."""
    ec2 = vpc.ec2
    inner, outer = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc.vpc)["GroupId"]
        for name in ("inner", "outer")
    )
    card = vpc.interface(vpc.data)
    ec2.modify_network_interface_attribute(NetworkInterfaceId=card, Groups=[inner])
    vpc.until_on(vpc.web, page(DATA), UNREACHED)
    members: Any = {
        "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [{"GroupId": outer}]}
        ]
    }
    rule = ec2.authorize_security_group_ingress(GroupId=inner, **members)["SecurityGroupRules"][0]
    assert vpc.on(vpc.web, page(DATA)) == UNREACHED  # not a member yet
    ec2.modify_instance_attribute(InstanceId=vpc.web, Groups=[vpc.group, outer])
    vpc.until_on(vpc.web, page(DATA), NAMES[DATA])
    assert vpc.on(vpc.third, page(DATA)) == UNREACHED

    # A rule that becomes one of another port.
    changed: Any = {"IpProtocol": "tcp", "FromPort": TALK, "ToPort": TALK, "ReferencedGroupId": outer}
    ec2.modify_security_group_rules(
        GroupId=inner,
        SecurityGroupRules=[{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": changed}],
    )
    vpc.until_on(vpc.web, page(DATA), UNREACHED)

    # A connection that stands is cut with its rule, and goes on with it.
    vpc.on(vpc.data, f"(sleep 1000 | nc -l -p {TALK} > /tmp/heard 2>/dev/null &)")
    vpc.until_on(vpc.data, LISTENS, "yes")
    talk = f"((while usleep 100000; do echo word; done) | nc {DATA} {TALK} >/dev/null 2>&1 &)"
    vpc.on(vpc.web, talk)

    def heard() -> int:
        return int(vpc.on(vpc.data, "wc -c < /tmp/heard"))

    until(heard, "words on a connection")
    rule_ids = [rule["SecurityGroupRuleId"]]
    ec2.revoke_security_group_ingress(GroupId=inner, SecurityGroupRuleIds=rule_ids)

    def silent() -> bool:
        before = heard()
        vpc.on(vpc.data, "sleep 1")
        return heard() == before

    until(silent, "the end of a rule")
    before = heard()
    ec2.authorize_security_group_ingress(GroupId=inner, IpPermissions=[ANYWHERE])
    until(lambda: heard() > before, "more words")
    vpc.on(vpc.web, "killall nc")

    # Outward.
    vpc.until_on(vpc.web, page(DATA), NAMES[DATA])
    ec2.modify_instance_attribute(InstanceId=vpc.web, Groups=[outer])
    ec2.revoke_security_group_egress(GroupId=outer, IpPermissions=[ANYWHERE])
    vpc.until_on(vpc.web, page(DATA), UNREACHED)
    some: Any = {
        "IpPermissions": [
            {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [{"GroupId": inner}]}
        ]
    }
    ec2.authorize_security_group_egress(GroupId=outer, **some)
    vpc.until_on(vpc.web, page(DATA), NAMES[DATA])
    assert vpc.on(vpc.web, page(THIRD)) == vpc.on(vpc.web, echo(DATA)) == UNREACHED
    ec2.revoke_security_group_egress(GroupId=outer, **some)
    vpc.until_on(vpc.web, page(DATA), UNREACHED)
    ec2.modify_instance_attribute(InstanceId=vpc.web, Groups=[vpc.group])
    ec2.modify_network_interface_attribute(NetworkInterfaceId=card, Groups=[vpc.group])
    vpc.until_on(vpc.web, page(DATA), NAMES[DATA])
    for group in (inner, outer):
        ec2.delete_security_group(GroupId=group)


def guests_hear_the_dhcp_options_when_they_ask(vpc: Vpc) -> None:
    """Those of the launch are in the resolver's file; others come with the next answer."""
    ec2 = vpc.ec2
    assert "search corp.example" in vpc.on(vpc.web, "cat /etc/resolv.conf").splitlines()
    made = vpc.dhcp_options(domain="other.example", ntp=THIRD, names=DATA)
    vpc.until_on(vpc.web, LEASE, f"dns={DATA}\ndomain=other.example\nntpsrv={THIRD}\nsearch=other.example")
    vpc.on(vpc.web, "kill -USR1 $(cat /run/udhcpc.eth0.pid)")  # renew
    vpc.until_on(vpc.web, "cat /etc/resolv.conf", f"search other.example\nnameserver {DATA}")
    assert refusal(ec2.delete_dhcp_options, DhcpOptionsId=made)[0] == "DependencyViolation"
    assert f"ntpsrv={THIRD}" in vpc.on(vpc.web, LEASE).splitlines()
    ec2.associate_dhcp_options(VpcId=vpc.vpc, DhcpOptionsId="default")
    vpc.until_on(vpc.web, LEASE, "dns=10.0.0.2")
    vpc.on(vpc.web, "kill -USR1 $(cat /run/udhcpc.eth0.pid)")
    vpc.until_on(vpc.web, "cat /etc/resolv.conf", "nameserver 10.0.0.2")
    ec2.delete_dhcp_options(DhcpOptionsId=made)


def names_are_answered_while_the_vpc_says_so(vpc: Vpc) -> None:
    """EnableDnsSupport is the network's name server; EnableDnsHostnames gives public names, which stand for private
    addresses in the VPC."""
    ec2 = vpc.ec2
    asked = f"nslookup {NAMES[DATA]}.ec2.internal 10.0.0.2 | grep -c 'Address.*{DATA}'"
    vpc.until_on(vpc.web, asked, "1")
    ec2.modify_vpc_attribute(VpcId=vpc.vpc, EnableDnsSupport={"Value": False})
    vpc.until_on(vpc.web, asked, "0")
    ec2.modify_vpc_attribute(VpcId=vpc.vpc, EnableDnsSupport={"Value": True})
    vpc.until_on(vpc.web, asked, "1")
    name = f"wget -qO- {MACS}/public-hostname 2>/dev/null"
    inside = public_name(vpc.address)
    asked = f"nslookup {inside} 10.0.0.2 | grep -c 'Address.*{WEB}'"
    assert (vpc.on(vpc.web, name), vpc.on(vpc.data, asked)) == ("", "0")
    ec2.modify_vpc_attribute(VpcId=vpc.vpc, EnableDnsHostnames={"Value": True})
    vpc.until_on(vpc.web, name, vpc.described(vpc.web)["PublicDnsName"])
    vpc.until_on(vpc.data, asked, "1")
    assert vpc.reaches(vpc.data, inside) == NAMES[WEB]  # which has no way out: by the private address
    ec2.modify_vpc_attribute(VpcId=vpc.vpc, EnableDnsHostnames={"Value": False})
    vpc.until_on(vpc.web, name, "")
    vpc.until_on(vpc.data, asked, "0")


def the_cards_of_a_launch_are_there_with_their_addresses(vpc: Vpc) -> None:
    """The second one by DHCP, its further address once the guest takes it."""
    vpc.until_on(vpc.third, f"ip -o -4 address show eth1 2>/dev/null | grep -c ' {SECOND_CARD}/24 '", "1")
    vpc.on(vpc.third, "ip route add default via 10.0.4.1 dev eth1 table 4; ip rule add from 10.0.4.0/24 table 4")
    vpc.until_on(vpc.web, page(SECOND_CARD), NAMES[THIRD])
    vpc.on(vpc.third, f"ip address add {ITS_OTHER}/32 dev eth1")
    vpc.until_on(vpc.web, page(ITS_OTHER), NAMES[THIRD])


def a_network_that_is_added_is_routed_and_its_interfaces_come_and_go(vpc: Vpc) -> None:
    """A second block, a subnet in it, and there an interface of an instance that runs, with two addresses."""
    ec2 = vpc.ec2
    block = ec2.associate_vpc_cidr_block(VpcId=vpc.vpc, CidrBlock="10.1.0.0/16")["CidrBlockAssociation"]
    subnet = ec2.create_subnet(VpcId=vpc.vpc, CidrBlock="10.1.1.0/24", AvailabilityZone="us-east-1a")["Subnet"][
        "SubnetId"
    ]
    card = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress="10.1.1.9")["NetworkInterface"][
        "NetworkInterfaceId"
    ]
    attachment = ec2.attach_network_interface(NetworkInterfaceId=card, InstanceId=vpc.data, DeviceIndex=1)
    vpc.until_on(vpc.data, "ip -o -4 address show eth1 2>/dev/null | grep -c ' 10.1.1.9/24 '", "1")
    by_source = "ip route replace default via 10.1.1.1 dev eth1 table 100; ip rule add from"
    vpc.on(vpc.data, f"{by_source} 10.1.1.0/24 table 100")
    vpc.until_on(vpc.web, page("10.1.1.9"), NAMES[DATA])
    assert refusal(ec2.disassociate_vpc_cidr_block, AssociationId=block["AssociationId"])[0] == (
        "InvalidCidrBlock.InUse"
    )
    assert vpc.reaches(vpc.web, "10.1.1.9") == NAMES[DATA]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=card, PrivateIpAddresses=["10.1.1.10"])
    vpc.on(vpc.data, "ip address add 10.1.1.10/32 dev eth1")
    vpc.until_on(vpc.web, page("10.1.1.10"), NAMES[DATA])
    elastic = ec2.allocate_address()
    ec2.create_route(RouteTableId=vpc.main, DestinationCidrBlock="0.0.0.0/0", GatewayId=vpc.gateway)
    of_it = ec2.associate_address(
        AllocationId=elastic["AllocationId"], NetworkInterfaceId=card, PrivateIpAddress="10.1.1.10"
    )["AssociationId"]
    vpc.until_asks(elastic["PublicIp"], NAMES[DATA])
    ec2.disassociate_address(AssociationId=of_it)
    vpc.until_asks(elastic["PublicIp"], UNREACHED)
    ec2.release_address(AllocationId=elastic["AllocationId"])
    ec2.delete_route(RouteTableId=vpc.main, DestinationCidrBlock="0.0.0.0/0")
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=card, PrivateIpAddresses=["10.1.1.10"])
    vpc.until_on(vpc.web, page("10.1.1.10"), UNREACHED)
    assert vpc.reaches(vpc.web, "10.1.1.9") == NAMES[DATA]
    ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
    vpc.until_on(vpc.web, page("10.1.1.9"), UNREACHED)
    vpc.until_on(vpc.data, "ip link show eth1 >/dev/null 2>&1 || echo gone", "gone")
    vpc.on(vpc.data, "ip rule del from 10.1.1.0/24")
    until(
        lambda: (
            ec2.describe_network_interfaces(NetworkInterfaceIds=[card])["NetworkInterfaces"][0]["Status"] == "available"
        ),
        "the detachment",
    )
    ec2.delete_network_interface(NetworkInterfaceId=card)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.disassociate_vpc_cidr_block(AssociationId=block["AssociationId"])


def metadata_are_served_as_the_options_say(vpc: Vpc) -> None:
    """With a token only, to nobody, and as before."""
    ec2 = vpc.ec2
    asked = f"wget -T {SILENCE} -qO- {MACS}/instance-id 2>/dev/null || echo refused"
    assert vpc.on(vpc.web, asked.replace(f"-T {SILENCE}", f"-T {ANSWER}")) == vpc.web
    ec2.modify_instance_metadata_options(InstanceId=vpc.web, HttpTokens="required")
    vpc.until_on(vpc.web, asked, "refused")
    ec2.modify_instance_metadata_options(InstanceId=vpc.web, HttpTokens="optional")
    vpc.until_on(vpc.web, asked, vpc.web)
    ec2.modify_instance_metadata_options(InstanceId=vpc.web, HttpEndpoint="disabled")
    vpc.until_on(vpc.web, asked, "refused")
    ec2.modify_instance_metadata_options(InstanceId=vpc.web, HttpEndpoint="enabled")
    vpc.until_on(vpc.web, asked, vpc.web)


ALL = (
    access_lists_hold_for_each_packet,
    groups_admit_members_of_groups_and_cut_what_they_no_longer_admit,
    guests_hear_the_dhcp_options_when_they_ask,
    names_are_answered_while_the_vpc_says_so,
    the_cards_of_a_launch_are_there_with_their_addresses,
    a_network_that_is_added_is_routed_and_its_interfaces_come_and_go,
    metadata_are_served_as_the_options_say,
)
