"""Security groups, as those who use them see them: which ones an interface is in, and what they admit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Fact, Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.vpcs import VPCS, default_vpc
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import InterfaceGroup
from celaje.cloud.state.prepared import IDENTIFIERS, matching, rows_of
from celaje.cloud.state.security_groups import (
    ALL_PROTOCOLS,
    DEFAULT_NAME,
    SecurityGroup,
    SecurityGroupRule,
    add_outward_rule,
)
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")

GROUPS_PER_INTERFACE = 5
GROUPS_PER_VPC = 2500
# Protocols whose rules have ports, or a type and a code.
PORTED = frozenset(("tcp", "udp", "icmp", "icmpv6"))
LONGEST_NAME = 255


_TEXT = re.compile(r"[A-Za-z0-9. _\-:/()#,@\[\]+=&;{}!$*]*")
_TEXT_LETTERS = "a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"

GROUPS = Kind(SecurityGroup, "sg", "InvalidGroupId", "InvalidGroup.NotFound", "security group")


@dataclass(frozen=True, slots=True)
class NetworkRule:
    """A rule as a network's messages have it: `remote` is an IPv4 network or group:ID. None: any ICMP type or code."""

    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "any"]
    remote: str
    first_port: int = 0
    last_port: int = 65535
    icmp_type: int | None = None
    icmp_code: int | None = None


@dataclass(frozen=True, slots=True)
class NetworkGroup:
    """A group as a network's messages have it; its name there is its id."""

    name: str
    rules: tuple[NetworkRule, ...]

    @property
    def mentioned(self) -> frozenset[str]:
        """The ids of the groups that its rules admit."""
        return frozenset(rule.remote.removeprefix("group:") for rule in self.rules if rule.remote.startswith("group:"))


def default_group(session: Session, vpc: str) -> SecurityGroup:
    """The group `default` of a VPC; every VPC has one."""
    return session.scalars(
        select(SecurityGroup).where(SecurityGroup.vpc == vpc, SecurityGroup.name == DEFAULT_NAME)
    ).one()


