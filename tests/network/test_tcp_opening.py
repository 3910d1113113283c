"""How connections begin, as conversations with a guest (RFC 9293, 3.5 and 3.10)."""

from __future__ import annotations

import pytest

from celaje.network.tcp import CLOSED, ESTABLISHED, RESET, SUPERSEDED, WRITABLE, InitialSequences, State, TcpSettings
from celaje.network.tcp_segment import SynOptions, TcpSegment, reset_for, syn_options
from tests.network.tcp_guest import Guest

MODERN = syn_options(1460, 7, True)


@pytest.fixture(params=[(1000, 5000), (2**32 - 1, 2**32 - 1), (2**31 - 1, 0)])
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(request.param)


def test_a_guest_opens_and_hears_of_it_once_the_owner_accepts(guest: Guest) -> None:
    guest.says("S", options=MODERN)
    assert guest.network.state is State.HELD
    guest.hears_nothing()
    guest.network.accept()
    answer = guest.hears("SA", 0, 1, window=0xFFFF)
    options = SynOptions(answer.options)
    assert (options.mss, options.window_scale, options.sack_permitted) == (1460, 4, True)
    assert guest.says("A", 1, 1) == ESTABLISHED | WRITABLE
    guest.hears_nothing()


def test_what_the_guest_does_not_offer_is_not_answered(guest: Guest) -> None:
    guest.says("S")
    guest.network.accept()
    options = SynOptions(guest.hears("SA", 0, 1).options)
    assert (options.mss, options.window_scale, options.sack_permitted) == (1460, None, False)


def test_a_guest_that_is_refused_hears_a_reset_of_its_syn(guest: Guest) -> None:
    guest.says("S")
    guest.network.refuse()
    segment = guest.heard[0][0]
    assert segment.sequence == 0
    guest.heard.clear()
    guest.closed()


def test_a_guest_that_is_dropped_hears_nothing(guest: Guest) -> None:
    guest.says("S")
    guest.network.drop()
    guest.closed()


def test_a_syn_that_is_repeated_while_it_is_held_changes_nothing(guest: Guest) -> None:
    guest.says("S")
    assert guest.says("S") == 0
    guest.hears_nothing()
    guest.network.accept()
    guest.hears("SA", 0, 1)


def test_a_guest_may_think_better_of_it_while_its_syn_is_held(guest: Guest) -> None:
    guest.says("S")
    assert guest.says("R", 5) == 0
    assert guest.says("R", 1) == RESET | CLOSED
    guest.closed()


def test_another_syn_of_the_same_ports_supersedes_the_one_that_is_held(guest: Guest) -> None:
    guest.says("S")
    assert guest.says("S", 777) == SUPERSEDED | CLOSED


def test_a_syn_that_is_repeated_is_answered_again(guest: Guest) -> None:
    guest.says("S")
    guest.network.accept()
    guest.hears("SA", 0, 1)
    guest.says("S")
    guest.hears("SA", 0, 1)
    assert guest.says("A", 1, 1) & ESTABLISHED


def test_an_answer_that_is_lost_is_repeated_ever_more_seldom_and_then_given_up(guest: Guest) -> None:
    guest.says("S")
    guest.network.accept()
    guest.hears("SA", 0, 1)
    for seconds in (1, 2, 4, 8, 16):
        assert guest.waits(seconds - 0.01) == 0
        guest.hears_nothing()
        guest.waits(0.02)
        guest.hears("SA", 0, 1)
        guest.now -= 0.01
    assert guest.waits(33) == RESET | CLOSED
    guest.closed()


def test_the_third_segment_may_carry_data_already(guest: Guest) -> None:
    guest.says("S", options=MODERN)
    guest.network.accept()
    guest.hears("SA", 0, 1)
    assert guest.says("PA", 1, 1, b"hello") & ESTABLISHED
    assert guest.reads() == b"hello"


def test_data_in_a_syn_is_left_for_the_guest_to_repeat(guest: Guest) -> None:
    guest.says("S", data=b"early")
    guest.network.accept()
    guest.hears("SA", 0, 1)
    guest.says("A", 1, 1, b"early")
    assert guest.reads() == b"early"


def test_an_acknowledgment_of_what_was_never_sent_is_reset(guest: Guest) -> None:
    guest.says("S")
    guest.network.accept()
    guest.hears("SA", 0, 1)
    for ack in (0, 2, 2**31):
        assert guest.says("A", 1, ack) == 0
        guest.hears("R", ack, None)
    assert guest.says("A", 1, 1) & ESTABLISHED


def test_a_reset_ends_an_opening(guest: Guest) -> None:
    guest.says("S")
    guest.network.accept()
    guest.hears("SA", 0, 1)
    assert guest.says("R", 1) == RESET | CLOSED
    guest.closed()


def test_the_network_opens(guest: Guest) -> None:
    guest.network.open()
    options = SynOptions(guest.hears("S", 0).options)
    assert (options.mss, options.window_scale, options.sack_permitted) == (1460, 4, True)
    assert guest.says("SA", 0, 1, options=MODERN, window=1000) == ESTABLISHED | WRITABLE
    guest.hears("A", 1, 1, window=(512 << 10) >> 4)
    assert guest.network.write(b"x" * 5000) == 5000
    guest.hears("A", 1, 1, b"x" * 1000)  # a SYN's window is not scaled


def test_what_is_written_before_the_connection_is_open_leaves_when_it_is(guest: Guest) -> None:
    guest.network.open()
    guest.network.write(b"hello")
    guest.network.close()
    guest.hears("S", 0)
    guest.says("SA", 0, 1)
    guest.hears("APF", 1, 1, b"hello")
    assert guest.network.state is State.FIN_WAIT_1


