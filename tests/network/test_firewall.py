"""The firewall: rules, flows, and flows that rules no longer admit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.network import icmp
from celaje.network.flow import State
from celaje.network.network import NetworkConfig
from celaje.network.security_group import Direction, Rule, SecurityGroup
from celaje.network.statistics import Drop
from tests.network.conversation import (
    ACK,
    EVERYTHING,
    FAR,
    ROUTER,
    SYN,
    Machine,
    World,
    connect,
    tcp_segment,
)

WEB = SecurityGroup("web")
SSH = SecurityGroup("ssh", (Rule(6, ports=(22, 22)),))


@pytest.fixture
def world() -> World:
    return World()


def passes(sender: Machine, receiver: Machine, message: bytes) -> bool:
    """Whether the message arrives."""
    sender.says(message)
    return receiver.hears_messages() == [message]


def test_without_groups_nothing_is_admitted_inward_and_everything_outward(world: World) -> None:
    a, b = world.machine("a", groups=()), world.machine("b", groups=())
    assert not passes(a, b, a.tcp(b, 40000, 22, SYN))
    assert not passes(a, b, a.udp(b, 1, 2))
    assert not passes(a, b, a.ping(b))
    assert not passes(a, b, a.ip(b, 132, bytes(12)))
    assert a.interface.statistics.dropped == {Drop.FIREWALL: 4}
    a.says(a.tcp(FAR, 1, 2, SYN))
    assert len(world.outside.hears()) == 1


def test_a_rule_admits_its_protocol_and_ports(world: World) -> None:
    world.network.set_security_groups([SecurityGroup("g", (Rule(6, ports=(80, 90)), Rule(17, ports=(53, 53))))])
    a, b = world.machine("a"), world.machine("b", groups=("g",))
    assert [port for port in (79, 80, 85, 90, 91) if passes(a, b, a.tcp(b, 40000, port, SYN))] == [80, 85, 90]
    assert [port for port in (52, 53, 54, 80) if passes(a, b, a.udp(b, 40000, port))] == [53]
    assert not passes(a, b, a.ping(b))


def test_a_rule_admits_its_network(world: World) -> None:
    a, b, c = world.machine("a"), world.machine("b"), world.machine("c", groups=("g",))
    assert (a.address, b.address) == (0x0A4D000A, 0x0A4D000B)
    world.network.set_security_groups([SecurityGroup("g", (Rule(None, (a.address, 32)),))])
    assert passes(a, c, a.udp(c, 1, 2))
    assert not passes(b, c, b.udp(c, 1, 2))
    world.network.set_security_groups([SecurityGroup("g", (Rule(None, (b.address, 31)),))])  # host bits do not matter
    assert passes(b, c, b.udp(c, 1, 2))


def test_a_rule_admits_a_groups_members_as_they_come_and_go(world: World) -> None:
    world.network.set_security_groups([WEB, SecurityGroup("db", (Rule(6, "web", (5432, 5432)),))])
    db = world.machine("db", groups=("db",))
    a = world.machine("a", groups=())
    assert not passes(a, db, a.tcp(db, 1000, 5432, SYN))
    world.network.set_groups(a.interface, ("web",))
    assert passes(a, db, a.tcp(db, 1001, 5432, SYN))
    world.network.set_groups(a.interface, ())
    assert not passes(a, db, a.tcp(db, 1002, 5432, SYN))
    b = world.machine("b", groups=("web", "more"))
    assert passes(b, db, b.tcp(db, 1000, 5432, SYN))


def test_any_of_an_interfaces_groups_will_do(world: World) -> None:
    world.network.set_security_groups([SSH, SecurityGroup("ping", (Rule(1),))])
    a, b = world.machine("a"), world.machine("b", groups=("ssh", "ping", "unheard-of"))
    assert passes(a, b, a.tcp(b, 1, 22, SYN))
    assert passes(a, b, a.ping(b))
    assert not passes(a, b, a.udp(b, 1, 2))


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (Rule(1), {(8, 0), (13, 0), (13, 5)}),
        (Rule(1, icmp_type=8), {(8, 0)}),
        (Rule(1, icmp_type=13), {(13, 0), (13, 5)}),
        (Rule(1, icmp_type=13, icmp_code=5), {(13, 5)}),
        (Rule(None), {(8, 0), (13, 0), (13, 5)}),
        (Rule(6), set()),
    ],
)
def test_a_rule_admits_its_icmp_type_and_code(world: World, rule: Rule, admitted: set[tuple[int, int]]) -> None:
    world.network.set_security_groups([SecurityGroup("g", (rule,))])
    a, b = world.machine("a"), world.machine("b", groups=("g",))
    for kind, code in ((8, 0), (13, 0), (13, 5)):
        message = a.ip(b, 1, bytes((kind, code)) + bytes(6))
        assert passes(a, b, message) is ((kind, code) in admitted)
        assert world.network.admits(b.interface, Direction.INWARD, 1, a.address, kind, code) is (
            (kind, code) in admitted
        )


def test_outward_rules_admit_only_what_they_say(world: World) -> None:
    world.network.set_security_groups([SecurityGroup("g", (), (Rule(6, (FAR, 24), (443, 443)),))])
    a, b = world.machine("a", groups=("g",)), world.machine("b")
    a.says(a.tcp(FAR, 1, 443, SYN), a.tcp(FAR, 1, 80, SYN), a.tcp(FAR + 256, 1, 443, SYN), a.udp(FAR, 1, 443))
    assert [one.destination for one in world.outside.hears()] == [FAR]
    assert not passes(a, b, a.tcp(b, 1, 443, SYN))
    assert not passes(a, b, a.ping(b))
    assert a.dropped(Drop.FIREWALL) == 5
    b.says(b.ping(a))
    assert a.hears() == []  # its inward rules


def test_answers_are_admitted_whatever_the_rules(world: World) -> None:
    world.network.set_security_groups([SecurityGroup("in-only", (Rule(None),), ())])
    a, b = world.machine("a", groups=()), world.machine("b", groups=("in-only",))
    connect(a, b)
    assert passes(b, a, b.tcp(a, 22, 40000, ACK, b"data"))
    assert passes(a, b, a.udp(b, 1000, 53))
    assert passes(b, a, b.udp(a, 53, 1000))
    assert passes(a, b, a.ping(b))
    assert passes(b, a, b.pong(a))
    assert passes(a, b, a.ip(b, 132, bytes(12)))
    assert passes(b, a, b.ip(a, 132, bytes(12)))
    assert not passes(b, a, b.udp(a, 53, 1001))
    assert not passes(b, a, b.pong(a, identifier=8))
    assert not passes(b, a, b.ping(a))  # the same identifier does not make a ping an answer


def test_removing_a_rule_cuts_its_connections(world: World) -> None:
    world.network.set_security_groups([SSH])
    a, b = world.machine("a", groups=()), world.machine("b", groups=("ssh",))
    connect(a, b)
    assert world.network.set_security_groups([SecurityGroup("ssh")]) == 1
    for _ in range(2):
        assert not passes(a, b, a.tcp(b, 40000, 22, ACK, b"data"))
        assert not passes(b, a, b.tcp(a, 22, 40000, ACK, b"data"))
        world.passes(200)  # retransmissions do not bring it back
    assert not passes(a, b, a.tcp(b, 40000, 22, SYN))
    assert a.dropped(Drop.FIREWALL) == 3
    assert b.dropped(Drop.FIREWALL) == 2
    assert a.hears() == b.hears() == []  # nobody is told


def test_a_cut_connection_does_not_come_back_as_its_responders(world: World) -> None:
    world.network.set_security_groups([SSH])
    a, b = world.machine("a"), world.machine("b", groups=("ssh",))  # a admits everything, b may say anything
    connect(a, b)
    world.network.set_security_groups([SecurityGroup("ssh")])
    assert not passes(b, a, b.tcp(a, 22, 40000, ACK, b"data"))
    assert passes(b, a, b.tcp(a, 22, 40000, SYN))  # a new connection is one


def test_putting_the_rule_back_lets_the_connection_go_on(world: World) -> None:
    world.network.set_security_groups([SSH])
    a, b = world.machine("a", groups=()), world.machine("b", groups=("ssh",))
    connect(a, b)
    assert world.network.remove_security_groups(["ssh"]) == 1
    assert world.network.remove_security_groups(["ssh"]) == 0
    assert not passes(a, b, a.tcp(b, 40000, 22, ACK))
    assert world.network.set_security_groups([SSH]) == 0
    assert passes(a, b, a.tcp(b, 40000, 22, ACK))


def test_a_rule_that_another_replaces_cuts_nothing(world: World) -> None:
    world.network.set_security_groups([SSH])
    a, b = world.machine("a", groups=()), world.machine("b", groups=("ssh",))
    connect(a, b)
    assert world.network.set_security_groups([SecurityGroup("ssh", (Rule(6, (a.address, 32), (1, 1023)),))]) == 0
    assert passes(a, b, a.tcp(b, 40000, 22, ACK))


def test_leaving_a_group_cuts_flows_on_both_sides_of_the_rule(world: World) -> None:
    world.network.set_security_groups([WEB, SecurityGroup("db", (Rule(6, "web"),))])
    a, b = world.machine("a", groups=("web",)), world.machine("b", groups=("db",))
    c = world.machine("c", groups=("web",))
    connect(a, b)
    connect(c, b, client_port=40001)
    assert world.network.set_groups(a.interface, ()) == 1
    assert not passes(a, b, a.tcp(b, 40000, 22, ACK))
    assert passes(c, b, c.tcp(b, 40001, 22, ACK))
    assert world.network.set_groups(b.interface, ()) == 1
    assert not passes(c, b, c.tcp(b, 40001, 22, ACK))


def test_outward_flows_are_cut_as_well(world: World) -> None:
    a = world.machine("a", groups=("g",))
    world.network.set_security_groups([SecurityGroup("g", (), (Rule(17),))])
    a.says(a.udp(FAR, 1000, 53))
    assert world.network.set_security_groups([SecurityGroup("g", (), ())]) == 1
    a.says(a.udp(FAR, 1000, 53))
    assert len(world.outside.hears()) == 1
    header = bytes((0, 53, 1000 >> 8, 1000 & 255, 0, 8, 0, 0))
    assert not world.network.deliver(a.interface, FAR, a.address, 17, [header])


def test_a_new_network_process_lets_connections_go_on_where_rules_admit_them() -> None:
    """Flows are lost with the process that knew them. A segment in the middle of a connection begins a flow in the
    direction that rules admit, whichever end speaks first."""
    for server_first in (False, True):
        world = World()
        world.network.set_security_groups([SSH])
        a, b = world.machine("a", groups=()), world.machine("b", groups=("ssh",))
        if server_first:
            assert passes(b, a, b.tcp(a, 22, 40000, ACK, b"data"))
        assert passes(a, b, a.tcp(b, 40000, 22, ACK, b"data"))
        assert passes(b, a, b.tcp(a, 22, 40000, ACK))
        assert not passes(a, b, a.tcp(b, 40000, 23, ACK))
        assert not passes(b, a, b.tcp(a, 23, 40000, ACK))
        assert world.network.set_security_groups([SecurityGroup("ssh")]) == 1
        assert not passes(b, a, b.tcp(a, 22, 40000, ACK))


# Through NAT: the outside asks, and the guest's answers come back.


def test_a_client_is_admitted_by_its_real_address(world: World) -> None:
    client = 0xC0000201
    world.network.set_security_groups([SecurityGroup("g", (Rule(6, (client, 32), (22, 22)),))])
    a = world.machine("a", groups=("g",))
    admit = world.network.admit
    assert not admit(a.interface, 6, client + 1, ROUTER, 50000, 22)
    assert not admit(a.interface, 6, client, ROUTER, 50000, 23)
    assert admit(a.interface, 6, client, ROUTER, 50000, 22)
    syn = tcp_segment(ROUTER, 50000, a.address, 22, SYN, b"", partial=True)
    assert world.network.deliver(a.interface, ROUTER, a.address, 6, [syn])
    a.says(a.tcp(ROUTER, 22, 50000, SYN | ACK))
    assert [one.destination for one in world.outside.hears()] == [ROUTER]
    ack = tcp_segment(ROUTER, 50000, a.address, 22, ACK, b"", partial=True)
    assert world.network.deliver(a.interface, ROUTER, a.address, 6, [ack])
    assert world.network.set_security_groups([SecurityGroup("g", (Rule(6, (client + 1, 32), (22, 22)),))]) == 1
    assert not world.network.deliver(a.interface, ROUTER, a.address, 6, [ack])
    a.says(a.tcp(ROUTER, 22, 50000, ACK))
    assert world.outside.hears() == []


def test_a_client_without_disguise_need_not_be_announced(world: World) -> None:
    world.network.set_security_groups([SSH])
    a = world.machine("a", groups=("ssh",))
    for port, admitted in ((22, True), (23, False)):
        syn = tcp_segment(FAR, 50000, a.address, port, SYN, b"", partial=True)
        assert world.network.deliver(a.interface, FAR, a.address, 6, [syn]) is admitted


def test_echo_and_datagrams_are_admitted_from_outside(world: World) -> None:
    world.network.set_security_groups([SecurityGroup("g", (Rule(1, (FAR, 32), icmp_type=8), Rule(17, (FAR, 32))))])
    a = world.machine("a", groups=("g",))
    assert world.network.admit(a.interface, 1, FAR, ROUTER, 9, 9)
    assert world.network.deliver(a.interface, ROUTER, a.address, 1, [icmp.echo(8, 9, 1, b"")])
    a.says(a.pong(ROUTER, identifier=9))
    assert world.network.admit(a.interface, 17, FAR, ROUTER, 1000, 53)
    assert world.network.deliver(a.interface, ROUTER, a.address, 17, [bytes((3, 0xE8, 0, 53, 0, 8, 0, 0))])
    a.says(a.udp(ROUTER, 53, 1000))
    assert [one.protocol for one in world.outside.hears()] == [1, 17]
    assert not world.network.admit(a.interface, 1, FAR + 1, ROUTER, 9, 9)


# A firewall that is too slow for use, and too simple to be wrong.


@dataclass
class Model:
    """Flows between machines over UDP: who began, and when each was last heard of and answered."""

    groups: dict[str, SecurityGroup]
    of: dict[int, tuple[str, ...]]

    def __post_init__(self) -> None:
        self.flows: dict[tuple[int, int, int, int], list[float]] = {}  # last, timeout

    def rule_admits(self, rule: Rule, remote: int, port: int) -> bool:
        if rule.protocol not in (None, 17):
            return False
        if rule.protocol == 17 and not rule.ports[0] <= port <= rule.ports[1]:
            return False
        if isinstance(rule.remote, str):
            return rule.remote in self.of.get(remote, ())
        network, length = rule.remote
        return length == 0 or network >> (32 - length) == remote >> (32 - length)

    def admits(self, client: int, server: int, port: int) -> bool:
        out_groups = [self.groups.get(name, SecurityGroup(name, outward=())) for name in self.of[client]]
        outward = not out_groups or any(
            group.outward is None or any(self.rule_admits(rule, server, port) for rule in group.outward)
            for group in out_groups
        )
        in_groups = [self.groups[name] for name in self.of[server] if name in self.groups]
        inward = any(self.rule_admits(rule, client, port) for group in in_groups for rule in group.inward)
        return outward and inward

    def passes(self, source: int, source_port: int, destination: int, port: int, now: float) -> bool:
        there, back = (source, source_port, destination, port), (destination, port, source, source_port)
        for key in (there, back):
            flow = self.flows.get(key)
            # Expiry happens in whole seconds.
            if flow is not None and int(flow[0] + flow[1]) + 1 <= now:
                del self.flows[key]
        if back in self.flows:
            self.flows[back][0] = now
            if not self.admits(destination, source, source_port):
                self.flows[back][1] = max(self.flows[back][1], 300.0)
                return False
            self.flows[back][1] = 180.0
            return True
        if there in self.flows:
            self.flows[there][0] = now
            return self.admits(source, destination, port)
        if not self.admits(source, destination, port):
            return False
        self.flows[there] = [now, 30.0]
        return True


RULES = st.builds(
    Rule,
    st.sampled_from((None, 17, 6)),
    st.sampled_from(("g0", "g1", "g2", (0, 0), (0x0A4D000A, 32), (0x0A4D000A, 31), (0x0A4D0000, 16))),
    st.sampled_from(((0, 65535), (1, 1), (2, 3), (1, 2))),
)
GROUPS = st.builds(
    SecurityGroup,
    st.sampled_from(("g0", "g1", "g2")),
    st.lists(RULES, max_size=2).map(tuple),
    st.none() | st.lists(RULES, max_size=2).map(tuple),
)
MEMBERSHIP = st.lists(st.sampled_from(("g0", "g1", "g2")), max_size=2, unique=True).map(tuple)
STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 2), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.just("rules"), GROUPS),
    st.tuples(st.just("join"), st.integers(0, 2), MEMBERSHIP),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MEMBERSHIP, min_size=3, max_size=3), st.lists(STEPS, max_size=40))
def test_the_firewall_does_what_a_simple_one_would(
    memberships: list[tuple[str, ...]], steps: list[tuple[object, ...]]
) -> None:
    """Datagrams among three machines, rules that change under them. Time stands still; flows end elsewhere."""
    world = World()
    world.network.remove_security_groups([EVERYTHING.name])
    machines = [world.machine(f"m{number}", groups=groups) for number, groups in enumerate(memberships)]
    model = Model({}, {one.address: groups for one, groups in zip(machines, memberships, strict=True)})
    for step in steps:
        match step:
            case ("say", int(sender), int(receiver), int(source_port), int(port)) if sender != receiver:
                a, b = machines[sender], machines[receiver]
                expected = model.passes(a.address, source_port, b.address, port, world.now)
                assert passes(a, b, a.udp(b, source_port, port)) is expected
            case ("rules", SecurityGroup() as group):
                model.groups[group.name] = group
                world.network.set_security_groups([group])
            case ("join", int(number), tuple(groups)):
                model.of[machines[number].address] = groups
                world.network.set_groups(machines[number].interface, groups)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 400), st.sampled_from((6, 17)), st.booleans()), max_size=300)
)
def test_tracked_flows_are_bounded_and_tables_agree(steps: list[tuple[int, int, int, bool]]) -> None:
    world = World(NetworkConfig(flows=16))
    a, b = world.machine("a"), world.machine("b")
    pairs: list[tuple[Machine, Machine | int]] = [(a, b), (b, a), (a, FAR)]
    for which, port, protocol, answered in steps:
        sender, receiver = pairs[which]
        if protocol == 17:
            sender.says(sender.udp(receiver, port, 1000))
            if answered and isinstance(receiver, Machine):
                receiver.says(receiver.udp(sender, 1000, port))
        else:
            sender.says(sender.tcp(receiver, port, 1000, SYN))
        flows = {one: set(one.interface.flows.values()) for one in (a, b)}
        assert all(len(found) == len(one.interface.flows) <= 16 for one, found in flows.items())
        for one in (a, b):
            tentative = {key: flow for key, flow in one.interface.flows.items() if flow.state is not State.ESTABLISHED}
            assert one.interface.tentative == tentative
            for key, flow in one.interface.flows.items():
                assert key == (flow.initiator_key if flow.initiator is one.interface else flow.responder_key)
                other = flow.responder if flow.initiator is one.interface else flow.initiator
                assert other is None or flow in other.flows.values()
    world.passes(10**6)
    assert a.interface.flows == b.interface.flows == {}
    assert world.network.poll(world.now) is None
