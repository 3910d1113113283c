"""Bytes both ways over an open connection: order, acknowledgments and windows, as conversations with a guest."""

from __future__ import annotations

import pytest

from celaje.network.tcp import READABLE, WRITABLE, State, TcpSettings
from celaje.network.tcp_segment import ACK, TcpSegment, syn_options
from tests.network.tcp_guest import Guest

SEQUENCES = [(1000, 5000), (2**32 - 2, 2**32 - 700), (2**31 - 2, 2**31 - 700)]


@pytest.fixture(params=SEQUENCES)
def guest(request: pytest.FixtureRequest) -> Guest:
    guest = Guest(request.param)
    guest.opens(options=syn_options(1460, 7, True), window=1 << 9)
    guest.says("A", 1, 1, window=1 << 12)  # 512 KiB
    guest.hears_nothing()
    return guest


# ---- from the guest


def test_what_the_guest_says_can_be_read_and_is_acknowledged_with_the_answer(guest: Guest) -> None:
    assert guest.says("PA", 1, 1, b"ping") == READABLE
    assert guest.reads() == b"ping"
    guest.network.write(b"pong")
    guest.hears("PA", 1, 5, b"pong")
    guest.hears_nothing()


def test_without_an_answer_the_acknowledgment_comes_soon(guest: Guest) -> None:
    guest.says("PA", 1, 1, b"ping")
    guest.hears_nothing()
    guest.waits(0.006)
    guest.hears("A", 1, 5)


def test_where_waiting_was_of_no_use_the_next_acknowledgments_come_at_once(guest: Guest) -> None:
    guest.says("PA", 1, 1, b"a")
    guest.waits(0.006)
    guest.hears("A", 1, 2)
    for at in range(16):
        guest.says("PA", 2 + at, 1, b"b")
        guest.hears("A", 1, 3 + at)
    guest.says("PA", 18, 1, b"c")
    guest.hears_nothing()


def test_more_than_a_segment_is_acknowledged_at_once(guest: Guest) -> None:
    guest.says("A", 1, 1, bytes(1460))
    guest.hears_nothing()
    guest.says("A", 1461, 1, bytes(1460))
    guest.hears("A", 1, 2921)
    guest.says("A", 2921, 1, bytes(40_000))
    guest.hears("A", 1, 42_921)
    guest.hears_nothing()


def test_what_comes_in_one_round_is_acknowledged_once(guest: Guest) -> None:
    for at in range(8):
        guest.says("A", 1 + at * 1460, 1, bytes(1460))
    guest.hears("A", 1, 1 + 8 * 1460)
    guest.hears_nothing()


def test_bytes_that_come_out_of_order_are_reported_and_put_in_order(guest: Guest) -> None:
    assert guest.says("A", 1001, 1, b"c" * 1000) == 0
    guest.hears("A", 1, 1, sack=[(1001, 2001)])
    assert guest.says("A", 3001, 1, b"e" * 1000) == 0
    guest.hears("A", 1, 1, sack=[(3001, 4001), (1001, 2001)])
    assert guest.says("A", 2001, 1, b"d" * 1000) == 0
    guest.hears("A", 1, 1, sack=[(1001, 4001)])
    assert guest.reads() == b""
    assert guest.says("A", 1, 1, b"b" * 1000) == READABLE
    guest.hears("A", 1, 4001)
    assert guest.reads() == b"b" * 1000 + b"c" * 1000 + b"d" * 1000 + b"e" * 1000


def test_a_guest_without_sack_hears_plain_duplicates() -> None:
    guest = Guest((7, 8))
    guest.opens(options=syn_options(1460, 7, False))
    guest.says("A", 11, 1, b"later")
    guest.hears("A", 1, 1, sack=[])


def test_bytes_that_overlap_count_once(guest: Guest) -> None:
    guest.says("A", 1, 1, b"abcdef")
    guest.says("A", 4, 1, b"defghi")
    guest.says("A", 1, 1, b"abc")
    guest.hears("A", 1, 10)
    guest.says("A", 13, 1, b"mnop")
    guest.says("A", 11, 1, b"klmnopqr")
    guest.says("A", 10, 1, b"jk")
    assert guest.reads() == b"abcdefghijklmnopqr"


