"""Security groups and their rules."""

from __future__ import annotations

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from celaje.cloud.state.base import Base, Resource


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
