"""A disk in memory that records what is done to it, and what a loss of power could leave of that.

`Disk` is a file layer (`celaje.disk.files.Files`). Everything that changes it is an event; `crashes` makes, of the
first n events, disks as they may be found after a loss of power:

- what was written to a file, its length, and holes punched in it, is there for certain once the file was synced;
  of the rest, any part may be there: whole writes missing, in any combination, and any of a write's 512-byte sectors
- a name made, changed or taken away is so for certain once its directory was synced; of the rest, any part may be

No file system is that bad; POSIX allows it. A `mark` among the events is the test's own: what was promised then.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from celaje.disk import files as layer

SECTOR = 512
_ROOMS = tuple(os.sep.join(("celaje", *room, "")) for room in (("disk",), ("cloud", "s3")))


@dataclass
class Node:
    """A file (`content`) or a directory (`entries`)."""

    number: int
    content: bytearray | None = None
    entries: dict[str, int] | None = None


@dataclass
class Event:
    """`kind`: write, truncate, erase, sync (of a file); enter, leave, rename, sync-directory; mark."""

    kind: str
    node: int = 0
    offset: int = 0
    length: int = 0
    data: bytes = b""
    name: str = ""
    new_name: str = ""
    target: int = 0
    mark: object = None
    site: str = ""


@dataclass
class _Open:
    node: int
    writable: bool


@dataclass
class Disk:
    """`forgets`: sync sites that do nothing (they are what `site` says). `full`: writes that need space fail."""

    nodes: dict[int, Node] = field(default_factory=lambda: {1: Node(1, entries={})})
    events: list[Event] = field(default_factory=list)
    forgets: frozenset[str] = frozenset()
    sites: set[str] = field(default_factory=set)
    first_forgotten: int | None = None
    room: int | None = None
    fail: Callable[[str, int], None] | None = None
    _open: dict[int, _Open] = field(default_factory=dict)
    _locks: dict[int, dict[int, bool]] = field(default_factory=dict)
    _next: int = 1000

    # --- names ---

    def _directory(self, path: Path) -> Node:
        node = self._find(path)
        if node is None or node.entries is None:
            raise FileNotFoundError(errno.ENOENT, "no directory", str(path))
        return node

    def _find(self, path: Path) -> Node | None:
        node = self.nodes[1]
        for part in path.parts[1:]:
            if node.entries is None or part not in node.entries:
                return None
            node = self.nodes[node.entries[part]]
        return node

    def _must(self, path: Path) -> Node:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node

    def _add(self, path: Path, node: Node) -> None:
        parent = self._directory(path.parent)
        assert parent.entries is not None
        if path.name in parent.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        parent.entries[path.name] = node.number
        self.events.append(Event("enter", parent.number, name=path.name, target=node.number))

    def _new(self, node: Node) -> Node:
        self._next += 1
        node.number = self._next
        self.nodes[node.number] = node
        return node

    def open(self, path: Path, flags: int) -> int:
        if flags & os.O_CREAT:
            self._add(path, self._new(Node(0, content=bytearray())))
        node = self._must(path)
        if node.content is None:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self._next += 1
        self._open[self._next] = _Open(node.number, bool(flags & os.O_RDWR))
        return self._next

    def close(self, fd: int, /) -> None:
        opened = self._open.pop(fd)
        self._locks.get(opened.node, {}).pop(fd, None)

    def mkdir(self, path: Path) -> None:
        if self._find(path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._add(path, self._new(Node(0, entries={})))

    def rmdir(self, path: Path) -> None:
        if self._directory(path).entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        self._leave(path)

    def unlink(self, path: Path) -> None:
        assert self._must(path).content is not None
        self._leave(path)

    def _leave(self, path: Path) -> None:
        parent = self._directory(path.parent)
        assert parent.entries is not None
        del parent.entries[path.name]
        self.events.append(Event("leave", parent.number, name=path.name))

    def link(self, old: Path, new: Path) -> None:
        self._add(new, self._must(old))

    def rename(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent, "no room renames from one directory into another"
        node = self._must(old)
        there = self._find(new)
        if there is not None and there.entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(new))
        parent = self._directory(old.parent)
        assert parent.entries is not None
        del parent.entries[old.name]
        parent.entries[new.name] = node.number
        self.events.append(Event("rename", parent.number, name=old.name, new_name=new.name, target=node.number))

    def names(self, path: Path) -> list[str]:
        node = self._find(path)
        return sorted(node.entries) if node is not None and node.entries is not None else []

    def identity(self, where: Path | int) -> tuple[int, int] | None:
        node = self.nodes[self._open[where].node] if isinstance(where, int) else self._find(where)
        return None if node is None else (0, node.number)

    def allocated(self, where: Path) -> int:
        return len(self._must(where).content or b"")

    def is_private(self, where: Path) -> bool:
        return self._must(where) is not None

    # --- contents ---

    def _content(self, fd: int) -> bytearray:
        content = self.nodes[self._open[fd].node].content
        assert content is not None
        return content

    def preadv(self, fd: int, buffers: Sequence[memoryview | bytearray], offset: int, flags: int = 0, /) -> int:
        content = self._content(fd)
        done = 0
        for buffer in buffers:
            piece = content[offset + done : offset + done + len(buffer)]
            buffer[: len(piece)] = piece
            done += len(piece)
        return done

    def _change(self, fd: int, event: Event) -> None:
        opened = self._open[fd]
        assert opened.writable, "a file open for reading is written"
        event.node = opened.node
        apply(self._content(fd), event)
        self.events.append(event)

    def pwritev(self, fd: int, buffers: Sequence[memoryview | bytes | bytearray], offset: int, /) -> int:
        data = b"".join(buffers)
        if self.fail:
            self.fail("write", self._open[fd].node)
        if self.room is not None:
            taken = min(len(data), self.room // SECTOR * SECTOR)
            self.room -= taken
            if data and not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[:taken]
        self._change(fd, Event("write", offset=offset, data=data))
        return len(data)

    def truncate(self, fd: int, size: int) -> None:
        self._change(fd, Event("truncate", length=size))

    def erase(self, fd: int, offset: int, length: int, keep_space: bool) -> bool:
        self._change(fd, Event("erase", offset=offset, length=length))
        return True

    def size(self, fd: int) -> int:
        return len(self._content(fd))

    def data(self, fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        if start < min(end, self.size(fd)):
            yield start, end

    def copy(self, source: int, target: int, length: int) -> Iterator[int]:
        self._change(target, Event("write", data=bytes(self._content(source)[:length])))
        yield length

    def lock(self, fd: int, exclusive: bool, wait: bool) -> bool:
        held = self._locks.setdefault(self._open[fd].node, {})
        others = [kind for other, kind in held.items() if other != fd]
        if (exclusive and others) or True in others:
            assert not wait, "this test would wait for itself"
            return False
        held[fd] = exclusive
        return True

    # --- what makes it durable ---

    def _sync(self, event: Event) -> None:
        event.site = site()
        self.sites.add(event.site)
        if event.site not in self.forgets:
            self.events.append(event)
        elif self.first_forgotten is None:
            self.first_forgotten = len(self.events)

    def fdatasync(self, fd: int, /) -> None:
        if self.fail:
            self.fail("sync", self._open[fd].node)
        self._sync(Event("sync", self._open[fd].node))

    def sync_directory(self, path: Path) -> None:
        self._sync(Event("sync-directory", self._directory(path).number))

    # --- the test's ---

    def mark(self, mark: object) -> None:
        """Note what is promised from here on."""
        self.events.append(Event("mark", mark=mark))

    def path_of(self, number: int) -> str:
        """The path of a node, for messages."""

        def search(node: Node, path: str) -> str | None:
            for name, inside in (node.entries or {}).items():
                if inside == number:
                    return f"{path}/{name}"
                found = search(self.nodes[inside], f"{path}/{name}")
                if found:
                    return found
            return None

        return search(self.nodes[1], "") or f"node {number}"


def site() -> str:
    """Who asks for a sync: the functions of the room that lead there, the innermost first."""
    frame = sys._getframe(1)
    chain = []
    while frame is not None:
        if any(room in frame.f_code.co_filename for room in _ROOMS) and "<" not in frame.f_code.co_name:
            chain.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(chain)


def apply(content: bytearray, event: Event) -> None:
    """Do what the event did to a file's content."""
    match event.kind:
        case "write":
            end = event.offset + len(event.data)
            if len(content) < event.offset:
                content.extend(bytes(event.offset - len(content)))
            content[event.offset : end] = event.data
        case "truncate":
            if len(content) > event.length:
                del content[event.length :]
            content.extend(bytes(event.length - len(content)))
        case "erase":
            end = min(event.offset + event.length, len(content))
            content[event.offset : end] = bytes(max(0, end - event.offset))


