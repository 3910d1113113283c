"""Work that devices leave to harts which would only wait."""

from __future__ import annotations

import threading

from celaje.machine.offers import BUSY_REQUESTS, HART_SECONDS, SLOW_REQUESTS, Experience, Offers


def test_offers_of_a_harts_thread_are_taken_in_their_order_with_what_the_hart_is() -> None:
    offers, done = Offers(), list[tuple[str, bool]]()
    offers.join()
    assert not offers
    assert offers.make(lambda idle: done.append(("first", idle)))
    assert offers.make(lambda idle: done.append(("second", idle)))
    assert offers
    offers.take(idle=True)
    assert done == [("first", True), ("second", True)]
    assert not offers


def test_nothing_is_offered_by_a_thread_that_runs_no_hart() -> None:
    offers, made = Offers(), list[bool]()
    offers.join()
    thread = threading.Thread(target=lambda: made.append(offers.make(lambda idle: None)))
    thread.start()
    thread.join()
    assert made == [False]
    assert not offers


def test_a_thread_that_leaves_leaves_its_offers_to_others() -> None:
    offers, done = Offers(), list[bool]()
    offers.join()
    offers.make(done.append)
    offers.leave()
    assert done == [False]
    assert not offers.make(done.append)


def test_after_a_busy_hart_and_a_slow_host_some_requests_are_not_offered() -> None:
    experience = Experience()
    assert experience.worth_offering()
    experience.was_busy()
    assert [experience.worth_offering() for _ in range(BUSY_REQUESTS + 1)] == [False] * BUSY_REQUESTS + [True]
    experience.took(HART_SECONDS / 2)
    assert experience.worth_offering()
    experience.took(HART_SECONDS * 2)
    assert [experience.worth_offering() for _ in range(SLOW_REQUESTS + 1)] == [False] * SLOW_REQUESTS + [True]
