"""Network access lists: rules of subnets, which know no connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.filters import Filters
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.state.networks import NetworkAcl, NetworkAclEntry
from celaje.cloud.state.tags import answered_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
NETWORK_ACLS = Kind(
    NetworkAcl, "acl", "InvalidNetworkAclId", "InvalidNetworkAclID.NotFound", "networkAcl ID"
)

_ICMP = ("1", "58")

_FILTERS = Filters[Tagged[NetworkAcl]](
    {
        "association.association-id": lambda acl: [each.id for each in acl.row.associations],
        "association.network-acl-id": lambda acl: acl.row.id if acl.row.associations else None,
        "association.subnet-id": lambda acl: [each.subnet for each in acl.row.associations],
        "default": lambda acl: acl.row.is_default,
        "entry.cidr": lambda acl: [entry.cidr or None for entry in acl.row.entries],
        "entry.icmp.code": lambda acl: [one.last_port for one in acl.row.entries if one.protocol in _ICMP],
        "entry.icmp.type": lambda acl: [one.first_port for one in acl.row.entries if one.protocol in _ICMP],
        "entry.ipv6-cidr": lambda acl: [entry.cidr6 or None for entry in acl.row.entries],
        "entry.port-range.from": lambda acl: [_ports_of(entry).get("From") for entry in acl.row.entries],
        "entry.port-range.to": lambda acl: [_ports_of(entry).get("To") for entry in acl.row.entries],
        "entry.egress": lambda acl: [entry.egress for entry in acl.row.entries],
        "entry.protocol": lambda acl: [entry.protocol for entry in acl.row.entries],
        "entry.rule-action": lambda acl: [_action(entry.allow) for entry in acl.row.entries],
        "entry.rule-number": lambda acl: [entry.number for entry in acl.row.entries],
        "network-acl-id": lambda acl: acl.row.id,
        "owner-id": lambda acl: acl.row.account,
        "vpc-id": lambda acl: acl.row.vpc,
    },
    tags=lambda acl: acl.tags,
)


@ACTIONS.action
def describe_network_acls(call: Call, request: ec2.DescribeNetworkAclsRequestTypeDef) -> Answer:
    """The account's access lists."""
    found, token = NETWORK_ACLS.listed(call, request, request.get("NetworkAclIds"), _FILTERS)
    return {"NetworkAcls": [described(acl) for acl in found], "NextToken": token}


def _action(allow: bool) -> str:
    return "allow" if allow else "deny"


def _ports_of(entry: NetworkAclEntry) -> dict[str, int]:
    """An entry's range of ports; empty for what has none."""
    if entry.protocol not in ("6", "17") or entry.first_port < 0:
        return {}
    return {"From": entry.first_port, "To": entry.last_port}


def _described_entry(entry: NetworkAclEntry) -> dict[str, object]:
    is_icmp = entry.protocol in _ICMP
    return {
        "CidrBlock": entry.cidr or None,
        "Egress": entry.egress,
        "IcmpTypeCode": {"Type": entry.first_port, "Code": entry.last_port} if is_icmp else None,
        "Ipv6CidrBlock": entry.cidr6 or None,
        "PortRange": _ports_of(entry) or None,
        "Protocol": entry.protocol,
        "RuleAction": _action(entry.allow),
        "RuleNumber": entry.number,
    }


def described(acl: Tagged[NetworkAcl]) -> dict[str, object]:
    """An access list as its description has it, its entries in the order in which they are asked."""
    row = acl.row
    return {
        "Associations": [
            {"NetworkAclAssociationId": each.id, "NetworkAclId": row.id, "SubnetId": each.subnet}
            for each in row.associations
        ],
        "Entries": [
            _described_entry(entry) for entry in sorted(row.entries, key=lambda one: (one.number, not one.egress))
        ],
        "IsDefault": row.is_default,
        "NetworkAclId": row.id,
        "OwnerId": row.account,
        "Tags": answered_tags(acl.tags),
        "VpcId": row.vpc,
    }
