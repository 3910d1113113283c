"""Where on the host an interface is reached: the owner's forwards, and the ports of its public address.

A port of the public address is listened on if the interface's rules admit it from anywhere outside. Rules over more
than WIDE ports listen only where the guest answers (port_probe.py). Whoever connects is matched with the rules by its
real address; one that they do not admit is closed at once, without a byte.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

from celaje.errors import HostError
from celaje.network import ipv4
from celaje.network.bridge import Bridge
from celaje.network.datagram_flow import A_TURN, LONGEST_DATAGRAM, ClientFlow
from celaje.network.event_loop import READ
from celaje.network.host_listeners import listening, nearest_listening
from celaje.network.host_sockets import NO_RESOURCES
from celaje.network.messages import Forward, PublicPort, Rule, Transport
from celaje.network.nat import InterfaceFlows
from celaje.network.port_probe import PortProbe
from celaje.network.subnet import Blocks, Subnet
from celaje.network.tcp_segment import ACK, RST, SYN, TcpSegment

WIDE = 256
MOST_LISTENED = 1_024  # ports of one public address
PROBE_PORT = 32_767  # of the router, where probes come from
ANSWER_SECONDS = 3.0  # that an emulated guest may take to answer a probe
CONNECTIONS_A_TURN = 64
FIRST_AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 0.5, 30.0  # between two looks whether a port has become free

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AdmittedPorts:
    """What rules admit from outside: single ports, and ranges (first, last, a client that the rule is about)."""

    narrow: frozenset[tuple[Transport, int]]
    wide: tuple[tuple[int, int, int], ...]


LOOPBACK = Subnet(0x7F000000, 8)


def admitted_ports(rules: Iterable[Rule], inside: Blocks, clients: Subnet | None = None) -> AdmittedPorts:
    """The TCP and UDP ports that `rules` admit from somewhere outside the network, or from one of `clients`, if nobody
    else can come: an address of 127/8 is reached from others of 127/8. UDP cannot be probed, so a wide rule admits none
    of its ports to be listened on. Where rules of few ports come to more than MOST_LISTENED together, all but those of
    a single port are taken as wide."""
    given = tuple(rule for rule in rules if clients is None or _is_about(rule, clients))
    admitted = _admitted_ports(given, inside, WIDE)
    if len(admitted.narrow) > MOST_LISTENED:
        admitted = _admitted_ports(given, inside, 1)
    return admitted


def _is_about(rule: Rule, clients: Subnet) -> bool:
    if rule.remote.startswith("group:"):
        return False
    remote = ipaddress.IPv4Network(rule.remote, strict=False)
    return clients.overlaps(Subnet(int(remote[0]), remote.prefixlen))


def _admitted_ports(rules: Iterable[Rule], inside: Blocks, widest: int) -> AdmittedPorts:
    narrow: set[tuple[Transport, int]] = set()
    wide = []
    for rule in rules:
        if rule.direction != "in" or rule.protocol == "icmp" or rule.remote.startswith("group:"):
            continue
        remote = ipaddress.IPv4Network(rule.remote, strict=False)
        if inside.covers(Subnet(int(remote[0]), remote.prefixlen)):
            continue
        first, last = (0, 65_535) if rule.protocol == "any" else (rule.first_port, rule.last_port)
        if last - first >= widest:
            if rule.protocol != "udp":
                wide.append((first, last, int(remote[0])))
            continue
        transports: tuple[Transport, ...] = ("tcp", "udp") if rule.protocol == "any" else (rule.protocol,)
        narrow.update((transport, port) for transport in transports for port in range(max(1, first), last + 1))
    return AdmittedPorts(frozenset(narrow), tuple(wide))


@lru_cache(maxsize=64)
def _probed(wide: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, ...], frozenset[int]]:
    """The ports that are to be asked for, in order; the same objects for all interfaces with the same rules."""
    ports = frozenset(port for first, last, _ in wide for port in range(max(1, first), last + 1))
    return tuple(sorted(ports)), ports


class _Listener:
    """A socket of the host's that leads to one port of the guest. `may_pass`: it stands at another port than it should
    be at, which may become free."""

    def __init__(
        self, flows: InterfaceFlows, port: int, bound: socket.socket, listed: PublicPort, may_pass: bool = False
    ) -> None:
        self.listed = listed
        self.may_pass = may_pass
        self.port = port
        self._flows = flows
        self._socket = bound
        self._known: dict[tuple[int, int], ClientFlow] = {}
        ready = self._accept if listed.protocol == "tcp" else self._receive
        flows.nat.loop.watch(bound.fileno(), READ, ready)

    def lead_to(self, port: int) -> None:
        """New clients reach this port of the guest from now on."""
        self.port = port
        self._known.clear()
        listed = self.listed
        self.listed = PublicPort(
            listed.protocol, port, listed.host_address, listed.host_port, listed.reason, listed.forward
        )

    def close(self) -> None:
        self._flows.nat.loop.unwatch(self._socket.fileno())
        for flow in tuple(self._known.values()):
            if self._flows.datagrams.get(flow.key) is flow:
                self._flows.drop(self._flows.datagrams, flow)
        self._socket.close()

    @property
    def datagram_flows(self) -> int:
        """How many there are of those that came in here; `close` ends them."""
        return sum(self._flows.datagrams.get(one.key) is one for one in self._known.values())

    def _accept(self, _events: int) -> None:
        nat = self._flows.nat
        for _ in range(CONNECTIONS_A_TURN):
            try:
                stream, peer = self._socket.accept()
                nat.sockets.keep(stream)
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    self._pause()
                nat.count_and_say_once("clients that could not be accepted", str(error.strerror))
                return
            stream.setblocking(False)
            client = (int(ipaddress.IPv4Address(peer[0])), peer[1])
            bridge = nat.connect_inward(self._flows, stream, client, self.port)
            if bridge is None:
                stream.close()
            else:
                bridge.entrance = None if self.listed.forward else self.listed.host_address

    def _pause(self) -> None:
        """Without descriptors the client would be announced over and over: look again in a moment."""
        loop = self._flows.nat.loop
        loop.unwatch(self._socket.fileno())
        loop.set(loop.timer(self._again), loop.now + 0.2)

    def _again(self) -> None:
        if self._socket.fileno() >= 0:
            self._flows.nat.loop.watch(self._socket.fileno(), READ, self._accept)

    def _receive(self, _events: int) -> None:
        for _ in range(A_TURN):
            try:
                data, peer = self._socket.recvfrom(LONGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an answer to some client
            client = (int(ipaddress.IPv4Address(peer[0])), peer[1])
            answer = partial(self._answer, peer)
            self._flows.nat.datagram_inward(self._flows, data, client, self.port, answer, self._known)

    def _answer(self, peer: tuple[str, int], data: memoryview) -> None:
        self._socket.sendto(data, peer)


class PublicPorts:
    """Those of one interface. HostError if a forward cannot be had; then nothing is listened on. With `is_real` the
    address lives on a device of ours, where every port is the guest's own: then nothing is listened on for it
    either."""

    def __init__(
        self,
        flows: InterfaceFlows,
        address: str | None,
        forwards: Iterable[Forward],
        admitted: AdmittedPorts,
        is_real: bool = False,
    ) -> None:
        self._flows = flows
        self._address = address
        self._is_real = is_real
        self._forwards: dict[Forward, _Listener] = {}
        self._public: dict[tuple[Transport, int], _Listener] = {}
        self._admitted = AdmittedPorts(frozenset(), ())
        loop = flows.nat.loop
        self._probe = PortProbe(loop.now, self._ask, self._found, lambda: len(flows.nat.probing))
        self._asked: dict[int, float] = {}  # port to when it was asked, the oldest first
        self._timer = loop.timer(self._tick)
        self._again = loop.timer(self._listen_again)
        self._pause = FIRST_AGAIN_SECONDS
        flows.expected = self._expected
        try:
            self.set_forwards(forwards)
            self.set_admitted(admitted)
        except HostError:
            self.close()
            raise

    def listed(self) -> tuple[PublicPort, ...]:
        """What the host's programs can connect to, forwards first."""
        forwards = [one.listed for one in self._forwards.values()]
        if self._is_real and self._address is not None:
            address = self._address
            public = [PublicPort(protocol, port, address, port) for protocol, port in self._admitted.narrow]
        else:
            public = [one.listed for one in self._public.values()]
        return (*forwards, *sorted(public, key=lambda one: (one.protocol, one.guest_port)))

    def close(self) -> None:
        for listener in (*self._forwards.values(), *self._public.values()):
            listener.close()
        self._forwards.clear()
        self._public.clear()
        self._flows.expected = None
        self._set_probing(False)
        self._flows.nat.loop.discard(self._again)

    def set_forwards(self, forwards: Iterable[Forward]) -> None:
        """These and no others. HostError if one cannot be had; then those that were stay."""
        wanted = list(dict.fromkeys(forwards))
        # A place that stays and leads to another port of the guest keeps its socket.
        going = {(one.protocol, one.address, one.port): one for one in self._forwards if one not in wanted and one.port}
        turned: list[tuple[Forward, Forward]] = []
        made: dict[Forward, _Listener] = {}
        try:
            for forward in wanted:
                if forward in self._forwards:
                    continue
                former = going.pop((forward.protocol, forward.address, forward.port), None)
                if former is not None:
                    turned.append((former, forward))
                else:
                    made[forward] = self._forward(forward)
        except HostError:
            for listener in made.values():
                listener.close()
            raise
        for former, forward in turned:
            self._forwards[forward] = self._forwards.pop(former)
            self._forwards[forward].lead_to(forward.guest_port)
        for forward in [one for one in self._forwards if one not in wanted]:
            self._forwards.pop(forward).close()
        self._forwards.update(made)

    def _forward(self, forward: Forward) -> _Listener:
        where = f"{forward.protocol}:{forward.address}:{forward.port}"
        try:
            bound = listening(forward.protocol, forward.address, forward.port)
        except OSError as error:
            raise HostError(
                f"cannot forward {where} to port {forward.guest_port} of {self._flows.interface.name!r}: "
                f"{error.strerror}; choose another port, or 0 for any that is free"
            ) from error
        port = bound.getsockname()[1]
        listed = PublicPort(forward.protocol, forward.guest_port, forward.address, port, forward=True)
        return _Listener(self._flows, forward.guest_port, bound, listed)

    def set_address(self, address: str | None, is_real: bool, admitted: AdmittedPorts) -> int:
        """This is the public address from now on, None: there is none, and this is what rules admit there. How many
        flows of clients who came by the former one were cut. HostError as `set_admitted` says."""
        cut = self._cut()
        self._address, self._is_real = address, is_real
        self._admitted = AdmittedPorts(frozenset(), ())
        was_open = sorted(self._probe.open)
        self.set_admitted(admitted)
        if address is not None and not is_real:
            for port in was_open:
                if port in self._probe.open and ("tcp", port) not in self._public:
                    self._listen("tcp", port)
        return cut

    def _cut(self) -> int:
        """Close what is listened on for the public address, and end what came in there; how many flows that were."""
        streams = [
            one
            for one in self._flows.streams.values()
            if isinstance(one, Bridge) and one.entrance is not None and one.entrance == self._address
        ]
        for stream in streams:
            stream.cut()
        count = len(streams)
        for listener in self._public.values():
            count += listener.datagram_flows
            listener.close()
        self._public.clear()
        return count

    def set_admitted(self, admitted: AdmittedPorts) -> None:
        """The rules admit these ports now. HostError if the public address is not one of this host's."""
        if admitted == self._admitted:
            return
        self._admitted = admitted
        if self._address is None or self._is_real:
            self._set_probing(False)
            return
        wanted, members = _probed(admitted.wide)
        self._probe.want(wanted, members)
        for protocol, port in sorted(self._public.keys() - admitted.narrow):
            if protocol != "tcp" or port not in self._probe.open:
                self._public.pop((protocol, port)).close()
        for protocol, port in sorted(admitted.narrow - self._public.keys()):
            self._listen(protocol, port)
        self._set_probing(bool(wanted))

    def _set_probing(self, probing: bool) -> None:
        """Whether the guest is asked for its ports."""
        nat = self._flows.nat
        (nat.probing.add if probing else nat.probing.discard)(self)
        nat.loop.set(self._timer, nat.loop.now if probing else None)

    def _listen(self, protocol: Transport, port: int) -> None:
        assert self._address is not None
        held = nearest_listening(protocol, self._address, port)
        try:
            self._flows.nat.sockets.keep(held.socket)
        except OSError as error:
            raise HostError(
                f"cannot listen on {protocol} {self._address}:{port}: {error.strerror}; "
                "admit fewer ports, or raise the limit of open files (ulimit -Hn)"
            ) from error
        listed = PublicPort(protocol, port, self._address, held.port, held.reason)
        self._public[protocol, port] = _Listener(self._flows, port, held.socket, listed, held.may_pass)
        if held.may_pass and self._again.deadline is None:
            self._pause = FIRST_AGAIN_SECONDS
            self._flows.nat.loop.set(self._again, self._flows.nat.loop.now + self._pause)

    def _listen_again(self) -> None:
        """A public address moves from one machine to another, and whoever had it may let go of it only after the other
        was given it. Clients who are connected stay so."""
        waiting = [(key, one) for key, one in self._public.items() if one.may_pass]
        for (protocol, port), listener in waiting:
            listed = listener.listed
            try:
                bound = listening(protocol, listed.host_address, port)
            except OSError:
                continue
            listener.close()
            moved = PublicPort(protocol, port, listed.host_address, port)
            self._public[protocol, port] = _Listener(self._flows, port, bound, moved)
        still = any(one.may_pass for one in self._public.values())
        self._pause = min(2 * self._pause, LONGEST_AGAIN_SECONDS)
        loop = self._flows.nat.loop
        loop.set(self._again, loop.now + self._pause if still else None)

    # Wide rules.

    def _tick(self) -> None:
        loop = self._flows.nat.loop
        while self._asked:
            port, asked = next(iter(self._asked.items()))
            if loop.now - asked < ANSWER_SECONDS:
                break
            self._forget(port)
        self._probe.tick(loop.now)
        loop.set(self._timer, self._probe.deadline)

    def _ask(self, port: int) -> None:
        flows = self._flows
        nat = flows.nat
        client = next((one for first, last, one in self._admitted.wide if first <= port <= last), None)
        if client is None or not nat.network.admit(flows.interface, ipv4.TCP, client, flows.router, PROBE_PORT, port):
            return
        self._asked.pop(port, None)
        self._asked[port] = nat.loop.now
        sequence = nat.initial_sequence((flows.router, PROBE_PORT), (flows.interface.address, port), nat.loop.now)
        nat.send_control(flows, (flows.router, PROBE_PORT), port, sequence, 0, SYN)

    def _expected(self, segment: TcpSegment) -> bool:
        """Whether the segment answers a probe."""
        port = segment.source_port
        if segment.destination_port != PROBE_PORT or port not in self._asked:
            return False
        is_open = segment.flags & (SYN | ACK | RST) == SYN | ACK
        if is_open:
            self._flows.nat.answer_with_reset(self._flows, self._flows.router, segment)
        self._forget(port)
        self._probe.answer(port, is_open)
        return True

    def _forget(self, port: int) -> None:
        nat = self._flows.nat
        if self._asked.pop(port, None) is not None:
            nat.network.forget(self._flows.interface, ipv4.TCP, self._flows.router, PROBE_PORT, port)

    def _found(self, port: int, is_open: bool) -> None:
        key: tuple[Transport, int] = ("tcp", port)
        if self._address is None or self._is_real:
            return  # it was taken away meanwhile
        if is_open and key not in self._public:
            try:
                self._listen("tcp", port)
            except HostError as error:
                log.warning("%s", error)
        elif not is_open and key in self._public and key not in self._admitted.narrow:
            self._public.pop(key).close()