def find_group(session: Session, account: str, region: str, group_id: str) -> SecurityGroup:
    """The account's group of that id. AwsError InvalidGroupId.Malformed or InvalidGroup.NotFound."""
    group = session.get(SecurityGroup, checked_id(group_id, "sg", "InvalidGroupId"))
    if group is None or (group.account, group.region) != (account, region):
        raise AwsError("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
    return group


def group_of_name(session: Session, account: str, region: str, name: str) -> SecurityGroup:
    """The account's group of that name in its default VPC: those of other VPCs have no name that a request could use.
    AwsError VPCIdNotSpecified or InvalidGroup.NotFound."""
    vpc = default_vpc(session, account, region)
    if vpc is None:
        raise AwsError(
            "VPCIdNotSpecified",
            "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.",
        )
    of_name = select(SecurityGroup).where(SecurityGroup.vpc == vpc.id, SecurityGroup.name == name)
    group = session.scalars(of_name).one_or_none()
    if group is None:
        raise AwsError(
            "InvalidGroup.NotFound", f"The security group '{name}' does not exist in default VPC '{vpc.id}'"
        )
    return group


def checked_groups(
    session: Session,
    account: str,
    region: str,
    vpc: str,
    group_ids: Sequence[str] = (),
    group_names: Sequence[str] = (),
) -> list[str]:
    """The ids of the groups of `vpc` that a request names by id or by name; the default group's if it names none.
    AwsError if one does not exist, lies in another VPC, or there are more than an interface may have."""
    found = [find_group(session, account, region, group_id) for group_id in group_ids]
    found += [group_of_name(session, account, region, name) for name in group_names]
    for group in found:
        if group.vpc != vpc:
            raise AwsError("InvalidGroup.NotFound", f"The security group '{group.id}' does not exist in VPC '{vpc}'")
    ids = list(dict.fromkeys(group.id for group in found)) or [default_group(session, vpc).id]
    if len(ids) > GROUPS_PER_INTERFACE:
        raise AwsError(
            "SecurityGroupsPerInterfaceLimitExceeded",
            f"The maximum number of security groups per interface has been reached: {len(ids)} of at most "
            f"{GROUPS_PER_INTERFACE}",
        )
    return ids


def network_groups(session: Session, group_ids: Iterable[str]) -> dict[str, NetworkGroup]:
    """What the groups admit, by id. IPv6 sources and protocols that a network of celaje does not carry are left out:
    it drops those packets whatever the rules are."""
    wanted = list(dict.fromkeys(group_ids))
    rules: dict[str, list[NetworkRule]] = {group_id: [] for group_id in wanted}
    rows = session.scalars(
        select(SecurityGroupRule)
        .where(SecurityGroupRule.security_group.in_(wanted))
        .order_by(SecurityGroupRule.created, SecurityGroupRule.id)
    )
    for row in rows:
        if (rule := _network_rule(row)) is not None:
            rules[row.security_group].append(rule)
    return {group_id: NetworkGroup(group_id, tuple(rules[group_id])) for group_id in wanted}


def _network_rule(row: SecurityGroupRule) -> NetworkRule | None:
    direction: Literal["in", "out"] = "out" if row.egress else "in"
    remote = f"group:{row.other_group}" if row.other_group else row.cidr
    if not remote:
        return None
    match row.protocol:
        case "tcp" | "udp":
            first, last = (0, 65535) if row.first_port == -1 else (row.first_port, row.last_port)
            return NetworkRule(direction, "tcp" if row.protocol == "tcp" else "udp", remote, first, last)
        case "icmp":
            return NetworkRule(
                direction,
                "icmp",
                remote,
                icmp_type=None if row.first_port == -1 else row.first_port,
                icmp_code=None if row.last_port == -1 else row.last_port,
            )
        case "-1":
            return NetworkRule(direction, "any", remote)
    return None


def checked_text(text: str, noun: str) -> str:
    """A name or description that AWS would take. AwsError InvalidParameterValue."""
    if len(text) > LONGEST_NAME or not _TEXT.fullmatch(text):
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid {noun}. Valid {noun}s are strings less than 256 characters from the following set:  "
            f"{_TEXT_LETTERS}",
        )
    return text


@ACTIONS.action
def create_security_group(call: Call, request: ec2.CreateSecurityGroupRequestTypeDef) -> Answer:
    """A group without inward rules, whose members may send anything."""
    name = request["GroupName"]
    description = request["Description"]
    if "VpcId" in request:
        vpc = VPCS.find(call, request["VpcId"])
    elif (found := default_vpc(call.session, call.account, call.region)) is not None:
        vpc = found
    else:
        raise AwsError("VPCIdNotSpecified", "No default VPC for this user")
    if not name or not description:
        missing = "GroupName" if not name else "GroupDescription"
        raise AwsError("MissingParameter", f"The request must contain the parameter {missing}")
    checked_text(name, "security group name")
    checked_text(description, "security group description")
    if name.lower() == DEFAULT_NAME:
        raise AwsError("InvalidParameterValue", f"Cannot use reserved security group name: {name}")
    if name.startswith("sg-"):
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({name}) for parameter GroupName is invalid. Group names may not be in the format sg-*",
        )
    in_vpc = select(SecurityGroup).where(SecurityGroup.vpc == vpc.id)
    if call.session.scalars(in_vpc.where(SecurityGroup.name == name)).first() is not None:
        raise AwsError(
            "InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc.id}'"
        )
    if len(call.session.scalars(in_vpc).all()) >= GROUPS_PER_VPC:
        raise AwsError(
            "SecurityGroupLimitExceeded",
            f"The maximum number of security groups for VPC '{vpc.id}' has been reached: {GROUPS_PER_VPC}",
        )
    tags = tags_for(request.get("TagSpecifications"), "security-group")
    group = SecurityGroup(
        id=new_id("sg"),
        account=call.account,
        region=call.region,
        created=call.now,
        vpc=vpc.id,
        name=name,
        description=description,
    )
    call.session.add(group)
    add_outward_rule(call.session, group, call.now)
    set_tags(call.session, group.id, "security-group", call.account, call.region, tags)
    return {"GroupId": group.id, "SecurityGroupArn": _arn(group), "Tags": answered_tags(tags)}


