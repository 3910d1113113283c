"""Tracked connections: their states, how long each may be idle, and who goes when there are too many."""

from __future__ import annotations

import pytest

from celaje.network.flow import CUT_TIMEOUT, Flow, State
from celaje.network.network import NetworkConfig
from celaje.network.security_group import Rule, SecurityGroup
from tests.network.conversation import ACK, FAR, FIN, RST, SYN, Machine, World, connect


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Machine:
    return world.machine("a")


@pytest.fixture
def b(world: World) -> Machine:
    return world.machine("b", groups=("ssh",))


@pytest.fixture(autouse=True)
def ssh(world: World) -> None:
    world.network.set_security_groups([SecurityGroup("ssh", (Rule(6, ports=(22, 22)), Rule(17), Rule(1)))])


def flow(machine: Machine) -> Flow:
    [only] = machine.interface.flows.values()
    return only


def lives(world: World, machine: Machine, seconds: float, slack: float = 1) -> None:
    """The only flow is there until it has been idle for this long."""
    world.passes(seconds - 1)
    assert world.network.flows(machine.interface) == 1
    world.passes(1 + slack)
    assert world.network.flows(machine.interface) == 0
    assert world.network.poll(world.now) is None


def test_a_connection_is_established_by_three_frames(world: World, a: Machine, b: Machine) -> None:
    a.says(a.tcp(b, 40000, 22, SYN))
    assert flow(a).state is State.NEW
    a.says(a.tcp(b, 40000, 22, SYN), a.tcp(b, 40000, 22, ACK))  # by one end alone it is not
    assert flow(a).state is State.NEW
    b.says(b.tcp(a, 22, 40000, SYN | ACK))
    assert flow(a).state is State.ANSWERED
    b.says(b.tcp(a, 22, 40000, ACK))
    assert flow(a).state is State.ANSWERED
    a.says(a.tcp(b, 40000, 22, ACK))
    assert flow(a).state is State.ESTABLISHED
    assert flow(a) is flow(b)
    lives(world, a, 432_000, slack=3600)


def test_a_connection_that_nobody_answers_is_forgotten_within_a_minute(world: World, a: Machine, b: Machine) -> None:
    a.says(a.tcp(b, 40000, 22, SYN))
    lives(world, a, 60)


def test_packets_keep_a_flow(world: World, a: Machine, b: Machine) -> None:
    connect(a, b)
    for _ in range(5):
        world.passes(400_000)
        b.says(b.tcp(a, 22, 40000, ACK))
    lives(world, a, 432_000, slack=3600)


def test_half_a_connection_may_be_used_for_five_minutes_without_a_word(world: World, a: Machine, b: Machine) -> None:
    connect(a, b)
    a.says(a.tcp(b, 40000, 22, FIN | ACK), a.tcp(b, 40000, 22, FIN | ACK))
    b.says(b.tcp(a, 22, 40000, ACK, b"more"))
    assert len(a.hears()) == 1
    assert flow(a).state is State.CLOSING
    lives(world, a, 300)


def test_a_connection_that_both_have_closed_is_forgotten_soon(world: World, a: Machine, b: Machine) -> None:
    connect(a, b)
    b.says(b.tcp(a, 22, 40000, FIN | ACK))
    a.says(a.tcp(b, 40000, 22, FIN | ACK))
    b.says(b.tcp(a, 22, 40000, ACK))
    assert len(a.hears()) == 2
    assert flow(a).state is State.CLOSED
    lives(world, b, 10)


def test_a_connection_that_is_reset_too(world: World, a: Machine, b: Machine) -> None:
    connect(a, b)
    b.says(b.tcp(a, 22, 40000, RST))
    assert len(a.hears()) == 1
    lives(world, a, 10)


def test_the_same_ports_may_be_used_again_at_once(world: World, a: Machine, b: Machine) -> None:
    for _ in range(3):
        connect(a, b)
        a.says(a.tcp(b, 40000, 22, RST))
        b.hears()
    connect(a, b)
    assert flow(a).state is State.ESTABLISHED
    lives(world, a, 432_000, slack=3600)


def test_datagrams_live_longer_once_they_are_answered(world: World, a: Machine, b: Machine) -> None:
    a.says(a.udp(b, 1000, 53), a.udp(b, 1000, 53))
    lives(world, a, 30)
    a.says(a.udp(b, 1000, 53))
    b.says(b.udp(a, 53, 1000))
    lives(world, a, 180)


def test_pings_live_for_half_a_minute(world: World, a: Machine, b: Machine) -> None:
    a.says(a.ping(b))
    b.says(b.pong(a))
    lives(world, a, 30)


def test_other_protocols_live_for_three_or_ten_minutes(world: World, a: Machine) -> None:
    c = world.machine("c")
    a.says(a.ip(c, 132, bytes(12)))
    lives(world, a, 180)
    a.says(a.ip(c, 132, bytes(12)))
    c.says(c.ip(a, 132, bytes(12)))
    lives(world, a, 600)


def test_a_cut_connection_is_remembered_as_long_as_its_ends_try(world: World, a: Machine, b: Machine) -> None:
    connect(a, b)
    world.network.set_security_groups([SecurityGroup("ssh")])
    for _ in range(4):
        world.passes(CUT_TIMEOUT - 10)
        b.says(b.tcp(a, 22, 40000, ACK, b"again"))
        assert a.hears() == []
    lives(world, a, CUT_TIMEOUT)


def test_thousands_of_short_connections_leave_nothing(world: World, a: Machine, b: Machine) -> None:
    for number in range(3000):
        port = 10000 + number
        a.says(a.tcp(b, port, 22, SYN))
        b.says(b.tcp(a, 22, port, SYN | ACK))
        a.says(a.tcp(b, port, 22, ACK), a.tcp(b, port, 22, FIN | ACK))
        b.says(b.tcp(a, 22, port, FIN | ACK))
        a.says(a.tcp(b, port, 22, ACK))
    assert world.network.flows(a.interface) == 3000
    world.passes(12)
    assert a.interface.flows == b.interface.flows == {}
    assert world.network.poll(world.now) is None


def test_a_flood_does_not_push_out_what_works() -> None:
    world = World(NetworkConfig(flows=100))
    a, b, c = world.machine("a"), world.machine("b"), world.machine("c")
    for port in range(50):
        connect(a, b, client_port=1000 + port)
    for port in range(1000):
        c.says(c.tcp(b, 1000 + port, 22, SYN))
    assert world.network.flows(b.interface) <= 100
    b.hears()
    for port in range(50):
        a.says(a.tcp(b, 1000 + port, 22, ACK))
    assert len(b.hears()) == 50
    assert a.interface.statistics.dropped == {}
    assert sum(one.state is State.ESTABLISHED for one in b.interface.flows.values()) == 50


def test_where_all_work_one_that_was_idle_longest_goes() -> None:
    world = World(NetworkConfig(flows=5))
    a, b = world.machine("a"), world.machine("b")
    for port in range(5):
        connect(a, b, client_port=1000 + port)
        world.passes(1)
    a.says(a.tcp(b, 1000, 22, ACK))
    a.says(a.tcp(b, 2000, 22, SYN))
    ports = sorted(int.from_bytes(key[8:10], "big") for key in a.interface.flows)
    assert ports == [1000, 1002, 1003, 1004, 2000]


def test_flows_outward_are_bounded_too() -> None:
    world = World(NetworkConfig(flows=10))
    a = world.machine("a", groups=())
    for port in range(100):
        a.says(a.udp(FAR, 1000 + port, 53))
    assert world.network.flows(a.interface) == 10
    assert len(world.outside.hears()) == 100