def test_a_repetition_is_answered_at_once(guest: Guest) -> None:
    guest.says("PA", 1, 1, b"hello")
    guest.waits(0.01)
    guest.hears("A", 1, 6)
    assert guest.says("PA", 1, 1, b"hello") == 0
    assert guest.heard[0][0].acknowledgment == (guest.own + 6) & 0xFFFFFFFF
    assert guest.reads() == b"hello"


def test_urgent_bytes_are_in_line(guest: Guest) -> None:
    guest.says("UPA", 1, 1, b"a!b")
    assert guest.reads() == b"a!b"


def test_the_window_shrinks_by_what_is_not_read_and_opens_when_it_is(guest: Guest) -> None:
    said = 0
    while said < 512 << 10:
        guest.says("A", 1 + said, 1, bytes(32 << 10))
        said += 32 << 10
        guest.hears("A", 1, 1 + said, window=((512 << 10) - said) >> 4)
    # A probe of a closed window is answered, and its byte not taken.
    assert guest.says("A", 1 + said, 1, b"x") == 0
    guest.hears("A", 1, 1 + said, window=0)
    guest.network.consume(1000)
    guest.hears_nothing()  # that is no window worth mentioning
    guest.network.consume(2000)
    guest.hears("A", 1, 1 + said, window=3000 >> 4)
    guest.network.consume(500_000)
    guest.hears("A", 1, 1 + said, window=503_000 >> 4)
    guest.network.consume(1)
    guest.hears_nothing()


def test_what_goes_beyond_the_window_is_cut_off(guest: Guest) -> None:
    for said in range(0, 500_000, 50_000):
        guest.says("A", 1 + said, 1, bytes(50_000))
        guest.hears("A", 1, 50_001 + said)
    guest.says("PA", 500_001, 1, bytes(60_000))
    guest.hears("A", 1, 1 + (512 << 10), window=0)
    assert guest.says("A", 1 + (512 << 10) + 5, 1, b"x") == 0
    guest.hears("A", 1, 1 + (512 << 10), window=0)


def test_the_windows_end_never_moves_back(guest: Guest) -> None:
    guest.says("A", 1, 1, bytes(2000))
    end = 2001 + (guest.hears("A", 1, 2001).window << 4)
    guest.says("A", 2001, 1, bytes(2000))
    assert 4001 + (guest.hears("A", 1, 4001).window << 4) >= end - 15


def test_more_than_was_received_cannot_be_consumed(guest: Guest) -> None:
    guest.says("A", 1, 1, b"abc")
    with pytest.raises(ValueError, match="4 bytes cannot be consumed of 3"):
        guest.network.consume(4)


def test_a_buffer_that_may_change_is_copied() -> None:
    guest = Guest((0, 0))
    guest.opens()
    buffer = bytearray(b"x" * 5000)
    guest.network.receive(TcpSegment(40000, 80, 1, 1, ACK, 1000, b"", memoryview(buffer)), guest.now, stable=False)
    buffer[:] = b"y" * 5000
    assert guest.reads() == b"x" * 5000


# ---- towards the guest


def test_large_writes_leave_in_large_frames(guest: Guest) -> None:
    data = bytes(range(256)) * 500
    assert guest.network.write(data) == 128_000
    guest.hears("A", 1, 1, data[:64_240], gso=1460)
    guest.hears_nothing()
    guest.says("A", 1, 64_241, window=1 << 12)
    guest.hears("AP", 64_241, 1, data[64_240:], gso=1460)


def test_pieces_of_many_writes_leave_together_and_are_not_joined(guest: Guest) -> None:
    pieces = [bytes([at]) * 3000 for at in range(10)]
    sent: list[object] = []
    guest.network._transmit = lambda parts, _: sent.extend(parts[1:])
    for piece in pieces:
        guest.network.write(piece)
    guest.network.poll(guest.now)
    assert [id(piece) for piece in sent] == [id(piece) for piece in pieces]


def test_the_smallest_write_leaves_at_once(guest: Guest) -> None:
    for at in range(5):
        guest.network.write(b"x")
        guest.hears("AP", 1 + at, 1, b"x")


