"""The one layer through which everything that this room keeps is read, written and made durable.

Durability is an order of writes and syncs, and an order can only be proved where all of it passes one place: the tests
put a recording layer here, replay every prefix of what it saw with unsynced writes dropped, reordered and torn, and
look at what is left (tests/disk/crash.py). So nothing in this room calls `open` or `os` for a store's files; it is
handed a `Files`. What is promised is POSIX's least: what was written to a file is durable after fdatasync, that a name
exists (or no longer does) only after fsync of its directory.

The host's own layer adds next to nothing to the calls that a guest waits for: its methods are those of `os`, or of
`scatter`, themselves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from celaje import scatter
from celaje.fallocate import FALLOCATE_KEEP_SIZE, FALLOCATE_PUNCH_HOLE, FALLOCATE_ZERO_RANGE, fallocate
from celaje.scatter import Buffers as Buffers
from celaje.scatter import section as section
from celaje.scatter import total as total

READ = os.O_RDONLY | os.O_CLOEXEC
WRITE = os.O_RDWR | os.O_CLOEXEC
CREATE = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
"""How a file is opened: to read it, to change it, or made new (FileExistsError if it is there). Modes are 0600."""

NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""The flag of `preadv` that answers EAGAIN rather than wait for a storage device; 0 where the host has none."""

ZEROES = bytes(1 << 20)

# Linux's ioctl that shares a whole file's blocks with another.
_FICLONE = 0x40049409


