"""What a VPC's network is told of its subnets, route tables, access lists, NAT gateways and DHCP options: one document,
computed from the database alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.ec2.dhcp_options import NETWORKS_OWN
from celaje.cloud.ec2.vpcs import cidrs_of
from celaje.cloud.state.networks import (
    DhcpOptions,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkAclEntry,
    NetworkInterface,
    Route,
    RouteTable,
    Subnet,
    Vpc,
)
from celaje.network import topology
from celaje.network.topology import AccessRule, SubnetPlan, Topology

_ALL_PROTOCOLS = "-1"


def vpc_topology(session: Session, vpc: Vpc) -> Topology:
    """Everything that packets of the VPC's instances go by, beside security groups."""
    subnets = {one.id: one for one in session.scalars(select(Subnet).where(Subnet.vpc == vpc.id).order_by(Subnet.id))}
    tables = session.scalars(select(RouteTable).where(RouteTable.vpc == vpc.id)).all()
    lists = session.scalars(select(NetworkAcl).where(NetworkAcl.vpc == vpc.id)).all()
    living = NatGateway.state.in_(("pending", "available"))
    gateways = session.scalars(select(NatGateway).where(NatGateway.vpc == vpc.id, living)).all()
    targets = _targets(session, vpc, [route for table in tables for route in table.routes], gateways)
    own_table = {one.subnet: table.id for table in tables for one in table.associations}
    own_list = {one.subnet: access.id for access in lists for one in access.associations}
    main = next(table.id for table in tables if table.main)
    default = next(access.id for access in lists if access.is_default)
    return Topology(
        blocks=tuple(one.cidr for one in cidrs_of(vpc)),
        subnets=tuple(
            SubnetPlan(subnet.cidr, own_table.get(subnet.id, main), own_list.get(subnet.id, default))
            for subnet in subnets.values()
        ),
        route_tables={
            table.id: tuple(topology.Route(route.destination, targets[route.target]) for route in table.routes)
            for table in sorted(tables, key=lambda one: one.id)
        },
        access_lists={access.id: _rules(access.entries) for access in sorted(lists, key=lambda one: one.id)},
        gateways={
            one.id: topology.NatGateway(subnets[one.subnet].cidr, one.private_address, one.public_address or None)
            for one in sorted(gateways, key=lambda one: one.id)
        },
        dhcp=_dhcp(session, vpc),
        dns=vpc.dns_support,
    )


def _targets(
    session: Session, vpc: Vpc, routes: Iterable[Route], gateways: Iterable[NatGateway]
) -> Mapping[str, str]:
    """Each target as a network knows it; `nowhere` for what is no more, or is another VPC's."""
    wanted = {route.target for route in routes}
    found = dict.fromkeys(wanted, "nowhere")
    if "local" in wanted:
        found["local"] = "local"
    attached = session.scalars(select(InternetGateway.id).where(InternetGateway.vpc == vpc.id))
    found |= {one: "internet" for one in attached if one in wanted}
    found |= {one.id: f"nat:{one.id}" for one in gateways if one.id in wanted}
    interfaces = select(NetworkInterface).where(
        NetworkInterface.id.in_([one for one in wanted if one.startswith("eni-")]), NetworkInterface.vpc == vpc.id
    )
    return found | {one.id: f"address:{one.private_address}" for one in session.scalars(interfaces)}


def _rules(entries: Iterable[NetworkAclEntry]) -> tuple[AccessRule, ...]:
    """In the order of their numbers; what is about IPv6 a network carries nothing of."""
    return tuple(_rule(one) for one in sorted(entries, key=lambda one: one.number) if one.cidr)


def _rule(entry: NetworkAclEntry) -> AccessRule:
    protocol = None if entry.protocol == _ALL_PROTOCOLS else int(entry.protocol)
    common = AccessRule("out" if entry.egress else "in", entry.allow, entry.cidr, protocol)
    if entry.protocol in ("6", "17"):
        return AccessRule(
            common.direction, common.allow, common.remote, protocol, max(entry.first_port, 0), entry.last_port
        )
    if entry.protocol == "1" and entry.first_port >= 0:
        code = None if entry.last_port < 0 else entry.last_port
        return AccessRule(
            common.direction, common.allow, common.remote, protocol, icmp_type=entry.first_port, icmp_code=code
        )
    return common


def _dhcp(session: Session, vpc: Vpc) -> topology.DhcpOptions:
    row = session.get(DhcpOptions, vpc.dhcp_options)
    options = {} if row is None else row.options
    servers = options.get("domain-name-servers", [])
    node = options.get("netbios-node-type")
    return topology.DhcpOptions(
        domain=" ".join(options.get("domain-name", [])),
        name_servers=() if servers == [NETWORKS_OWN] else tuple(servers),
        time_servers=tuple(options.get("ntp-servers", ())),
        netbios_servers=tuple(options.get("netbios-name-servers", ())),
        netbios_node=None if node is None else int(node[0]),
    )
