"""The firewall: security groups as an interface's policy, and the flows that they admitted.

A packet of an established flow is admitted without another look at rules. Any other packet begins a flow if the
initiator's outward and the responder's inward rules both admit it. A TCP segment in the middle of an unknown
connection begins one as well, in whichever direction rules admit: a network whose process was started again knows no
flows, and its guests' connections go on. For the same reason, a flow that rules no longer admit is not forgotten but
stays as CUT: forgotten, it could come back as if its responder had opened it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from celaje.network import icmp
from celaje.network.flow import (
    ACK,
    RST,
    SYN,
    UDP_SUFFIX,
    Flow,
    FlowTable,
    State,
    addresses,
    flows_of,
    four_tuple,
)
from celaje.network.ipv4 import ICMP, TCP, UDP
from celaje.network.security_group import Direction, Rule, SecurityGroup

if TYPE_CHECKING:
    from celaje.network.interface import Interface

# A rule as it is looked at: first and last port (ICMP: type * 256 + code), mask and network, or a group's members.
_Match = tuple[int, int, int, int, set[int] | None]
_ANY_PORT = (0, 65535)


class Policy:
    """What an interface's groups come to, in one direction: matches by protocol. `everything` admits without a
    look."""

    __slots__ = ("__weakref__", "_any", "_by_protocol", "everything")

    def __init__(self, everything: bool, rules: Iterable[Rule], members: dict[str, set[int]]) -> None:
        self.everything = everything
        rules = tuple(rules)
        self._any = tuple(_match(rule, members) for rule in rules if rule.protocol is None)
        self._by_protocol = {
            protocol: self._any + tuple(_match(rule, members) for rule in rules if rule.protocol == protocol)
            for protocol in {rule.protocol for rule in rules} - {None}
        }

    def admits(self, protocol: int, remote: int, port: int) -> bool:
        if self.everything:
            return True
        for first, last, mask, network, group in self._by_protocol.get(protocol, self._any):
            if first <= port <= last and (remote & mask == network if group is None else remote in group):
                return True
        return False


def _match(rule: Rule, members: dict[str, set[int]]) -> _Match:
    first, last = _ANY_PORT
    if rule.protocol == ICMP:
        if rule.icmp_type is not None:
            code = rule.icmp_code
            first, last = (rule.icmp_type << 8) + (code or 0), (rule.icmp_type << 8) + (255 if code is None else code)
    elif rule.protocol in (TCP, UDP):
        first, last = rule.ports
    if isinstance(rule.remote, str):
        return first, last, 0, 0, members.setdefault(rule.remote, set())
    address, length = rule.remote
    mask = 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF
    return first, last, mask, address & mask, None


NOTHING = Policy(False, (), {})


class Firewall:
    """Groups, their members, and the flows of a network's interfaces. `most_flows` of one interface."""

    def __init__(self, most_flows: int) -> None:
        self.flows = FlowTable(most_flows)
        self._groups: dict[str, SecurityGroup] = {}
        self._members: dict[str, set[int]] = {}  # of groups: the private addresses of the interfaces in them
        self._interfaces: dict[int, Interface] = {}
        # Interfaces in the same groups share what these come to.
        self._policies: WeakValueDictionary[tuple[Direction, tuple[str, ...]], Policy] = WeakValueDictionary()

    # Interfaces and groups.

    def attach(self, interface: Interface, groups: tuple[str, ...]) -> None:
        self._interfaces[interface.address] = interface
        self._join(interface, groups)

    def detach(self, interface: Interface) -> None:
        for flow in flows_of(interface):
            self.flows.remove(flow)
        self._leave(interface)
        del self._interfaces[interface.address]

    def set_groups(self, interface: Interface, groups: tuple[str, ...]) -> int:
        """The interface is in these groups now; how many flows were cut."""
        self._leave(interface)
        self._join(interface, groups)
        # Others' rules may name a group that it joined or left; that is about flows with it, which are its own too.
        return self._reconsider([interface])

    def set_security_groups(self, groups: Iterable[SecurityGroup]) -> int:
        """Adds groups or replaces those of the same names; how many flows were cut."""
        changed = {group.name: group for group in groups}
        self._groups.update(changed)
        return self._rules_changed(changed)

    def remove_security_groups(self, names: Iterable[str]) -> int:
        """These groups have no rules any more; how many flows were cut."""
        gone = {name for name in names if self._groups.pop(name, None) is not None}
        return self._rules_changed(gone)

    def _join(self, interface: Interface, groups: tuple[str, ...]) -> None:
        interface.groups = groups
        for name in groups:
            self._members.setdefault(name, set()).add(interface.address)
        self._compile(interface)

    def _leave(self, interface: Interface) -> None:
        for name in interface.groups:
            self._members[name].discard(interface.address)

    def _compile(self, interface: Interface) -> None:
        names = interface.groups
        groups = [self._groups.get(name, SecurityGroup(name, outward=())) for name in names]
        inward = self._policies.get((Direction.INWARD, names))
        if inward is None:
            inward = Policy(False, [rule for group in groups for rule in group.inward], self._members)
            self._policies[Direction.INWARD, names] = inward
        outward = self._policies.get((Direction.OUTWARD, names))
        if outward is None:
            everything = not groups or any(group.outward is None for group in groups)
            outward = Policy(everything, [rule for group in groups for rule in group.outward or ()], self._members)
            self._policies[Direction.OUTWARD, names] = outward
        interface.inward, interface.outward = inward, outward

    def _rules_changed(self, names: Iterable[str]) -> int:
        changed = set(names)
        if not changed:
            return 0
        affected = [interface for interface in self._interfaces.values() if not changed.isdisjoint(interface.groups)]
        for key in [one for one in self._policies if not changed.isdisjoint(one[1])]:
            del self._policies[key]
        for interface in affected:
            self._compile(interface)
        return self._reconsider(affected)

    def _reconsider(self, interfaces: Sequence[Interface]) -> int:
        """Cuts flows that are not admitted any more, and lets those on again that are."""
        cut = 0
        for interface in interfaces:
            for flow in flows_of(interface):
                admitted = self._admits(
                    flow.protocol, flow.initiator, flow.responder, flow.client, flow.server, flow.port
                )
                if admitted and flow.state is State.CUT:
                    self.flows.enter(flow, flow.state_before)
                elif not admitted and flow.state is not State.CUT:
                    flow.state_before = flow.state
                    self.flows.enter(flow, State.CUT)
                    cut += 1
        return cut

    # Packets.

    def admits(self, interface: Interface, direction: Direction, protocol: int, remote: int, port: int) -> bool:
        """What the rules say; `port` is type * 256 + code for ICMP."""
        policy = interface.inward if direction is Direction.INWARD else interface.outward
        return policy.admits(protocol, remote, port)

    @staticmethod
    def _admits(
        protocol: int,
        initiator: Interface | None,
        responder: Interface | None,
        client: int,
        server: int,
        port: int,
    ) -> bool:
        return (initiator is None or initiator.outward.admits(protocol, server, port)) and (
            responder is None or responder.inward.admits(protocol, client, port)
        )

    def track(
        self,
        protocol: int,
        sender: Interface | None,
        receiver: Interface | None,
        source: int,
        destination: int,
        transport: memoryview,
        now: float,
        client: int | None = None,
    ) -> bool:
        """Whether a packet may pass that is of no established flow: one whose state it may change, or none yet.
        `transport` is what follows its IP header, at least 8 bytes (TCP: 20). `client` is the sender's address in the
        rules' eyes (None: its own). One of the two interfaces is not None."""
        if protocol == ICMP and transport[0] not in (icmp.ECHO_REQUEST, icmp.ECHO_REPLY):
            return self._track_icmp(sender, receiver, source, destination, transport)
        out_key, back_key = keys(protocol, source, destination, transport)
        flags = transport[13] if protocol == TCP else 0
        flow = receiver.flows.get(back_key) if sender is None and receiver is not None else None
        if sender is not None:
            flow = sender.flows.get(out_key)
        if flow is not None and not (flags & (SYN | ACK) == SYN and flow.state >= State.CLOSED):
            if flow.state is State.CUT:
                flow.last = now
                return False
            from_initiator = flow.initiator is sender if sender is not None else flow.initiator is None
            self.flows.advance(flow, from_initiator, flags, now)
            return True
        return self._begin(
            protocol, sender, receiver, source, destination, transport, out_key, back_key, flags, now, client
        )

    def admit(
        self,
        interface: Interface,
        protocol: int,
        client: int,
        source: int,
        source_port: int,
        port: int,
        now: float,
        beside_routes: bool = False,
    ) -> bool:
        """As Network.admit says."""
        if protocol == ICMP:
            rule_port = icmp.ECHO_REQUEST << 8
            key = four_tuple.pack(interface.address, source, port, 0) + bytes((icmp.ECHO_REPLY,))
        else:
            rule_port = port
            key = four_tuple.pack(interface.address, source, port, source_port)
            if protocol == UDP:
                key += UDP_SUFFIX
        if not interface.inward.admits(protocol, client, rule_port):
            return False
        flow = Flow(protocol, None, b"", interface, key, client, interface.address, rule_port, now)
        flow.beside_routes = beside_routes
        self.flows.add(flow)
        return True

    def forget(self, interface: Interface, protocol: int, remote: int, remote_port: int, port: int) -> None:
        """As Network.forget says."""
        if protocol == ICMP:
            key = four_tuple.pack(interface.address, remote, port, 0)
            candidates = [key + bytes((icmp.ECHO_REPLY,)), key + bytes((icmp.ECHO_REQUEST,))]
        else:
            key = four_tuple.pack(interface.address, remote, port, remote_port)
            candidates = [key + UDP_SUFFIX if protocol == UDP else key]
        for candidate in candidates:
            flow = interface.flows.get(candidate)
            if flow is not None and (flow.initiator is None or flow.responder is None):
                self.flows.remove(flow)

    def _begin(
        self,
        protocol: int,
        sender: Interface | None,
        receiver: Interface | None,
        source: int,
        destination: int,
        transport: memoryview,
        out_key: bytes,
        back_key: bytes,
        flags: int,
        now: float,
        client: int | None,
    ) -> bool:
        seen = source if client is None else client
        begins = protocol != TCP or flags & (SYN | ACK) == SYN
        if protocol == ICMP:
            if transport[0] != icmp.ECHO_REQUEST:
                return False
            source_port = port = icmp.ECHO_REQUEST << 8
        elif protocol in (TCP, UDP):
            source_port, port = transport[0] << 8 | transport[1], transport[2] << 8 | transport[3]
        else:
            source_port = port = 0
        if self._admits(protocol, sender, receiver, seen, destination, port):
            flow = Flow(protocol, sender, out_key, receiver, back_key, seen, destination, port, now)
            from_initiator = True
        elif not begins and self._admits(protocol, receiver, sender, destination, seen, source_port):
            flow = Flow(protocol, receiver, back_key, sender, out_key, destination, seen, source_port, now)
            from_initiator = False
        else:
            return False
        self.flows.add(flow)
        if flags & RST:
            self.flows.enter(flow, State.CLOSED)
        elif not begins:
            # Established once the other end has spoken: a stray segment is no connection.
            self.flows.enter(flow, State.NEW if from_initiator else State.ANSWERED)
        return True

    def _track_icmp(
        self,
        sender: Interface | None,
        receiver: Interface | None,
        source: int,
        destination: int,
        transport: memoryview,
    ) -> bool:
        """ICMP that is no echo: errors are admitted when they are about a flow of their receiver's that is, anything
        else by the rules, without a flow."""
        if transport[0] not in icmp.ERRORS:
            port = transport[0] << 8 | transport[1]
            return self._admits(ICMP, sender, receiver, source, destination, port)
        quote = transport[icmp.HEADER :]
        if len(quote) < 28 or quote[0] != 0x45:
            return False
        quoted_source, quoted_destination = addresses.unpack_from(quote, 12)
        if quoted_source != destination:
            return False
        protocol = quote[9]
        if protocol == TCP and len(quote) < 28:
            return False
        out_key, back_key = keys(protocol, quoted_source, quoted_destination, quote[20:])
        if receiver is not None:
            flow = receiver.flows.get(out_key)
        else:
            flow = sender.flows.get(back_key) if sender is not None else None
        return flow is not None and flow.state is not State.CUT


def keys(protocol: int, source: int, destination: int, transport: memoryview) -> tuple[bytes, bytes]:
    """A packet's key in its sender's table, and the key of what answers it (see flow.py); `transport` has at least 8
    bytes."""
    if protocol in (TCP, UDP):
        source_port, port = transport[0] << 8 | transport[1], transport[2] << 8 | transport[3]
        out = four_tuple.pack(source, destination, source_port, port)
        back = four_tuple.pack(destination, source, port, source_port)
        return (out, back) if protocol == TCP else (out + UDP_SUFFIX, back + UDP_SUFFIX)
    if protocol == ICMP:
        identifier = transport[4] << 8 | transport[5]
        kind = transport[0]
        answer = icmp.ECHO_REPLY if kind == icmp.ECHO_REQUEST else icmp.ECHO_REQUEST
        return (
            four_tuple.pack(source, destination, identifier, 0) + bytes((kind,)),
            four_tuple.pack(destination, source, identifier, 0) + bytes((answer,)),
        )
    suffix = bytes((protocol,))
    return addresses.pack(source, destination) + suffix, addresses.pack(destination, source) + suffix