def named_group(call: Call, group_id: str | None, group_name: str | None) -> SecurityGroup:
    """The caller's group that a request names by id, or by its name in the default VPC. AwsError MissingParameter,
    InvalidGroupId.Malformed, or as `group_of_name`."""
    if group_id:
        return find_group(call.session, call.account, call.region, group_id)
    if not group_name:
        raise AwsError("MissingParameter", "The request must contain the parameter groupName or groupId")
    return group_of_name(call.session, call.account, call.region, group_name)


@ACTIONS.action
def delete_security_group(call: Call, request: ec2.DeleteSecurityGroupRequestTypeDef) -> Answer:
    """A group that no interface is in and that no other group's rules admit."""
    group = named_group(call, request.get("GroupId"), request.get("GroupName"))
    if group.name == DEFAULT_NAME:
        raise AwsError(
            "CannotDelete", f'the specified group: "{group.id}" name: "{group.name}" cannot be deleted by a user'
        )
    member = select(InterfaceGroup.interface).where(InterfaceGroup.security_group == group.id)
    admitted = select(SecurityGroupRule.id).where(
        SecurityGroupRule.other_group == group.id, SecurityGroupRule.security_group != group.id
    )
    if call.session.scalars(member).first() is not None or call.session.scalars(admitted).first() is not None:
        raise AwsError("DependencyViolation", f"resource {group.id} has a dependent object")
    rules = select(SecurityGroupRule.id).where(SecurityGroupRule.security_group == group.id)
    for rule in call.session.scalars(rules).all():
        remove_tags(call.session, rule)
    call.session.execute(delete(SecurityGroupRule).where(SecurityGroupRule.security_group == group.id))
    remove_tags(call.session, group.id)
    call.session.delete(group)
    call.wake("networks")
    return {"Return": True, "GroupId": group.id}


@dataclass(frozen=True, slots=True)
class _Found(Tagged[SecurityGroup]):
    """A group with its rules, and the names of the groups that these admit."""

    rules: Sequence[SecurityGroupRule]
    names: dict[str, str]

    def side(self, egress: bool) -> list[SecurityGroupRule]:
        """The rules of one direction."""
        return [rule for rule in self.rules if rule.egress is egress]


def _rule_filters(prefix: str, egress: bool) -> dict[str, Callable[[_Found], Iterable[Fact]]]:
    facts: dict[str, Callable[[_Found, SecurityGroupRule], Fact]] = {
        "cidr": lambda group, rule: rule.cidr or None,
        "from-port": lambda group, rule: None if rule.protocol == ALL_PROTOCOLS else rule.first_port,
        "group-id": lambda group, rule: rule.other_group or None,
        "group-name": lambda group, rule: group.names.get(rule.other_group),
        "ipv6-cidr": lambda group, rule: rule.cidr6 or None,
        "prefix-list-id": lambda group, rule: None,
        "protocol": lambda group, rule: rule.protocol,
        "to-port": lambda group, rule: None if rule.protocol == ALL_PROTOCOLS else rule.last_port,
        "user-id": lambda group, rule: rule.account if rule.other_group else None,
    }

    def over_rules(fact: Callable[[_Found, SecurityGroupRule], Fact]) -> Callable[[_Found], Iterable[Fact]]:
        return lambda group: [fact(group, rule) for rule in group.side(egress)]

    return {f"{prefix}.{name}": over_rules(fact) for name, fact in facts.items()}


