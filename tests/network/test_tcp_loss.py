"""What is lost on the way to a guest is sent again, as conversations (RFC 5681, RFC 6298, RFC 6582, RFC 6675)."""

from __future__ import annotations

import pytest

from celaje.network.tcp import CLOSED, RESET, TcpSettings
from celaje.network.tcp_segment import syn_options
from tests.network.tcp_guest import Guest

MSS = 1000
WINDOW = 1 << 12


@pytest.fixture(params=[(1000, 5000), (2**32 - 2, 2**32 - 3_500), (0, 2**31 - 3_500)])
def guest(request: pytest.FixtureRequest) -> Guest:
    guest = Guest(request.param)
    guest.opens(options=syn_options(MSS, 7, True))
    guest.says("A", 1, 1, window=WINDOW)
    guest.hears_nothing()
    return guest


def send(guest: Guest, count: int) -> None:
    """`count` frames of one segment each are on their way."""
    for at in range(count):
        guest.network.write(bytes([at]) * 3 * MSS)
        guest.hears("AP", 1 + at * 3 * MSS, 1, bytes([at]) * 3 * MSS)


def test_what_is_not_acknowledged_is_sent_again_ever_more_seldom_and_then_given_up(guest: Guest) -> None:
    guest.network.write(b"hello")
    guest.hears("AP", 1, 1, b"hello")
    times = []
    start = guest.now
    while not guest.events & CLOSED:
        guest.waits(0.1)
        while guest.heard:
            times.append(round(guest.now - start))
            if guest.heard[0][0].flags & 0x04:
                guest.hears("RA", 6)
            else:
                guest.hears("AP", 1, 1, b"hello")
    assert times == [1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483]
    assert guest.events & RESET
    guest.closed()


def test_the_time_to_wait_is_measured(guest: Guest) -> None:
    for at in range(20):
        guest.network.write(b"x")
        guest.hears("AP", 1 + at, 1, b"x")
        guest.waits(0.02)
        guest.says("A", 1, 2 + at, window=WINDOW)
    guest.network.write(b"y")
    guest.hears("AP", 21, 1, b"y")
    guest.waits(0.29)
    guest.hears_nothing()
    guest.waits(0.02)
    guest.hears("AP", 21, 1, b"y")


def test_a_repetition_is_no_measure(guest: Guest) -> None:
    guest.network.write(b"x")
    guest.hears("AP", 1, 1, b"x")
    guest.waits(1.1)
    guest.hears("AP", 1, 1, b"x")
    guest.says("A", 1, 2, window=WINDOW)
    guest.network.write(b"y")
    guest.hears("AP", 2, 1, b"y")
    guest.waits(0.9)
    guest.hears_nothing()
    guest.waits(0.2)
    guest.hears("AP", 2, 1, b"y")


def test_a_guest_that_reports_what_came_is_sent_what_did_not(guest: Guest) -> None:
    send(guest, 3)
    guest.says("A", 1, 1, window=WINDOW, sack=[(3001, 6001)])
    guest.hears("AP", 1, 1, bytes(3 * MSS))
    guest.hears_nothing()
    guest.says("A", 1, 6001, window=WINDOW)
    guest.hears_nothing()
    guest.says("A", 1, 9001, window=WINDOW)
    guest.waits(3)
    guest.hears_nothing()


def test_each_gap_is_sent_once_and_no_faster_than_half_as_fast(guest: Guest) -> None:
    send(guest, 6)
    guest.says("A", 1, 1, window=WINDOW, sack=[(3001, 6001)])
    guest.hears("AP", 1, 1, bytes(3 * MSS))
    guest.says("A", 1, 1, window=WINDOW, sack=[(9001, 12001), (3001, 6001)])
    guest.hears_nothing()
    guest.says("A", 1, 1, window=WINDOW, sack=[(15001, 18001), (9001, 12001), (3001, 6001)])
    guest.hears("AP", 6001, 1, b"\2" * 3 * MSS)
    guest.hears("AP", 12001, 1, b"\4" * MSS)
    guest.hears_nothing()
    guest.says("A", 1, 6001, window=WINDOW, sack=[(15001, 18001), (9001, 12001)])
    guest.hears("AP", 13001, 1, b"\4" * 2 * MSS)
    guest.says("A", 1, 18001, window=WINDOW)
    guest.hears_nothing()


