"""Security groups and their rules."""

from __future__ import annotations

import datetime

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Resource
from celaje.cloud.state.identifiers import new_id

DEFAULT_NAME = "default"
ALL_PROTOCOLS = "-1"
ANYWHERE = "0.0.0.0/0"


class SecurityGroup(Resource, Base):
    """`name` is unique in its VPC; `default` is the name of the one that a VPC is born with and cannot lose."""

    __tablename__ = "security_groups"
    __table_args__ = (UniqueConstraint("vpc", "name"),)

    vpc: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    description: Mapped[str]


class SecurityGroupRule(Resource, Base):
    """Admits one kind of packets to or from one source.

    `protocol` is tcp, udp, icmp, icmpv6, a number, or "-1" for all. The ports are -1 where there are none; for ICMP
    they are type and code, where -1 is any. Exactly one of `cidr`, `cidr6` and `other_group` is not "".
    """

    __tablename__ = "security_group_rules"
    __table_args__ = (
        UniqueConstraint(
            "security_group", "egress", "protocol", "first_port", "last_port", "cidr", "cidr6", "other_group"
        ),
    )

    security_group: Mapped[str]
    egress: Mapped[bool]
    protocol: Mapped[str]
    first_port: Mapped[int]
    last_port: Mapped[int]
    cidr: Mapped[str] = mapped_column(default="")
    cidr6: Mapped[str] = mapped_column(default="")
    other_group: Mapped[str] = mapped_column(default="", index=True)
    description: Mapped[str] = mapped_column(default="")


def add_default_group(session: Session, vpc: str, account: str, region: str, now: datetime.datetime) -> SecurityGroup:
    """The group that a new VPC is born with: its members admit each other, and everything may go out."""
    group = SecurityGroup(
        id=new_id("sg"),
        account=account,
        region=region,
        created=now,
        vpc=vpc,
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
