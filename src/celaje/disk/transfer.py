"""Whole disks in and out: what is read of a file of some format becomes a volume, and a volume becomes a raw file.

A format is a `Disk` to read from; the raw one is here, `qcow2` is another. An import is a volume only when all of it is
there, and durable; an export has its name only then. Zeros take no space on either side, and take no time where a
format or the host knows of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from celaje.disk.chunk_store import CHUNK
from celaje.disk.description import VolumeDescription, checked_size
from celaje.disk.files import (
    CREATE,
    READ,
    ZEROES,
    Buffers,
    Files,
    aside,
    opened,
    read_fully,
    write_fully,
)
from celaje.disk.volume import Progress, Volume, no_progress
from celaje.disk.volumes import VolumeStore
from celaje.errors import InputError, NotFound

BLOCK = CHUNK


class Disk(Protocol):
    """A disk's contents, to read. Bytes, offsets inside `size`. OSError where the host fails."""

    @property
    def size(self) -> int:
        """Bytes."""

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` with what is there from `offset`."""

    def data(self) -> Iterator[tuple[int, int]]:
        """(start, end) of stretches, ascending, outside which it reads as zeros."""


class RawDisk:
    """A raw file (or a block device): byte n is the disk's byte n."""

    def __init__(self, files: Files, fd: int) -> None:
        self._files = files
        self._fd = fd
        self.size = files.size(fd)

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` from the file."""
        read_fully(self._files, self._fd, buffers, offset)

    def data(self) -> Iterator[tuple[int, int]]:
        """What is no hole."""
        return self._files.data(self._fd, 0, self.size)


class VolumeDisk:
    """What an open volume holds."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.size = volume.size

    def readinto(self, buffers: Buffers, offset: int) -> None:
        """Fill `buffers` from the volume, which keeps nothing of what is fetched for it."""
        self._volume.read_at(buffers, offset)

    def data(self) -> Iterator[tuple[int, int]]:
        """The chunks that are not empty for certain."""
        for at in range(0, self.size, CHUNK):
            if not self._volume.is_empty(at // CHUNK):
                yield at, min(at + CHUNK, self.size)


@contextlib.contextmanager
def raw_disk(path: Path, files: Files) -> Iterator[RawDisk]:
    """A raw file, open for as long as the block runs. NotFound; InputError if it is no whole number of sectors."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; give the path of a disk image")
    try:
        with opened(files, path, READ) as fd:
            disk = RawDisk(files, fd)
            try:
                checked_size(disk.size)
            except InputError as error:
                raise InputError(
                    f"{path} is no raw disk: {error}; to fill up its last sector: truncate -s %512 {path}"
                ) from None
            yield disk
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}; give the path of a disk image") from None


def import_disk(
    store: VolumeStore, name: str, disk: Disk, size: int | None = None, progress: Progress = no_progress
) -> VolumeDescription:
    """A new volume with what `disk` holds, `size` bytes (default: as many as the disk). InputError, OSError."""
    size = disk.size if size is None else size
    if size < disk.size:
        raise InputError(f"a volume of this disk must have at least its {disk.size} bytes, and not {size}")

    def fill(volume: Volume) -> None:
        block = bytearray(BLOCK)
        for start, end in disk.data():
            for at in range(start, end, BLOCK):
                with memoryview(block)[: min(BLOCK, end - at)] as window:
                    disk.readinto([window], at)
                    if window.tobytes() != ZEROES[: len(window)]:
                        volume.write([window], at)
                progress(min(at + BLOCK, end), disk.size)
        progress(disk.size, disk.size)

    return store.create(name, size=size, fill=fill)


def export_raw(volume: Volume, path: Path, files: Files, progress: Progress = no_progress) -> None:
    """A raw file with what `volume` holds, under a name that nothing has. InputError if something has it; OSError."""
    with exported(files, path) as fd:
        files.truncate(fd, volume.size)
        block = bytearray(BLOCK)
        for at in range(0, volume.size, BLOCK):
            if not volume.is_empty(at // CHUNK):
                with memoryview(block)[: min(BLOCK, volume.size - at)] as window:
                    volume.read_at([window], at)
                    if window.tobytes() != ZEROES[: len(window)]:
                        write_fully(files, fd, [window], at)
            progress(min(at + BLOCK, volume.size), volume.size)


@contextlib.contextmanager
def exported(files: Files, path: Path) -> Iterator[int]:
    """A new file to write to inside, which has its name, durably, only when that has ended well. InputError if
    something has the name; NotFound for a directory that there is not; OSError."""
    if files.identity(path.parent) is None:
        raise NotFound(f"there is no directory {path.parent} to export to; make it, or give another")
    if files.identity(path) is not None:
        raise InputError(f"there is a file {path} already; remove it, or give another name")
    fresh = aside(path)
    try:
        with opened(files, fresh, CREATE) as fd:
            yield fd
            files.fdatasync(fd)
        files.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(fresh)
        raise
    files.sync_directory(path.parent)
