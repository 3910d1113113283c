from __future__ import annotations

import threading

import pytest

from celaje.machine.hart_states import HartState, HartStates, StartRequest


@pytest.fixture
def states() -> HartStates:
    return HartStates(2)


def test_harts_begin_stopped(states: HartStates) -> None:
    assert [states.state(hart) for hart in range(len(states))] == [HartState.STOPPED] * 2


def test_a_start_waits_for_the_harts_thread_to_pick_it_up(states: HartStates) -> None:
    picked: list[StartRequest | None] = []
    thread = threading.Thread(target=lambda: picked.append(states.wait_for_start(1)))
    thread.start()
    assert states.start(1, StartRequest(0x1000, 5))
    thread.join(30)
    assert picked == [StartRequest(0x1000, 5)]
    assert states.state(1) is HartState.STARTED


def test_only_a_stopped_hart_can_be_started(states: HartStates) -> None:
    assert states.start(0, StartRequest(0, 0))
    assert not states.start(0, StartRequest(0, 0))
    states.wait_for_start(0)
    assert not states.start(0, StartRequest(0, 0))


def test_the_last_hart_to_stop_is_told_so(states: HartStates) -> None:
    for hart in range(2):
        states.start(hart, StartRequest(0, 0))
        states.wait_for_start(hart)
    assert not states.stop(0)
    assert states.stop(1)


def test_a_start_that_is_pending_is_no_end(states: HartStates) -> None:
    states.start(0, StartRequest(0, 0))
    states.wait_for_start(0)
    states.start(1, StartRequest(0, 0))
    assert not states.stop(0)


def test_closing_lets_everybody_go(states: HartStates) -> None:
    states.close()
    assert states.wait_for_start(0) is None
    assert not states.wait_for_wake(1, None)


def test_a_wake_from_before_the_look_does_not_count(states: HartStates) -> None:
    states.wake(0)
    assert states.wait_for_wake(0, None)
    states.expect_wake(0)
    states.wake(1)
    sleeper = threading.Thread(target=states.wait_for_wake, args=(0, None))
    sleeper.start()
    sleeper.join(0.05)
    assert sleeper.is_alive()
    states.wake(0)
    sleeper.join(30)
    assert not sleeper.is_alive()
