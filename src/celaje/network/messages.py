"""What is said on a network's control socket: one JSON object a message, over AF_UNIX SOCK_SEQPACKET.

    client                                     celaje-net
      Attach                      ->
                                  <-           Attached     from here on this connection carries frames, both ways;
                                                            closing it detaches the interface
      ListInterfaces              ->
                                  <-           InterfaceList, again and again until one with more = false
      Describe | Measure | Hail   ->
                                  <-           Described | Statistics | Heard, in the same way
      Update | ReadGroups | ReadTopology  ->
                                  <-           Updated
      Stop                        ->
                                  <-           Stopping
      Proxy                       ->
                                  <-           Connected    with a stream socket (SCM_RIGHTS): the connection's bytes

Any request may be answered by Refused. Requests other than Attach may follow each other on one connection.

Every message carries `version`; another one than VERSION is refused before anything else of it is looked at. Addresses
are dotted quads, networks `a.b.c.d/n`, MAC addresses six hexadecimal pairs with colons, rates bytes a second. Frames
after Attached are a virtio_net_hdr (12 bytes) and an Ethernet frame, a message each (see docs/architecture.md).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from celaje.control_message import MessageCodec
from celaje.errors import InputError
from celaje.typed_data import json_decoder

VERSION = 1
LONGEST_MESSAGE = 200_000  # bytes; a message must fit the send buffer that every Linux gives (212,992)
INTERFACES_A_PART = 64  # interfaces in one InterfaceList
FINGERPRINTS_A_PART = 1_000  # interfaces in one Described, or Heard
COUNTERS_A_PART = 100  # interfaces in one Statistics
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,27}$"  # a network's name is a part of a socket's path, which has 108 bytes

Transport = Literal["tcp", "udp"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What messages are made of."""


class NetworkSettings(_Part, frozen=True):
    """A network. Whoever attaches says what the network must be; a running one that differs refuses, except that it
    takes further blocks: those of all who attach are the network's."""

    name: str = "default"
    blocks: tuple[str, ...] = ("10.77.0.0/16",)  # DNS is the first one's second address
    domain: str = "celaje.internal"  # of the machines' names
    mtu: int = 1500
    planned: bool = False  # routes, access lists and so on are those of the network's file (see topology.py)
    pool: str | None = None  # addresses of the owner's that live on a TUN device, all ports real (CAP_NET_ADMIN)


class Rule(_Part, frozen=True):
    """Admits what it matches; what no rule of an interface's groups matches is dropped."""

    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "any"]
    remote: str = "0.0.0.0/0"  # a network, or "group:NAME": the interfaces that are in that group
    first_port: int = 0  # TCP and UDP: the guest's port (in), the other's port (out)
    last_port: int = 65535
    icmp_type: int | None = None  # None is any
    icmp_code: int | None = None


class SecurityGroup(_Part, frozen=True):
    """Rules under a name. One name has one set of rules in a network: the one that was said last."""

    name: str
    rules: tuple[Rule, ...] = ()


class Forward(_Part, frozen=True):
    """Who connects to the host's address and port reaches the guest's port; `port` 0 lets the host choose one."""

    protocol: Transport
    address: str
    port: int
    guest_port: int


class HostPort(_Part, frozen=True):
    """The guest reaches `host_address`:`host_port` of the host as `port` of its router. `port` 0 is the same one."""

    protocol: Transport
    host_port: int
    port: int = 0
    host_address: str = "127.0.0.1"


class Service(_Part, frozen=True):
    """A TCP address inside the network (such as 169.254.169.250:4566) that is served by one of the host's."""

    address: str
    port: int
    host_address: str
    host_port: int


class Bandwidth(_Part, frozen=True):
    """Bytes a second; None is no limit."""

    to_guest: int | None = None
    from_guest: int | None = None


class SecondaryAddress(_Part, frozen=True):
    """One more private address of an interface, of its subnet; public ones as in Attach."""

    address: str
    public_address: str | None = None
    public_name: str | None = None


