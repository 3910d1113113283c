"""A file tree in memory: what an archive unpacks to and what a file system is made from.

Owners, modes and device nodes are data here, so that a tree for a guest is made without root and without ever lying on
the host's disk. Every path is normalised as it enters (`a/b`, no leading slash); one that would leave the tree is
refused.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from celaje.errors import ImageError

_NAME_BYTES = 255
_PATH_BYTES = 4095


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `mode` is st_mode (type and permissions); `data` a regular file's content or a link's target."""

    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_device(self) -> bool:
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)


def normalised(path: str, where: str = "the tree") -> str:
    """`path` without leading slash, `.` and doubled slashes; "" is the root. ImageError where it leaves the tree."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise ImageError(f"{where} names the file {path!r}, which leaves the tree that it is unpacked to")
    if any(len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES for part in parts) or len(path) > _PATH_BYTES:
        raise ImageError(f"{where} names a file whose name is longer than {_NAME_BYTES} bytes: {path[:60]!r}...")
    return "/".join(parts)


class Tree:
    """Files by path. Iterates parents before children, names in byte order, so that equal trees make equal archives."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {"": Entry(stat.S_IFDIR | 0o755)}

    def add(self, path: str, entry: Entry, where: str = "the tree") -> None:
        """Put `entry` at `path`, with the directories above it. A directory that is already there keeps its children.

        ImageError where a parent of `path` is no directory: writing through a symbolic link is how a hostile archive
        would reach a place that it may not name. The one link that is followed is a merged /usr's (see `resolve`).
        """
        path = self.resolve(normalised(path, where))
        parents = path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            parent = "/".join(parents[:depth])
            held = self._entries.setdefault(parent, Entry(stat.S_IFDIR | 0o755))
            if not held.is_directory:
                raise ImageError(f"{where} puts {path!r} below {parent!r}, which is no directory")
        held_here = self._entries.get(path)
        if held_here is not None and held_here.is_directory:
            if entry.is_symlink:
                return
            if not entry.is_directory:
                raise ImageError(f"{where} replaces the directory {path!r} by something else")
        self._entries[path] = entry

    def resolve(self, path: str) -> str:
        """`path` below `usr` where its first directory is a symbolic link there (Debian's merged /usr)."""
        first, _, rest = path.partition("/")
        held = self._entries.get(first)
        if rest and held is not None and held.is_symlink and held.data == b"usr/" + first.encode():
            return f"usr/{path}"
        return path

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a directory."""
        self.add(path, Entry(stat.S_IFDIR | mode, uid=uid, gid=gid))

    def file(self, path: str, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Make a regular file."""
        self.add(path, Entry(stat.S_IFREG | mode, data, uid=uid, gid=gid))

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link to `target`, which may be any text: it means something only in the guest."""
        self.add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Make a character device node."""
        self.add(path, Entry(stat.S_IFCHR | mode, device=(major, minor)))

    def update(self, other: Tree, where: str = "the tree") -> None:
        """Add everything that `other` has."""
        for path, entry in other:
            if path:
                self.add(path, entry, where)

    def subset(self, *prefixes: str) -> Tree:
        """The files at or below any of `prefixes`."""
        chosen = Tree()
        for path, entry in self:
            if any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes):
                chosen.add(path, entry)
        return chosen

    def read(self, path: str) -> bytes:
        """A regular file's content. ImageError if there is none at `path`."""
        entry = self._entries.get(self.resolve(normalised(path)))
        if entry is None or not entry.is_regular:
            raise ImageError(f"there is no file {path!r} in this tree")
        return entry.data

    def with_time(self, mtime: int) -> Tree:
        """The same tree with every time stamp set to `mtime` (seconds since 1970)."""
        stamped = Tree()
        stamped._entries = {path: replace(entry, mtime=mtime) for path, entry in self._entries.items()}
        return stamped

    def total_bytes(self) -> int:
        """The sum of what the files hold."""
        return sum(len(entry.data) for entry in self._entries.values())

    def __contains__(self, path: str) -> bool:
        return self.resolve(normalised(path)) in self._entries

    def __getitem__(self, path: str) -> Entry:
        return self._entries[self.resolve(normalised(path))]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        for path in sorted(self._entries, key=lambda name: name.split("/") if name else []):
            yield path, self._entries[path]
