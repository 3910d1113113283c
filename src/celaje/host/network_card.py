"""A machine's network card, plugged into a network's process, and into the next one when that has died.

The machine's process asks for it with one Attach. When the connection ends, however that came, a thread asks again with
the same Attach, or with what the machine's document says then (interface_file.py), until it succeeds; the guest sees
its cable pulled and plugged in again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import threading
from collections.abc import Callable, Sequence

import msgspec

from celaje.errors import CelajeError
from celaje.host import record
from celaje.host.interface_file import applied
from celaje.host.network_options import NetworkOptions
from celaje.machine.virtio.net import VirtioNet
from celaje.machine.virtio.net_backend import SocketBackend
from celaje.network import client, messages
from celaje.network.addresses import loopback_address

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts to attach again, twice as many after each that failed."""
LONGEST_NAME = 40
NAMES_TRIED = 10


def derived_mac(name: str) -> str:
    """The MAC address, locally administered, that follows from a machine's name."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *hashlib.blake2b(name.encode(), digest_size=5).digest()))


def free_name(network: str, wish: str) -> str:
    """A name for a machine that has none of its own: `wish`, as a host's name is written, or that and a number. It is
    no interface's of the network, and no machine's of `celaje vm start`."""
    base = re.sub(r"[^a-z0-9]+", "-", wish.lower()).strip("-")[:LONGEST_NAME].strip("-") or "machine"
    taken = {one.interface for one in client.interfaces(network)} | set(record.names())
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def metadata(instance: str, name: str, keys: Sequence[str], user_data: bytes | None) -> messages.MetadataFacts:
    """What a guest is told about itself: `keys` are lines of authorized_keys."""
    return messages.MetadataFacts(
        instance_id=instance,
        host_name=name,
        public_keys={f"key-{number}": line for number, line in enumerate(keys)},
        user_data=user_data,
    )


def attach_request(
    name: str,
    options: NetworkOptions,
    *,
    mac: str | None = None,
    address: str | None = None,
    public_address: str | None = None,
    metadata: messages.MetadataFacts | None = None,
) -> messages.Attach:
    """What to ask of the network for the machine `name`. `mac` and `public_address` are used where the options, and
    the machine's name, do not say another; without `address` the network chooses one."""
    forwards = tuple(messages.Forward(one.protocol, one.address, one.port, one.guest_port) for one in options.forwards)
    public, pool = public_address or loopback_address(name), None
    if options.public is not None:
        given = ipaddress.IPv4Interface(options.public)
        public, pool = str(given.ip), str(given.network)
    allowed = tuple((one.protocol, one.first_port, one.last_port) for one in options.allowed)
    return messages.Attach(
        network=messages.NetworkSettings(name=options.network, pool=pool),
        interface=name,
        host_name=name,
        mac=options.mac or mac or derived_mac(name),
        address=address,
        groups=messages.default_groups(name, forwards, allowed),
        forwards=forwards,
        host_ports=tuple(messages.HostPort(one.protocol, one.port, one.router_port) for one in options.host_ports),
        public_address=public,
        bandwidth=messages.Bandwidth(options.bandwidth, options.bandwidth),
        metadata=metadata,
    )


def kept_forwards(
    wished: Sequence[messages.Forward], given: Sequence[messages.PublicPort]
) -> tuple[messages.Forward, ...]:
    """`wished`, with the ports that a network has chosen where any would do."""
    fixed = {(one.protocol, one.address, one.port) for one in wished if one.port}
    chosen = {
        (one.protocol, one.host_address, one.guest_port): one.host_port
        for one in given
        if one.forward and (one.protocol, one.host_address, one.host_port) not in fixed
    }
    def kept(one: messages.Forward) -> messages.Forward:
        port = one.port or chosen.get((one.protocol, one.address, one.guest_port), 0)
        return msgspec.structs.replace(one, port=port)

    return tuple(map(kept, wished))


