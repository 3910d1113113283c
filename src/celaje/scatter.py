"""Scattered input and output: many windows into one memory, moved by one system call.

A guest's request of a mebibyte is 256 pages that are nowhere adjacent. A memoryview for each of them, and what the
host's call does with each, cost Python more than the call itself. `Windows` holds such a request as two columns of
numbers, makes memoryviews only for who asks for them, and hands the host its vector of addresses at once.
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

_libc = ctypes.CDLL(None, use_errno=True)
_ARGUMENTS = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int)
_TAKES_FLAGS = hasattr(_libc, "preadv2") and hasattr(_libc, "pwritev2") and ctypes.sizeof(ctypes.c_void_p) == 8
if _TAKES_FLAGS:
    for _function in (_libc.preadv2, _libc.pwritev2):
        _function.argtypes = _ARGUMENTS
        _function.restype = ctypes.c_ssize_t


class Windows(MutableSequence[memoryview]):
    """A list of windows into `view`, whose first byte has address `base` in the two columns and `host` in this process.

    Whoever makes it has checked that all of them are inside. It keeps the memory open as a window itself would. Taking
    windows off either end leaves it as it is; any other change, or a look at all, makes it an ordinary list inside.
    """

    __slots__ = ("_addresses", "_base", "_first", "_host", "_lengths", "_made", "_stop", "_total", "_view")

    def __init__(
        self, view: memoryview, base: int, host: int, addresses: Sequence[int], lengths: Sequence[int]
    ) -> None:
        self._view = view[:]
        self._base, self._host = base, host
        self._addresses, self._lengths = addresses, lengths
        self._first, self._stop = 0, len(addresses)
        self._total = sum(lengths)
        self._made: list[memoryview] | None = None

    @property
    def total(self) -> int:
        """Bytes in all windows."""
        return self._total if self._made is None else sum(map(len, self._made))

    def vector(self) -> array[int] | None:
        """The host's `struct iovec` of each window; None where they are an ordinary list by now."""
        if self._made is not None:
            return None
        first, stop, distance = self._first, self._stop, self._host - self._base
        vector = array("Q", bytes(16 * (stop - first)))
        vector[::2] = array("Q", [address + distance for address in self._addresses[first:stop]])
        vector[1::2] = array("Q", self._lengths[first:stop])
        return vector

    def _window(self, index: int) -> memoryview:
        start = self._addresses[index] - self._base
        return self._view[start : start + self._lengths[index]]

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
        part._view, part._base, part._host = self._view, self._base, self._host
        part._addresses, part._lengths = self._addresses, self._lengths
        start, stop, step = index.indices(len(self))
        part._first, part._stop = self._first + start, self._first + max(start, stop)
        part._made = None if self._made is None and step == 1 else self._list()[index]
        part._total = sum(part._lengths[part._first : part._stop]) if part._made is None else 0
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
            self._total -= self._lengths[place]
            if index == 0:
                self._first += 1
            else:
                self._stop -= 1
        else:
            del self._list()[index]

    def insert(self, index: int, value: memoryview) -> None:
        """As a list does."""
        self._list().insert(index, value)


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
        done = int(_libc.preadv2(fd, vector.buffer_info()[0], len(buffers), offset, flags))
        if done >= 0:
            return done
        _fail_unless_interrupted()


def pwritev(fd: int, buffers: Sequence[memoryview | bytes | bytearray], offset: int, /) -> int:
    """`os.pwritev`, quick for `Windows`."""
    vector = buffers.vector() if _TAKES_FLAGS and isinstance(buffers, Windows) else None
    if vector is None:
        return os.pwritev(fd, buffers, offset)
    while True:
        done = int(_libc.pwritev2(fd, vector.buffer_info()[0], len(buffers), offset, 0))
        if done >= 0:
            return done
        _fail_unless_interrupted()


def _fail_unless_interrupted() -> None:
    number = ctypes.get_errno()
    if number != errno.EINTR:
        raise OSError(number, os.strerror(number))
