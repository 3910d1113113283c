"""Wildcards and variables."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.policy.patterns import glob, resolved


def slow(pattern: str, text: str) -> bool:
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


@given(st.text("ab*?", max_size=8), st.text("ab\n", max_size=8))
def test_a_pattern_matches_as_its_definition_says(pattern, text):
    assert bool(glob(pattern)(text)) is slow(pattern, text)


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "a*?" * 60 + "b", "?*" * 100 + "b"])
def test_no_pattern_takes_long(pattern):
    assert not glob(pattern)("a" * 5000)


KNOWN = {"aws:username": ("ada*",), "aws:several": ("a", "b")}


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("home/${aws:username}/*", "home/ada*/x", "home/adam/x"),
        ("home/${AWS:UserName}", "home/ada*", "home/ada"),
        ("x${*}y${?}z${$}", "x*y?z$", "xay?z$"),
        ("${aws:PrincipalTag/team, 'red'}", "red", "blue"),
        ("${aws:username, 'red'}", "ada*", "red"),
    ],
)
def test_variables_stand_for_what_is_known_and_their_stars_for_themselves(text, matching, other):
    pattern = resolved(text, KNOWN)
    assert pattern is not None
    assert glob(pattern)(matching)
    assert not glob(pattern)(other)


@pytest.mark.parametrize("text", ["${aws:unknown}", "${aws:several}", "a${}b"])
def test_a_variable_without_one_value_makes_no_pattern(text):
    assert resolved(text, KNOWN) is None