class Files(Protocol):
    """Files by path and descriptor. Every method raises OSError where the host fails, with the host's number."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor of the file (READ, WRITE or CREATE)."""

    def close(self, fd: int, /) -> None:
        """Let go of a descriptor, and of its lock."""

    def preadv(self, fd: int, buffers: Sequence[memoryview | bytearray], offset: int, flags: int = 0, /) -> int:
        """Bytes read into `buffers`, fewer than fit only at the file's end (or with NOWAIT, or after a signal)."""

    def pwritev(self, fd: int, buffers: Sequence[memoryview | bytes | bytearray], offset: int, /) -> int:
        """Bytes written, from the first on."""

    def fdatasync(self, fd: int, /) -> None:
        """What was written to the file, and its length, is durable when this returns."""

    def sync_directory(self, path: Path) -> None:
        """The names made, changed and taken away in the directory are durable when this returns."""

    def truncate(self, fd: int, size: int) -> None:
        """Make the file `size` bytes long; what is new reads as zeros."""

    def size(self, fd: int) -> int:
        """The file's length in bytes."""

    def erase(self, fd: int, offset: int, length: int, keep_space: bool) -> bool:
        """Let the range, inside the file, read as zeros without writing them. False where the host cannot.
        `keep_space`: its space stays allocated."""

    def data(self, fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(start, end) of the stretches of a range that are no holes; the whole range where the host cannot tell."""

    def copy(self, source: int, target: int, length: int) -> Iterator[int]:
        """Copy the first `length` bytes, holes left out, shared rather than copied where the host can; yields how
        far it has come."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in one step, in place of what had it; or a directory, where nothing has it."""

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name; of a symbolic link, what it leads to. FileExistsError if something has it."""

    def unlink(self, path: Path) -> None:
        """Take a file's name away."""

    def mkdir(self, path: Path) -> None:
        """Make a directory (mode 0700). FileExistsError if it is there."""

    def rmdir(self, path: Path) -> None:
        """Take an empty directory away."""

    def names(self, path: Path) -> list[str]:
        """The names in a directory, sorted; none if it is not there."""

    def identity(self, where: Path | int) -> tuple[int, int] | None:
        """What only this file has, by path or descriptor; None if nothing has the path."""

    def allocated(self, where: Path) -> int:
        """The bytes that the file takes on the disk."""

    def is_private(self, where: Path) -> bool:
        """Whether nobody but its owner may read or write the file, and that is this user."""

    def lock(self, fd: int, exclusive: bool, wait: bool) -> bool:
        """Lock the file (flock) against other descriptors, for one writer or many readers. False if that would wait."""


class HostFiles:
    """The host's files."""

    close = staticmethod(os.close)
    preadv = staticmethod(scatter.preadv)
    pwritev = staticmethod(scatter.pwritev)
    fdatasync = staticmethod(os.fdatasync)

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags, 0o600)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.lseek(fd, 0, os.SEEK_END)

    def erase(self, fd: int, offset: int, length: int, keep_space: bool) -> bool:
        mode = FALLOCATE_ZERO_RANGE if keep_space else FALLOCATE_PUNCH_HOLE
        return fallocate(fd, mode | FALLOCATE_KEEP_SIZE, offset, length)

    def data(self, fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        while start < end:
            try:
                begin = os.lseek(fd, start, os.SEEK_DATA)
                stop = os.lseek(fd, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    return
                if error.errno != errno.EINVAL:
                    raise
                begin, stop = start, end
            if begin >= end:
                return
            yield begin, min(stop, end)
            start = stop

    def copy(self, source: int, target: int, length: int) -> Iterator[int]:
        if self.size(source) == length:
            with contextlib.suppress(OSError):  # another file system, or one whose files share nothing
                fcntl.ioctl(target, _FICLONE, source)
                yield length
                return
        for start, end in self.data(source, 0, length):
            while start < end:
                start += self._copy_some(source, target, start, min(end - start, 16 << 20))
                yield start
        if self.size(target) < length:
            os.ftruncate(target, length)
        yield length

    def _copy_some(self, source: int, target: int, offset: int, length: int) -> int:
        try:
            count = os.copy_file_range(source, target, length, offset, offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY):
                raise
            block = os.pread(source, min(length, 1 << 20), offset)
            count = os.pwrite(target, block, offset)
        if not count:
            raise OSError(errno.EIO, "a file became shorter while it was copied")
        return count

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        os.link(os.path.realpath(old), new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path, 0o700)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def names(self, path: Path) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def identity(self, where: Path | int) -> tuple[int, int] | None:
        try:
            held = os.stat(where)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return held.st_dev, held.st_ino

    def allocated(self, where: Path) -> int:
        return os.stat(where).st_blocks * 512

    def is_private(self, where: Path) -> bool:
        held = os.stat(where)
        return not held.st_mode & 0o077 and held.st_uid == os.geteuid()

    def lock(self, fd: int, exclusive: bool, wait: bool) -> bool:
        operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(fd, operation if wait else operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


HOST = HostFiles()


def fill(buffers: Buffers, content: memoryview | bytes | None = None) -> None:
    """Copy `content`, as long as they are, into `buffers`; zeros if there is none."""
    at = 0
    for buffer in buffers:
        if content is not None:
            buffer[:] = content[at : at + len(buffer)]
            at += len(buffer)
            continue
        for start in range(0, len(buffer), len(ZEROES)):
            window = buffer[start : start + len(ZEROES)]
            window[:] = ZEROES[: len(window)]


def read_fully(files: Files, fd: int, buffers: Buffers, offset: int) -> None:
    """Fill `buffers`. OSError (EIO) if the file ends before."""
    length = total(buffers)
    done = files.preadv(fd, buffers, offset)
    while done < length:
        count = files.preadv(fd, section(buffers, done, length - done), offset + done)
        if count == 0:
            raise OSError(errno.EIO, f"a file ends {length - done} bytes before what should be in it does")
        done += count


def read_at_once(files: Files, fd: int, buffers: Buffers, offset: int) -> bool:
    """Fill `buffers` if the host has it all in its page cache. False if not, or if it cannot tell."""
    if not NOWAIT:
        return False
    try:
        return files.preadv(fd, buffers, offset, NOWAIT) == total(buffers)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise


def write_fully(files: Files, fd: int, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
    """Write all of `buffers`."""
    length = total(buffers)
    done = files.pwritev(fd, buffers, offset)
    while done < length:
        rest = section([memoryview(buffer) for buffer in buffers], done, length - done)
        count = files.pwritev(fd, rest, offset + done)
        if count == 0:
            raise OSError(errno.EIO, "the host's file takes no more bytes")
        done += count


def write_zeroes(files: Files, fd: int, offset: int, length: int) -> None:
    """Write `length` zeros, a mebibyte at a time."""
    while length:
        count = min(length, len(ZEROES))
        write_fully(files, fd, [ZEROES[:count]], offset)
        offset, length = offset + count, length - count


@contextlib.contextmanager
def opened(files: Files, path: Path, flags: int) -> Iterator[int]:
    """A descriptor for as long as the block runs."""
    fd = files.open(path, flags)
    try:
        yield fd
    finally:
        files.close(fd)


def contents(files: Files, path: Path) -> bytes:
    """All bytes of a file."""
    with opened(files, path, READ) as fd:
        block = bytearray(files.size(fd))
        if block:
            read_fully(files, fd, [memoryview(block)], 0)
    return bytes(block)


def aside(path: Path) -> Path:
    """A name beside `path` that nothing lists: what is not finished, or no longer wanted."""
    return path.with_name(f".{path.name.lstrip('.')}.{secrets.token_hex(8)}")


def is_aside(name: str) -> bool:
    """Whether a name is one of those that `aside` makes."""
    return re.fullmatch(r"\..+\.[0-9a-f]{16}", name) is not None


def write_aside(files: Files, path: Path, parts: Sequence[bytes | bytearray | memoryview]) -> Path:
    """A durable file with `parts` for content, under a name aside of `path`: rename it, and sync the directory."""
    fresh = aside(path)
    try:
        with opened(files, fresh, CREATE) as fd:
            write_fully(files, fd, parts, 0)
            files.fdatasync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(fresh)
        raise
    return fresh


def publish(files: Files, path: Path, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Let `path` have `parts` for content, wholly or (whatever happens) not at all; durable when this returns."""
    fresh = write_aside(files, path, parts)
    try:
        files.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(fresh)
        raise
    files.sync_directory(path.parent)


def remove_tree(files: Files, directory: Path) -> None:
    """Take a directory of files away; what of it is already gone is no error."""
    for name in files.names(directory):
        with contextlib.suppress(FileNotFoundError):
            files.unlink(directory / name)
    with contextlib.suppress(FileNotFoundError):
        files.rmdir(directory)
