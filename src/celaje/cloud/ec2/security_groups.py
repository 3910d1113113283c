"""Security groups, as those who use them see them: which ones an interface is in, and what they admit."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import Vpc
from celaje.cloud.state.security_groups import SecurityGroup, SecurityGroupRule

DEFAULT_NAME = "default"
GROUPS_PER_INTERFACE = 5
ALL_PROTOCOLS = "-1"
ANYWHERE = "0.0.0.0/0"


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


def add_default_group(session: Session, vpc: Vpc, now: datetime.datetime) -> SecurityGroup:
    """The group that a new VPC is born with: its members admit each other, and everything may go out."""
    group = SecurityGroup(
        id=new_id("sg"),
        account=vpc.account,
        region=vpc.region,
        created=now,
        vpc=vpc.id,
        name=DEFAULT_NAME,
        description="default VPC security group",
    )
    session.add(group)
    session.add(_everything(group, now, egress=False, other_group=group.id))
    add_outward_rule(session, group, now)
    return group


def add_outward_rule(session: Session, group: SecurityGroup, now: datetime.datetime) -> None:
    """The rule that every group is born with: all traffic may go out."""
    session.add(_everything(group, now, egress=True, cidr=ANYWHERE))


def _everything(
    group: SecurityGroup, now: datetime.datetime, *, egress: bool, cidr: str = "", other_group: str = ""
) -> SecurityGroupRule:
    return SecurityGroupRule(
        id=new_id("sgr"),
        account=group.account,
        region=group.region,
        created=now,
        security_group=group.id,
        egress=egress,
        protocol=ALL_PROTOCOLS,
        first_port=-1,
        last_port=-1,
        cidr=cidr,
        other_group=other_group,
    )


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
    for name in group_names:
        group = session.scalars(
            select(SecurityGroup).where(SecurityGroup.vpc == vpc, SecurityGroup.name == name)
        ).one_or_none()
        if group is None:
            raise AwsError("InvalidGroup.NotFound", f"The security group '{name}' does not exist in VPC '{vpc}'")
        found.append(group)
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
