"""Nothing that a guest sends makes a connection raise, or keep more than it may."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.network.tcp import NEVER, State, TcpConnection, TcpSettings
from celaje.network.tcp_segment import ACK, PSH, TcpSegment, syn_options
from tests.network.tcp_guest import GUEST, NETWORK, Guest

OPTIONS = syn_options(1000, 3, True)
SETTINGS = TcpSettings(send_capacity=20_000, receive_capacity=30_000, keepalive_idle=50, keepalive_interval=5)


def held(guest: Guest) -> None:
    guest.says("S", options=OPTIONS)


def syn_sent(guest: Guest) -> None:
    guest.network.open()
    guest.hears("S", 0)


def syn_received(guest: Guest) -> None:
    held(guest)
    guest.network.accept()
    guest.hears("SA", 0, 1)


def opened_at_once(guest: Guest) -> None:
    syn_sent(guest)
    guest.says("S", options=OPTIONS)
    guest.hears("SA", 0, 1)


def established(guest: Guest) -> None:
    guest.opens(options=OPTIONS)


def sending(guest: Guest) -> None:
    established(guest)
    guest.network.write(bytes(20_000))
    guest.network.poll(guest.now)


def recovering(guest: Guest) -> None:
    sending(guest)
    guest.says("A", 1, 1, sack=[(5001, 9001)])
    guest.network.poll(guest.now)


def shut_out(guest: Guest) -> None:
    established(guest)
    guest.says("A", 1, 1, window=0)
    guest.network.write(bytes(20_000))
    guest.network.poll(guest.now)


def with_gaps(guest: Guest) -> None:
    established(guest)
    for at in range(5):
        guest.says("A", 101 + at * 1000, 1, bytes(500))


def fin_wait_1(guest: Guest) -> None:
    sending(guest)
    guest.network.close()
    guest.network.poll(guest.now)


def fin_wait_2(guest: Guest) -> None:
    established(guest)
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("A", 1, 2)


def close_wait(guest: Guest) -> None:
    established(guest)
    guest.says("AF", 1, 1)


def closing(guest: Guest) -> None:
    established(guest)
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("AF", 1, 1)


def last_ack(guest: Guest) -> None:
    close_wait(guest)
    guest.network.close()
    guest.hears("PAF", 1, 2)


def time_wait(guest: Guest) -> None:
    fin_wait_2(guest)
    guest.says("AF", 1, 2)


PLACES = [
    held,
    syn_sent,
    syn_received,
    opened_at_once,
    established,
    sending,
    recovering,
    shut_out,
    with_gaps,
    fin_wait_1,
    fin_wait_2,
    close_wait,
    closing,
    last_ack,
    time_wait,
]
near = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([100, 600, 5000, 20_000, 20_001, 29_999, 30_000, 30_001, 2**31 - 1, 2**31, 2**32 - 1]),
    st.integers(0, 2**32 - 1),
)
segments = st.tuples(
    st.just("segment"),
    near,
    near,
    st.one_of(st.sampled_from([ACK, ACK | PSH, ACK | 1, 4, 2, 0x12, 0x14]), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, 1, 0xFFFF]), st.integers(0, 0xFFFF)),
    st.one_of(
        st.just(b""),
        st.binary(max_size=40),
        st.tuples(near, near).map(lambda block: _sack(*block)),
    ),
    st.one_of(st.integers(0, 3), st.sampled_from([500, 999, 1000, 1001, 30_000, 65_000])),
    st.booleans(),
)
owners = st.tuples(
    st.sampled_from(["read", "consume", "write", "close", "poll", "wait", "accept", "open"]), st.integers(0, 300)
)


def _sack(first: int, end: int) -> bytes:
    return b"\1\1\5\12" + (first & 0xFFFFFFFF).to_bytes(4, "big") + (end & 0xFFFFFFFF).to_bytes(4, "big")


def act(guest: Guest, what: str, number: int) -> None:
    connection = guest.network
    if what == "read":
        connection.read()
    elif what == "consume":
        connection.consume(min(number * 10, sum(map(len, connection.peek()))))
    elif what == "write":
        connection.write(bytes(number * 100))
    elif what == "close":
        connection.close()
    elif what == "wait":
        guest.waits(number / 10)
    elif what == "accept":
        connection.accept()
    elif what == "open":
        assert isinstance(connection, TcpConnection)
        connection.open() if number == 0 else connection.poll(guest.now)
    else:
        connection.poll(guest.now)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(0, 0), (2**32 - 1, 2**32 - 1), (2**31, 12345)]),
    st.lists(st.one_of(segments, segments, owners), max_size=40),
)
def test_no_segment_makes_it_raise_or_lose_its_bounds(
    place: Callable[[Guest], None], sequences: tuple[int, int], steps: list[tuple[object, ...]]
) -> None:
    guest = Guest(sequences, SETTINGS)
    place(guest)
    guest.heard.clear()
    connection = guest.network
    for step in steps:
        if step[0] != "segment":
            act(guest, *step)  # type: ignore[arg-type]
        else:
            _, seq, ack, flags, window, options, length, stable = step
            segment = TcpSegment(
                GUEST[1],
                NETWORK[1],
                (guest.own + seq) & 0xFFFFFFFF,  # type: ignore[operator]
                (guest.networks + ack) & 0xFFFFFFFF,  # type: ignore[operator]
                flags,  # type: ignore[arg-type]
                window,  # type: ignore[arg-type]
                options,  # type: ignore[arg-type]
                memoryview(bytes(length)),  # type: ignore[call-overload]
            )
            guest.events |= connection.receive(segment, guest.now, bool(stable))
        kept = sum(map(len, connection.peek()))
        assert kept <= SETTINGS.receive_capacity
        assert connection.room <= SETTINGS.send_capacity
        if connection.state is State.CLOSED:
            assert connection.deadline == NEVER
    assert len(guest.heard) < 2000
    connection.abort()
    assert connection.deadline == NEVER


def retained(segments: int, said: Callable[[int], tuple[int, int]]) -> int:
    """Bytes that a connection keeps after so many segments, `said` giving each one's place and length."""
    settings = TcpSettings(receive_capacity=256 << 10)
    connection = TcpConnection(NETWORK, GUEST, lambda parts, gso_size: None, settings, 0)
    connection.hold(TcpSegment(GUEST[1], NETWORK[1], 0, 0, 2, 0xFFFF, OPTIONS))
    connection.accept()
    connection.poll(0.0)
    connection.receive(TcpSegment(GUEST[1], NETWORK[1], 1, 1, ACK, 0xFFFF), 0.0)
    tracemalloc.start()
    try:
        for number in range(segments):
            place, length = said(number)
            payload = memoryview(bytes(length))
            connection.receive(TcpSegment(GUEST[1], NETWORK[1], 1 + place, 1, ACK, 0xFFFF, b"", payload), 0.0, True)
            connection.poll(0.0)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_capacity_of_single_bytes_costs_little_more_than_one_of_large_pieces() -> None:
    assert retained(20_000, lambda number: (number, 1)) < 100_000


def test_single_bytes_with_gaps_between_them_are_not_kept_without_end() -> None:
    assert retained(20_000, lambda number: (1 + 2 * number, 1)) < 100_000


def test_gaps_that_are_filled_byte_by_byte_leave_no_small_pieces() -> None:
    def zigzag(number: int) -> tuple[int, int]:
        block, at = divmod(number, 100)
        return 1 + block * 100 + (at * 2 if at < 50 else (at - 50) * 2 + 1), 1

    assert retained(20_000, zigzag) < 100_000


@pytest.mark.parametrize("new", [1, 2048, 3000])
def test_a_little_that_is_new_in_much_that_is_not_does_not_keep_the_much(new: int) -> None:
    assert retained(64, lambda number: (max(0, (number + 1) * new - 60_000), min(60_000, (number + 1) * new))) < 500_000


def test_islands_that_overlap_do_not_keep_each_other() -> None:
    def overlapping(number: int) -> tuple[int, int]:
        return 100_000 - (number + 1) * 2100, 50_000

    assert retained(40, overlapping) < 600_000
