"""Attaching and detaching: names, MAC addresses, addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.errors import InputError
from celaje.network.interface import InterfaceConfig
from celaje.network.network import Assignment, Network, NetworkConfig
from tests.network.conversation import ROUTER_MAC, Outside, World

MAC = bytes.fromhex("525400000001")
CONFIG = InterfaceConfig("a", MAC)


def taken(parts: object) -> bool:
    return True


def network(config: NetworkConfig | None = None, assignments: tuple[Assignment, ...] = ()) -> Network:
    return Network(config or NetworkConfig(), Outside(), lambda: 1000.0, assignments)


def test_addresses_are_given_out_from_the_tenth_on() -> None:
    net = network()
    first = net.attach(CONFIG, taken)
    second = net.attach(InterfaceConfig("b", MAC[:5] + b"\x02"), taken)
    assert (first.address, second.address) == (0x0A4D000A, 0x0A4D000B)
    assert net.interfaces == (first, second)


def test_a_name_and_mac_address_keep_their_address() -> None:
    net = network()
    first = net.attach(CONFIG, taken)
    net.detach(first)
    assert net.interfaces == ()
    other = net.attach(InterfaceConfig("b", MAC[:5] + b"\x02"), taken)
    again = net.attach(CONFIG, taken)
    assert (again.address, other.address) == (first.address, first.address + 1)
    net.detach(first)  # it is gone already; the new one stays
    assert net.interfaces == (other, again)


def test_addresses_outlive_the_process_that_gave_them() -> None:
    before = network()
    for number in range(5):
        before.attach(InterfaceConfig(f"m{number}", MAC[:5] + bytes((number,))), taken)
    after = network(assignments=before.assignments)
    last = after.attach(InterfaceConfig("m4", MAC[:5] + b"\x04"), taken)
    new = after.attach(InterfaceConfig("new", MAC[:5] + b"\x09"), taken)
    assert (last.address, new.address) == (0x0A4D000E, 0x0A4D000F)


def test_assignments_that_cannot_be_are_forgotten() -> None:
    wrong = (
        Assignment("x", MAC, 0x0A4D0001),
        Assignment("y", MAC, 0x01020304),
        Assignment("a", MAC, 0x0A4D000A),
        Assignment("z", MAC, 0x0A4D000A),
    )
    assert network(assignments=wrong).assignments == (Assignment("a", MAC, 0x0A4D000A),)


def test_an_address_may_be_asked_for() -> None:
    net = network()
    assert net.attach(replace(CONFIG, address=0x0A4D0003), taken).address == 0x0A4D0003
    assert net.attach(InterfaceConfig("b", MAC[:5] + b"\x02", address=0x0A4DFFFE), taken).address == 0x0A4DFFFE


@pytest.mark.parametrize("address", [0x0A4D0000, 0x0A4D0001, 0x0A4D0002, 0x0A4DFFFF, 0x0A4E0000, 0])
def test_an_address_that_is_none_of_the_networks_is_refused(address: int) -> None:
    with pytest.raises(
        InputError, match=r"none of the network's for machines, which are 10\.77\.0\.3 to 10\.77\.255\.254"
    ):
        network().attach(replace(CONFIG, address=address), taken)


def test_an_address_in_use_is_refused_and_one_that_was_is_not() -> None:
    net = network()
    first = net.attach(CONFIG, taken)
    other = InterfaceConfig("b", MAC[:5] + b"\x02", address=first.address)
    with pytest.raises(InputError, match=r"10\.77\.0\.10 is a's, which is attached"):
        net.attach(other, taken)
    net.detach(first)
    assert net.attach(other, taken).address == first.address
    assert net.attach(CONFIG, taken).address != first.address


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(CONFIG, mac=MAC[:5] + b"\x02"), "an interface 'a' is attached already"),
        (replace(CONFIG, name="b"), "52:54:00:00:00:01 of 'b' is that of 'a', which is attached"),
        (replace(CONFIG, name="b", mac=b"\x01" + MAC[1:]), "must be one of a single interface"),
        (replace(CONFIG, name="b", mac=ROUTER_MAC), "not the router's"),
        (replace(CONFIG, name="b", mac=MAC[:5] + b"\x02", host_name="-x"), "the host name '-x' must be letters"),
        (replace(CONFIG, name="b_", mac=MAC[:5] + b"\x02"), "the host name 'b_' must be letters"),
        (replace(CONFIG, name="b", mac=MAC[:5] + b"\x02", host_name="x" * 64), "at most 63"),
        (replace(CONFIG, name="b", mac=MAC[:5] + b"\x02", to_guest=1), "at least 1,000 bytes a second, not 1"),
    ],
)
def test_what_cannot_be_attached_is_refused_and_changes_nothing(config: InterfaceConfig, message: str) -> None:
    net = network()
    first = net.attach(CONFIG, taken)
    before = net.assignments
    with pytest.raises(InputError, match=message):
        net.attach(config, taken)
    assert net.interfaces == (first,)
    assert net.assignments == before


def test_a_full_network_gives_the_address_that_was_unused_longest() -> None:
    net = network(NetworkConfig(subnet=0x0A000000, prefix_length=28, first_lease=10, domain="x"))
    there = [net.attach(InterfaceConfig(f"m{number}", MAC[:5] + bytes((number,))), taken) for number in range(5)]
    with pytest.raises(InputError, match=r"all addresses of the network, 10\.0\.0\.10 to 10\.0\.0\.14, are in use"):
        net.attach(InterfaceConfig("m5", MAC[:5] + b"\x05"), taken)
    net.detach(there[3])
    net.detach(there[1])
    assert net.attach(InterfaceConfig("m5", MAC[:5] + b"\x05"), taken).address == there[1].address
    assert net.attach(InterfaceConfig("m1", MAC[:5] + b"\x01"), taken).address == there[3].address


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NetworkConfig(subnet=0x0A4D0001), "must begin at its first address"),
        (NetworkConfig(prefix_length=29, subnet=0x0A000000), "8 to 28 bits"),
        (NetworkConfig(mtu=575), "576 to 9001 bytes, not 575"),
        (NetworkConfig(mtu=9002), "576 to 9001"),
        (NetworkConfig(domain=""), "must be names with dots between them"),
        (NetworkConfig(domain="a..b"), "must be names with dots between them"),
    ],
)
def test_a_network_that_cannot_be_is_refused(config: NetworkConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network(config)


def test_a_network_with_nothing_to_do_has_no_deadline() -> None:
    world = World()
    world.machine("a")
    assert world.network.poll(world.now) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.none() | st.integers(2, 16)), max_size=60))
def test_addresses_are_never_shared_whoever_comes_and_goes(steps: list[tuple[int, bool, int | None]]) -> None:
    net = network(NetworkConfig(subnet=0x0A000000, prefix_length=28, first_lease=5, domain="x"))
    there = {}
    for number, comes, wish in steps:
        if comes and number not in there:
            config = InterfaceConfig(f"m{number}", MAC[:5] + bytes((number,)))
            try:
                interface = net.attach(replace(config, address=wish and 0x0A000000 + wish), taken)
            except InputError:
                continue
            there[number] = interface
        elif not comes and number in there:
            net.detach(there.pop(number))
        assert len({one.address for one in there.values()}) == len(there)
        assert {one.address for one in there.values()} <= {0x0A000000 + offset for offset in range(3, 15)}
        owned = [one.address for one in net.assignments]
        assert len(set(owned)) == len(owned)
