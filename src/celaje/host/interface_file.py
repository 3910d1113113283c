"""A machine's interfaces, a document each: `interface.json` in its directory, an Attach of network/messages.py, is its
first one, `interface-N.json` (from 1) that of the card in its slot for further cards.

Where there is one, the machine's process attaches with it instead of what follows from the machine's options: when it
starts, and again whenever the network's process has died. So whoever keeps the document (a cloud) says what a machine's
place in its network is, once, and it holds whatever dies. What changes while the machine runs is written first and told
to the network's process then (`update_interface`); killed in between, or told nobody since nobody ran, the same call
again ends the same way. A further card is plugged in and out with AttachInterface and DetachInterface (messages.py),
after its document is written or taken away. Many interfaces are compared by their fingerprints, with one question to a
network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from celaje import durable_file
from celaje.errors import InputError, NotFound
from celaje.host.record import MachineDirectory
from celaje.network import client, messages
from celaje.network.fingerprint import fingerprint
from celaje.network.messages import Attach
from celaje.network.notation import check_attach

FILE = "interface.json"
FURTHER = re.compile(r"interface-([1-9][0-9]?)\.json")
FURTHER_MOST = 14

_FIXED = ("host_name", "mac", "subnet", "address")
"""What an interface cannot change while its machine runs, beside the network that it is in."""


def file_name(number: int) -> str:
    """Where the document of an interface is; 0 is the first one. ValueError for a number that no machine has."""
    if not 0 <= number <= FURTHER_MOST:
        raise ValueError(f"a machine's interfaces are 0 to {FURTHER_MOST}, not {number}")
    return FILE if number == 0 else f"interface-{number}.json"


def further_interfaces(directory: MachineDirectory) -> list[int]:
    """The numbers of the machine's interfaces beyond the first, ascending."""
    found = map(FURTHER.fullmatch, (path.name for path in directory.path.glob("interface-*.json")))
    numbers = sorted(int(one[1]) for one in found if one is not None)
    return [number for number in numbers if number <= FURTHER_MOST]


def remove_interface(directory: MachineDirectory, number: int) -> None:
    """The machine has that interface no more from its next start on, durably. Nothing happens where there is none."""
    durable_file.remove(directory.path / file_name(number))


def read_interface(directory: MachineDirectory, number: int = 0) -> Attach | None:
    """The document; None if the machine has none. InputError if it is not what it must be."""
    path = directory.path / file_name(number)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = messages.decoded_request(data)
    except messages.Unreadable as error:
        raise InputError(f"{path} is no machine's interface: {error}") from error
    if not isinstance(found, Attach):
        raise InputError(f"{path} is no machine's interface but a message {type(found).__name__}; write it anew")
    _check(directory, found, number)
    return found


def write_interface(directory: MachineDirectory, interface: Attach, number: int = 0) -> None:
    """The machine has this interface from its next start on, durably. InputError for one that cannot be; NotFound if
    there is no such machine."""
    data = messages.encoded(interface)
    _check(directory, interface, number)
    if not directory.path.is_dir():
        raise directory.not_found()
    path = directory.path / file_name(number)
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass  # it is written below, or that says why not
    durable_file.replace(path, data)


def update_interface(directory: MachineDirectory, interface: Attach, number: int = 0) -> int:
    """The machine has this interface from now on, durably, also while it runs; how many flows were cut. A machine whose
    network's process is about to be started anew, or that does not run, finds it in the document.

    InputError for an interface that cannot be, or that needs the machine to be stopped first.
    """
    former = read_interface(directory, number)
    if former is not None and directory.holder() is not None:
        _check_fixed(directory, former, interface)
    write_interface(directory, interface, number)
    return applied(interface)


def applied(interface: Attach) -> int:
    """A network that runs has this interface as it is said; how many flows were cut. Nothing is done where it has it
    so already, or does not have it attached."""
    network = interface.network.name
    running = client.fingerprints(network, interface.interface)
    if running is None or running.interfaces.get(interface.interface) in (None, fingerprint(interface)):
        return 0
    try:
        return client.update(network, changes(interface)).cut
    except NotFound:
        return 0  # it has gone just now, and comes back with the document


def differing(network: str, interfaces: Iterable[Attach]) -> list[Attach]:
    """Those of `interfaces` that are attached to the network and have something else there: for `applied`."""
    running = client.fingerprints(network)
    if running is None:
        return []
    have = running.interfaces
    return [one for one in interfaces if have.get(one.interface, fingerprint(one)) != fingerprint(one)]


def changes(interface: Attach) -> messages.Update:
    """Everything of an interface that may change while it is attached."""
    return messages.Update(
        interface=interface.interface,
        groups=interface.groups,
        other_groups=interface.other_groups,
        forwards=interface.forwards,
        host_ports=interface.host_ports,
        services=interface.services,
        public_address=interface.public_address,
        public_name=interface.public_name,
        bandwidth=interface.bandwidth,
        metadata=interface.metadata,
        secondary=interface.secondary,
        source_dest_check=interface.source_dest_check,
    )


def _check(directory: MachineDirectory, interface: Attach, number: int) -> None:
    check_attach(interface)
    if number:
        if interface.interface == directory.name:
            raise InputError(
                f"interface {number} of the machine {directory.name} needs a name of its own; the machine's is that of "
                "its first interface"
            )
    elif interface.interface != directory.name:
        raise InputError(
            f"the interface of the machine {directory.name} is called {interface.interface!r}; "
            "a machine's first interface has its name"
        )


def _check_fixed(directory: MachineDirectory, former: Attach, interface: Attach) -> None:
    fixed: list[tuple[str, object, object]] = [
        (name.replace("_", " "), getattr(former, name), getattr(interface, name)) for name in _FIXED
    ]
    fixed.append(("network", former.network.name, interface.network.name))
    for name, was, now in fixed:
        if was != now:
            raise InputError(
                f"the {name} of {interface.interface} cannot change from {was} to {now} while it runs; "
                f"stop it first: celaje vm stop {directory.name}"
            )