def test_nobody_at_home_is_a_reset(guest: Guest) -> None:
    guest.network.open()
    guest.hears("S", 0)
    assert guest.says("RA", 0, 1) == RESET | CLOSED
    guest.closed()


def test_a_reset_that_does_not_acknowledge_the_syn_counts_for_nothing(guest: Guest) -> None:
    guest.network.open()
    guest.hears("S", 0)
    assert guest.says("R", 0) == 0
    assert guest.says("RA", 0, 7) == 0
    guest.hears_nothing()
    assert guest.says("SA", 0, 1) & ESTABLISHED


def test_a_half_open_guest_is_reset_and_then_opened(guest: Guest) -> None:
    guest.network.open()
    guest.hears("S", 0)
    assert guest.says("A", 300, 100) == 0
    guest.hears("R", 100)
    guest.waits(1.1)
    guest.hears("S", 0)
    assert guest.says("SA", 0, 1) & ESTABLISHED


def test_nothing_answers_before_the_syn_was_sent(guest: Guest) -> None:
    guest.network.open()
    assert guest.says("SA", 0, 0) == 0
    guest.heard.clear()
    assert guest.network.state is State.SYN_SENT


def test_a_guest_that_never_answers_is_given_up(guest: Guest) -> None:
    guest.network.open()
    assert guest.waits(100) == RESET | CLOSED
    assert len(guest.heard) == 6
    guest.heard.clear()
    guest.closed()


@pytest.mark.parametrize("last", ["A", "SA"])
def test_both_may_open_at_once(guest: Guest, last: str) -> None:
    guest.network.open()
    guest.hears("S", 0)
    assert guest.says("S", 0, options=MODERN) == 0
    guest.hears("SA", 0, 1)
    assert guest.says(last, 0 if last == "SA" else 1, 1) & ESTABLISHED
    assert guest.network.state is State.ESTABLISHED
    guest.says("PA", 1, 1, b"hello")
    assert guest.reads() == b"hello"


def test_a_syn_within_a_connection_is_challenged(guest: Guest) -> None:
    guest.opens()
    assert guest.says("S", 5000) == 0
    guest.hears("A", 1, 1)
    assert guest.network.state is State.ESTABLISHED
    # A guest that has been started again answers so, and may then open anew.
    assert guest.says("R", 1) == RESET | CLOSED


@pytest.mark.parametrize(("offered", "taken"), [(0, 536), (1, 88), (16, 88), (1000, 1000), (9000, 1460)])
def test_an_mss_that_nobody_means_does_not_become_a_frame_a_byte(guest: Guest, offered: int, taken: int) -> None:
    guest.opens(options=syn_options(offered, None, True))
    guest.network.write(bytes(3000))
    guest.hears("AP", 1, 1, bytes(3000), gso=taken)


@pytest.mark.parametrize(
    "options",
    [
        b"\x02",
        b"\x02\x00",
        b"\x02\x01\x00\x00",
        b"\x02\xff\x05\xb4",
        b"\x02\x03\x05\x00",
        b"\x03\x03\xff\x00",
        b"\x03\x02\x01\x01",
        b"\x00\x02\x04\x05\xb4\x00\x00\x00",
        b"\xfe\x02\xfd\x08\x01\x02\x03\x04\x05\x06\x00\x00",
        b"\x01" * 40,
        b"\x04\x02\x04\x03\x00\x00\x00\x00",
        bytes(range(40)),
    ],
)
def test_options_that_make_no_sense_are_passed_over(guest: Guest, options: bytes) -> None:
    guest.opens(options=options)
    guest.network.write(b"hello")
    guest.hears("AP", 1, 1, b"hello")


def test_a_window_scale_above_14_counts_as_14() -> None:
    assert SynOptions(b"\x03\x03\xff\x00").window_scale == 14


def test_without_scaling_the_window_is_64_kib_at_most() -> None:
    guest = Guest((0, 0), TcpSettings(receive_capacity=1 << 20))
    guest.opens()
    for at in range(10):
        guest.says("A", 1 + at * 6000, 1, bytes(6000))
    guest.hears("A", 1, 60001, window=0xFFFF - 60000)
    guest.says("A", 60001, 1, bytes(6000))
    guest.hears("A", 1, 65536, window=0)
    assert len(guest.reads()) == 0xFFFF


def test_initial_sequence_numbers_differ_by_their_ends_and_grow_with_time() -> None:
    numbers = InitialSequences(b"0123456789abcdef")
    first = numbers((1, 2), (3, 4), 10.0)
    assert numbers((1, 2), (3, 4), 11.0) == (first + 250_000) & 0xFFFFFFFF
    assert numbers((1, 2), (3, 5), 10.0) != first
    assert InitialSequences(b"0123456789abcdeg")((1, 2), (3, 4), 10.0) != first


def test_what_belongs_to_no_connection_is_reset_but_a_reset_never() -> None:
    assert reset_for(TcpSegment(1, 2, 100, 200, 0x10, 0)) == (200, 0, 0x04)
    assert reset_for(TcpSegment(1, 2, 2**32 - 1, 0, 0x02, 0, b"", b"ab")) == (0, 2, 0x14)
    assert reset_for(TcpSegment(1, 2, 100, 0, 0x01, 0)) == (0, 101, 0x14)
    assert reset_for(TcpSegment(1, 2, 100, 200, 0x14, 0)) is None


@pytest.mark.parametrize("data", [b"", bytes(19), bytes(12) + b"\x40" + bytes(7), bytes(12) + b"\xf0" + bytes(40)])
def test_a_header_that_is_cut_short_is_no_segment(data: bytes) -> None:
    assert TcpSegment.parse(memoryview(data)) is None
