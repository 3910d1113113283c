"""Bandwidth: no faster than was said, nothing lost that need not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.errors import InputError
from celaje.network import udp
from celaje.network.bandwidth import Shaper, TokenBucket
from celaje.network.statistics import Drop
from tests.network.conversation import FAR, Machine, World


@given(
    st.integers(1000, 10**9),
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 65562)), max_size=60),
)
def test_a_bucket_never_gives_more_than_burst_rate_and_one_frame(rate: int, steps: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate, 131072, 0)
    now, taken = 0.0, 0
    for wait, size in steps:
        now += wait
        if bucket.take(size, now):
            taken += size
        assert taken <= 131072 + rate * now + 65562


@given(st.integers(1000, 10**9), st.lists(st.integers(54, 65562), min_size=1, max_size=60))
def test_a_shaper_keeps_the_order_and_each_look_at_the_right_time_helps(rate: int, sizes: list[int]) -> None:
    shaper = Shaper(rate, 0)
    messages = [bytes((number % 256,)) * size for number, size in enumerate(sizes)]
    sent, kept = [], []
    for message in messages:
        if shaper.passes(len(message), 0):
            sent.append(message)
        elif shaper.keep([message], len(message)):
            kept.append(message)
    while (at := shaper.ready_at) is not None:
        due = list(shaper.due(at))
        assert due
        sent += due
    assert sent[len(sent) - len(kept) :] == kept


@pytest.fixture
def world() -> World:
    return World()


def datagrams(to: Machine, count: int) -> None:
    for _ in range(count):
        header = udp.header(FAR, 53, to.address, 1000, 992)
        to.world.network.deliver(to.interface, FAR, to.address, 17, [header, bytes(992)])


def test_what_is_sent_to_a_guest_waits_for_its_turn(world: World) -> None:
    a = world.machine("a", to_guest=100_000)
    datagrams(a, 200)
    at_once = len(a.hears())
    assert 120 <= at_once <= 130  # a burst of 128 KiB
    heard = at_once
    for _ in range(10):
        world.passes(0.1)
        now = len(a.hears())
        assert 8 <= now <= 12 or heard + now == 200
        heard += now
        if heard == 200:
            break
    deadline = world.network.poll(world.now)
    assert deadline is not None
    assert a.interface.statistics.dropped == {}


def test_the_queue_is_bounded(world: World) -> None:
    a = world.machine("a", to_guest=100_000)
    datagrams(a, 1000)
    dropped = a.dropped(Drop.QUEUE_FULL)
    assert 300 <= dropped <= 400
    for _ in range(100):
        world.passes(0.1)
    assert a.interface.statistics.received_frames == 1000 - dropped


def test_a_new_limit_is_for_what_waits_already(world: World) -> None:
    a = world.machine("a", to_guest=100_000)
    datagrams(a, 200)
    world.network.set_bandwidth(a.interface, None, None)
    assert len(a.hears()) == 200
    datagrams(a, 200)
    assert len(a.hears()) == 200


def test_a_guest_that_sends_too_fast_is_to_be_read_later(world: World) -> None:
    a = world.machine("a", from_guest=100_000)
    frame = a.udp(FAR, 1, 2, bytes(972))
    heard = 0
    for _ in range(3000):
        if a.interface.resume_at > world.now:
            world.now = a.interface.resume_at
        a.says(frame)
        heard += 1
    assert a.interface.statistics.dropped == {}
    seconds = world.now - 1000
    assert heard * len(frame) <= 131072 + 100_000 * seconds + 2 * len(frame)


def test_who_reads_on_all_the_same_drops(world: World) -> None:
    a = world.machine("a", from_guest=100_000)
    for _ in range(1000):
        a.says(a.udp(FAR, 1, 2, bytes(972)))
    assert 700 <= a.dropped(Drop.BANDWIDTH) <= 800
    assert len(world.outside.hears()) == 1000 - a.dropped(Drop.BANDWIDTH)


@pytest.mark.parametrize("rates", [(999, None), (None, 0), (-5, None)])
def test_a_bandwidth_of_nearly_nothing_is_refused(world: World, rates: tuple[int | None, int | None]) -> None:
    a = world.machine("a")
    with pytest.raises(InputError, match="at least 1,000 bytes a second"):
        world.network.set_bandwidth(a.interface, *rates)