def test_writing_stops_where_the_capacity_does_and_goes_on_when_a_quarter_is_free(guest: Guest) -> None:
    capacity = 512 << 10
    assert guest.network.write(bytes(400_000)) == 400_000
    assert guest.network.room == 0  # less than a quarter
    assert guest.network.write(bytes(200_000)) == capacity - 400_000
    assert guest.network.write(b"x") == 0
    guest.network.poll(guest.now)
    acked, events = 0, 0
    while not events & WRITABLE:
        segment = guest.hears("A", 1 + acked, 1, None)
        acked += len(segment.payload)
        events = guest.says("A", 1, 1 + acked, window=1 << 12)
        guest.network.poll(guest.now)
    assert guest.network.room == acked >= capacity // 4


def test_a_small_window_is_filled_and_not_overfilled(guest: Guest) -> None:
    guest.says("A", 1, 1, window=3000 >> 7)
    guest.network.write(bytes(10_000))
    guest.hears("A", 1, 1, bytes(2920))
    guest.hears_nothing()
    guest.says("A", 1, 2921, window=3000 >> 7)
    guest.hears("A", 2921, 1, bytes(2920))


def test_a_closed_window_is_probed_ever_more_seldom_for_as_long_as_the_guest_answers(guest: Guest) -> None:
    guest.says("A", 1, 1, window=0)
    guest.network.write(b"hello")
    guest.hears_nothing()
    probes = 0
    for _ in range(3600):
        guest.waits(1)
        while guest.heard:
            guest.hears("A", 0, 1)
            probes += 1
            assert guest.says("A", 1, 1, window=0) == 0
    assert 60 <= probes <= 70
    assert guest.says("A", 1, 1, window=100) == 0
    guest.hears("AP", 1, 1, b"hello")


def test_a_closed_window_of_a_guest_that_answers_no_probe_is_given_up(guest: Guest) -> None:
    guest.says("A", 1, 1, window=0)
    guest.network.write(b"hello")
    guest.waits(3600)
    assert guest.heard.pop()[0].flags & 0x04  # a reset, for what it is worth
    assert len(guest.heard) == 12
    guest.heard.clear()
    guest.closed()


def test_a_window_that_stays_silly_is_used_in_the_end(guest: Guest) -> None:
    guest.says("A", 1, 1, window=1)  # 128 bytes
    guest.network.write(b"x" * 1000)
    guest.hears_nothing()
    guest.waits(1.1)
    guest.hears("A", 1, 1, b"x" * 128)


def test_an_old_segment_does_not_change_the_window(guest: Guest) -> None:
    guest.says("PA", 1, 1, b"abc", window=1 << 12)
    guest.says("A", 4, 1, window=1 << 11)
    guest.says("A", 1, 1, b"abcd", window=0)
    guest.network.write(bytes(2000))
    guest.waits(0.01)
    assert any(len(segment.payload) == 2000 for segment, _ in guest.heard)


def test_a_window_that_shrinks_holds_back_what_is_not_sent(guest: Guest) -> None:
    guest.network.write(bytes(100_000))
    guest.hears("A", 1, 1, bytes(64_240))
    guest.says("A", 1, 1 + 1460, window=10)
    guest.says("A", 1, 1 + 2920, window=0)
    guest.hears_nothing()
    guest.says("A", 1, 64_241, window=1 << 12)
    guest.hears("AP", 64_241, 1, bytes(100_000 - 64_240))


def test_a_quiet_connection_is_asked_for_a_sign_of_life() -> None:
    guest = Guest((5, 6), TcpSettings(keepalive_idle=100, keepalive_interval=10, keepalive_probes=3))
    guest.opens()
    guest.waits(50)
    guest.says("A", 1, 1)
    guest.waits(99)
    guest.hears_nothing()
    guest.waits(2)
    guest.hears("A", 0, 1)
    guest.says("A", 1, 1)
    guest.waits(98)
    guest.hears_nothing()
    guest.waits(35)
    for _ in range(3):
        guest.hears("A", 0, 1)
    guest.hears("RA", 1, None)
    guest.closed()


def test_an_idle_connection_asks_for_nothing_for_two_hours(guest: Guest) -> None:
    guest.waits(0)
    assert 7100 < guest.network.deadline - guest.now <= 7200


def test_the_guests_own_probe_is_answered(guest: Guest) -> None:
    guest.says("A", 0, 1)
    guest.hears("A", 1, 1)
    assert guest.network.state is State.ESTABLISHED