def _enter(entries: dict[str, int], event: Event) -> None:
    match event.kind:
        case "enter":
            entries[event.name] = event.target
        case "leave":
            entries.pop(event.name, None)
        case "rename":
            entries.pop(event.name, None)
            entries[event.new_name] = event.target


@dataclass
class Chooser:
    """Which of the changes that no sync has covered are there after the crash: `keeps(node, is a name, is the last)`,
    said of each change to that file or directory, the last being its newest. `torn`: whether it is asked for sectors.
    """

    name: str
    keeps: Callable[[int, bool, bool], bool]
    torn: Callable[[], bool] = lambda: False


def choosers(seed: int, pending: Sequence[int], mixtures: int) -> Iterator[Chooser]:
    """Nothing, everything, only the data, only the names, only the newest change of each; everything but what was done
    to one of the nodes with pending changes; random mixtures of whole files, of writes, of sectors.
    """
    yield Chooser("nothing unsynced is there", lambda node, name, last: False)
    yield Chooser("everything is there", lambda node, name, last: True)
    yield Chooser("data without names", lambda node, name, last: not name)
    yield Chooser("names without data", lambda node, name, last: name)
    yield Chooser("the newest change of each", lambda node, name, last: last)
    for lost in pending:
        yield _all_but(lost)
    for number in range(mixtures):
        yield _mixture(seed * 100 + number)


