"""A listing in pages is what the whole list says, however it is cut, and reads no more than it tells."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.cloud.s3.store.listing import list_page, successor

KEYS = st.lists(
    st.text("ab/\xff\0é", min_size=1, max_size=6).map(str.encode) | st.binary(min_size=1, max_size=4), max_size=40
)
PIECE = st.text("ab/é", max_size=2).map(str.encode)


def expected(keys: list[bytes], prefix: bytes, delimiter: bytes) -> list[tuple[bytes, bool]]:
    """Every key or common prefix in order, and whether it is a common prefix."""
    found: dict[bytes, bool] = {}
    for key in keys:
        if key.startswith(prefix):
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (b"", b"", b"")
            if cut:
                found[prefix + head + cut] = True
            else:
                found[key] = False
    return sorted(found.items())


@given(KEYS, PIECE, PIECE, st.integers(1, 7))
@settings(max_examples=400)
def test_pages_put_together_are_the_whole_list(keys: list[bytes], prefix: bytes, delimiter: bytes, limit: int) -> None:
    ordered = sorted(set(keys))

    def rows(first: bytes, end: bytes | None) -> Iterator[bytes]:
        return (key for key in ordered if key >= first and (end is None or key < end))

    told: list[tuple[bytes, bool]] = []
    after = b""
    for _ in range(len(ordered) + 1):
        page = list_page(rows, lambda key: key, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        told += sorted([(key, False) for key in page.entries] + [(each, True) for each in page.prefixes])
        assert len(page.entries) + len(page.prefixes) <= limit
        if page.last is None:
            break
        after = page.last
    # A key that ends in the delimiter can be of the same name as a common prefix; the common prefix has it.
    assert told == expected(ordered, prefix, delimiter)


@given(KEYS, PIECE, st.binary(min_size=1, max_size=4))
def test_a_listing_that_begins_after_a_key_tells_only_what_comes_after_it(
    keys: list[bytes], prefix: bytes, after: bytes
) -> None:
    ordered = sorted(set(keys))
    page = list_page(
        lambda first, end: (key for key in ordered if key >= first and (end is None or key < end)),
        lambda key: key,
        prefix=prefix,
        after=after,
        limit=100,
    )
    assert page.entries == [key for key in ordered if key.startswith(prefix) and key > after]


def test_a_common_prefix_of_a_million_keys_costs_one_look() -> None:
    seen = 0

    def rows(first: bytes, end: bytes | None) -> Iterator[bytes]:
        nonlocal seen
        for number in range(1000):
            for inside in range(1_000_000):
                key = b"%03d/%07d" % (number, inside)
                if key < first:
                    if first > b"%03d/~" % number:
                        break
                    continue
                seen += 1
                yield key

    page = list_page(rows, lambda key: key, delimiter=b"/", limit=50)
    assert page.prefixes == [b"%03d/" % number for number in range(50)]
    assert seen <= 51


def test_no_key_comes_after_all_that_begin_with_the_greatest_byte() -> None:
    assert successor(b"\xff\xff") is None
    assert successor(b"") is None
    assert successor(b"a\xff") == b"b"
