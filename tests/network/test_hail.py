"""Whether guests are there: each is asked by ARP, and what it says is found the next time somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celaje.network import messages
from tests.network.attached_guest import attach_request
from tests.network.conversation import ROUTER, ROUTER_MAC, World
from tests.network.local_network import LocalNetwork, local_network


@pytest.fixture
def network(runtime: object) -> Iterator[LocalNetwork]:
    with local_network() as made:
        yield made


def ages(network: LocalNetwork) -> dict[str, float | None]:
    answer = network.request(messages.Hail())
    assert isinstance(answer, messages.Heard)
    assert not answer.more
    return answer.ages


def test_the_question_is_one_that_every_guest_answers() -> None:
    world = World()
    a, b = world.machine("a"), world.machine("b")
    world.network.hail(a.interface)
    [message] = a.hears_messages()
    assert message[12:26] == b"\xff" * 6 + ROUTER_MAC + b"\x08\x06"
    assert message[26:54] == (
        b"\0\1\x08\0\6\4\0\1" + ROUTER_MAC + ROUTER.to_bytes(4, "big") + bytes(6) + a.address.to_bytes(4, "big")
    )
    assert b.hears_messages() == []


def test_a_guest_that_has_said_nothing_is_told_from_one_that_is_there(network: LocalNetwork) -> None:
    assert ages(network) == {}
    there = network.attach(attach_request("there", 1))
    silent = network.attach(attach_request("silent", 2))
    there.guest.answers_arp, silent.guest.answers_arp = True, False
    assert ages(network) == {"there": None, "silent": None}
    network.until(lambda: ages(network) == {"there": 0.0, "silent": None})


def test_a_guest_that_falls_silent_grows_old(network: LocalNetwork) -> None:
    guest = network.attach(attach_request("web"))
    network.until(lambda: ages(network) == {"web": 0.0})
    guest.guest.answers_arp = False
    network.until(lambda: ages(network) != {"web": 0.0})
    first = ages(network)["web"]
    network.turns()
    second = ages(network)["web"]
    assert first is not None
    assert second is not None
    assert 0 < first < second
    guest.guest.answers_arp = True
    network.until(lambda: ages(network) == {"web": 0.0})
