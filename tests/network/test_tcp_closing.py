"""How connections end, as conversations with a guest (RFC 9293, 3.6 and 3.10)."""

from __future__ import annotations

import pytest

from celaje.network.tcp import CLOSED, READABLE, RESET, SUPERSEDED, State
from tests.network.tcp_guest import Guest


@pytest.fixture(params=[(1000, 5000), (2**32 - 3, 2**32 - 3), (2**31 - 3, 2**31 - 3)])
def guest(request: pytest.FixtureRequest) -> Guest:
    guest = Guest(request.param)
    guest.opens()
    return guest


def test_the_guest_closes_first(guest: Guest) -> None:
    assert guest.says("PAF", 1, 1, b"bye") == READABLE
    guest.hears("A", 1, 5)
    assert guest.network.state is State.CLOSE_WAIT
    assert not guest.network.eof
    assert guest.reads() == b"bye"
    assert guest.network.eof
    # The other direction goes on.
    guest.network.write(b"still here")
    guest.hears("PA", 1, 5, b"still here")
    guest.network.close()
    guest.hears("PAF", 11, 5)
    assert guest.network.state is State.LAST_ACK
    assert guest.says("A", 5, 12) == CLOSED
    guest.closed()


def test_the_network_closes_first(guest: Guest) -> None:
    guest.network.write(b"bye")
    guest.network.close()
    guest.hears("PAF", 1, 1, b"bye")
    assert guest.network.state is State.FIN_WAIT_1
    assert guest.network.room == guest.network.write(b"more") == 0
    guest.says("A", 1, 5)
    assert guest.network.state is State.FIN_WAIT_2
    assert guest.says("PA", 1, 5, b"one more thing") == READABLE
    assert guest.reads() == b"one more thing"
    assert guest.says("AF", 15, 5) == READABLE
    guest.hears("A", 5, 16)
    assert guest.network.eof
    assert guest.network.state is State.TIME_WAIT
    assert guest.waits(1.9) == 0
    assert guest.waits(0.2) == CLOSED
    guest.closed()


def test_both_close_at_once(guest: Guest) -> None:
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("AF", 1, 1)
    assert guest.network.state is State.CLOSING
    guest.hears("A", 2, 2)
    guest.says("A", 2, 2)
    assert guest.network.state is State.TIME_WAIT
    assert guest.waits(2.1) == CLOSED


def test_a_fin_that_acknowledges_the_networks_own_ends_it(guest: Guest) -> None:
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("AF", 1, 2)
    guest.hears("A", 2, 2)
    assert guest.network.state is State.TIME_WAIT


def test_a_close_in_answer_to_a_close_is_one_segment(guest: Guest) -> None:
    guest.says("AF", 1, 1)
    guest.network.close()
    guest.hears("PAF", 1, 2)
    guest.hears_nothing()
    assert guest.says("A", 2, 2) == CLOSED


def test_a_fin_that_is_repeated_is_acknowledged_again_and_waited_for_anew(guest: Guest) -> None:
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("AF", 1, 2)
    guest.hears("A", 2, 2)
    guest.waits(1.5)
    guest.says("AF", 1, 2)
    guest.hears("A", 2, 2)
    assert guest.waits(1.5) == 0
    assert guest.waits(0.6) == CLOSED


def test_a_fin_ahead_of_its_time_waits_for_what_is_before_it(guest: Guest) -> None:
    guest.says("PAF", 6, 1, b"world")
    guest.hears("A", 1, 1, sack=[(6, 11)])
    assert guest.network.state is State.ESTABLISHED
    assert guest.says("A", 1, 1, b"hello") == READABLE
    guest.hears("A", 1, 12)
    assert guest.reads() == b"helloworld"
    assert guest.network.eof
    assert guest.network.state is State.CLOSE_WAIT


def test_nothing_counts_beyond_a_fin(guest: Guest) -> None:
    guest.says("A", 20, 1, b"beyond")
    guest.says("AF", 6, 1)
    guest.says("A", 4, 1, b"lowhat")
    guest.says("A", 1, 1, b"hel")
    assert guest.reads() == b"hello"
    assert guest.network.eof
    guest.says("PAF", 7, 1, b"again")
    assert guest.reads() == b""
    assert guest.network.state is State.CLOSE_WAIT


def test_a_guest_that_opens_anew_need_not_wait(guest: Guest) -> None:
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("AF", 1, 2)
    guest.hears("A", 2, 2)
    assert guest.says("S", 1) == 0  # an old one
    assert guest.network.state is State.TIME_WAIT
    assert guest.says("S", 100_000) == SUPERSEDED | CLOSED


def test_a_reset_ends_it_at_once(guest: Guest) -> None:
    guest.says("PA", 1, 1, b"hello")
    guest.network.write(b"x" * 1000)
    assert guest.says("R", 6) == RESET | CLOSED
    assert guest.reads() == b"hello"  # what came before it is there
    guest.closed()


def test_a_reset_somewhere_in_the_window_is_asked_about(guest: Guest) -> None:
    assert guest.says("R", 100) == 0
    assert guest.network.state is State.ESTABLISHED
    guest.hears("A", 1, 1)
    assert guest.says("R", 1) == RESET | CLOSED


def test_a_reset_outside_the_window_counts_for_nothing(guest: Guest) -> None:
    for seq in (0, -100, 2**31, 100_000_000):
        assert guest.says("R", seq) == 0
    guest.hears_nothing()


@pytest.mark.parametrize("first", ["guest", "network"])
def test_a_reset_after_both_have_closed_is_the_end_and_no_failure(guest: Guest, first: str) -> None:
    if first == "guest":
        guest.says("AF", 1, 1)
        guest.network.close()
        guest.hears("PAF", 1, 2)
    else:
        guest.network.close()
        guest.hears("PAF", 1, 1)
        guest.says("AF", 1, 2)
        guest.hears("A", 2, 2)
    assert guest.says("R", 2) == CLOSED


def test_the_owner_may_reset_it(guest: Guest) -> None:
    guest.says("PA", 1, 1, b"hello")
    guest.network.abort()
    guest.hears("RA", 1, 6)
    guest.closed()
    assert guest.says("A", 6, 1) == 0
    guest.closed()


def test_nothing_can_be_written_after_the_end(guest: Guest) -> None:
    guest.network.abort()
    guest.heard.clear()
    assert guest.network.write(b"x") == guest.network.room == 0
    guest.network.close()
    guest.network.abort()
    guest.network.drop()
    guest.network.accept()
    guest.closed()


def test_a_fin_waits_for_a_window(guest: Guest) -> None:
    guest.says("A", 1, 1, window=0)
    guest.network.close()
    guest.hears_nothing()
    guest.waits(1.1)
    guest.hears("A", 0, 1)
    guest.says("A", 1, 1, window=1)
    guest.hears("PAF", 1, 1)


def test_bytes_that_fill_the_window_leave_without_the_fin(guest: Guest) -> None:
    guest.says("A", 1, 1, window=5)
    guest.network.write(b"hello")
    guest.network.close()
    guest.hears("PA", 1, 1, b"hello")
    guest.says("A", 1, 6, window=5)
    guest.hears("PAF", 6, 1)


def test_a_connection_half_closed_is_asked_for_a_sign_of_life_as_well(guest: Guest) -> None:
    guest.network.close()
    guest.hears("PAF", 1, 1)
    guest.says("A", 1, 2)
    guest.waits(7201)
    guest.hears("A", 1, 1)