def _all_but(lost: int) -> Chooser:
    return Chooser(f"everything but what was done to node {lost}", lambda node, name, last: node != lost)


def _mixture(seed: int) -> Chooser:
    chance = random.Random(seed)
    share = chance.choice((0.2, 0.5, 0.8))
    kept: dict[int, bool] = {}
    by_file = seed % 2 == 0

    def keeps(node: int, name: bool, last: bool) -> bool:
        yes = chance.random() < share
        return kept.setdefault(node, yes) if by_file else yes

    return Chooser(f"mixture {seed}", keeps, lambda: not by_file and chance.random() < 0.5)


def torn(event: Event, chooser: Chooser) -> Iterator[Event]:
    """Some of the sectors of a change."""
    if event.kind == "truncate":
        yield event
        return
    length = len(event.data) if event.kind == "write" else event.length
    at = event.offset
    while at < event.offset + length:
        end = min((at // SECTOR + 1) * SECTOR, event.offset + length)
        if chooser.keeps(event.node, False, False):
            data = event.data[at - event.offset : end - event.offset]
            yield Event(event.kind, event.node, at, end - at, data)
        at = end


class Replay:
    """The events of a disk, one by one: what is certain, and what is not yet."""

    def __init__(self, events: list[Event], start: dict[int, Node]) -> None:
        self.events = events
        self.certain = {number: _copy(node) for number, node in start.items()}
        self.pending: dict[int, list[Event]] = {}
        self.marks: list[object] = []

    def step(self, event: Event) -> None:
        """Take one event in."""
        if event.kind == "mark":
            self.marks.append(event.mark)
            return
        if event.kind in ("sync", "sync-directory"):
            node = self._node(event.node, directory=event.kind == "sync-directory")
            for change in self.pending.pop(event.node, ()):
                _do(node, change)
            return
        self._node(event.node, directory=event.kind in ("enter", "leave", "rename"))
        self.pending.setdefault(event.node, []).append(event)

    def _node(self, number: int, directory: bool) -> Node:
        if number not in self.certain:
            self.certain[number] = Node(number, entries={}) if directory else Node(number, content=bytearray())
        return self.certain[number]

    def after_crash(self, chooser: Chooser, kinds: dict[int, bool]) -> Disk:
        """A disk as it can be found now. `kinds`: whether each node is a directory."""
        nodes = {number: _copy(node) for number, node in self.certain.items()}
        for number, changes in self.pending.items():
            node = nodes[number]
            for change in changes:
                if node.content is not None and chooser.torn():
                    for piece in torn(change, chooser):
                        _do(node, piece)
                elif chooser.keeps(number, node.content is None, change is changes[-1]):
                    _do(node, change)
        for node in list(nodes.values()):
            for target in (node.entries or {}).values():
                if target not in nodes:
                    nodes[target] = Node(target, entries={}) if kinds[target] else Node(target, content=bytearray())
        return Disk(nodes=nodes, _next=max(nodes) + 1_000_000)


def _do(node: Node, event: Event) -> None:
    if node.entries is not None:
        _enter(node.entries, event)
    else:
        assert node.content is not None
        apply(node.content, event)


def _copy(node: Node) -> Node:
    return Node(
        node.number,
        None if node.content is None else bytearray(node.content),
        None if node.entries is None else dict(node.entries),
    )


def crashes(disk: Disk, mixtures: int, each: bool = False) -> Iterator[tuple[int, Chooser, list[object], Disk]]:
    """Of every prefix of the events, from the first forgotten sync on if there are any: (its length, what is chosen,
    the marks so far, the disk). With `each`, every node's changes are lost once; otherwise one node's, in turn.
    """
    kinds = {number: node.entries is not None for number, node in disk.nodes.items()}
    replay = Replay(disk.events, {1: Node(1, entries={})})
    for length, event in enumerate(disk.events):
        replay.step(event)
        # What is promised between two events is held against what the second of them has not made durable yet.
        before_sync = disk.events[length + 1 : length + 2] and "sync" in disk.events[length + 1].kind
        if (event.kind == "mark" and not before_sync) or length + 1 < (disk.first_forgotten or 0):
            continue
        pending = list(replay.pending)
        chosen = pending if each or not pending else [pending[length % len(pending)]]
        for chooser in choosers(length, chosen, mixtures):
            yield length, chooser, replay.marks, replay.after_crash(chooser, kinds)
            if not pending:
                break


_: layer.Files = Disk()  # it is one, as mypy sees it
