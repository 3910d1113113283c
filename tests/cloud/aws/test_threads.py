"""Shares of threads that wait for clients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest

from celaje.cloud.aws.threads import Share, Threads

COUNT = 9
ALONE = 6  # of them are an account's that has no company
SECONDS = 60


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(COUNT, "test")
    yield made
    made.shutdown()


class Held:
    """What holds a thread from when it begins until it is let go."""

    def __init__(self, share: Share) -> None:
        self.begun = threading.Event()
        self._let_go = threading.Event()
        self.future: Future[bool] = share.submit(self._hold)

    def _hold(self) -> bool:
        self.begun.set()
        return self._let_go.wait()

    def let_go(self) -> None:
        self._let_go.set()


@pytest.fixture
def hold(threads: Threads) -> Iterator[list[Held]]:
    held: list[Held] = []
    yield held
    for each in held:
        each.let_go()


def holding(threads: Threads, hold: list[Held], account: str, count: int) -> list[Held]:
    fresh = [Held(threads.share(account)) for _ in range(count)]
    hold += fresh
    return fresh


def test_an_account_has_two_thirds_of_the_threads_and_others_find_one(threads: Threads, hold: list[Held]) -> None:
    greedy = holding(threads, hold, "greedy", 3 * COUNT)
    for each in greedy[:ALONE]:
        assert each.begun.wait(SECONDS)
    assert threads.share("modest").submit(lambda: "answered").result(SECONDS) == "answered"
    assert threads.share("another").submit(lambda: "answered").result(SECONDS) == "answered"
    assert sum(each.begun.is_set() for each in greedy) == ALONE


def test_what_waits_begins_in_its_order_as_the_accounts_own_come_back(threads: Threads, hold: list[Held]) -> None:
    greedy = holding(threads, hold, "greedy", COUNT)
    for at, each in enumerate(greedy[: COUNT - ALONE]):
        assert each.begun.wait(SECONDS)
        each.let_go()
        assert greedy[ALONE + at].begun.wait(SECONDS)


def test_who_has_none_is_next(threads: Threads, hold: list[Held]) -> None:
    for account in range(COUNT):  # none is free
        assert holding(threads, hold, f"account {account}", 1)[0].begun.wait(SECONDS)
    again = holding(threads, hold, "account 0", 1)[0]
    late = holding(threads, hold, "late", 1)[0]
    assert threads.share("account 5").crowded()
    hold[1].let_go()
    assert late.begun.wait(SECONDS)
    assert not again.begun.is_set()


def test_a_thread_counts_for_whom_it_turns_out_to_be(threads: Threads, hold: list[Held]) -> None:
    holding(threads, hold, "greedy", ALONE)
    unknown = threads.share("")
    assert unknown.submit(lambda: unknown.belongs_to("greedy")).result(SECONDS) is False
    assert unknown.submit(lambda: unknown.belongs_to("modest")).result(SECONDS) is True
    assert unknown.account == "modest"
    hold[0].let_go()
    assert hold[0].future.result(SECONDS)
    known = threads.share("")
    assert known.submit(lambda: known.belongs_to("greedy")).result(SECONDS) is True


def test_a_thread_is_free_once_it_is_told_what_came_of_it(threads: Threads, hold: list[Held]) -> None:
    for account in range(COUNT):  # none is free
        assert holding(threads, hold, f"account {account}", 1)[0].begun.wait(SECONDS)
    late = holding(threads, hold, "late", 1)[0]
    share = threads.share("account 5")
    assert share.crowded()
    crowded: Future[bool] = Future()
    hold[1].future.add_done_callback(lambda told: crowded.set_result(share.crowded()))
    hold[1].let_go()
    assert crowded.result(SECONDS) is False
    assert late.begun.wait(SECONDS)


def test_it_is_crowded_for_those_whose_threads_somebody_waits_for(threads: Threads, hold: list[Held]) -> None:
    greedy, modest = threads.share("greedy"), threads.share("modest")
    for each in holding(threads, hold, "greedy", ALONE) + holding(threads, hold, "modest", 1):
        assert each.begun.wait(SECONDS)
    assert not greedy.crowded()
    assert not modest.crowded()
    holding(threads, hold, "greedy", 1)
    assert greedy.crowded()
    assert not modest.crowded()  # that greedy waits for more is nothing that modest owes it


def test_what_is_raised_is_its_callers_and_the_thread_is_free_again(threads: Threads) -> None:
    share = threads.share("account")
    for _ in range(2 * COUNT):
        with pytest.raises(ZeroDivisionError):
            share.submit(lambda: 1 / 0).result(SECONDS)


def test_what_has_not_begun_at_the_end_is_cancelled() -> None:
    threads = Threads(3, "test")
    first, second, third = (Held(threads.share("account")) for _ in range(3))
    assert first.begun.wait(SECONDS)
    assert second.begun.wait(SECONDS)
    ending = threading.Thread(target=threads.shutdown)
    ending.start()
    with pytest.raises(CancelledError):
        third.future.result(SECONDS)
    with pytest.raises(RuntimeError):
        threads.share("account").submit(bool)
    first.let_go()
    second.let_go()
    ending.join(SECONDS)
    assert not ending.is_alive()
