"""Places that accounts share: the laws, over any course of comings and endings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.reconcile.fair_share import FairShare

COURSES = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.sampled_from("abcd")), st.tuples(st.just("ends"), st.integers(0, 9))
    ),
    max_size=60,
)


@given(COURSES, st.integers(1, 4), st.integers(1, 4))
def test_places_are_few_and_nobody_waits_beside_a_free_one(
    course: list[tuple[str, object]], places: int, share: int
) -> None:
    turns = FairShare(places, share)
    waiting: list[tuple[str, str]] = []
    running: dict[str, str] = {}
    for number, (what, who) in enumerate(course):
        if what == "comes":
            waiting.append((f"{number}", str(who)))
        elif running:
            running.pop(sorted(running)[int(str(who)) % len(running)])
        for name in turns.chosen(waiting, running):
            running[name] = dict(waiting)[name]
            waiting = [each for each in waiting if each[0] != name]
        accounts = list(running.values())
        assert len(running) <= places
        assert all(accounts.count(account) <= share for account in accounts)
        if len(running) < places:
            assert all(accounts.count(account) == share for _, account in waiting)


def test_accounts_take_turns_however_many_each_asks_for() -> None:
    turns = FairShare(1, 1)
    waiting = [(f"a{number}", "a") for number in range(5)] + [("b0", "b"), ("c0", "c"), ("b1", "b")]
    served: list[str] = []
    while waiting:
        [name] = turns.chosen(waiting, {})
        served.append(name)
        waiting = [each for each in waiting if each[0] != name]
    assert served == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
