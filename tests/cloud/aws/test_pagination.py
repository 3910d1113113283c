"""Pages and their tokens."""

from __future__ import annotations

import datetime
from typing import cast

import pytest
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Call, Caller
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.pagination import page


def a_call(account: str = "123456789012", operation: str = "DescribeVolumes", region: str = "us-east-1") -> Call:
    caller = Caller(account, f"arn:aws:iam::{account}:root", account)
    now = datetime.datetime.now(datetime.UTC)
    return Call("ec2", operation, region, caller, "r", now, cast(Session, None))


def all_pages(call: Call, request: dict[str, object], items: list[str]) -> list[list[str]]:
    pages = []
    token: str | None = None
    while True:
        rows, token = page(call, {**request, "NextToken": token} if token else request, items, key=str)
        pages.append(rows)
        if token is None:
            return pages


def test_without_a_size_everything_comes_at_once() -> None:
    assert page(a_call(), {}, ["b", "a"], key=str) == (["a", "b"], None)


def test_pages_have_the_size_asked_for_and_together_have_everything_once() -> None:
    items = [f"vol-{number:04}" for number in range(23)]
    pages = all_pages(a_call(), {"MaxResults": 5}, items[::-1])
    assert [len(rows) for rows in pages] == [5, 5, 5, 5, 3]
    assert [row for rows in pages for row in rows] == items


def test_items_that_come_or_go_between_pages_neither_repeat_nor_hide_others() -> None:
    items = [f"vol-{number:04}" for number in range(10)]
    first, token = page(a_call(), {"MaxResults": 5}, items, key=str)
    assert first == items[:5]
    changed = ["vol-00005", *items[:4], *items[5:]]
    rest, _ = page(a_call(), {"MaxResults": 5, "NextToken": token}, changed, key=str)
    assert rest == items[5:]


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        (a_call(account="210987654321"), {}),
        (a_call(operation="DescribeSnapshots"), {}),
        (a_call(region="eu-west-1"), {}),
        (a_call(), {"Filters": [{"Name": "status", "Values": ["available"]}]}),
    ],
)
def test_a_token_works_for_its_own_query_only(call: Call, request_: dict[str, object]) -> None:
    items = [f"vol-{number}" for number in range(9)]
    _, token = page(a_call(), {"MaxResults": 5}, items, key=str)
    with pytest.raises(AwsError) as refused:
        page(call, {**request_, "MaxResults": 5, "NextToken": token}, items, key=str)
    assert refused.value.code == "InvalidPaginationToken"


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "a" * 10_000, "vol-1"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(AwsError) as refused:
        page(a_call(), {"NextToken": token}, ["a"], key=str)
    assert refused.value.code == "InvalidPaginationToken"


def test_a_size_may_change_from_page_to_page() -> None:
    items = [f"vol-{number:02}" for number in range(20)]
    _, token = page(a_call(), {"MaxResults": 5}, items, key=str)
    rows, _ = page(a_call(), {"MaxResults": 10, "NextToken": token}, items, key=str)
    assert rows == items[5:15]


def test_a_size_below_the_least_is_refused_and_one_above_the_most_is_the_most() -> None:
    with pytest.raises(AwsError, match="from 5 to 1000") as refused:
        page(a_call(), {"MaxResults": 4}, ["a"], key=str)
    assert refused.value.code == "InvalidParameterValue"
    rows, token = page(a_call(), {"MaxResults": 5000}, [f"{number:04}" for number in range(1500)], key=str)
    assert len(rows) == 1000
    assert token is not None