class MetadataFacts(_Part, frozen=True):
    """What the metadata address tells the machine about itself."""

    instance_id: str
    host_name: str
    public_keys: dict[str, str] = {}  # name to a line of authorized_keys
    user_data: bytes | None = None
    extra: dict[str, str] = {}  # path under meta-data/ to its text, such as "placement/region"; or under dynamic/
    tokens_required: bool = False  # version 2 only: no fact without a token
    enabled: bool = True  # otherwise every request is refused
    hop_limit: int = 64  # how many hops an answer with a token may take, 1 to 64


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="message", forbid_unknown_fields=True):
    """A request or an answer; see the module's drawing for which answers which."""

    version: int = VERSION


# Requests.


class Attach(Message, frozen=True, tag="attach"):
    """This connection becomes an interface of the network."""

    network: NetworkSettings
    interface: str  # its name in the network, nobody else's; of a machine with one interface the machine's
    host_name: str  # for DHCP and the network's DNS
    mac: str
    subnet: str | None = None  # of one of the blocks, and then with an address; None: the first block is one subnet
    address: str | None = None  # None: the network chooses, and stays with its choice for this interface and MAC
    groups: tuple[SecurityGroup, ...] = ()  # those that the interface is in
    other_groups: tuple[SecurityGroup, ...] = ()  # those that rules mention besides
    forwards: tuple[Forward, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    services: tuple[Service, ...] = ()
    public_address: str | None = None  # one of 127/8 (see addresses.py) or of the pool; None: it has none
    public_name: str | None = None  # a full name that DNS in the network knows: of the private address, as in EC2
    bandwidth: Bandwidth = Bandwidth()
    metadata: MetadataFacts | None = None
    secondary: tuple[SecondaryAddress, ...] = ()
    source_dest_check: bool = True  # False: the guest routes, so it sends from, and is sent, addresses not its own


class ListInterfaces(Message, frozen=True, tag="list"):
    """Who is attached, and where each is reached."""


class Describe(Message, frozen=True, tag="describe"):
    """What each interface has, as fingerprints (see fingerprint.py)."""

    interface: str | None = None  # only that one


class Update(Message, frozen=True, tag="update"):
    """Changes an attached interface. None leaves a thing as it is. Flows that rules no longer admit are cut, and those
    of clients who came by a public address that is the interface's no more."""

    interface: str
    groups: tuple[SecurityGroup, ...] | None = None
    other_groups: tuple[SecurityGroup, ...] | None = None
    forwards: tuple[Forward, ...] | None = None
    host_ports: tuple[HostPort, ...] | None = None
    services: tuple[Service, ...] | None = None
    public_address: str | msgspec.UnsetType | None = msgspec.UNSET  # unset leaves it, None takes it away
    public_name: str | msgspec.UnsetType | None = msgspec.UNSET
    bandwidth: Bandwidth | None = None
    metadata: MetadataFacts | None = None
    secondary: tuple[SecondaryAddress, ...] | None = None
    source_dest_check: bool | None = None


class ReadGroups(Message, frozen=True, tag="read-groups"):
    """The network's file of groups (see group_file.py) is another one now."""


class ReadTopology(Message, frozen=True, tag="read-topology"):
    """The network's file of its topology (see topology.py) is another one now."""


class Measure(Message, frozen=True, tag="measure"):
    """Asks for Statistics."""


class Hail(Message, frozen=True, tag="hail"):
    """Asks every guest by ARP whether it is there, and what is known of that by now: the next Heard has its answer."""


class Proxy(Message, frozen=True, tag="proxy"):
    """A TCP connection from 127.0.0.1 to a machine, which its rules must admit. It is given up when whoever asks closes
    this one first; refused as "unanswered" where the guest has no server on that port, or no TCP yet."""

    host: str  # an interface's name, host name, private or public address
    port: int


class Stop(Message, frozen=True, tag="stop"):
    """Ends the network's process, whoever is attached. Machines start it again if they live on. With `unused`: unless
    somebody is attached, and then it is refused as "taken"."""

    unused: bool = False


Request = Attach | ListInterfaces | Describe | Update | ReadGroups | ReadTopology | Measure | Hail | Proxy | Stop


# Answers.


class PublicPort(_Part, frozen=True):
    """A port of the guest that the host's applications reach. Where the address's own port could not be had,
    `reason` says why, and `host_port` is the one that serves it instead."""

    protocol: Transport
    guest_port: int
    host_address: str
    host_port: int
    reason: str = ""
    forward: bool = False  # one of the owner's forwards, not the public address's


class Interface(_Part, frozen=True):
    """An attached interface."""

    interface: str
    host_name: str
    mac: str
    address: str
    public_address: str | None
    ports: tuple[PublicPort, ...]


class Attached(Message, frozen=True, tag="attached"):
    """What became of an Attach."""

    address: str
    prefix_length: int
    router: str
    dns: str
    mtu: int
    public_address: str | None
    ports: tuple[PublicPort, ...] = ()  # those known already; the list has those that the guest opens later


class InterfaceList(Message, frozen=True, tag="interfaces"):
    """A part of the answer to ListInterfaces."""

    interfaces: tuple[Interface, ...]
    more: bool


class Described(Message, frozen=True, tag="described"):
    """A part of the answer to Describe: interfaces' fingerprints by their names, and that of the groups in the
    network's file."""

    interfaces: dict[str, str]
    groups: str
    more: bool


class Updated(Message, frozen=True, tag="updated"):
    """`cut` flows ended because nothing admits them any more."""

    cut: int
    ports: tuple[PublicPort, ...] = ()


class Statistics(Message, frozen=True, tag="statistics"):
    """Counters only grow; tables are sizes at this moment. Names are those of the code that counts. Of many interfaces,
    each part has some."""

    process: int  # its identifier
    counters: dict[str, int]
    tables: dict[str, int]
    interfaces: dict[str, dict[str, int]]
    more: bool = False


class Heard(Message, frozen=True, tag="heard"):
    """A part of the answer to Hail. How many seconds ago each interface's guest was last found to have said something
    (that is found out when somebody asks); None: nothing since it was attached."""

    ages: dict[str, float | None]
    more: bool


class Connected(Message, frozen=True, tag="connected"):
    """The connection stands; its stream socket comes with this message."""


class Stopping(Message, frozen=True, tag="stopping"):
    """The process ends now."""


class Refused(Message, frozen=True, tag="refused"):
    """`reason` is for a person, and ends with what to do."""

    cause: Literal["malformed", "version", "settings", "taken", "unknown", "limit", "host", "unreachable", "unanswered"]
    reason: str


Answer = Attached | InterfaceList | Described | Updated | Statistics | Heard | Connected | Stopping | Refused


class Unreadable(InputError):
    """What came is no message of this version; `answer` is what its sender is told."""

    def __init__(self, answer: Refused):
        super().__init__(answer.reason)
        self.answer = answer


_codec: MessageCodec[Request, Answer] = MessageCodec(
    json_decoder(Request),
    json_decoder(Answer),
    VERSION,
    LONGEST_MESSAGE,
    "a network",
    "another version of celaje is running; stop its machines with that version, then start them with this one",
    lambda cause, reason: Unreadable(Refused(cause=cause, reason=reason)),
    lambda text: Unreadable(Refused(cause="limit", reason=f"{text}; shorten its user data or rules")),
)

encoded = _codec.encoded
"""The message as it is sent. Unreadable if it is longer than a control socket carries."""
decoded_request = _codec.request
"""The request in some bytes. Unreadable if it is none, or one of another version."""
decoded_answer = _codec.answer
"""The answer in some bytes. Unreadable if it is none, or one of another version."""


def default_groups(
    interface: str, forwards: tuple[Forward, ...] = (), allowed: tuple[tuple[Transport, int, int], ...] = ()
) -> tuple[SecurityGroup, ...]:
    """What `celaje vm` admits: everything among the network's machines, outward everything, inward SSH and ICMP from
    anywhere, the forwards' ports, and `allowed` (protocol, first port, last port)."""
    inward = [Rule("in", "tcp", first_port=22, last_port=22), Rule("in", "icmp")]
    inward += [Rule("in", one.protocol, first_port=one.guest_port, last_port=one.guest_port) for one in forwards]
    inward += [Rule("in", protocol, first_port=first, last_port=last) for protocol, first, last in allowed]
    together = SecurityGroup("machines", (Rule("in", "any", "group:machines"), Rule("out", "any")))
    return (together, SecurityGroup(f"of-{interface}", tuple(dict.fromkeys(inward))))
