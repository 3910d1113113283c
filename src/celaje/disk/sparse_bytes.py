"""Bytes of which those that nobody has changed take no memory: what a bytearray of zeros is, for very many of them.

A bytearray is written to when it is made. Here the host's kernel makes a page when it is written to, and one page of
zeros stands for all others. What looks at many goes over copies of pieces, which a search in bytes is faster in, and
between which other threads have their turn.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import overload

PIECE = 1 << 20


class SparseBytes:
    """`length` zeros. Slices have no steps, and what is put into one is as long as that."""

    def __init__(self, length: int) -> None:
        self._map = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def __len__(self) -> int:
        return len(self._map)

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> bytes: ...

    def __getitem__(self, place: int | slice) -> int | bytes:
        return self._map[place]

    @overload
    def __setitem__(self, place: int, content: int) -> None: ...

    @overload
    def __setitem__(self, place: slice, content: bytes | bytearray) -> None: ...

    def __setitem__(self, place: int | slice, content: int | bytes | bytearray) -> None:
        if isinstance(content, int):
            assert isinstance(place, int)
            self._map[place] = content
        else:
            assert isinstance(place, slice)
            self._map[place] = content

    def __contains__(self, one: int) -> bool:
        return self.find(one) >= 0

    def _pieces(self, first: int, end: int | None) -> Iterator[tuple[int, bytes]]:
        end = len(self._map) if end is None else min(end, len(self._map))
        for at in range(first, end, PIECE):
            yield at, self._map[at : min(at + PIECE, end)]

    def find(self, one: int, first: int = 0, end: int | None = None) -> int:
        """Where the first such byte is from `first` to before `end`; -1 if there is none."""
        for at, piece in self._pieces(first, end):
            if (found := piece.find(one)) >= 0:
                return at + found
        return -1

    def count(self, one: int, first: int = 0, end: int | None = None) -> int:
        """How many such bytes there are from `first` to before `end`."""
        return sum(piece.count(one) for _, piece in self._pieces(first, end))

    def extend(self, length: int) -> None:
        """So many more zeros at the end."""
        self._map.resize(len(self._map) + length)
