"""Scattered input and output: many windows into one memory, moved by one system call.

A guest's request of a mebibyte is 256 pages that are nowhere adjacent. A memoryview for each of them, and what the
host's call does with each, cost Python more than the call itself. `Windows` holds such a request as the vector of
addresses and lengths that the host's calls take, and makes memoryviews only for who asks for them.

`Lanes` checks and translates all ranges of a table at once, as one number of 128 bits a range: Python adds and compares
such numbers at the speed of memory, where a loop over 256 ranges takes longer than to move what is in them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from array import array
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import overload

Buffers = Sequence[memoryview]
"""Windows into memory, not empty, at most 1024 of them (the host's limit for one scattered read or write)."""

FEW = 4
"""So many windows are quickly counted."""

_libc = ctypes.CDLL(None, use_errno=True)
_ARGUMENTS = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int)
_TAKES_FLAGS = hasattr(_libc, "preadv2") and hasattr(_libc, "pwritev2") and ctypes.sizeof(ctypes.c_void_p) == 8
if _TAKES_FLAGS:
    for _function in (_libc.preadv2, _libc.pwritev2):
        _function.argtypes = _ARGUMENTS
        _function.restype = ctypes.c_ssize_t


class Windows(MutableSequence[memoryview]):
    """A list of windows into `view`, whose first byte is at `host` in this process and means `base` to who gave the
    ranges. `vector` is the host's `struct iovec` of each: address and length.

    Whoever makes it has checked that all of them are inside and none is empty. It keeps the memory open as a window
    itself would. Taking windows off either end leaves it as it is; any other change, or a look at all, makes it an
    ordinary list inside.
    """

    __slots__ = ("_first", "_host", "_made", "_stop", "_total", "_vector", "_view", "base", "within_pages")

    def __init__(
        self, view: memoryview, base: int, host: int, vector: array[int], within_pages: bool, total: int | None = None
    ) -> None:
        self._view = view[:]
        self.base, self._host, self._vector = base, host, vector
        self._first, self._stop = 0, len(vector) // 2
        self.within_pages = within_pages
        """No window goes over the end of a page; False: perhaps one does."""
        self._total = total
        self._made: list[memoryview] | None = None

    @property
    def total(self) -> int:
        """Bytes in all windows."""
        if self._made is not None:
            return sum(map(len, self._made))
        if self._total is None:
            self._total = sum(self._vector[2 * self._first + 1 : 2 * self._stop : 2])
        return self._total

    def ranges(self) -> tuple[list[int], list[int]]:
        """Where each window begins, in bytes from the memory's start, and its length: while it is no ordinary list."""
        return self.starts(), self._vector[2 * self._first + 1 : 2 * self._stop : 2].tolist()

    def starts(self) -> list[int]:
        """Where each window begins, as in `ranges`."""
        host = self._host
        return [address - host for address in self._vector[2 * self._first : 2 * self._stop : 2]]

    def vector(self) -> int | None:
        """The address of the host's vector; None where they are an ordinary list by now."""
        return self._vector.buffer_info()[0] + 16 * self._first if self._made is None else None

    def _window(self, index: int) -> memoryview:
        start = self._vector[2 * index] - self._host
        return self._view[start : start + self._vector[2 * index + 1]]

    def _list(self) -> list[memoryview]:
        if self._made is None:
            self._made = [self._window(index) for index in range(self._first, self._stop)]
        return self._made

    def copy(self) -> Windows:
        """Another list of the same windows."""
        return self[:]

    def __len__(self) -> int:
        return self._stop - self._first if self._made is None else len(self._made)

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._list())

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Windows: ...
    def __getitem__(self, index: int | slice) -> memoryview | Windows:
        if isinstance(index, slice):
            return self._part(index)
        if self._made is not None:
            return self._made[index]
        place = index + (self._stop if index < 0 else self._first)
        if not self._first <= place < self._stop:
            raise IndexError(f"no window {index} of {len(self)}")
        return self._window(place)

    def _part(self, index: slice) -> Windows:
        part: Windows = object.__new__(Windows)
        part._view, part.base, part._host, part._vector = self._view, self.base, self._host, self._vector
        part.within_pages = self.within_pages
        start, stop, step = index.indices(len(self))
        part._first, part._stop = self._first + start, self._first + max(start, stop)
        part._made = None if self._made is None and step == 1 else self._list()[index]
        part._total = None
        if self._total is not None and part._made is None and len(part) + FEW >= len(self):
            vector = self._vector
            left_out = sum(vector[2 * self._first + 1 : 2 * part._first : 2])
            left_out += sum(vector[2 * part._stop + 1 : 2 * self._stop : 2])
            part._total = self._total - left_out
        return part

    @overload
    def __setitem__(self, index: int, value: memoryview) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[memoryview]) -> None: ...
    def __setitem__(self, index: int | slice, value: memoryview | Iterable[memoryview]) -> None:
        if isinstance(index, slice):
            if isinstance(value, memoryview):
                raise TypeError("a slice is replaced by windows, not by one")
            self._list()[index] = value
            return
        if not isinstance(value, memoryview):
            raise TypeError("a window is replaced by a window")
        self._list()[index] = value

    def __delitem__(self, index: int | slice) -> None:
        if self._made is None and self._first < self._stop and index in (0, -1):
            place = self._first if index == 0 else self._stop - 1
            if self._total is not None:
                self._total -= self._vector[2 * place + 1]
            if index == 0:
                self._first += 1
            else:
                self._stop -= 1
        else:
            del self._list()[index]

    def insert(self, index: int, value: memoryview) -> None:
        """As a list does."""
        self._list().insert(index, value)


