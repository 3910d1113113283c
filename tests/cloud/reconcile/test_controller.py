"""What the loop of controllers promises."""

from __future__ import annotations

import threading

from celaje.cloud.reconcile.controller import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    Controllers,
    Retries,
    sooner,
)


class Counting:
    """A controller that says when it has stepped, and fails as often as it is told to."""

    def __init__(self, name: str = "things", failures: int = 0, again: float | None = None) -> None:
        self.name = name
        self.stepped = threading.Semaphore(0)
        self._failures = failures
        self._again = again

    def step(self) -> float | None:
        self.stepped.release()
        if self._failures:
            self._failures -= 1
            raise ZeroDivisionError("a mistake")
        return self._again


def test_a_controller_looks_once_at_the_start_and_again_when_it_is_woken() -> None:
    controller = Counting()
    controllers = Controllers([controller])
    controllers.start()
    assert controller.stepped.acquire(timeout=60)
    assert not controller.stepped.acquire(timeout=0.05)
    controllers.wake(["things"])
    assert controller.stepped.acquire(timeout=60)
    assert controllers.stop()


def test_a_controller_looks_again_after_the_time_that_it_asked_for() -> None:
    controller = Counting(again=0.01)
    controllers = Controllers([controller])
    controllers.start()
    for _ in range(3):
        assert controller.stepped.acquire(timeout=60)
    assert controllers.stop()


def test_a_mistake_in_one_controller_stops_neither_it_nor_others() -> None:
    bad, good = Counting("bad", failures=1), Counting("good")
    controllers = Controllers([bad, good])
    controllers.start()
    assert good.stepped.acquire(timeout=60)
    assert bad.stepped.acquire(timeout=60)
    assert bad.stepped.acquire(timeout=60)  # by itself, a moment later
    assert controllers.stop()
    assert [(one.name, one.error) for one in controllers.conditions()] == [("bad", ""), ("good", "")]


def test_a_wake_during_a_step_is_not_forgotten() -> None:
    class Slow(Counting):
        def step(self) -> float | None:
            self.stepped.release()
            go_on.acquire(timeout=60)
            return None

    go_on = threading.Semaphore(0)
    controller = Slow()
    controllers = Controllers([controller])
    controllers.start()
    assert controller.stepped.acquire(timeout=60)
    controllers.wake(["things"])
    go_on.release()
    assert controller.stepped.acquire(timeout=60)
    go_on.release()
    assert controllers.stop()


def test_nobody_is_woken_by_a_name_that_nobody_has() -> None:
    controllers = Controllers([])
    controllers.start()
    controllers.wake(["things"])
    assert controllers.stop()


def test_what_fails_is_tried_again_later_and_later() -> None:
    now = 100.0
    retries = Retries(lambda: now)
    assert retries.due("i-1")
    assert retries.next() is None
    assert retries.failed("i-1") == 0.5
    assert not retries.due("i-1")
    assert retries.due("i-2")
    assert retries.next() == 0.5
    now += 0.5
    assert retries.due("i-1")
    assert retries.failed("i-1") == 1.0
    for _ in range(20):
        retries.failed("i-1")
    assert retries.failed("i-1") == LONGEST_RETRY_SECONDS
    retries.succeeded("i-1")
    assert retries.due("i-1")
    assert retries.failed("i-1") == 0.5


def test_what_failed_and_is_gone_is_not_looked_for_without_a_pause_and_is_forgotten() -> None:
    now = 100.0
    retries = Retries(lambda: now)
    retries.failed("import-snap-1")  # and is cancelled: nobody asks about it again
    now += 0.5
    assert retries.next() == FIRST_RETRY_SECONDS
    retries.failed("i-2")
    assert retries.next() == FIRST_RETRY_SECONDS
    now += LONGEST_RETRY_SECONDS + 1
    assert retries.due("i-2")
    assert retries.next() is None


def test_what_is_being_tried_again_is_not_waited_for_and_keeps_its_pause() -> None:
    now = 100.0
    retries = Retries(lambda: now)
    retries.failed("snap-1")
    now += 0.5
    assert retries.due("snap-1")  # somebody is at it now, for minutes
    now += 300.0
    assert retries.next() is None
    assert retries.failed("snap-1") == 1.0
    assert retries.next() == 1.0


def test_the_sooner_of_times_is_the_least_that_is_said() -> None:
    assert sooner(None, 3.0, 2.0) == 2.0
    assert sooner(None, None) is None
