"""DHCP options: what a VPC's machines are told with their addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.vpcs import VPCS
from celaje.cloud.state.networks import DhcpOptions, Vpc
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
DHCP_OPTIONS = Kind(
    DhcpOptions, "dopt", "InvalidDhcpOptionsId", "InvalidDhcpOptionID.NotFound", "dhcpOption ID"
)

NETWORKS_OWN = "AmazonProvidedDNS"
_SERVERS = {"domain-name-servers": 4, "ntp-servers": 4, "netbios-name-servers": 4}  # how many there may be
_NODE_TYPES = ("1", "2", "4", "8")
_LONGEST_SEARCH = 255  # bytes of a DHCP option, in which each name has two beside its own
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,200}}$){_LABEL}(\.{_LABEL})*")

_FILTERS = Filters[Tagged[DhcpOptions]](
    {
        "dhcp-options-id": lambda options: options.row.id,
        "key": lambda options: options.row.options.keys(),
        "owner-id": lambda options: options.row.account,
        "value": lambda options: [value for values in options.row.options.values() for value in values],
    },
    tags=lambda options: options.tags,
)


@ACTIONS.action
def describe_dhcp_options(call: Call, request: ec2.DescribeDhcpOptionsRequestTypeDef) -> Answer:
    """The account's DHCP options."""
    found, token = DHCP_OPTIONS.listed(call, request, request.get("DhcpOptionsIds"), _FILTERS)
    return {"DhcpOptions": [_described(options) for options in found], "NextToken": token}


def _described(options: Tagged[DhcpOptions]) -> dict[str, object]:
    row = options.row
    return {
        "DhcpConfigurations": [
            {"Key": key, "Values": [{"Value": value} for value in values]} for key, values in row.options.items()
        ],
        "DhcpOptionsId": row.id,
        "OwnerId": row.account,
        "Tags": answered_tags(options.tags),
    }


@ACTIONS.action
def create_dhcp_options(call: Call, request: ec2.CreateDhcpOptionsRequestTypeDef) -> Answer:
    """A set of options, for whichever VPC it is associated with."""
    options: dict[str, list[str]] = {}
    for given in request["DhcpConfigurations"]:
        key, values = given.get("Key") or "", list(given.get("Values") or ())
        if key in options:
            raise _invalid(key, "it is given more than once")
        options[key] = _checked(key, values)
    if not options:
        raise AwsError("MissingParameter", "The request must contain the parameter dhcpConfigurations")
    tags = tags_for(request.get("TagSpecifications"), "dhcp-options")
    quotas.refuse_beyond(call.session, call, DhcpOptions, quotas.DHCP_OPTIONS, "sets of DHCP options")
    row = DHCP_OPTIONS.new(call, options=options)
    set_tags(call.session, row.id, "dhcp-options", call.account, call.region, tags)
    return {"DhcpOptions": _described(Tagged(row, tags))}


@ACTIONS.action
def delete_dhcp_options(call: Call, request: ec2.DeleteDhcpOptionsRequestTypeDef) -> Answer:
    """Options that no VPC has."""
    row = DHCP_OPTIONS.find(call, request["DhcpOptionsId"])
    if call.session.scalars(select(Vpc.id).where(Vpc.dhcp_options == row.id)).first() is not None:
        raise AwsError(
            "DependencyViolation", f"The dhcpOptions '{row.id}' has dependencies and cannot be deleted."
        )
    remove_tags(call.session, row.id)
    call.session.delete(row)
    return {}


@ACTIONS.action
def associate_dhcp_options(call: Call, request: ec2.AssociateDhcpOptionsRequestTypeDef) -> Answer:
    """The VPC's instances are told these when they ask next; `default`: none."""
    identifier = request["DhcpOptionsId"]
    if identifier != "default":
        DHCP_OPTIONS.find(call, identifier)
    VPCS.find(call, request["VpcId"]).dhcp_options = identifier
    call.wake("networks")
    return {}


def _checked(key: str, values: Sequence[str]) -> list[str]:
    """The values of one option. AwsError InvalidParameterValue."""
    if not values:
        raise _invalid(key, "it has no values")
    if key in _SERVERS:
        if len(values) > _SERVERS[key]:
            raise _invalid(key, f"it has {len(values)} values of at most {_SERVERS[key]}")
        if list(values) == [NETWORKS_OWN] and key == "domain-name-servers":
            return list(values)
        for value in values:
            try:
                ipaddress.IPv4Address(value)
            except ValueError as error:
                own = f" or {NETWORKS_OWN} alone" if key == "domain-name-servers" else ""
                raise _invalid(key, f"{value[:64]!r} is no IPv4 address{own}") from error
    elif key == "domain-name":
        names = values[0].split()
        if len(values) > 1 or not names or not all(_DOMAIN.fullmatch(name) for name in names):
            raise _invalid(key, "it must be one domain's name")
        if sum(len(name) + 2 for name in names) > _LONGEST_SEARCH:
            raise _invalid(key, f"its names have more than the {_LONGEST_SEARCH} bytes that guests can be told")
    elif key == "netbios-node-type":
        if len(values) > 1 or values[0] not in _NODE_TYPES:
            raise _invalid(key, f"it must be one of {', '.join(_NODE_TYPES)}")
    else:
        raise _invalid(key, f"options are {', '.join(sorted([*_SERVERS, 'domain-name', 'netbios-node-type']))}")
    return list(values)


def _invalid(key: str, why: str) -> AwsError:
    return AwsError("InvalidParameterValue", f"Value ({key[:64]}) for parameter dhcpConfigurations is invalid: {why}")
