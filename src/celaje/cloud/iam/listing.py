"""Pages of IAM's lists: Marker and MaxItems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.pagination import page

Item = TypeVar("Item")


def page_of(
    call: Call, request: Mapping[str, object], items: Iterable[Item], key: Callable[[Item], str]
) -> tuple[list[Item], str | None]:
    """One page of `items`, ordered by `key`, and the next one's marker."""
    return page(
        call, request, items, key=key, least=1, most=1000, default=100, token_member="Marker", size_member="MaxItems"
    )


def listed(
    call: Call,
    request: Mapping[str, object],
    member: str,
    items: Iterable[Item],
    key: Callable[[Item], str],
    described: Callable[[Item], object],
) -> dict[str, object]:
    """One page of `items`, ordered by `key`, as the answer's `member`."""
    found, marker = page_of(call, request, items, key)
    return {member: [described(item) for item in found], "IsTruncated": marker is not None, "Marker": marker}
