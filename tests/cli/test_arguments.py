"""How words become values, and what is said about those that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cli.arguments import Parser, count, seconds, size
from celaje.errors import UsageError


@given(number=st.integers(1, 10**6), power=st.sampled_from([(1, "K"), (2, "M"), (3, "G"), (4, "T")]))
def test_a_size_is_its_number_times_a_power_of_1024(number: int, power: tuple[int, str]) -> None:
    exponent, letter = power
    assert size(f"{number}{letter}") == number * 1024**exponent
    assert size(f"{number}{letter.lower()}iB") == size(f"{number}{letter}B") == number * 1024**exponent


@pytest.mark.parametrize("text", ["", "512", "-1M", "1.5G", "0x10M", "M", "12P", "1 G", "1Mi b", "१M"])
def test_a_size_that_says_no_unit_or_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"such as 512M, not '"):
        size(text)


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.0", "99999"])
def test_a_number_of_processors_is_at_least_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"whole number from 1"):
        count(text)


@pytest.mark.parametrize("text", ["0", "-3", "inf", "nan", "1e3", "", "."])
def test_a_time_limit_is_a_plain_number_above_zero(text: str) -> None:
    with pytest.raises(UsageError, match="above 0"):
        seconds(text)


def test_times_may_have_fractions() -> None:
    assert (seconds("2.5"), seconds("60"), seconds(".5")) == (2.5, 60.0, 0.5)


def test_options_are_not_abbreviated() -> None:
    parser = Parser("test", "A test.")
    parser.add_argument("--memory")
    with pytest.raises(UsageError, match=r"unrecognized arguments: --mem .*`celaje test --help`"):
        parser.parse_args(["--mem", "1"])
