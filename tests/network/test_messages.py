"""The control messages: what is said comes back the same, and what is no message is refused by name."""

from __future__ import annotations

import ipaddress

import pytest

from celaje.network import messages
from celaje.network.addresses import CLOUD, loopback_address
from celaje.network.messages import Attach, Attached, Forward, NetworkSettings, Rule

ATTACH = Attach(
    network=NetworkSettings(),
    interface="web",
    host_name="web",
    mac="52:54:00:00:00:01",
    groups=messages.default_groups("web", (Forward("tcp", "127.0.0.1", 2222, 22),), (("tcp", 80, 81),)),
    metadata=messages.MetadataFacts("i-1", "web", {"me": "ssh-ed25519 AAAA"}, user_data=b"\x00\xff#!"),
)


def test_a_request_comes_back_as_it_was_said() -> None:
    assert messages.decoded_request(messages.encoded(ATTACH)) == ATTACH


def test_an_answer_comes_back_as_it_was_said() -> None:
    said = Attached(
        address="10.77.0.10", prefix_length=16, router="10.77.0.1", dns="10.77.0.2", mtu=1500, public_address=None
    )
    assert messages.decoded_answer(messages.encoded(said)) == said


def test_another_version_is_refused_before_its_contents_are_read() -> None:
    with pytest.raises(messages.Unreadable, match="has version 2 and must have 1") as refused:
        messages.decoded_request(b'{"message":"something of the future","version":2}')
    assert refused.value.answer.cause == "version"


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b'{"version":1}', b'{"version":1,"message":"proxy","host":"a"}',
     b'{"version":1,"message":"list","colour":"red"}', b'{"version":1,"message":"attached"}'],
)  # fmt: skip
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(messages.Unreadable, match="malformed control message") as refused:
        messages.decoded_request(data)
    assert refused.value.answer.cause == "malformed"


def test_a_message_that_no_control_socket_carries_is_refused_where_it_is_made() -> None:
    rules = tuple(Rule("in", "tcp", f"10.0.{one >> 8}.{one & 255}/32", 22, 22) for one in range(4000))
    with pytest.raises(messages.Unreadable, match="shorten"):
        messages.encoded(messages.Update(interface="web", groups=(messages.SecurityGroup("wide", rules),)))


def test_the_default_rules_admit_ssh_icmp_forwards_and_what_was_allowed() -> None:
    together, own = messages.default_groups("web", (Forward("udp", "127.0.0.1", 5353, 53),), (("tcp", 80, 90),))
    assert Rule("in", "any", "group:machines") in together.rules
    assert own.rules == (
        Rule("in", "tcp", "0.0.0.0/0", 22, 22),
        Rule("in", "icmp"),
        Rule("in", "udp", "0.0.0.0/0", 53, 53),
        Rule("in", "tcp", "0.0.0.0/0", 80, 90),
    )


def test_a_machine_has_the_same_loopback_address_whenever_it_is_asked() -> None:
    address = loopback_address("web")
    assert address.startswith("127.")
    assert loopback_address("web") == address
    assert loopback_address("db") != address


def test_no_name_stands_for_an_address_that_is_a_clouds() -> None:
    addresses = {ipaddress.IPv4Address(loopback_address(f"machine-{number}")) for number in range(2_000)}
    assert not any(one in CLOUD for one in addresses)
    assert {int(one) >> 22 & 3 for one in addresses} == {0, 2, 3}, "all others of 127/8 are names'"


def test_a_taken_address_gives_way_to_another() -> None:
    first = loopback_address("web")
    second = loopback_address("web", {first})
    assert second != first
    assert loopback_address("web", {first, second}) not in (first, second)
