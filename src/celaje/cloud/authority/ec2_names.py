"""Resources of EC2 that a request names otherwise than by their identifiers: policies are about what they are.

A name that nothing has is no resource; the action says so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import select

from celaje.cloud.aws.action import Call
from celaje.cloud.state.addresses import ElasticAddress
from celaje.cloud.state.base import Resource
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.key_pairs import KeyPair
from celaje.cloud.state.launch_templates import LaunchTemplate
from celaje.cloud.state.networks import NetworkAcl, NetworkInterface, RouteTable, Vpc
from celaje.cloud.state.prepared import owned
from celaje.cloud.state.security_groups import SecurityGroup

# AWS's word for the sort, what ARNs have for it, and the identifier of its row ("" for none).
Named = tuple[str, str, str]
Finder = Callable[[Call, str], Iterator[Named]]


def _by(sort: str, table: type[Resource], column: str) -> Finder:
    """Finds the caller's resources by the value of a column."""

    def find(call: Call, value: str) -> Iterator[Named]:
        rows = select(table.id).where(
            table.account == call.account, table.region == call.region, getattr(table, column) == value
        )
        found = list(call.session.scalars(rows))
        for identifier in found:
            yield sort, identifier, identifier
        if not found:
            yield sort, "*", ""

    return find


def _group(call: Call, name: str) -> Iterator[Named]:
    """A group by its name, which those of the default VPC alone can be called by."""
    rows = (
        select(SecurityGroup.id)
        .join(Vpc, SecurityGroup.vpc == Vpc.id)
        .where(
            Vpc.account == call.account, Vpc.region == call.region, Vpc.is_default, SecurityGroup.name == name
        )
    )
    found = call.session.scalar(rows)
    yield ("security-group", found, found) if found else ("security-group", "*", "")


def _key_pair(call: Call, name: str) -> Iterator[Named]:
    rows = select(KeyPair.id).where(
        KeyPair.account == call.account, KeyPair.region == call.region, KeyPair.name == name
    )
    yield "key-pair", name, call.session.scalar(rows) or ""


def _key_pair_by_id(call: Call, identifier: str) -> Iterator[Named]:
    row = call.session.get(KeyPair, identifier)
    if row is not None and (row.account, row.region) == (call.account, call.region):
        yield "key-pair", row.name, row.id
    else:
        yield "key-pair", "*", ""


def _associated(sort: str, table: type[RouteTable] | type[NetworkAcl]) -> Finder:
    def find(call: Call, association: str) -> Iterator[Named]:
        for row in owned(call.session, table, call.account, call.region):
            if any(each.id == association for each in row.associations):
                yield sort, row.id, row.id
                return
        yield sort, "*", ""

    return find


def _attached(call: Call, attachment: str) -> Iterator[Named]:
    """An interface and the instance that it is attached to."""
    rows = select(NetworkInterface.id, NetworkInterface.instance).where(
        NetworkInterface.account == call.account,
        NetworkInterface.region == call.region,
        NetworkInterface.attachment == attachment,
    )
    found = call.session.execute(rows).first()
    yield ("network-interface", "*", "") if found is None else ("network-interface", found[0], found[0])
    if found is not None and found[1]:
        yield "instance", found[1], found[1]


def associated_with(call: Call, address: Named) -> Iterator[Named]:
    """The interface that an elastic address is associated with, and the instance that has that."""
    row = call.session.get(ElasticAddress, address[2]) if address[2] else None
    interface = call.session.get(NetworkInterface, row.interface) if row is not None and row.interface else None
    if interface is not None and (interface.account, interface.region) == (call.account, call.region):
        yield "network-interface", interface.id, interface.id
        if interface.instance:
            yield "instance", interface.instance, interface.instance


def _of_block(call: Call, association: str) -> Iterator[Named]:
    for vpc in owned(call.session, Vpc, call.account, call.region):
        first = vpc.id.replace("vpc-", "vpc-cidr-assoc-")
        if association == first or any(one.id == association for one in vpc.further_cidrs):
            yield "vpc", vpc.id, vpc.id
            return
    yield "vpc", "*", ""


# By the member that has the name.
BY_NAMES: dict[str, Finder] = {
    "GroupName": _group,
    "KeyName": _key_pair,
    "KeyNames": _key_pair,
    "LaunchTemplateName": _by("launch-template", LaunchTemplate, "name"),
    "PublicIp": _by("elastic-ip", ElasticAddress, "address"),
    "SecurityGroups": _group,
}
# By the prefix of an identifier that is another than the resource's.
BY_OTHER_IDS: dict[str, Finder] = {
    "aclassoc": _associated("network-acl", NetworkAcl),
    "eipassoc": _by("elastic-ip", ElasticAddress, "association"),
    "eni-attach": _attached,
    "iip-assoc": _by("instance", Instance, "profile_association"),
    "key": _key_pair_by_id,
    "rtbassoc": _associated("route-table", RouteTable),
    "vpc-cidr-assoc": _of_block,
}
