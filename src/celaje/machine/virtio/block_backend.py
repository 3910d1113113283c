"""What lies behind a virtual disk. Backends know nothing of virtio: bytes in, bytes out, at offsets that the device has
already checked against `size`. A raw file is the plainest; `overlay` beside this has one that leaves its base alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from celaje.errors import HostError, InputError, NotFound
from celaje.fallocate import FALLOCATE_KEEP_SIZE, FALLOCATE_PUNCH_HOLE, FALLOCATE_ZERO_RANGE, fallocate
from celaje.scatter import Buffers as Buffers
from celaje.scatter import preadv, pwritev
from celaje.scatter import section as section
from celaje.scatter import total as total

SECTOR_SIZE = 512
ZEROES = bytes(1 << 20)

NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class BlockBackend(Protocol):
    """A disk's contents. Calls come one at a time. `offset` and lengths are bytes, multiples of 512, inside `size`.

    All but the properties raise OSError where the host fails; what a failed call has then changed is not known.
    """

    @property
    def size(self) -> int:
        """Bytes, a multiple of 512."""

    @property
    def read_only(self) -> bool:
        """Whether nothing but reads are asked of it."""

    @property
    def serial(self) -> bytes:
        """What names the disk to the guest, at most 20 bytes of ASCII."""

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what is stored from `offset`."""

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """`readinto` if it need not wait for a storage device: True. Otherwise False, and `buffers` hold anything."""

    def write(self, buffers: Buffers, offset: int) -> None:
        """Store what `buffers` hold from `offset`."""

    def writes_at_once(self, offset: int, length: int) -> bool:
        """Whether `write` there takes the host's page cache or its disk, and waits for nobody else."""

    def flush(self) -> None:
        """When this returns, everything written before survives a loss of power."""

    def discard(self, offset: int, length: int) -> None:
        """The guest needs the range no more; it may read as anything until it is written again."""

    def write_zeroes(self, offset: int, length: int, may_unmap: bool) -> None:
        """Let the range read as zeros. `may_unmap`: the space for it need not stay allocated."""

    def close(self) -> None:
        """Let go of files and locks. Nothing is asked afterwards."""


def kind_of(error: Exception) -> object:
    """What is the same for failures of which one line in the log is enough."""
    return error.errno if isinstance(error, OSError) else type(error)


def failed_request(backend: BlockBackend, error: Exception) -> str:
    """A line for the log; of what is no failure of the host's, where it comes from. As text: a kept exception keeps its
    frames, and they keep windows of guest memory open."""
    how = str(error) if isinstance(error, OSError) else "".join(traceback.format_exception(error)).rstrip()
    return f"disk {backend.serial.decode(errors='replace')}: {how}; the guest gets I/O errors"


def read_fully(fd: int, buffers: Buffers, offset: int) -> None:
    """Fill `buffers` from file `fd`. OSError (EIO) if the file ends before."""
    length = total(buffers)
    done = preadv(fd, buffers, offset)
    while done < length:
        count = preadv(fd, section(buffers, done, length - done), offset + done)
        if count == 0:
            raise OSError(errno.EIO, f"the file ends {length - done} bytes before the disk does")
        done += count


def read_at_once(fd: int, buffers: Buffers, offset: int) -> bool:
    """Fill `buffers` from file `fd` if the host has it all in its page cache. False if not, or if it cannot tell
    (some file systems, and hosts other than Linux)."""
    if not NOWAIT:
        return False
    try:
        return preadv(fd, buffers, offset, NOWAIT) == total(buffers)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise


def write_fully(fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
    """Write all of `buffers` to file `fd`."""
    length = total(buffers)
    done = pwritev(fd, buffers, offset)
    while done < length:
        rest = section([memoryview(buffer) for buffer in buffers], done, length - done)
        count = pwritev(fd, rest, offset + done)
        if count == 0:
            raise OSError(errno.EIO, "the host's file takes no more bytes")
        done += count


def write_zeroes_by_hand(fd: int, offset: int, length: int) -> None:
    """Write `length` zeros, a mebibyte at a time."""
    while length:
        count = min(length, len(ZEROES))
        write_fully(fd, [ZEROES[:count]], offset)
        offset, length = offset + count, length - count


class RawFile:
    """A file (or block device) whose byte n is the disk's byte n.

    Opening locks it (flock): one writer, or any number of readers, also across processes. Raises NotFound if it is not
    there, InputError if it cannot be used (no permission, in use, not whole sectors).
    """

    def __init__(self, path: Path | str, *, read_only: bool = False, serial: bytes | None = None) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._fd = self._open()
        try:
            self._lock()
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
            if not self.size or self.size % SECTOR_SIZE:
                raise InputError(
                    f"disk {self.path} must be a whole number of {SECTOR_SIZE}-byte sectors, and has {self.size} bytes;"
                    f" is it a raw image? To fill up its last sector: truncate -s %{SECTOR_SIZE} {self.path}"
                )
        except BaseException:
            os.close(self._fd)
            raise
        if serial is None:
            serial = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:20].encode()
        self.serial = serial

    def _open(self) -> int:
        try:
            return os.open(self.path, (os.O_RDONLY if self.read_only else os.O_RDWR) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"there is no disk {self.path}; to make an empty one: truncate -s 8G {self.path}") from None
        except PermissionError:
            raise InputError(
                f"disk {self.path} may not be {'read' if self.read_only else 'written'} by this user;"
                f" give --disk {self.path},readonly, or change its mode"
            ) from None
        except IsADirectoryError:
            raise InputError(f"disk {self.path} is a directory; a disk is a raw image file or a block device") from None
        except OSError as error:
            raise HostError(
                f"disk {self.path} cannot be opened: {error.strerror}; give --disk {self.path},readonly to only read it"
            ) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"disk {self.path} is in use by another machine; stop that one"
                + ("" if self.read_only else f", or give --disk {self.path},readonly to both")
            ) from None

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what is stored from `offset`."""
        read_fully(self._fd, buffers, offset)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        """`readinto` if all of it is in the host's page cache: True."""
        return read_at_once(self._fd, buffers, offset)

    def write(self, buffers: Buffers, offset: int) -> None:
        """Store what `buffers` hold from `offset`."""
        write_fully(self._fd, buffers, offset)

    def writes_at_once(self, offset: int, length: int) -> bool:
        """It always does."""
        return True

    def flush(self) -> None:
        """When this returns, everything written before survives a loss of power."""
        os.fdatasync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole, so that the host's file system has the space back; nothing, where it cannot."""
        fallocate(self._fd, FALLOCATE_PUNCH_HOLE | FALLOCATE_KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int, may_unmap: bool) -> None:
        """Let the range read as zeros: by a hole, by the file system's zeroed extents, or by writing zeros."""
        mode = FALLOCATE_PUNCH_HOLE if may_unmap else FALLOCATE_ZERO_RANGE
        if not fallocate(self._fd, mode | FALLOCATE_KEEP_SIZE, offset, length):
            write_zeroes_by_hand(self._fd, offset, length)

    def grow(self, size: int) -> None:
        """Make the file `size` bytes long; whoever uses the disk is told by its device. InputError if it would shrink
        or has no whole sectors; OSError."""
        if size < self.size or size % SECTOR_SIZE:
            raise InputError(
                f"disk {self.path} has {self.size} bytes; it may have more, in whole sectors, but not {size}"
            )
        os.ftruncate(self._fd, size)
        self.size = size

    def close(self) -> None:
        """Close the file, which unlocks it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
