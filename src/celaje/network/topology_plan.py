"""A topology as messages write it, compiled to what the core of a network has."""

from __future__ import annotations

from collections.abc import Iterable

from celaje.errors import InputError
from celaje.network import ipv4, topology
from celaje.network.access_list import NOTHING, AccessList, AccessRule
from celaje.network.dhcp import DhcpSettings
from celaje.network.forwarding import Border, Fixed, Gateway, Plan, RouteTable, Target
from celaje.network.network import check_domain
from celaje.network.notation import address_number, network_of, subnet_of
from celaje.network.subnet import Blocks, Subnet
from celaje.network.topology import Topology

_NAT, _ADDRESS = "nat:", "address:"
_HIGHEST_PORT = 65_535


def plan_of(said: Topology) -> Plan:
    """The plan. InputError if there can be no such network."""
    tables = {name: RouteTable(map(_route, routes)) for name, routes in said.route_tables.items()}
    inward, outward = (
        {
            name: AccessList(_rule(rule) for rule in rules if rule.direction == direction)
            for name, rules in said.access_lists.items()
        }
        for direction in ("in", "out")
    )
    borders = {
        subnet_of(one.subnet): Border(
            tables.get(one.routes) or RouteTable(()), inward.get(one.access, NOTHING), outward.get(one.access, NOTHING)
        )
        for one in said.subnets
    }
    gateways = {}
    for name, one in said.gateways.items():
        address_number(one.address)
        if one.public_address is not None:
            address_number(one.public_address)
        gateways[name] = Gateway(subnet_of(one.subnet), one.public_address)
    return Plan(tuple(Blocks(map(subnet_of, said.blocks))), borders, gateways, _dhcp(said.dhcp), said.dns)


def _route(route: topology.Route) -> tuple[Subnet, Target]:
    network = network_of(route.destination)
    return Subnet(int(network[0]), network.prefixlen), _target(route.target)


def _target(text: str) -> Target:
    if text.startswith(_NAT):
        return text[len(_NAT) :]
    if text.startswith(_ADDRESS):
        return address_number(text[len(_ADDRESS) :])
    try:
        return Fixed(text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no target of a route; write local, internet, nowhere, nat:NAME or address:10.0.0.5"
        ) from error


def _rule(rule: topology.AccessRule) -> AccessRule:
    remote = network_of(rule.remote)
    ports = (0, _HIGHEST_PORT)
    if rule.protocol in (ipv4.TCP, ipv4.UDP):
        ports = rule.first_port, rule.last_port
        if not 0 <= ports[0] <= ports[1] <= _HIGHEST_PORT:
            raise InputError(f"an access list's ports must be from 0 to 65535 in order, and are {ports[0]}-{ports[1]}")
    elif rule.protocol == ipv4.ICMP and rule.icmp_type is not None:
        code = rule.icmp_code
        ports = (rule.icmp_type << 8) + (code or 0), (rule.icmp_type << 8) + (255 if code is None else code)
    return AccessRule(rule.allow, rule.protocol, int(remote.netmask), int(remote.network_address), ports)


def _dhcp(options: topology.DhcpOptions) -> DhcpSettings:
    for name in (options.domain or "").split():
        check_domain(name)

    def addresses(given: Iterable[str]) -> tuple[int, ...]:
        return tuple(map(address_number, given))

    return DhcpSettings(
        options.domain,
        addresses(options.name_servers),
        addresses(options.time_servers),
        addresses(options.netbios_servers),
        options.netbios_node,
    )