_FILTERS = Filters[_Found](
    {
        "description": lambda group: group.row.description,
        "group-id": lambda group: group.row.id,
        "group-name": lambda group: group.row.name,
        "owner-id": lambda group: group.row.account,
        "vpc-id": lambda group: group.row.vpc,
        **_rule_filters("ip-permission", egress=False),
        **_rule_filters("egress.ip-permission", egress=True),
    },
    tags=lambda group: group.tags,
)


@ACTIONS.action
def describe_security_groups(call: Call, request: ec2.DescribeSecurityGroupsRequestTypeDef) -> Answer:
    """The account's groups; by names only those of the default VPC."""
    ids, names = request.get("GroupIds"), request.get("GroupNames")
    if (ids or names) and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination", "The parameters groupIds and maxResults cannot be used together."
        )
    matches = _FILTERS.matcher(request.get("Filters"))
    rows = GROUPS.rows(call, ids)
    if names:
        named = [named_group(call, None, name) for name in names]
        rows = named if not ids else [*rows, *(group for group in named if group.id not in ids)]
    found, token = page(
        call, request, [group for group in _with_rules(call, rows) if matches(group)], key=lambda group: group.row.id
    )
    return {"SecurityGroups": [_described(group) for group in found], "NextToken": token}


_RULES = (
    select(SecurityGroupRule)
    .where(SecurityGroupRule.security_group.in_(IDENTIFIERS))
    .order_by(SecurityGroupRule.created, SecurityGroupRule.id)  # as they were given
)
_NAMES = select(SecurityGroup.id, SecurityGroup.name).where(
    SecurityGroup.account == bindparam("account"), SecurityGroup.region == bindparam("region")
)


def _with_rules(call: Call, rows: Sequence[SecurityGroup]) -> list[_Found]:
    tags = tags_of(call.session, [row.id for row in rows])
    rules: dict[str, list[SecurityGroupRule]] = {row.id: [] for row in rows}
    for (rule,) in rows_of(call.session, _RULES, list(rules)):
        rules[rule.security_group].append(rule)
    names = dict(matching(call.session, _NAMES, account=call.account, region=call.region))
    return [_Found(row, tags[row.id], rules[row.id], names) for row in rows]


def _arn(group: SecurityGroup) -> str:
    return f"arn:aws:ec2:{group.region}:{group.account}:security-group/{group.id}"


def _described(group: _Found) -> dict[str, object]:
    row = group.row
    return {
        "Description": row.description,
        "GroupId": row.id,
        "GroupName": row.name,
        "IpPermissions": permissions(group.side(egress=False)),
        "IpPermissionsEgress": permissions(group.side(egress=True)),
        "OwnerId": row.account,
        "SecurityGroupArn": _arn(row),
        "Tags": answered_tags(group.tags),
        "VpcId": row.vpc,
    }


def permissions(rules: Iterable[SecurityGroupRule]) -> list[dict[str, object]]:
    """Rules as IpPermissions: one entry a protocol and range of ports, with all of its sources."""
    by_ports: dict[tuple[str, int, int], list[SecurityGroupRule]] = {}
    for rule in rules:
        by_ports.setdefault((rule.protocol, rule.first_port, rule.last_port), []).append(rule)
    return [
        {
            "FromPort": None if protocol not in PORTED else first,
            "IpProtocol": protocol,
            "IpRanges": [{"CidrIp": rule.cidr, "Description": rule.description or None} for rule in same if rule.cidr],
            "Ipv6Ranges": [
                {"CidrIpv6": rule.cidr6, "Description": rule.description or None} for rule in same if rule.cidr6
            ],
            "PrefixListIds": [],
            "ToPort": None if protocol not in PORTED else last,
            "UserIdGroupPairs": [
                {"Description": rule.description or None, "GroupId": rule.other_group, "UserId": rule.account}
                for rule in same
                if rule.other_group
            ],
        }
        for (protocol, first, last), same in by_ports.items()
    ]