class NetworkCard:
    """`device` is for the machine, which closes it; `close` ends the attempts to attach it again. `document` reads what
    the card is to have now, where that is written down: None if it is not (any more).

    Attaches at once, and starts the network's process if there is none. HostError or InputError where that is refused.
    """

    def __init__(
        self, request: messages.Attach, document: Callable[[], messages.Attach | None] = lambda: None
    ) -> None:
        self._document = document
        attachment = client.attach(request)
        self.attached = attachment.attached
        """What the network said last: addresses and ports."""
        # The next process of the network is asked for what this one gave: the address, and ports that it chose.
        self._wished = request.forwards
        self._request = msgspec.structs.replace(
            request, address=self.attached.address, forwards=kept_forwards(request.forwards, self.attached.ports)
        )
        self._asking = threading.Lock()  # held by who attaches, and by who changes what it attaches with
        self._follow()
        self.mac = request.mac
        self._closed = threading.Event()
        self.device = VirtioNet(
            bytes.fromhex(request.mac.replace(":", "")),
            SocketBackend(attachment.link),
            mtu=self.attached.mtu,
            lost=self._attach_again,
        )

    @property
    def network(self) -> str:
        """The network that it is plugged into."""
        return self._request.network.name

    @property
    def bandwidth(self) -> messages.Bandwidth:
        """What it is limited to."""
        return self._request.bandwidth

    @property
    def public_address(self) -> str | None:
        """The one that it has now."""
        try:
            written = self._document()
        except CelajeError:
            written = None  # whoever attaches with it says what is wrong
        return self.attached.public_address if written is None else written.public_address

    def close(self) -> None:
        """Attach no more."""
        self._closed.set()

    def pull(self) -> None:
        """Pull its cable for good: the network has the interface no more."""
        self.close()
        self.device.reattach(None)

    def change_groups(self, groups: tuple[messages.SecurityGroup, ...]) -> int:
        """Other security groups from now on, also after the network's process was killed. Returns how many flows ended
        because nothing admits them any more. NotFound while the card is not attached; InputError."""
        with self._asking:  # a network that ends meanwhile is asked with the new ones by the next attempt
            changed = client.update(
                self._request.network.name, messages.Update(interface=self._request.interface, groups=groups)
            )
            self._request = msgspec.structs.replace(self._request, groups=groups)
        return changed.cut

    def _attach_again(self) -> None:
        threading.Thread(target=self._keep_trying, name="celaje-attach", daemon=True).start()

    def _follow(self) -> None:
        """Whoever has changed the document while we attached with the former one found nobody to tell."""
        try:
            # Again until nothing has changed: what was read may be out of date when it is told.
            while (written := self._document()) is not None and written != self._request:
                self._request = written
                applied(written)
        except CelajeError as error:
            log.warning("the network card of %s is not as its document says: %s", self._request.interface, error)

    def _keep_trying(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            with self._asking:
                attached = self._attached_again(pause == LONGEST_PAUSE)
            if attached:
                return
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _attached_again(self, give_up_ports: bool) -> bool:
        """Whether an attempt succeeded, or none is wanted any more."""
        try:
            self._request = self._document() or self._request
            attachment = client.attach(self._request)
        except CelajeError as error:
            log.warning("the network card of %s is not attached: %s", self._request.interface, error)
            if give_up_ports and self._request.forwards != self._wished:
                # A machine without a network is worse than another port.
                log.warning("ports that were chosen for its forwards are given up, and others chosen")
                self._request = msgspec.structs.replace(self._request, forwards=self._wished)
            return False
        self.attached = attachment.attached
        self._request = msgspec.structs.replace(
            self._request, forwards=kept_forwards(self._request.forwards, self.attached.ports)
        )
        self.device.reattach(SocketBackend(attachment.link))
        if self._closed.is_set():
            self.device.reattach(None)  # it was pulled meanwhile
            return True
        self._follow()
        return True


def card_of_free_name(network: str, wish: str, request: Callable[[str], messages.Attach]) -> NetworkCard:
    """A card for a machine that has no name of its own (`free_name`). Where another machine that starts at the same
    moment has taken the name meanwhile, the next one."""
    for _ in range(NAMES_TRIED - 1):
        try:
            return NetworkCard(request(free_name(network, wish)))
        except client.Taken:
            continue
    return NetworkCard(request(free_name(network, wish)))
