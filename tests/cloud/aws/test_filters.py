"""Filters of Describe actions."""

from __future__ import annotations

import datetime
import fnmatch
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters, any_of


@dataclass
class Thing:
    name: str = "one"
    size: int = 8
    encrypted: bool = False
    made: datetime.datetime | None = None
    users: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)


FILTERS = Filters[Thing](
    {
        "name": lambda thing: thing.name,
        "size": lambda thing: thing.size,
        "encrypted": lambda thing: thing.encrypted,
        "create-time": lambda thing: thing.made,
        "user": lambda thing: thing.users,
    },
    tags=lambda thing: thing.tags,
)


def matches(thing: Thing, **filters: list[str]) -> bool:
    named = [{"Name": name.replace("_", "-"), "Values": values} for name, values in filters.items()]
    return FILTERS.matcher(named)(thing)


def test_no_filter_matches_everything() -> None:
    assert FILTERS.matcher(None)(Thing())
    assert FILTERS.matcher([])(Thing())


def test_any_value_is_enough_and_all_filters_are_needed() -> None:
    thing = Thing(name="one", size=8)
    assert matches(thing, name=["two", "one"])
    assert matches(thing, name=["one"], size=["8"])
    assert not matches(thing, name=["one"], size=["9"])
    assert not matches(thing, name=["One"])


def test_booleans_numbers_and_moments_are_compared_as_they_are_written() -> None:
    moment = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC)
    thing = Thing(encrypted=True, made=moment)
    assert matches(thing, encrypted=["true"])
    assert matches(thing, create_time=["2026-01-31T12:00:00.123Z"])
    assert matches(thing, create_time=["2026-01-31*"])
    assert not matches(Thing(), create_time=["*"])


def test_one_of_several_facts_is_enough() -> None:
    assert matches(Thing(users=["a", "b"]), user=["b"])
    assert not matches(Thing(users=[]), user=["*"])


def test_tags_by_key_by_value_and_by_both() -> None:
    thing = Thing(tags={"Name": "web", "env": "test"})
    for name, value, answer in [
        ("tag:Name", "web", True),
        ("tag:Name", "test", False),
        ("tag:name", "web", False),
        ("tag-key", "env", True),
        ("tag-key", "nothing", False),
        ("tag-value", "t*t", True),
    ]:
        assert FILTERS.matcher([{"Name": name, "Values": [value]}])(thing) is answer


@pytest.mark.parametrize("name", ["colour", "tag:", "Name", ""])
def test_a_filter_that_there_is_not_is_refused_by_name(name: str) -> None:
    with pytest.raises(AwsError) as refused:
        FILTERS.matcher([{"Name": name, "Values": ["x"]}])
    assert refused.value.code == "InvalidParameterValue"
    assert refused.value.message == f"The filter '{name or 'null'}' is invalid"


def test_more_than_200_values_are_refused() -> None:
    with pytest.raises(AwsError) as refused:
        FILTERS.matcher([{"Name": "name", "Values": ["x"] * 201}])
    assert refused.value.code == "FilterLimitExceeded"


def test_a_backslash_makes_a_wildcard_a_character() -> None:
    assert any_of([r"a\*b"])("a*b")
    assert not any_of([r"a\*b"])("axb")
    assert any_of([r"a\?*"])("a?xyz")
    assert any_of(["a\\\\b"])("a\\b")


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=12))
def test_wildcards_are_those_of_the_shell(pattern: str, text: str) -> None:
    assert any_of([pattern])(text) == fnmatch.fnmatchcase(text, pattern)


def test_exact_values_are_known_to_queries() -> None:
    given_filters = [{"Name": "name", "Values": ["a", "b"]}, {"Name": "user", "Values": ["a*"]}]
    assert FILTERS.wanted(given_filters, "name") == ["a", "b"]
    assert FILTERS.wanted(given_filters, "user") is None
    assert FILTERS.wanted(None, "name") is None


def test_a_filter_of_what_no_item_has_matches_nothing_and_is_no_mistake() -> None:
    filters = Filters[Thing]({"name": lambda thing: thing.name}, never=("ipv6-address",))
    assert not filters.matcher([{"Name": "ipv6-address", "Values": ["*"]}])(Thing())
    assert filters.matcher([{"Name": "name", "Values": ["*"]}])(Thing())
