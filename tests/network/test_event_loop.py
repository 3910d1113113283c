"""The loop that a network's process goes round."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from celaje.network.event_loop import READ, STALE_TOLERATED, EventLoop


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[EventLoop]:
    made = EventLoop(clock)
    yield made
    made.close()


def test_timers_are_called_in_the_order_of_their_times(loop: EventLoop, clock: Clock) -> None:
    called: list[str] = []
    for name, at in (("late", 103.0), ("early", 101.0), ("later", 104.0)):
        loop.set(loop.timer(lambda name=name: called.append(name)), at)
    clock.now = 103.5
    loop.round(0)
    assert called == ["early", "late"]


def test_a_timer_moved_to_later_is_called_then_and_once(loop: EventLoop, clock: Clock) -> None:
    called: list[float] = []
    timer = loop.timer(lambda: called.append(clock.now))
    loop.set(timer, 101.0)
    loop.set(timer, 105.0)
    for clock.now in (102.0, 104.0, 105.5, 110.0):
        loop.round(0)
    assert called == [105.5]


def test_a_timer_moved_to_sooner_is_called_then_and_once(loop: EventLoop, clock: Clock) -> None:
    called: list[float] = []
    timer = loop.timer(lambda: called.append(clock.now))
    loop.set(timer, 105.0)
    loop.set(timer, 101.0)
    for clock.now in (102.0, 104.0, 105.5, 110.0):
        loop.round(0)
    assert called == [102.0]


def test_a_timer_that_was_put_off_altogether_is_not_called(loop: EventLoop, clock: Clock) -> None:
    timer = loop.timer(lambda: pytest.fail("it was called"))
    loop.set(timer, 101.0)
    loop.set(timer, None)
    clock.now = 200.0
    loop.round(0)


def test_timers_that_are_gone_do_not_gather(loop: EventLoop) -> None:
    kept: list[str] = []
    loop.set(loop.timer(lambda: kept.append("kept")), 101.0)
    for _ in range(20 * STALE_TOLERATED):
        timer = loop.timer(lambda: pytest.fail("it was called"))
        loop.set(timer, 7300.0)
        loop.set(timer, 7200.0)
        loop.discard(timer)
    assert len(loop._heap) <= 2 * STALE_TOLERATED + 2
    loop.clock = lambda: 8000.0
    loop.round(0)
    assert kept == ["kept"]


def test_a_callback_that_fails_takes_nobody_with_it(
    loop: EventLoop, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def fails() -> None:
        raise ZeroDivisionError

    loop.set(loop.timer(fails), 101.0)
    loop.set(loop.timer(lambda: called.append("after")), 101.0)
    loop.soon(fails)
    clock.now = 102.0
    loop.round(0)
    assert called == ["after"]
    assert loop.failures == 2
    assert "ZeroDivisionError" in caplog.text


def test_a_descriptor_is_watched_until_it_is_not(loop: EventLoop) -> None:
    reads, writes = os.pipe()
    events: list[int] = []
    loop.watch(reads, READ, events.append)
    loop.round(0)
    assert not events
    os.write(writes, b"x")
    loop.round(0)
    assert len(events) == 1
    loop.unwatch(reads)
    loop.round(0)
    assert len(events) == 1
    assert len(loop) == 0
    os.close(reads)
    os.close(writes)


def test_what_is_due_soon_is_called_in_this_round_and_not_again(loop: EventLoop) -> None:
    called: list[int] = []
    loop.soon(lambda: called.append(1))
    loop.round(None)
    loop.round(0)
    assert called == [1]


def test_run_ends_after_the_round_in_which_it_was_stopped(loop: EventLoop) -> None:
    called: list[int] = []

    def stop() -> None:
        loop.stop()
        called.append(1)

    loop.soon(stop)
    loop.run()
    assert called == [1]
