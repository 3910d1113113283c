"""What an instance's network is told of it: its place, its security groups, its public address, its metadata.

One document an interface, computed from the database alone and for many instances at once. The machine attaches with
it, and what changes in it while the machine runs is handed to the network by the controller of networks. All interfaces
of an instance are told the same of the instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.message import INSIDE
from celaje.cloud.ec2.instance_types import TYPES
from celaje.cloud.ec2.network_interfaces import described, of_instances
from celaje.cloud.ec2.security_groups import network_groups
from celaje.cloud.ec2.vpcs import cidrs_of
from celaje.cloud.reconcile.metadata_facts import MetadataMaterial, Plugged, metadata_facts
from celaje.cloud.settings import Settings
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.networks import NetworkInterface, Subnet, Vpc
from celaje.cloud.state.security_groups import SecurityGroup
from celaje.cloud.state.zones import public_name_inside
from celaje.network import messages

API_ADDRESS = "169.254.169.250"  # where the cloud's API is inside every network
BITS = 8
MTU = 9001  # inside a VPC


def interface_documents(
    session: Session, settings: Settings, instances: Sequence[Instance], material: MetadataMaterial
) -> dict[str, dict[int, messages.Attach]]:
    """The documents of each instance's interfaces by its id, and by which network card of its machine each is, 0 the
    first. Those that are being detached have none, nor have instances without an interface."""
    held = {
        instance: [one for one in interfaces if one.attachment_state != "detaching"]
        for instance, interfaces in of_instances(session, [row.id for row in instances]).items()
    }
    every = [one for interfaces in held.values() for one in interfaces]
    descriptions = described(session, every)
    vpcs, subnets = _places(session, every)
    documents = {}
    for instance in instances:
        plugged = [
            Plugged(one, descriptions[one.id], vpcs[one.vpc], subnets[one.subnet])
            for one in sorted(held[instance.id], key=lambda one: one.card)
        ]
        if not plugged or plugged[0].interface.card != 0:
            continue
        facts = metadata_facts(instance, plugged, material)
        documents[instance.id] = {one.interface.card: _document(settings, instance, one, facts) for one in plugged}
    return documents


def _places(session: Session, interfaces: Iterable[NetworkInterface]) -> tuple[Mapping[str, Vpc], Mapping[str, Subnet]]:
    held = list(interfaces)
    vpcs = session.scalars(select(Vpc).where(Vpc.id.in_({one.vpc for one in held})))
    subnets = session.scalars(select(Subnet).where(Subnet.id.in_({one.subnet for one in held})))
    return {vpc.id: vpc for vpc in vpcs}, {subnet.id: subnet for subnet in subnets}


def _document(
    settings: Settings, instance: Instance, plugged: Plugged, facts: messages.MetadataFacts
) -> messages.Attach:
    interface, description, vpc = plugged.interface, plugged.description, plugged.vpc
    bandwidth = TYPES[instance.instance_type].bandwidth // BITS
    return messages.Attach(
        network=messages.NetworkSettings(
            name=vpc.id,
            blocks=tuple(one.cidr for one in cidrs_of(vpc)),
            domain=description.private_name.partition(".")[2],
            mtu=MTU,
            planned=True,
        ),
        interface=interface.id if interface.card else instance.id,
        host_name=description.private_name.partition(".")[0],
        mac=interface.mac,
        subnet=plugged.subnet.cidr,
        address=interface.private_address,
        groups=tuple(messages.SecurityGroup(one["GroupId"]) for one in description.groups),  # rules: see vpc_groups
        services=(messages.Service(API_ADDRESS, settings.port, INSIDE, settings.port),),
        public_address=description.public_address,
        public_name=_public_name(vpc, description.public_address),
        bandwidth=messages.Bandwidth(bandwidth, bandwidth),
        metadata=facts,
        secondary=tuple(
            messages.SecondaryAddress(address, public, _public_name(vpc, public))
            for address, public in description.secondary
        ),
        source_dest_check=interface.source_dest_check,
    )


def _public_name(vpc: Vpc, public: str | None) -> str | None:
    """What the VPC's name server knows an interface by that has this public address, where the VPC gives names."""
    return public_name_inside(vpc.region, public) if public and vpc.dns_support and vpc.dns_host_names else None


def vpc_groups(session: Session, vpc: str) -> list[messages.SecurityGroup]:
    """All security groups of a VPC with their rules, for its network's file of groups."""
    ids = session.scalars(select(SecurityGroup.id).where(SecurityGroup.vpc == vpc)).all()
    return [
        messages.SecurityGroup(group.name, tuple(messages.Rule(**asdict(rule)) for rule in group.rules))
        for group in network_groups(session, ids).values()
    ]
