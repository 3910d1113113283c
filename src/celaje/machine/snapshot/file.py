"""The file of a machine snapshot: whole in itself, checked before anything of it is believed.

    0x0000  header      one page:
              0  magic          8 bytes  "celajeVM"
              8  version        le32
             12  (zero)         le32
             16  file size      le64     a file of any other size is refused
             24  state offset   le64  |  32  state length  le64
             40  index offset   le64  |  48  index length  le64
             56  state's hash   32 bytes, BLAKE3
             88  index's hash   32 bytes, BLAKE3
            120  header's hash  32 bytes, BLAKE3 of bytes 0 to 119
    0x1000  sections    each from a page boundary
              memory    page n of the slot at n * 4096, so that the file can be mapped as it is; zero pages may be holes
              disk      the clusters of 4096 bytes that differ from the disk's base, one after the other
            index       where each section is, and a hash for every 64 KiB of it (zeros for a block that is all zero)
            state       what the harts and devices hold (`state.py`)

Opening checks size, header, index and state. The sections are checked block by block by `verify`, not by a restore,
which maps memory and is to take no longer the more of it there is.

Writing goes to a nameless file, or (where the file system has none) to a hidden neighbour, which gets its name when it
is whole and durable: there is never half a snapshot.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
from blake3 import blake3

from celaje.errors import HostError, InputError, NotFound
from celaje.fallocate import FALLOCATE_KEEP_SIZE, FALLOCATE_PUNCH_HOLE, fallocate
from celaje.machine.virtio.block_backend import write_fully
from celaje.typed_data import from_msgpack

MAGIC = b"celajeVM"
VERSION = 1
PAGE = 4096
BLOCK = 1 << 16
HASH_BYTES = 32
ZERO_BLOCK = bytes(HASH_BYTES)
_ZEROES = bytes(BLOCK)
INDEX_MOST = 1 << 28  # bytes: the hashes of half a terabyte
STATE_MOST = 1 << 26
PIECE = 1 << 20  # bytes copied at once: the interpreter is free meanwhile

_header = struct.Struct("<8sII5Q32s32s")
_HEADER_HASH = slice(_header.size, _header.size + HASH_BYTES)

Progress = Callable[[int, int], None]
"""Hears bytes done and bytes in all."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`length` bytes from `offset`; `hashes` has HASH_BYTES for each block of 64 KiB, the last perhaps shorter."""

    name: str
    offset: int
    length: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class _Damage:
    """What is wrong with a file, for a message."""

    path: Path

    def __call__(self, what: str) -> InputError:
        return InputError(
            f"{self.path} is no whole machine snapshot: {what}; take it again (celaje vm snapshot NAME FILE), "
            "or fetch the file again from where it came from"
        )


