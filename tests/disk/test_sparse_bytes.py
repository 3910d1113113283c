"""Bytes that take no memory until they are changed are a bytearray to whoever looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celaje.disk.sparse_bytes import PIECE, SparseBytes

LENGTH = 2 * PIECE + 77
PLACES = st.integers(0, LENGTH - 1) | st.sampled_from([PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, LENGTH - 1])


@given(
    changes=st.lists(st.tuples(PLACES, st.integers(1, 40), st.integers(0, 3)), max_size=6),
    looks=st.lists(st.tuples(PLACES, PLACES | st.just(LENGTH + 9), st.integers(0, 3)), max_size=6),
    more=st.integers(1, PIECE),
)
def test_they_are_as_a_bytearray(
    changes: list[tuple[int, int, int]], looks: list[tuple[int, int, int]], more: int
) -> None:
    sparse, plain = SparseBytes(LENGTH), bytearray(LENGTH)
    for first, count, state in changes:
        end = min(first + count, LENGTH)
        sparse[first:end] = plain[first:end] = bytes((state,)) * (end - first)
        sparse[first] = plain[first] = state
    for first, end, state in looks:
        assert sparse.find(state, first, end) == plain.find(state, first, end)
        assert sparse.count(state, first, end) == plain.count(state, first, end)
        assert sparse[first:end] == plain[first:end]
        assert sparse[first] == plain[first]
        assert (state in sparse, sparse.find(state)) == (state in plain, plain.find(state))
    sparse.extend(more)
    plain.extend(bytes(more))
    assert (len(sparse), sparse[LENGTH - 9 :]) == (len(plain), plain[LENGTH - 9 :])
    sparse[LENGTH + more - 1] = 3
    assert sparse.count(0) == plain.count(0) - 1
