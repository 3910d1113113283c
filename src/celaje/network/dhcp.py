"""DHCP (RFC 2131, options RFC 2132): the server's side, without a memory of its own.

An interface has one address, decided when it was attached, so an offer is that address whatever was wished, a lease
is a promise that is kept anyway, and a release or decline changes nothing. A request for another address is refused
(NAK), and the client begins anew.

    0    1  1 request, 2 reply    12  4  ciaddr, the client's address if it may use it    28   16  chaddr
    1    1  hardware type 1       16  4  yiaddr, "your" address                           44   64  sname
    2    1  its length 6          20  4  siaddr, the next server of a boot                108 128  file
    4    4  xid                   24  4  giaddr, a relay's                                236   4  magic cookie
    10   2  flags, 0x8000: answer by broadcast                                            240   …  options

Clients that matter: busybox udhcpc, systemd-networkd, dhclient, dhcpcd. There is no classless route (option 121) for
the link-local services: a guest reaches them by its default route, or on the link, where the network answers ARP for
them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from celaje.network import ethernet, ipv4

SERVER_PORT = 67
CLIENT_PORT = 68
SHORTEST = 300  # bytes of a BOOTP message (RFC 1542, 2.1); some clients refuse shorter ones
_OPTIONS = 240
_COOKIE = b"\x63\x82\x53\x63"
_BROADCAST_FLAG = 0x8000

_message = struct.Struct(">BBBBIHHIIII16s64s128s4s")


class Kind(IntEnum):
    """Option 53 (RFC 2132, 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """Those that are looked at or sent (RFC 2132; 119: RFC 3397)."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    DNS = 6
    HOST_NAME = 12
    DOMAIN = 15
    MTU = 26
    BROADCAST = 28
    TIME_SERVERS = 42  # NTP's
    NETBIOS_SERVERS = 44
    NETBIOS_NODE = 46
    REQUESTED_ADDRESS = 50
    LEASE_SECONDS = 51
    MESSAGE_KIND = 53
    SERVER = 54
    RENEWAL_SECONDS = 58
    REBINDING_SECONDS = 59
    CLIENT = 61
    DOMAIN_SEARCH = 119
    END = 255


@dataclass(frozen=True, slots=True)
class DhcpRequest:
    """What a client says. Addresses are numbers; 0 in `ciaddr`, None in `requested` and `server` mean that it says
    none."""

    kind: int
    transaction: int
    flags: int
    ciaddr: int
    giaddr: int
    mac: bytes
    requested: int | None
    server: int | None
    client: bytes | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server says, and to whom: an IP and a MAC address, port CLIENT_PORT."""

    kind: Kind
    destination: int
    mac: bytes
    message: bytes


def parse(data: memoryview) -> DhcpRequest | None:
    """The request in `data`; None if it is malformed or no client's over Ethernet."""
    if len(data) < _OPTIONS:
        return None
    operation, hardware, length, _, transaction, _, flags, ciaddr, _, _, giaddr, chaddr, _, _, cookie = (
        _message.unpack_from(data)
    )
    options = parse_options(bytes(data[_OPTIONS:]))
    if (operation, hardware, length, cookie) != (1, 1, 6, _COOKIE) or options is None:
        return None
    kind = options.get(Option.MESSAGE_KIND, b"")
    requested = options.get(Option.REQUESTED_ADDRESS)
    server = options.get(Option.SERVER)
    if len(kind) != 1 or any(address is not None and len(address) != 4 for address in (requested, server)):
        return None
    return DhcpRequest(
        kind=kind[0],
        transaction=transaction,
        flags=flags,
        ciaddr=ciaddr,
        giaddr=giaddr,
        mac=chaddr[:6],
        requested=None if requested is None else int.from_bytes(requested, "big"),
        server=None if server is None else int.from_bytes(server, "big"),
        client=options.get(Option.CLIENT),
    )


def parse_options(data: bytes) -> dict[int, bytes] | None:
    """Options by code, those that come in pieces joined (RFC 3396); None if one is longer than what is left."""
    options: dict[int, bytes] = {}
    at = 0
    end = len(data)
    # An enumeration's members are looked up and compared at ten times the price of numbers, for each byte of padding.
    pad, last = int(Option.PAD), int(Option.END)
    while at < end and (code := data[at]) != last:
        at += 1
        if code == pad:
            continue
        if at >= end or at + 1 + data[at] > end:
            return None
        length = data[at]
        options[code] = options.get(code, b"") + data[at + 1 : at + 1 + length]
        at += 1 + length
    return options


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """What an owner wants guests to be told. `domain` None: the network's; several with spaces between are the names to
    search, the first one is the domain. Without servers of names it is the network's own."""

    domain: str | None = None
    name_servers: tuple[int, ...] = ()
    time_servers: tuple[int, ...] = ()
    netbios_servers: tuple[int, ...] = ()
    netbios_node: int | None = None


class DhcpServer:
    """`router` is the server's own address as well."""

    def __init__(
        self,
        *,
        router: int,
        dns: int,
        subnet: int,
        prefix_length: int,
        mtu: int,
        domain: str,
        lease_seconds: int,
        settings: DhcpSettings = DhcpSettings(),
    ) -> None:
        mask = 0xFFFFFFFF << (32 - prefix_length) & 0xFFFFFFFF
        self._server = router
        self._lease = b"".join(
            (
                _option(Option.LEASE_SECONDS, lease_seconds),
                _option(Option.RENEWAL_SECONDS, lease_seconds // 2),
                _option(Option.REBINDING_SECONDS, lease_seconds * 7 // 8),
            )
        )
        # Whether a client asked for them or not (option 55): a server may send more (RFC 2131, 4.3.1), and not every
        # client asks for the MTU that it needs.
        self._network = b"".join(
            (
                _option(Option.MASK, mask),
                _option(Option.ROUTER, router),
                _option(Option.DNS, _addresses(settings.name_servers) or dns),
                _option(Option.MTU, mtu.to_bytes(2, "big")),
                _option(Option.BROADCAST, subnet | ~mask & 0xFFFFFFFF),
                *_domains((domain if settings.domain is None else settings.domain).split()),
                *_further(settings),
            )
        )

    def answer(self, request: DhcpRequest, address: int, host_name: str) -> Reply | None:
        """What is answered to the interface that has `address`; None if nothing is."""
        if request.kind == Kind.DISCOVER:
            return self._grant(Kind.OFFER, request, address, host_name)
        if request.kind == Kind.REQUEST:
            return self._answer_request(request, address, host_name)
        if request.kind == Kind.INFORM:
            # The address is the client's own affair, and no lease is spoken of (RFC 2131, 4.3.5).
            return self._reply(Kind.ACK, request, 0, self._network + _option(Option.HOST_NAME, host_name.encode()))
        return None  # DECLINE, RELEASE: the address stays the interface's

    def _answer_request(self, request: DhcpRequest, address: int, host_name: str) -> Reply | None:
        """RFC 2131, 4.3.2."""
        if request.server is not None and request.server != self._server:
            return None  # the client has taken another server's offer
        wanted = request.requested if request.requested is not None else request.ciaddr
        if wanted == address:
            return self._grant(Kind.ACK, request, address, host_name)
        return self._reply(Kind.NAK, request, 0, b"")

    def _grant(self, kind: Kind, request: DhcpRequest, address: int, host_name: str) -> Reply:
        options = self._lease + self._network + _option(Option.HOST_NAME, host_name.encode())
        return self._reply(kind, request, address, options)

    def _reply(self, kind: Kind, request: DhcpRequest, address: int, options: bytes) -> Reply:
        ciaddr = 0 if kind is Kind.NAK else request.ciaddr
        message = _message.pack(
            2,
            1,
            6,
            0,
            request.transaction,
            0,
            request.flags,
            ciaddr,
            address,
            0,
            request.giaddr,
            request.mac,
            b"",
            b"",
            _COOKIE,
        )
        message += _option(Option.MESSAGE_KIND, bytes((kind,))) + _option(Option.SERVER, self._server) + options
        if request.client is not None:
            message += _option(Option.CLIENT, request.client[:255])  # RFC 6842
        message = (message + bytes((Option.END,))).ljust(SHORTEST, b"\0")
        # Where an answer goes: RFC 2131, 4.1.
        if kind is not Kind.NAK and request.ciaddr:
            return Reply(kind, request.ciaddr, request.mac, message)
        if kind is Kind.NAK or request.flags & _BROADCAST_FLAG or not address:
            return Reply(kind, ipv4.BROADCAST, ethernet.BROADCAST, message)
        return Reply(kind, address, request.mac, message)


def _option(code: Option, value: int | bytes) -> bytes:
    data = value.to_bytes(4, "big") if isinstance(value, int) else value
    return bytes((code, len(data))) + data


def _addresses(servers: tuple[int, ...]) -> bytes:
    return b"".join(address.to_bytes(4, "big") for address in servers)


def _domains(names: list[str]) -> Iterator[bytes]:
    if names:
        yield _option(Option.DOMAIN, names[0].encode())
        yield _option(Option.DOMAIN_SEARCH, b"".join(map(_labels, names))[:255])


def _further(settings: DhcpSettings) -> Iterator[bytes]:
    if settings.time_servers:
        yield _option(Option.TIME_SERVERS, _addresses(settings.time_servers))
    if settings.netbios_servers:
        yield _option(Option.NETBIOS_SERVERS, _addresses(settings.netbios_servers))
    if settings.netbios_node is not None:
        yield _option(Option.NETBIOS_NODE, bytes((settings.netbios_node,)))


def _labels(domain: str) -> bytes:
    """A domain name as DNS writes it (RFC 1035, 3.1)."""
    return b"".join(bytes((len(label),)) + label.encode() for label in domain.split(".")) + b"\0"
