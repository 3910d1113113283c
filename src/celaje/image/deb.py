"""Debian's binary packages (deb(5)): an ar archive of debian-binary, control.tar.* and data.tar.*.

    "!<arch>\\n", then members, each at an even offset:
    name[16] mtime[12] uid[6] gid[6] mode[8] size[10] "`\\n"  |  size bytes

The data archive is read as a stream, so that of a large package only the files that are wanted are ever in memory.
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from celaje import zstandard
from celaje.errors import ImageError
from celaje.image.tree import Entry, Tree, normalised

_AR_MAGIC = b"!<arch>\n"
_MEMBER_HEADER = 60
_BUFFER_BYTES = 1 << 18
_TYPES = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}

_DECOMPRESSORS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "": lambda stream: stream,
    ".gz": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    ".xz": lambda stream: lzma.LZMAFile(stream),  # noqa: SIM115 - whoever asked for the stream closes it
    ".zst": lambda stream: cast(IO[bytes], zstandard.ZstdFile(stream)),
}


class _Window(io.RawIOBase):
    """`length` bytes of `file` from `start`, as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._position, self._end = file, start, start + length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed asks for any buffer; io passes this one
        self._file.seek(self._position)
        chunk = self._file.read(min(len(buffer), self._end - self._position))
        self._position += len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _members(file: IO[bytes], name: str) -> dict[str, tuple[int, int]]:
    """Where each member's content is: offset and length."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise ImageError(f"{name} is no Debian package: it does not begin with {_AR_MAGIC.decode().strip()!r}")
    end = file.seek(0, io.SEEK_END)
    members: dict[str, tuple[int, int]] = {}
    position = len(_AR_MAGIC)
    while position < end:
        file.seek(position)
        header = file.read(_MEMBER_HEADER)
        if len(header) < _MEMBER_HEADER or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise ImageError(f"{name} is a broken package: no ar member's header at byte {position}")
        size = int(header[48:58])
        start = position + _MEMBER_HEADER
        if start + size > end:
            raise ImageError(f"{name} is cut short: a member of {size} bytes begins at byte {start} of {end}")
        members[header[:16].decode("ascii", "replace").strip().rstrip("/")] = (start, size)
        position = start + size + size % 2
    return members


def unpack(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> Tree:
    """The files of the package at `path` whose path is `wanted`, and all directories. ImageError if it is malformed."""
    return _unpack_member(path, "data.tar", wanted)


def control(path: Path) -> Tree:
    """What the package at `path` says to dpkg: `control`, and its scripts and lists. ImageError if it is malformed."""
    tree = _unpack_member(path, "control.tar", lambda _: True)
    if "control" not in tree:
        raise ImageError(f"{path.name} is a broken package: it has no control file")
    return tree


def _unpack_member(path: Path, member: str, wanted: Callable[[str], bool]) -> Tree:
    name = path.name
    try:
        with open(path, "rb") as file:
            members = _members(file, name)
            if "debian-binary" not in members:
                raise ImageError(f"{name} is no Debian package: it has no member debian-binary")
            held = next((one for one in members if one.startswith(member)), None)
            if held is None or held.removeprefix(member) not in _DECOMPRESSORS:
                raise ImageError(
                    f"{name} has no {member} that celaje can read (gz, xz, zst), but: {', '.join(members)}"
                )
            window = cast(IO[bytes], io.BufferedReader(_Window(file, *members[held]), _BUFFER_BYTES))
            return unpack_tar(_DECOMPRESSORS[held.removeprefix(member)](window), name, wanted)
    except OSError as error:
        raise ImageError(f"cannot read the package {path}: {error.strerror or error}") from error


def unpack_tar(stream: IO[bytes], name: str, wanted: Callable[[str], bool] = lambda _: True) -> Tree:
    """The files of an uncompressed tar archive. ImageError if it is malformed, or names a path outside itself."""
    tree = Tree()
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            for member in archive:
                path = normalised(member.name, name)
                if member.isdir():
                    if path:
                        tree.add(path, _entry(member, stat.S_IFDIR, b""), name)
                elif wanted(path):
                    tree.add(path, _file(archive, member, tree, name), name)
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, zlib.error, EOFError) as error:
        raise ImageError(f"{name} is a broken package: its data archive cannot be read ({error})") from error
    return tree


def _entry(member: tarfile.TarInfo, kind: int, data: bytes) -> Entry:
    device = (member.devmajor, member.devminor) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)
    return Entry(kind | member.mode & 0o7777, data, member.uid, member.gid, int(member.mtime), device)


def _file(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree, name: str) -> Entry:
    if member.isreg():
        content = archive.extractfile(member)
        data = content.read() if content is not None else b""
        if len(data) != member.size:
            raise ImageError(f"{name} is cut short inside {member.name!r}")
        return _entry(member, stat.S_IFREG, data)
    if member.issym():
        return _entry(member, stat.S_IFLNK, member.linkname.encode("utf-8", "surrogateescape"))
    if member.islnk():
        return _entry(member, stat.S_IFREG, tree.read(normalised(member.linkname, name)))
    if member.type in _TYPES:
        return _entry(member, _TYPES[member.type], b"")
    raise ImageError(
        f"{name} has a file of a kind that no file system knows: {member.name!r} (tar type {member.type!r})"
    )
