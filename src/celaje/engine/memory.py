"""Guest memory: one memfd, or a file's section mapped copy-on-write, mapped once, shared by engines and devices.

Every access through this class is checked against the region's bounds and answered with `OutOfGuestMemory`; devices
catch it and reset themselves. Engines use `host_address` and check on their own.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from array import array
from functools import lru_cache, partial

from celaje.errors import HostError
from celaje.scatter import Lanes, Windows

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
TABLES_KEPT = 4
"""Tables whose vectors are kept: who reads or writes past a page cache mostly does so with one buffer."""
LANES_KEPT = 16
"""Lengths of tables for which what is checked together is kept, some ten bytes for each of a table's."""


class OutOfGuestMemory(Exception):
    """An address range that is not wholly inside guest memory. Caught at the device that was given it."""


class GuestMemory:
    """`size` bytes of guest-physical memory that start at `base` (both multiples of 4096).

    It begins as zeros or, with `contents`, as that private mapping of `size` bytes, which it then owns. `dirty` holds
    one byte a page; generated code and `write` set it to 1 when they change the page.
    """

    def __init__(self, base: int, size: int, contents: mmap.mmap | None = None) -> None:
        if size <= 0 or size % PAGE_SIZE or base % PAGE_SIZE:
            raise ValueError(f"guest memory must be whole pages of {PAGE_SIZE} bytes, not {size:#x} bytes at {base:#x}")
        if contents is not None and len(contents) != size:
            raise ValueError(f"guest memory of {size:#x} bytes cannot begin as a mapping of {len(contents):#x}")
        self.base = base
        self.size = size
        self.fd: int | None = None
        """The memfd; its holes are pages that nobody has touched. None for memory that began as a file's."""
        if contents is None:
            self.fd = os.memfd_create("celaje-guest-memory", os.MFD_CLOEXEC)
            try:
                os.ftruncate(self.fd, size)
                contents = mmap.mmap(self.fd, size, flags=mmap.MAP_SHARED)
            except (OSError, OverflowError, ValueError) as error:
                os.close(self.fd)
                raise HostError(
                    f"the host cannot give the machine {size >> 20} MiB of memory ({error}); ask for less with --memory"
                ) from error
        self._map = contents
        self.view = memoryview(self._map)
        self._buffer = (ctypes.c_char * size).from_buffer(self._map)
        self.host_address = ctypes.addressof(self._buffer)
        self.dirty = bytearray(size // PAGE_SIZE)
        self._dirty_buffer = (ctypes.c_char * len(self.dirty)).from_buffer(self.dirty)
        self.dirty_address = ctypes.addressof(self._dirty_buffer)
        lanes = partial(Lanes, base=base, size=size, host=self.host_address, page=PAGE_SIZE)
        self._lanes = lru_cache(LANES_KEPT)(lanes)
        self._vectors = lru_cache(TABLES_KEPT)(self._vector)

    def _offset(self, address: int, length: int) -> int:
        offset = address - self.base
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfGuestMemory(f"{length} bytes at {address:#x} are not in guest memory")
        return offset

    def contains(self, address: int, length: int = 1) -> bool:
        """Whether `length` bytes from `address` are all inside."""
        offset = address - self.base
        return 0 <= offset and 0 <= length and offset + length <= self.size

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from guest-physical `address`."""
        offset = self._offset(address, length)
        return bytes(self.view[offset : offset + length])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at guest-physical `address` and mark its pages dirty."""
        length = len(data)
        offset = self._offset(address, length)
        self.view[offset : offset + length] = data
        self.mark_dirty(address, length)

    def slice(self, address: int, length: int) -> memoryview:
        """A writable window, for scatter-gather I/O without a copy. The caller marks what it changes as dirty."""
        offset = self._offset(address, length)
        return self.view[offset : offset + length]

    def windows(self, table: bytes) -> Windows | None:
        """`slice` for each range of a table (16 bytes each: address le64, length le32, anything le32): a request of a
        megabyte has hundreds. None where one is empty or not inside.
        """
        inner: tuple[array[int], bool, int] | None = array("Q"), True, 0
        outer = table
        if len(table) > 32:  # the first and the last range are a header and a status, in another place each time
            inner, outer = self._vectors(table[16:-16]), table[:16] + table[-16:]
        ends = self._vector(outer)
        if inner is None or ends is None:
            return None
        vector = ends[0][:2] + inner[0] + ends[0][2:]
        return Windows(self.view, self.base, self.host_address, vector, inner[1] and ends[1], inner[2] + ends[2])

    def _vector(self, table: bytes) -> tuple[array[int], bool, int] | None:
        """The host's vector of a table's ranges, whether none goes over the end of a page, and their bytes."""
        found = self._lanes(len(table) // 16).vector(table)
        return None if found is None else (*found, sum(found[0][1::2]))

    def mark_windows(self, windows: Windows) -> None:
        """Note that what is in `windows` of this memory has changed."""
        if windows.within_pages:
            dirty = self.dirty
            for start in windows.starts():
                dirty[start >> PAGE_SHIFT] = 1
        else:
            for start, length in zip(*windows.ranges(), strict=True):
                self.mark_dirty(self.base + start, length)

    def mark_dirty(self, address: int, length: int) -> None:
        """Note that `length` bytes from `address` have changed."""
        if length:
            offset = self._offset(address, length)
            first, last = offset // PAGE_SIZE, (offset + length - 1) // PAGE_SIZE
            if first == last:
                self.dirty[first] = 1
            else:
                self.dirty[first : last + 1] = b"\x01" * (last + 1 - first)

    def close(self) -> None:
        """Give the memory back to the host. No engine may be running on it."""
        if self.fd is not None:
            os.close(self.fd)
        self.view.release()
        del self._buffer, self._dirty_buffer
        self._map.close()
