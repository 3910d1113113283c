"""Addresses, networks and rules as messages write them, and as the core of a network has them.

What is no address, network or MAC address is refused by name.
"""

from __future__ import annotations

import ipaddress

from celaje.errors import InputError
from celaje.network import ipv4, messages
from celaje.network.network import NetworkConfig, check_domain
from celaje.network.security_group import Rule, SecurityGroup
from celaje.network.subnet import Subnet, check_address, check_subnet

PROTOCOLS = {"tcp": ipv4.TCP, "udp": ipv4.UDP, "icmp": ipv4.ICMP, "any": None}
_GROUP = "group:"


def address_number(text: str) -> int:
    """An IPv4 address as a number. InputError if it is none."""
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise InputError(f"{text!r} is no IPv4 address; write one such as 10.77.0.10") from error


def network_of(text: str) -> ipaddress.IPv4Network:
    """`a.b.c.d/n`. InputError if it is none."""
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError as error:
        raise InputError(f"{text!r} is no IPv4 network; write one such as 10.77.0.0/16") from error


def subnet_of(text: str) -> Subnet:
    """`a.b.c.d/n`, which begins at its first address. InputError if it does not, or is something else."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no subnet ({error}); write one such as 10.77.0.0/16, which begins at its first address"
        ) from error
    return Subnet(int(network[0]), network.prefixlen)


def mac_bytes(text: str) -> bytes:
    """Six hexadecimal pairs. InputError if it is something else."""
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or text.count(":") != 5:
        raise InputError(f"{text!r} is no MAC address; write one such as 52:54:00:12:34:56")
    return mac


def network_config(settings: messages.NetworkSettings) -> NetworkConfig:
    """The core's, from a message's. InputError if it is none."""
    if not settings.blocks:
        raise InputError(f"the network {settings.name!r} has no block of addresses; give it one such as 10.77.0.0/16")
    first, *further = map(subnet_of, settings.blocks)
    return NetworkConfig(
        subnet=first.first,
        prefix_length=first.prefix_length,
        further=tuple(further),
        domain=settings.domain,
        mtu=settings.mtu,
    )


def security_group(group: messages.SecurityGroup) -> SecurityGroup:
    """The core's, from a message's. A group without outward rules admits nothing outward."""
    inward = tuple(_rule(rule) for rule in group.rules if rule.direction == "in")
    outward = tuple(_rule(rule) for rule in group.rules if rule.direction == "out")
    return SecurityGroup(group.name, inward, outward)


def check_attach(attach: messages.Attach) -> None:
    """InputError for an Attach that no network would take, whoever is attached there: an address that is none, or not
    its subnet's, and so on."""
    for block in network_config(attach.network).blocks:
        check_subnet(block)
    mac_bytes(attach.mac)
    said = [attach.address, attach.public_address]
    said += [address for one in attach.secondary for address in (one.address, one.public_address)]
    said += [forward.address for forward in attach.forwards]
    said += [port.host_address for port in attach.host_ports]
    said += [address for service in attach.services for address in (service.address, service.host_address)]
    for address in said:
        if address is not None:
            address_number(address)
    for name in (attach.public_name, *(one.public_name for one in attach.secondary)):
        if name is not None:
            check_domain(name)
    for group in (*attach.groups, *attach.other_groups):
        security_group(group)
    if attach.subnet is not None:
        subnet = subnet_of(attach.subnet)
        check_subnet(subnet)
        if attach.address is None:
            raise InputError(
                f"the interface {attach.interface!r} in the subnet {subnet} has no address; say one, or no subnet"
            )
        own = [attach.address, *(one.address for one in attach.secondary)]
        for address in own:
            check_address(subnet, address_number(address))
        if len(set(own)) != len(own):
            raise InputError(f"the interface {attach.interface!r} has an address twice; say each once")
    elif attach.secondary:
        raise InputError(
            f"the interface {attach.interface!r} has secondary addresses and no subnet; say its subnet and address"
        )


def _rule(rule: messages.Rule) -> Rule:
    remote: tuple[int, int] | str
    if rule.remote.startswith(_GROUP):
        remote = rule.remote[len(_GROUP) :]
    else:
        network = network_of(rule.remote)
        remote = (int(network[0]), network.prefixlen)
    if not 0 <= rule.first_port <= rule.last_port <= 65_535:
        raise InputError(f"a rule's ports must be from 0 to 65535 in order, and are {rule.first_port}-{rule.last_port}")
    ports = (rule.first_port, rule.last_port)
    return Rule(PROTOCOLS[rule.protocol], remote, ports, rule.icmp_type, rule.icmp_code)
