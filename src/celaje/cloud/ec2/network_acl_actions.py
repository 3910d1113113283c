"""Actions that make, change and end access lists of subnets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.cidr_blocks import checked_cidr
from celaje.cloud.ec2.kinds import Tagged
from celaje.cloud.ec2.network_acls import NETWORK_ACLS, described
from celaje.cloud.ec2.vpcs import LAST_ENTRY, VPCS
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import NetworkAcl, NetworkAclAssociation, NetworkAclEntry
from celaje.cloud.state.tags import remove_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")

HIGHEST_NUMBER = 32766
_PROTOCOLS = {"all": "-1", "icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}
_NUMBER = re.compile(r"[0-9]{1,3}")
_HIGHEST_PROTOCOL, _HIGHEST_PORT, _HIGHEST_TYPE = 255, 65535, 255


@ACTIONS.action
def create_network_acl(call: Call, request: ec2.CreateNetworkAclRequestTypeDef) -> Answer:
    """A list that admits nothing, and that is no subnet's."""
    vpc = VPCS.find(call, request["VpcId"])
    tags = tags_for(request.get("TagSpecifications"), "network-acl")
    quotas.refuse_beyond_in_vpc(
        call.session, NetworkAcl, vpc.id, quotas.NETWORK_ACLS_PER_VPC, "network ACLs", "NetworkAclLimitExceeded"
    )
    acl = NETWORK_ACLS.new(
        call,
        vpc=vpc.id,
        is_default=False,
        entries=[NetworkAclEntry(LAST_ENTRY, egress, False) for egress in (True, False)],
        associations=[],
    )
    set_tags(call.session, acl.id, "network-acl", call.account, call.region, tags)
    return {"NetworkAcl": described(Tagged(acl, tags))}


@ACTIONS.action
def delete_network_acl(call: Call, request: ec2.DeleteNetworkAclRequestTypeDef) -> Answer:
    """A list that is no subnet's, and not its VPC's default one."""
    acl = NETWORK_ACLS.find(call, request["NetworkAclId"])
    if acl.is_default:
        raise AwsError("InvalidParameterValue", f"cannot delete default network ACL {acl.id}")
    if acl.associations:
        raise AwsError(
            "DependencyViolation", f"The networkAcl '{acl.id}' has dependencies and cannot be deleted."
        )
    remove_tags(call.session, acl.id)
    call.session.delete(acl)
    call.wake("networks")
    return {}


@ACTIONS.action
def create_network_acl_entry(call: Call, request: ec2.CreateNetworkAclEntryRequestTypeDef) -> Answer:
    """One more rule, in force at once."""
    acl = NETWORK_ACLS.find(call, request["NetworkAclId"])
    entry = _checked(request)
    if _entry(acl, entry.number, entry.egress) is not None:
        raise AwsError(
            "NetworkAclEntryAlreadyExists",
            f"The network acl entry identified by {entry.number} already exists.",
        )
    if sum(one.egress is entry.egress for one in acl.entries) > quotas.NETWORK_ACL_ENTRIES:
        raise AwsError(
            "NetworkAclEntryLimitExceeded",
            f"The maximum number of network ACL entries of {acl.id} has been reached: {quotas.NETWORK_ACL_ENTRIES}",
        )
    _set(call, acl, [*acl.entries, entry])
    return {}


@ACTIONS.action
def replace_network_acl_entry(call: Call, request: ec2.ReplaceNetworkAclEntryRequestTypeDef) -> Answer:
    """Another rule in the place of one that there is."""
    acl = NETWORK_ACLS.find(call, request["NetworkAclId"])
    entry = _checked(request)
    former = _existing(acl, entry.number, entry.egress)
    _set(call, acl, [entry if one is former else one for one in acl.entries])
    return {}


@ACTIONS.action
def delete_network_acl_entry(call: Call, request: ec2.DeleteNetworkAclEntryRequestTypeDef) -> Answer:
    """One rule less."""
    acl = NETWORK_ACLS.find(call, request["NetworkAclId"])
    former = _existing(acl, request["RuleNumber"], request["Egress"])
    _refuse_number(former.number)
    _set(call, acl, [one for one in acl.entries if one is not former])
    return {}


