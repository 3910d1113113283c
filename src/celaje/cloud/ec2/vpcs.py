"""Virtual private clouds, and the default one that an account has in every region from its first day."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.ec2.security_groups import add_default_group
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import (
    DhcpOptions,
    InternetGateway,
    NetworkAcl,
    NetworkAclAssociation,
    NetworkAclEntry,
    Route,
    RouteTable,
    RouteTableAssociation,
    Subnet,
    Vpc,
)

DEFAULT_CIDR = "172.31.0.0/16"
_SUBNET_PREFIX = 20
_LAST_ENTRY = 32767  # of an access list: the one that nobody can remove


def default_vpc(session: Session, account: str, region: str) -> Vpc | None:
    """The account's default VPC of a region, None if it has none."""
    return session.scalars(
        select(Vpc).where(Vpc.account == account, Vpc.region == region, Vpc.is_default)
    ).one_or_none()


def ensure_default_vpc(
    session: Session, account: str, region: str, zones: Sequence[str], now: datetime.datetime
) -> Vpc:
    """The account's default VPC of a region, with a subnet a zone (`zones` are letters: a, b), made where it is
    missing: an internet gateway, a main route table with a route to it, an access list that admits all, DHCP options,
    and the group `default`.
    """
    if found := default_vpc(session, account, region):
        return found

    def common(prefix: str) -> dict[str, object]:
        return {"id": new_id(prefix), "account": account, "region": region, "created": now}

    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    options = DhcpOptions(
        **common("dopt"), options={"domain-name": [domain], "domain-name-servers": ["AmazonProvidedDNS"]}
    )
    vpc = Vpc(**common("vpc"), cidr=DEFAULT_CIDR, dhcp_options=options.id, is_default=True, dns_host_names=True)
    gateway = InternetGateway(**common("igw"), vpc=vpc.id)
    parts = ipaddress.IPv4Network(DEFAULT_CIDR).subnets(new_prefix=_SUBNET_PREFIX)
    subnets = [
        Subnet(
            **common("subnet"),
            vpc=vpc.id,
            zone=region + letter,
            cidr=str(part),
            is_default=True,
            public_addresses=True,
        )
        for letter, part in zip(zones, parts, strict=False)
    ]
    table = RouteTable(
        **common("rtb"),
        vpc=vpc.id,
        main=True,
        routes=[Route(DEFAULT_CIDR, "local", "CreateRouteTable"), Route("0.0.0.0/0", gateway.id)],
        associations=[RouteTableAssociation(new_id("rtbassoc"))],
    )
    access = NetworkAcl(
        **common("acl"),
        vpc=vpc.id,
        is_default=True,
        entries=[
            NetworkAclEntry(number, egress, allow)
            for egress in (True, False)
            for number, allow in ((100, True), (_LAST_ENTRY, False))
        ],
        associations=[NetworkAclAssociation(new_id("aclassoc"), subnet.id) for subnet in subnets],
    )
    session.add_all([options, vpc, gateway, table, access, *subnets])
    add_default_group(session, vpc, now)
    session.flush()
    return vpc