class Lanes:
    """Tables of `count` ranges (address le64, length le32, anything le32) in memory of `size` bytes at `base`, which is
    at `host` in this process, whose pages have `page` bytes. `base + size` is below 2 ** 48.
    """

    def __init__(self, count: int, base: int, size: int, host: int, page: int) -> None:
        each = int.from_bytes((b"\x01" + bytes(15)) * count, "little")
        self._lengths = each * (0xFFFFFFFF << 64)
        self._addresses = each * ((1 << 48) - 1)
        self._beyond = each * (0xFFFF << 48)
        self._top = each << 63
        self._base = each * base
        self._limit = self._top + each * (base + size)
        self._largest = each * (0xFFFFFFFF << 64)
        self._filled = each << 96
        self._distance = each * (host - base)
        self._in_page = each * (page - 1)
        self._page_end = self._top + each * page
        self._bytes = 16 * count

    def vector(self, table: bytes) -> tuple[array[int], bool] | None:
        """The `struct iovec` of each range, and whether none goes over the end of a page; None where a range is empty
        or not inside the memory."""
        number = int.from_bytes(table, "little")
        lengths, addresses, top = number & self._lengths, number & self._addresses, self._top
        # Differences with bit 63 set beforehand: it stays where nothing was borrowed. Lanes do not touch.
        if (
            number & self._beyond
            or ((addresses | top) - self._base) & top != top
            or (self._limit - addresses - (lengths >> 64)) & top != top
            or (lengths + self._largest) & self._filled != self._filled
        ):
            return None
        within_pages = (self._page_end - (addresses & self._in_page) - (lengths >> 64)) & top == top
        return array("Q", ((addresses + self._distance) | lengths).to_bytes(self._bytes, "little")), within_pages


def total(buffers: Sequence[memoryview | bytes | bytearray]) -> int:
    """Bytes in all `buffers`."""
    return buffers.total if isinstance(buffers, Windows) else sum(map(len, buffers))


def section(buffers: Buffers, start: int, length: int) -> list[memoryview]:
    """The `length` bytes from `start` of the `buffers` put end to end, as windows."""
    result = []
    for buffer in buffers:
        if start >= len(buffer):
            start -= len(buffer)
            continue
        window = buffer[start : start + length]
        result.append(window)
        length -= len(window)
        if not length:
            break
        start = 0
    return result


def preadv(fd: int, buffers: Sequence[memoryview | bytearray], offset: int, flags: int = 0, /) -> int:
    """`os.preadv`, quick for `Windows`."""
    vector = buffers.vector() if _TAKES_FLAGS and isinstance(buffers, Windows) else None
    if vector is None:
        return os.preadv(fd, buffers, offset, flags)
    while True:
        done = int(_libc.preadv2(fd, vector, len(buffers), offset, flags))
        if done >= 0:
            return done
        _fail_unless_interrupted()


def pwritev(fd: int, buffers: Sequence[memoryview | bytes | bytearray], offset: int, /) -> int:
    """`os.pwritev`, quick for `Windows`."""
    vector = buffers.vector() if _TAKES_FLAGS and isinstance(buffers, Windows) else None
    if vector is None:
        return os.pwritev(fd, buffers, offset)
    while True:
        done = int(_libc.pwritev2(fd, vector, len(buffers), offset, 0))
        if done >= 0:
            return done
        _fail_unless_interrupted()


def _fail_unless_interrupted() -> None:
    number = ctypes.get_errno()
    if number != errno.EINTR:
        raise OSError(number, os.strerror(number))