class SnapshotFile:
    """A snapshot that was opened and whose header, index and state are as they were written.

    NotFound if there is no such file, InputError if it is none, or of another version, or damaged there. `descriptor`
    stays open until `close`; mappings that were made of it live on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        damage = _Damage(path)
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"there is no machine snapshot {path}; celaje vm snapshot NAME {path} takes one") from None
        except OSError as error:
            raise InputError(f"the machine snapshot {path} cannot be read: {error.strerror}") from error
        try:
            self._read(damage)
        except OSError as error:
            self.close()
            raise InputError(f"the machine snapshot {path} cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def _read(self, damage: _Damage) -> None:
        page = os.pread(self.descriptor, PAGE, 0)
        if not page.startswith(MAGIC):
            raise InputError(f"{self.path} is no machine snapshot; celaje vm snapshot NAME FILE takes one")
        if len(page) < PAGE:
            raise damage(f"it ends after {len(page)} bytes")
        _, version, _, size, state_at, state_length, index_at, index_length, state_hash, index_hash = (
            _header.unpack_from(page)
        )
        if version != VERSION:
            raise InputError(
                f"the machine snapshot {self.path} is of version {version}, and this celaje reads version {VERSION};"
                " restore it with the celaje that took it"
            )
        if page[_HEADER_HASH] != blake3(page[: _header.size]).digest():
            raise damage("its header was altered")
        held = os.fstat(self.descriptor).st_size
        if held != size:
            raise damage(f"it has {held} bytes and must have {size}")
        self.size = int(size)
        index = self._part(index_at, index_length, INDEX_MOST, index_hash, damage, "index")
        try:
            self.sections = {one.name: one for one in from_msgpack(index, list[Section])}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise damage(f"its index is malformed ({error})") from error
        for section in self.sections.values():
            blocks = -(-section.length // BLOCK) if section.length >= 0 else -1
            inside = 0 <= section.offset and section.offset + section.length <= size
            if section.offset % PAGE or not inside or len(section.hashes) != blocks * HASH_BYTES:
                raise damage(f"its section {section.name} lies outside, or lacks hashes")
        self.state = self._part(state_at, state_length, STATE_MOST, state_hash, damage, "state")

    def _part(self, at: int, length: int, most: int, digest: bytes, damage: _Damage, what: str) -> bytes:
        if length > most or at + length > self.size:
            raise damage(f"its {what} lies outside")
        data = os.pread(self.descriptor, length, at)
        if len(data) != length or blake3(data).digest() != digest:
            raise damage(f"its {what} was altered")
        return data

    def section(self, name: str, length: int | None = None) -> Section:
        """The section `name`, with exactly `length` bytes where that is given. InputError if there is none such."""
        found = self.sections.get(name)
        if found is None or (length is not None and found.length != length):
            raise _Damage(self.path)(f"there is no section {name}" + (f" of {length} bytes" if length else ""))
        return found

    def blocks(self, section: Section) -> Iterator[bytes]:
        """The section's contents, 64 KiB at a time, each checked. InputError names the first that was altered."""
        for number in range(len(section.hashes) // HASH_BYTES):
            wanted = section.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]
            length = min(BLOCK, section.length - number * BLOCK)
            data = os.pread(self.descriptor, length, section.offset + number * BLOCK)
            if len(data) != length or not matches(data, wanted):  # too few zeros have the hash of zeros
                raise self.altered(section, number)
            yield data

    def altered(self, section: Section, number: int) -> InputError:
        """The error for a block whose content is not what its hash says."""
        return _Damage(self.path)(f"block {number} of its section {section.name} was altered")

    def verify(self, progress: Progress = lambda done, total: None) -> None:
        """Check every block of every section. InputError names the first that was altered."""
        total = sum(section.length for section in self.sections.values())
        done = 0
        for section in self.sections.values():
            for block in self.blocks(section):
                done += len(block)
                progress(done, total)

    def close(self) -> None:
        """Close the file. Mappings stay."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class SnapshotWriter:
    """Makes the file at `path`: sections first, then `finish`. Leaving it as a context without that leaves nothing.

    InputError where something is at `path` already; HostError where the directory takes no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            raise InputError(f"{path} is there already; remove it first, or give another name")
        self._scratch: Path | None = None
        try:
            self._fd = self._open()
        except OSError as error:
            raise HostError(f"no machine snapshot can be made at {path}: {error.strerror}") from error
        self._end = PAGE
        self._sections: list[tuple[str, int, int]] = []

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            return os.open(self.path.parent, flags | os.O_TMPFILE, 0o600)
        self._scratch = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        return os.open(self._scratch, flags | os.O_CREAT | os.O_EXCL, 0o600)

    def _link(self) -> None:
        """Give the file its name; unlike a rename this replaces nothing."""
        if self._scratch is not None:
            os.link(self._scratch, self.path)
            return
        # With a directory given, Python follows the link that /proc has for the descriptor; otherwise Linux would not.
        descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(str(self._fd), self.path, src_dir_fd=descriptors, follow_symlinks=True)
        finally:
            os.close(descriptors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._scratch is not None:
                self._scratch.unlink(missing_ok=True)

    def add(self, name: str, length: int) -> int:
        """Room for a section of `length` bytes, all zero until written. Returns its offset."""
        offset, self._end = self._end, self._end + -(-length // PAGE) * PAGE
        os.ftruncate(self._fd, self._end)
        self._sections.append((name, offset, length))
        return offset

    def write(self, offset: int, buffers: Sequence[bytes | memoryview]) -> None:
        """Put `buffers`, end to end, at `offset` of the file. OSError as the host says."""
        write_fully(self._fd, buffers, offset)

    def finish(self, state: bytes, progress: Progress = lambda done, total: None) -> None:
        """Hash the sections, write index, state and header, make it all durable, and give it its name.

        HostError where the disk is full or fails, InputError where the name is taken meanwhile.
        """
        total = sum(length for _, _, length in self._sections)
        done = 0
        sections = []
        for name, offset, length in self._sections:
            hashes = bytearray()
            for digest in self._hash(offset, length):
                hashes += digest
                progress(done + min(length, len(hashes) // HASH_BYTES * BLOCK), total)
            done += length
            sections.append(Section(name, offset, length, bytes(hashes)))
        index = msgspec.msgpack.encode(sections)
        index_at = self._append(index)
        state_at = self._append(state)
        os.ftruncate(self._fd, self._end)
        header = _header.pack(
            MAGIC, VERSION, 0, self._end, state_at, len(state), index_at, len(index),
            blake3(state).digest(), blake3(index).digest(),
        )  # fmt: skip
        write_fully(self._fd, [header + blake3(header).digest()], 0)
        os.fsync(self._fd)
        try:
            self._link()
        except FileExistsError:
            raise InputError(f"{self.path} is there already; remove it first, or give another name") from None
        if self._scratch is not None:
            self._scratch.unlink()
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        os.close(self._fd)
        self._fd = -1

    def _append(self, data: bytes) -> int:
        offset = self._end
        write_fully(self._fd, [data], offset)
        self._end += -(-len(data) // PAGE) * PAGE
        return offset

    def _hash(self, offset: int, length: int) -> Iterator[bytes]:
        """The hash of each block. What is all zero is given back to the host's file system."""
        at = 0
        while at < length:
            hole = _data_after(self._fd, offset + at, offset + length) - offset
            while at + BLOCK <= hole:
                yield ZERO_BLOCK
                at += BLOCK
            if at >= length:
                return
            data = os.pread(self._fd, min(BLOCK, length - at), offset + at)
            if data == _ZEROES[: len(data)]:
                fallocate(self._fd, FALLOCATE_PUNCH_HOLE | FALLOCATE_KEEP_SIZE, offset + at, len(data))
                yield ZERO_BLOCK
            else:
                yield blake3(data).digest()
            at += len(data)


def matches(data: bytes, digest: bytes) -> bool:
    """Whether a block's content is what its hash in the index says."""
    return data == _ZEROES[: len(data)] if digest == ZERO_BLOCK else blake3(data).digest() == digest


def _data_after(fd: int, start: int, end: int) -> int:
    """Where, from `start` and not after `end`, the file has something that is not a hole."""
    try:
        return min(end, os.lseek(fd, start, os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:  # holes from here to the end of the file
            return end
        return start  # a file system that cannot tell


def data_runs(fd: int, size: int) -> Iterable[tuple[int, int]]:
    """(start, end) of the stretches of a file that are no holes, in pieces of at most PIECE bytes."""
    at = 0
    while (at := _data_after(fd, at, size)) < size:
        try:
            end = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        except OSError:
            end = size
        while at < end:
            yield at, min(at + PIECE, end)
            at = min(at + PIECE, end)


def map_section(file: SnapshotFile, section: Section) -> mmap.mmap:
    """The section as memory, page by page as it is touched; what is written there never reaches the file."""
    return mmap.mmap(
        file.descriptor,
        section.length,
        flags=mmap.MAP_PRIVATE,
        prot=mmap.PROT_READ | mmap.PROT_WRITE,
        offset=section.offset,
    )