@ACTIONS.action
def replace_network_acl_association(
    call: Call, request: ec2.ReplaceNetworkAclAssociationRequestTypeDef
) -> Answer:
    """The subnet of the association has another list of its VPC's from now on."""
    identifier = request["AssociationId"]
    acl = NETWORK_ACLS.find(call, request["NetworkAclId"])
    found = next(
        ((other, one) for other in NETWORK_ACLS.rows(call) for one in other.associations if one.id == identifier), None
    )
    if found is None:
        raise AwsError("InvalidAssociationID.NotFound", f"The association ID '{identifier}' does not exist")
    former, association = found
    if former.vpc != acl.vpc:
        raise AwsError(
            "InvalidParameterValue", f"Network ACL {acl.id} and the association belong to different networks"
        )
    made = NetworkAclAssociation(new_id("aclassoc"), association.subnet)
    former.associations = [one for one in former.associations if one.id != identifier]
    acl.associations = [*acl.associations, made]
    call.wake("networks")
    return {"NewAssociationId": made.id}


def _set(call: Call, acl: NetworkAcl, entries: list[NetworkAclEntry]) -> None:
    acl.entries = entries
    call.wake("networks")


def _entry(acl: NetworkAcl, number: int, egress: bool) -> NetworkAclEntry | None:
    return next((one for one in acl.entries if (one.number, one.egress) == (number, egress)), None)


def _existing(acl: NetworkAcl, number: int, egress: bool) -> NetworkAclEntry:
    found = _entry(acl, number, egress)
    if found is None:
        side = "egress" if egress else "ingress"
        raise AwsError(
            "InvalidNetworkAclEntry.NotFound",
            f"The {side} network acl entry identified by {number} does not exist in {acl.id}",
        )
    return found


def _refuse_number(number: int) -> None:
    if not 1 <= number <= HIGHEST_NUMBER:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({number}) for parameter ruleNumber is invalid. It must be from 1 to {HIGHEST_NUMBER}",
        )


def _checked(request: Mapping[str, object]) -> NetworkAclEntry:
    """The rule that a request says. AwsError."""
    number = request["RuleNumber"]
    assert isinstance(number, int)
    _refuse_number(number)
    protocol = _protocol(str(request["Protocol"]))
    cidr, cidr6 = request.get("CidrBlock"), request.get("Ipv6CidrBlock")
    if bool(cidr) == bool(cidr6):
        raise AwsError("MissingParameter", "Either cidrBlock or ipv6CidrBlock must be specified")
    first, last = _range(protocol, request)
    return NetworkAclEntry(
        number,
        bool(request["Egress"]),
        request["RuleAction"] == "allow",
        protocol,
        str(checked_cidr(str(cidr))) if cidr else "",
        _cidr6(str(cidr6)) if cidr6 else "",
        first,
        last,
    )


def _protocol(said: str) -> str:
    protocol = _PROTOCOLS.get(said.lower(), said)
    if protocol == "-1":
        return protocol
    if not _NUMBER.fullmatch(protocol) or int(protocol) > _HIGHEST_PROTOCOL:
        raise AwsError("InvalidParameterValue", f"Invalid value '{said[:64]}' for IP protocol. Unknown protocol.")
    return str(int(protocol))  # 006 is TCP as well, with its ports


def _cidr6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Network(text, strict=False))
    except ValueError as error:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({text[:64]}) for parameter ipv6CidrBlock is invalid. This is not a valid CIDR block.",
        ) from error


def _range(protocol: str, request: Mapping[str, object]) -> tuple[int, int]:
    """The ports, or type and code of ICMP; -1 for what has none. AwsError."""
    ports, kind = request.get("PortRange"), request.get("IcmpTypeCode")
    if protocol in ("6", "17"):
        first, last = (ports.get("From"), ports.get("To")) if isinstance(ports, dict) else (None, None)
        if not isinstance(first, int) or not isinstance(last, int):
            raise AwsError("MissingParameter", "The request must contain portRange.from and portRange.to")
        if not 0 <= first <= last <= _HIGHEST_PORT:
            raise AwsError("InvalidParameterValue", f"Invalid TCP/UDP port range ({first}:{last})")
        return first, last
    if protocol in ("1", "58"):
        number, code = (kind.get("Type", -1), kind.get("Code", -1)) if isinstance(kind, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(code, int):
            raise AwsError("MissingParameter", "The request must contain the parameter icmpTypeCode")
        if not (-1 <= number <= _HIGHEST_TYPE and -1 <= code <= _HIGHEST_TYPE):
            raise AwsError("InvalidParameterValue", f"ICMP type {number} and code {code} must be from -1 to 255")
        return number, code
    return -1, -1