def test_three_repeated_acknowledgments_are_a_loss_too() -> None:
    guest = Guest((2**32 - 2, 2**32 - 3_500))
    guest.opens(options=syn_options(MSS, 7, False))
    guest.says("A", 1, 1, window=WINDOW)
    send(guest, 5)
    for _ in range(2):
        guest.says("A", 1, 1, window=WINDOW)
        guest.hears_nothing()
    guest.says("A", 1, 1, window=WINDOW)
    guest.hears("AP", 1, 1, bytes(3 * MSS))
    # And where that was not all, the next acknowledgment says what else was lost.
    guest.says("A", 1, 6001, window=WINDOW)
    guest.hears("AP", 6001, 1, b"\2" * 3 * MSS)
    guest.says("A", 1, 15001, window=WINDOW)
    guest.hears_nothing()


def test_acknowledgments_that_carry_data_or_move_the_window_are_no_repetitions(guest: Guest) -> None:
    send(guest, 5)
    for at in range(5):
        guest.says("A", 1 + at, 1, b"x", window=WINDOW)
        guest.says("A", 2 + at, 1, window=WINDOW + at)
        guest.says("A", 2 + at, 1, window=WINDOW)
    guest.waits(0.01)
    guest.hears("A", 15001, 6)
    guest.hears_nothing()


def test_after_a_timeout_sending_begins_slowly(guest: Guest) -> None:
    guest.network.write(bytes(60 * MSS))
    guest.hears("AP", 1, 1, bytes(60 * MSS))
    guest.waits(1.1)
    guest.hears("AP", 1, 1, bytes(MSS))
    guest.says("A", 1, 1 + MSS, window=WINDOW)
    guest.hears("AP", 1 + MSS, 1, bytes(2 * MSS))
    guest.says("A", 1, 1 + 3 * MSS, window=WINDOW)
    guest.hears("AP", 1 + 3 * MSS, 1, bytes(4 * MSS))
    guest.says("A", 1, 1 + 60 * MSS, window=WINDOW)
    guest.hears_nothing()


def test_a_part_of_a_frame_may_be_acknowledged(guest: Guest) -> None:
    data = bytes(range(250)) * 40
    guest.network.write(data)
    guest.hears("AP", 1, 1, data)
    guest.says("A", 1, 1 + 2 * MSS + 7, window=WINDOW)
    guest.waits(1.1)
    guest.hears("AP", 1 + 2 * MSS + 7, 1, data[2 * MSS + 7 : 3 * MSS + 7])


def test_a_fin_that_is_lost_is_sent_again_with_what_went_before_it(guest: Guest) -> None:
    guest.network.write(b"bye")
    guest.network.close()
    guest.hears("APF", 1, 1, b"bye")
    guest.waits(1.1)
    guest.hears("APF", 1, 1, b"bye")
    guest.says("A", 1, 4, window=WINDOW)
    guest.waits(1.1)
    guest.hears("APF", 4, 1, b"")


def test_a_report_that_cannot_be_is_passed_over(guest: Guest) -> None:
    send(guest, 3)
    blocks = [(9001, 99_001), (6001, 3001), (1, 1), (2**31, 2**31 + 5), (-5000, 0), (0, 9001)]
    for block in blocks:
        guest.says("A", 1, 1, window=WINDOW + 1, sack=[block])
        guest.says("A", 1, 1, window=WINDOW, sack=[block])
    guest.hears_nothing()
    for length in range(2, 40):
        guest.says("A", 1, 1, window=WINDOW + length, options=(b"\5" + bytes([length]) + bytes(38)))
    guest.says("A", 1, 9001, window=WINDOW)
    guest.hears_nothing()


def test_what_the_guest_takes_back_is_sent_after_a_timeout(guest: Guest) -> None:
    send(guest, 2)
    guest.says("A", 1, 1, window=WINDOW, sack=[(3001, 6001)])
    guest.hears("AP", 1, 1, bytes(2 * MSS))
    guest.says("A", 1, 2001, window=WINDOW, sack=[(3001, 6001)])
    guest.hears("AP", 2001, 1, bytes(MSS))
    guest.says("A", 1, 3001, window=WINDOW)
    guest.hears_nothing()
    guest.waits(1.1)
    guest.hears("AP", 3001, 1, b"\1" * MSS)


def test_many_small_writes_that_nobody_acknowledges_stay_few_objects() -> None:
    guest = Guest((1, 1), TcpSettings(send_capacity=100_000))
    guest.opens()
    for _ in range(20_000):
        guest.network.write(b"x")
        guest.network.poll(guest.now)
    assert len(guest.network._sender.buffer.flights) < 20
    guest.heard.clear()
    guest.says("A", 1, 20_001)
    assert guest.network._sender.buffer.flights == []
