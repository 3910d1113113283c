"""Operators of conditions, one line a case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.policy.conditions import BadValue, compiled

FACTS = {
    "k": ("Red",),
    "n": ("10",),
    "d": ("2026-11-26T00:00:00Z",),
    "ip": ("10.1.2.3",),
    "ip6": ("2001:db8::1",),
    "arn": ("arn:aws:iam::111111111111:user/staff/ada",),
    "tags": ("a", "b"),
    "none": (),
    "b": ("true",),
    "aws:username": ("Red",),
}


def holds(operator, key, *values):
    condition = compiled({operator: {key: list(values)}}, variables=True)
    assert condition is not None
    return condition(FACTS)


@pytest.mark.parametrize(
    ("operator", "key", "values", "expected"),
    [
        ("StringEquals", "K", ["Blue", "Red"], True),
        ("StringEquals", "k", ["red"], False),
        ("StringEquals", "k", ["R*"], False),
        ("StringEquals", "k", ["${aws:username}"], True),
        ("StringEquals", "k", ["${aws:nothing}"], False),
        ("StringEquals", "missing", ["Red"], False),
        ("StringEqualsIfExists", "missing", ["Red"], True),
        ("StringEqualsIfExists", "k", ["Blue"], False),
        ("StringNotEquals", "k", ["Blue", "Red"], False),
        ("StringNotEquals", "k", ["Blue"], True),
        ("StringNotEquals", "missing", ["Red"], True),
        ("StringEqualsIgnoreCase", "k", ["rED"], True),
        ("StringNotEqualsIgnoreCase", "k", ["rED"], False),
        ("StringLike", "k", ["R?d"], True),
        ("StringLike", "k", ["*e"], False),
        ("StringNotLike", "k", ["R*"], False),
        ("NumericEquals", "n", ["10.0"], True),
        ("NumericNotEquals", "n", ["10"], False),
        ("NumericLessThan", "n", ["10"], False),
        ("NumericLessThanEquals", "n", ["10"], True),
        ("NumericGreaterThan", "n", ["9"], True),
        ("NumericGreaterThanEquals", "n", ["11"], False),
        ("NumericLessThan", "k", ["11"], False),
        ("DateLessThan", "d", ["2026-11-26T00:00:01Z"], True),
        ("DateGreaterThan", "d", ["2026-11-25"], True),
        ("DateEquals", "d", ["1795651200"], True),
        ("DateGreaterThan", "d", ["01T"], True),
        ("DateEquals", "d", ["2026-11-26t0:00:0.0+00"], True),
        ("DateEquals", "d", ["2026-11-25T23:00-01:00"], True),
        ("DateLessThan", "d", ["292278993-12-31"], True),
        ("DateGreaterThan", "d", ["-292275054-01-01"], True),
        ("DateGreaterThanEquals", "d", ["2026-11-26T01:00:00+01:00"], True),
        ("Bool", "b", ["true"], True),
        ("Bool", "b", ["FALSE"], False),
        ("Bool", "missing", ["false"], False),
        ("BoolIfExists", "missing", ["false"], True),
        ("IpAddress", "ip", ["10.0.0.0/8"], True),
        ("IpAddress", "ip", ["10.1.2.3"], True),
        ("IpAddress", "ip6", ["10.0.0.0/8", "2001:db8::/32"], True),
        ("NotIpAddress", "ip", ["10.0.0.0/8"], False),
        ("NotIpAddress", "ip", ["11.0.0.0/8"], True),
        ("IpAddress", "k", ["0.0.0.0/0"], False),
        ("ArnLike", "arn", ["arn:aws:iam::*:user/*"], True),
        ("ArnEquals", "arn", ["arn:aws:iam::111111111111:user/staff/*"], True),
        ("ArnLike", "arn", ["arn:aws:iam:*:user/*"], False),
        ("ArnNotLike", "arn", ["arn:*:*:*:*:role/*"], True),
        ("Null", "k", ["false"], True),
        ("Null", "missing", ["true"], True),
        ("Null", "k", ["true"], False),
        ("ForAllValues:StringEquals", "tags", ["a", "b", "c"], True),
        ("ForAllValues:StringEquals", "tags", ["a"], False),
        ("ForAllValues:StringEquals", "missing", ["a"], True),
        ("ForAllValues:StringEquals", "none", ["a"], True),
        ("ForAnyValue:StringEquals", "tags", ["b"], True),
        ("ForAnyValue:StringEquals", "tags", ["c"], False),
        ("ForAnyValue:StringEquals", "missing", ["a"], False),
        ("ForAnyValue:StringNotEquals", "tags", ["a"], True),
        ("ForAnyValue:StringNotEquals", "missing", ["a"], False),
        ("ForAllValues:StringNotEquals", "tags", ["a"], False),
        ("ForAllValues:StringLike", "tags", ["?"], True),
    ],
)
def test_an_operator_holds_as_aws_says(operator, key, values, expected):
    assert holds(operator, key, *values) is expected


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("StringSame", "a"),
        ("stringEquals", "a"),
        ("NumericEquals", "ten"),
        ("NumericEquals", "nan"),
        ("NumericEquals", "1" * 500),
        ("DateEquals", "yesterday"),
        ("IpAddress", "10.0.0.0/99"),
        ("Null", "perhaps"),
        ("ForAllValues:Null", "true"),
    ],
)
def test_what_an_operator_does_not_take_is_refused(operator, value):
    with pytest.raises(BadValue):
        compiled({operator: {"k": [value]}}, variables=True)


def test_all_keys_and_all_operators_must_hold():
    both = {"StringEquals": {"k": ["Red"], "b": ["true"]}, "NumericEquals": {"n": ["10"]}}
    condition = compiled(both, variables=True)
    assert condition is not None
    assert condition(FACTS)
    assert not condition({**FACTS, "n": ("11",)})
    assert compiled({}, variables=True) is None


@given(st.text(), st.text())
def test_a_negated_operator_is_the_opposite_where_the_key_is_there(value, text):
    for name, negated in (("StringEquals", "StringNotEquals"), ("StringLike", "StringNotLike")):
        pair = [compiled({each: {"k": [value]}}, variables=False) for each in (name, negated)]
        assert pair[0] is not None
        assert pair[1] is not None
        assert pair[0]({"k": (text,)}) is not pair[1]({"k": (text,)})


@given(st.sampled_from(["NumericLessThan", "DateLessThan", "IpAddress", "ArnLike", "Bool", "StringLike"]), st.text())
def test_no_value_of_a_request_raises(operator, text):
    value = {"IpAddress": "10.0.0.0/8", "Bool": "true"}.get(operator, "1")
    condition = compiled({operator: {"k": [value]}}, variables=True)
    assert condition is not None
    assert condition({"k": (text,)}) in (True, False)
