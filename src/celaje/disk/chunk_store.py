"""Chunks: the 512 KiB pieces of snapshots, each named by the BLAKE3 hash of its bytes and kept once.

    store/chunks/ab/abcd…ef    a Zstandard frame (RFC 8878) of exactly 512 KiB; 64 hexadecimal digits, mode 0600

A volume's last chunk is filled up with zeros, so that growing the volume changes no name. A chunk of nothing but zeros
is never stored; its name in a manifest is 32 zero bytes. A name says what the content must be, so a chunk never
changes, and whoever reads one checks it.

Durability is asked for once for many: a chunk that was `put`, or that `has` found, is there for everybody at once, but
certain to outlive a loss of power only when `settle` has returned. That `has` counts too is not pedantry: another
process may have put the chunk a moment ago and not settled yet. The content is durable before the name appears.

`bucket` has them in an S3-compatible object store instead; `chunk_place` says which.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from celaje.disk.files import Files, contents, is_aside, write_aside
from celaje.errors import InputError
from celaje.zstandard import ZstdDecompressor, ZstdError, compress

CHUNK = 512 << 10
"""Bytes of a chunk."""

NAME_SIZE = 32
ZERO_NAME = bytes(NAME_SIZE)
_ZEROES = bytes(CHUNK)
_LEVEL = 1  # 450 MB/s a core; level 3 saves some 6 % of a root file system and takes twice as long


class ChunkError(InputError):
    """A chunk is missing or altered. The text names it and says what to do."""


class ChunkStore(Protocol):
    """Chunks by name (32 bytes). Every method raises OSError where the store cannot be reached or is full.

    Threads may call it at the same time, and so may processes.
    """

    def put(self, name: bytes, frame: bytes) -> None:
        """Keep a compressed chunk. What is there already under that name stays."""

    def get(self, name: bytes) -> bytes:
        """A compressed chunk. ChunkError if it is not there."""

    def has(self, name: bytes) -> bool:
        """Whether it is there."""

    def settle(self) -> None:
        """Everything that was put here, or that `has` found, is durable when this returns."""

    def delete(self, name: bytes) -> None:
        """Forget a chunk; nothing if it is not there. Only for who holds the store's lock exclusively."""

    def list(self) -> Iterator[bytes]:
        """The names of all chunks, in any order."""

    def where(self, name: bytes) -> str:
        """How a person finds the chunk."""

    def unfinished(self) -> Iterator[Path]:
        """Files that processes left when they were killed while putting a chunk, if nobody is putting one now."""


class FolderChunkStore:
    """Chunks in a directory, which need not exist yet; its parent must."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._unsettled: set[Path] = set()
        self._lock = threading.Lock()
        self._settling = threading.Lock()

    def _path(self, name: bytes) -> Path:
        digits = name.hex()
        return self._directory / digits[:2] / digits

    def where(self, name: bytes) -> str:
        """The path of the chunk's file."""
        return str(self._path(name))

    def _count_on(self, directory: Path) -> None:
        with self._lock:
            self._unsettled.add(directory)

    def has(self, name: bytes) -> bool:
        """Whether it is there."""
        path = self._path(name)
        if self._files.identity(path) is None:
            return False
        self._count_on(path.parent)
        return True

    def get(self, name: bytes) -> bytes:
        """A compressed chunk. ChunkError if it is not there."""
        path = self._path(name)
        try:
            return contents(self._files, path)
        except FileNotFoundError:
            raise ChunkError(
                f"the chunk {path} is missing; put it back from a copy of this store, and then: "
                "celaje vm volume check"
            ) from None

    def put(self, name: bytes, frame: bytes) -> None:
        """Keep a compressed chunk, unless it is there."""
        path = self._path(name)
        if self.has(name):
            return
        for directory in (self._directory, path.parent):
            with contextlib.suppress(FileExistsError):
                self._files.mkdir(directory)
        fresh = write_aside(self._files, path, [frame])
        self._count_on(path.parent)
        self._files.rename(fresh, path)

    def settle(self) -> None:
        """Make the names durable; the contents were before they had names.

        One at a time: whoever finds nothing left to do must not return before the other has done it.
        """
        with self._settling:
            with self._lock:
                directories, self._unsettled = self._unsettled, set()
            try:
                for directory in sorted(directories):
                    self._files.sync_directory(directory)
                if directories:
                    self._files.sync_directory(self._directory)
                    self._files.sync_directory(self._directory.parent)
            except BaseException:
                with self._lock:
                    self._unsettled |= directories
                raise

    def delete(self, name: bytes) -> None:
        """Forget a chunk."""
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._path(name))

    def list(self) -> Iterator[bytes]:
        """The names of all chunks."""
        for directory, name in self._entries():
            if len(name) == 2 * NAME_SIZE and name.startswith(directory):
                with contextlib.suppress(ValueError):
                    yield bytes.fromhex(name)

    def unfinished(self) -> Iterator[Path]:
        """Files that a process left when it was killed while putting a chunk, if nobody is putting one now."""
        return (self._directory / directory / name for directory, name in self._entries() if is_aside(name))

    def _entries(self) -> Iterator[tuple[str, str]]:
        for directory in self._files.names(self._directory):
            for name in self._files.names(self._directory / directory):
                yield directory, name


def name_of(content: bytes | bytearray) -> bytes:
    """The name of a chunk's content, CHUNK bytes."""
    # Comparing ends at the first byte that is not zero, and costs less than hashing if there is none.
    return ZERO_NAME if content == _ZEROES else blake3(content).digest()


def compressed(content: bytes | bytearray) -> bytes:
    """The frame that a store keeps."""
    return compress(content, _LEVEL)


def keep(store: ChunkStore, content: bytes | bytearray) -> bytes:
    """Have `store` keep a chunk's content, and return its name."""
    name = name_of(content)
    if name != ZERO_NAME and not store.has(name):
        store.put(name, compressed(content))
    return name


def fetch(store: ChunkStore, name: bytes) -> bytes:
    """A chunk's content, CHUNK bytes, checked against its name. ChunkError; OSError if the store fails."""
    if name == ZERO_NAME:
        return _ZEROES
    frame = store.get(name)
    try:
        # A frame can say that it is any size; no more than a chunk and one byte is taken of it.
        content = ZstdDecompressor().decompress(frame, CHUNK + 1)
    except (ZstdError, EOFError) as error:
        raise _altered(store, name, str(error)) from None
    if len(content) != CHUNK:
        raise _altered(store, name, f"it holds {'more' if len(content) > CHUNK else 'less'} than {CHUNK} bytes")
    found = blake3(content).digest()
    if found != name:
        raise _altered(store, name, f"its BLAKE3 hash is {found.hex()}")
    return content


def _altered(store: ChunkStore, name: bytes, how: str) -> ChunkError:
    return ChunkError(
        f"the chunk {store.where(name)} is altered: {how}; put it back from a copy of this store,"
        " and then run: celaje vm volume check --deep"
    )
