"""Whatever a guest or the world sends, nothing raises and nothing is left half done."""

from __future__ import annotations

import ipaddress
import os
import struct
import threading
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.network import ipv4, offload
from celaje.network.public_pool import PublicPool
from celaje.network.scheduling import ask_for_short_slices
from tests.network.test_nat_conversations import World

POOL = ipaddress.IPv4Network("198.51.100.0/24")
PUBLIC = int(POOL[10])

PROTOCOLS = st.sampled_from([ipv4.ICMP, ipv4.TCP, ipv4.UDP, 47, 255])
ADDRESSES = st.sampled_from([0x08080808, 0x7F000001, 0x0A4D0001, 0xA9FEA9FE, PUBLIC, PUBLIC + 1, 0xC6336401])
LINKS = st.one_of(
    st.just(offload.NOTHING),
    st.just(struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 16, 1)),
    st.just(struct.pack("<BBHHHHH", 1, 1, 54, 1000, 34, 16, 1)),
    st.binary(min_size=12, max_size=12),
)
TRANSPORTS = st.one_of(
    st.binary(min_size=8, max_size=80),
    st.tuples(st.binary(min_size=12, max_size=12), st.integers(0, 255), st.integers(0, 63), st.binary(min_size=6)).map(
        lambda parts: parts[0] + bytes(parts[1:3]) + parts[3]
    ),
)


class Device:
    """A TUN device that keeps what is written to it."""

    def __init__(self, address: ipaddress.IPv4Interface, mtu: int) -> None:
        self.descriptor, self._other = os.pipe()
        self.sent: list[bytes] = []

    def receive(self) -> bytes | None:
        return None

    def send(self, parts: list[bytes]) -> bool:
        self.sent.append(b"".join(parts))
        return True

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self._other)


def pool_of(world: World) -> PublicPool:
    return PublicPool(
        world.loop,
        world.network,
        POOL,
        1500,
        Counter(),
        lambda address: address >> 24 in (127, 10),
        Device,  # type: ignore[arg-type]
    )


@given(st.lists(st.tuples(LINKS, PROTOCOLS, ADDRESSES, TRANSPORTS), max_size=20))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_guest_may_send_anything_through_nat_and_through_a_pool(
    packets: list[tuple[bytes, int, int, bytes]],
) -> None:
    for with_pool in (False, True):
        world = World()
        pool = pool_of(world)
        if with_pool:
            world.flows.exit = pool.add(PUBLIC, world.interface)
        for link, protocol, destination, transport in packets:
            world.guest.packet(destination, protocol, [transport], link)
            world.nat.settle()
        world.passes(400.0)
        world.nat.detached(world.interface)
        assert sum(world.nat.tables().values()) == 0
        pool.close()


@given(st.one_of(st.binary(max_size=120), st.tuples(LINKS, PROTOCOLS, ADDRESSES, TRANSPORTS)))
@settings(deadline=None, max_examples=300)
def test_the_world_may_send_anything_to_a_public_address(packet: bytes | tuple[bytes, int, int, bytes]) -> None:
    world = World()
    pool = pool_of(world)
    pool.add(PUBLIC, world.interface)
    if isinstance(packet, tuple):
        link, protocol, source, transport = packet
        packet = link + ipv4.header(source, PUBLIC, protocol, len(transport)) + transport
    pool.inward(memoryview(packet))
    pool.close()


def test_short_time_slices_are_given_or_refused_with_a_reason() -> None:
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(ask_for_short_slices()))  # it is for that thread alone
    thread.start()
    thread.join()
    assert said[0] is None or said[0]
