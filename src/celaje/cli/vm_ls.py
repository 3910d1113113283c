"""`celaje vm ls`: the machines that there are, what they are doing, and where they are reached."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.cli.table import table
from celaje.errors import CelajeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celaje.host.inventory import Sighting
    from celaje.network.messages import Interface, PublicPort

HEADINGS = ("NAME", "STATE", "ADDRESS", "PUBLIC", "PORTS", "NOTE")


def interfaces(sightings: Sequence[Sighting]) -> dict[tuple[str, str], Interface]:
    """What the networks of these machines say now, by network and machine."""
    from celaje.network import client

    networks = {
        network.network
        for seen in sightings
        if seen.description is not None
        for network in (seen.description.network, *seen.description.further_networks.values())
        if network is not None
    }
    found: dict[tuple[str, str], Interface] = {}
    for network in networks:
        try:
            found |= {(network, one.interface): one for one in client.interfaces(network)}
        except CelajeError as error:
            print(f"celaje: {error}", file=sys.stderr)
    return found


def ports(seen: Sighting, known: Mapping[tuple[str, str], Interface]) -> Sequence[PublicPort]:
    """The ports of a machine that the host's applications reach."""
    if seen.description is None or seen.description.network is None:
        return ()
    interface = known.get((seen.description.network.network, seen.record.name))
    return seen.description.network.ports if interface is None else interface.ports


def cards(seen: Sighting) -> list[dict[str, object]]:
    """The machine's network cards beside its first: those that it has, and those that it will have from its next start
    on, which have no address yet."""
    from celaje.host.interface_file import further_interfaces, read_interface
    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(seen.record.name)
    running = {} if seen.description is None else seen.description.further_networks
    found: list[dict[str, object]] = []
    for number in sorted({*running, *further_interfaces(directory)}):
        network, said = running.get(number), read_interface(directory, number)
        found.append(
            {
                "card": number,
                "network": network.network if network else said.network.name if said else None,
                "mac": network.mac if network else said.mac if said else None,
                "address": network.address if network else None,
                "public_address": network.public_address if network else None,
            }
        )
    return found


def _port(port: PublicPort) -> str:
    protocol = "" if port.protocol == "tcp" else f"{port.protocol}:"
    return f"{protocol}{port.host_address}:{port.host_port}->{port.guest_port}"


def _row(seen: Sighting, known: Mapping[tuple[str, str], Interface]) -> tuple[str, ...]:
    network = None if seen.description is None else seen.description.network
    reached = ports(seen, known)
    notes = [seen.detail, *dict.fromkeys(port.reason for port in reached if port.reason)]
    addresses = [network.address if network else "", *(str(card["address"]) for card in cards(seen) if card["address"])]
    # A public address says by itself where its own ports are.
    told = [port for port in reached if port.forward or port.host_port != port.guest_port]
    return (
        seen.record.name,
        seen.state,
        " ".join(filter(None, addresses)),
        (network.public_address or "") if network else "",
        " ".join(map(_port, told)),
        "; ".join(filter(None, notes)),
    )


def _record(seen: Sighting, known: Mapping[tuple[str, str], Interface]) -> dict[str, object]:
    options, described = seen.record.options, seen.description
    network = None if described is None else described.network
    return {
        "name": seen.record.name,
        "state": seen.state,
        "detail": seen.detail,
        "process": seen.process,
        "image": options.image,
        "memory": options.memory,
        "cpus": options.cpus,
        "created": seen.record.created,
        "started": None if described is None else described.started,
        "mac": network.mac if network else seen.record.mac,
        "network": network.network if network else None,
        "address": network.address if network else None,
        "public_address": network.public_address if network else None,
        "ports": [
            {
                "protocol": port.protocol,
                "guest_port": port.guest_port,
                "host_address": port.host_address,
                "host_port": port.host_port,
                "forward": port.forward,
                "reason": port.reason,
            }
            for port in ports(seen, known)
        ],
        "cards": cards(seen),
        "root": seen.record.root,
        "disks": [disk.source for disk in seen.record.attached],
    }


def run(words: list[str]) -> int:
    """List them. A machine that cannot be read is a line on stderr, and exit status 2."""
    parser = Parser("vm ls", "Lists the machines, running or not.")
    parser.add_argument("--json", action="store_true", help="for programs: sizes in bytes, times in seconds since 1970")
    chosen = parser.parse_args(words)

    from celaje.host import inventory

    sightings, errors = inventory.look_around()
    for error in errors:
        print(f"celaje: {error}", file=sys.stderr)
    known = interfaces(sightings)
    if chosen.json:
        print(json.dumps([_record(seen, known) for seen in sightings], indent=2))
    elif sightings:
        print(table(HEADINGS, [_row(seen, known) for seen in sightings]))
    elif not errors:
        print("There are no machines yet; this makes the first: celaje vm start web debian-mini")
    return errors[0].exit_status if errors else 0
