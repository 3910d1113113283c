"""Sweeping: chunks that no manifest names go, and so does what killed processes left half made.

Mark: every chunk named by a manifest of a published snapshot or of a volume. Sweep: every other one. Both under the
store's lock, exclusively (`layout.py` says why), so nobody can be about to name one. A manifest that cannot be read
stops the sweep: what it names is not known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from celaje.disk.chunk_store import ChunkStore
from celaje.disk.description import FILE_NAME, SnapshotBelow, lower_of, parse
from celaje.disk.files import Files, contents, is_aside, remove_tree
from celaje.disk.layout import MANIFEST_SUFFIX, Layout, store_lock
from celaje.disk.manifest import Manifest, read_manifest


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep took away: chunks, and files and directories that were left half made."""

    chunks: int
    leftovers: int


def volume_names(files: Files, layout: Layout) -> list[str]:
    """The names of the volumes that there are."""
    return [name for name in files.names(layout.volumes) if not name.startswith(".")]


def manifests(files: Files, layout: Layout) -> Iterator[tuple[Path, Manifest]]:
    """Every manifest that names chunks: those of snapshots, and those under volumes. InputError, FileNotFoundError."""
    for name in files.names(layout.snapshots):
        if name.endswith(MANIFEST_SUFFIX) and not is_aside(name):
            path = layout.snapshots / name
            try:
                found = read_manifest(files, path)
            except FileNotFoundError:  # a snapshot is removed without the lock: perhaps just now
                continue
            yield path, found
    for name in volume_names(files, layout):
        directory = layout.volumes / name
        described = parse(contents(files, directory / FILE_NAME), directory / FILE_NAME)
        if isinstance(lower_of(described.base), SnapshotBelow):
            yield directory / "base", read_manifest(files, directory / "base")


def leftovers(files: Files, layout: Layout, chunks: ChunkStore) -> list[Path]:
    """What killed processes left half made, if nobody is making anything now."""
    found = [layout.volumes / name for name in files.names(layout.volumes) if is_aside(name)]
    found += [layout.snapshots / name for name in files.names(layout.snapshots) if is_aside(name)]
    for name in volume_names(files, layout):
        inside = layout.volumes / name
        found += [inside / each for each in files.names(inside) if is_aside(each)]
    return found + list(chunks.unfinished())


def sweep(files: Files, layout: Layout, chunks: ChunkStore, *, wait: bool) -> Swept | None:
    """Take away what nothing refers to. None if something is being made and `wait` is not set. InputError; OSError."""
    if not layout.is_made(files):
        return Swept(0, 0)
    with store_lock(files, layout, exclusive=True, wait=wait) as held:
        if not held:
            return None
        marked: set[bytes] = set()
        for _, manifest in manifests(files, layout):
            marked |= manifest.distinct()
        # Names that somebody has taken away until now, perhaps killed before making that durable: they must not come
        # back to chunks that are gone.
        for directory in (layout.snapshots, layout.volumes):
            files.sync_directory(directory)
        left = leftovers(files, layout, chunks)
        for path in left:
            remove_leftover(files, layout, path)
        unmarked = [name for name in chunks.list() if name not in marked]
        for name in unmarked:
            chunks.delete(name)
        return Swept(len(unmarked), len(left))


def remove_leftover(files: Files, layout: Layout, path: Path) -> None:
    """Remove one of `leftovers`: a volume's directory, or a file."""
    if path.parent == layout.volumes:
        remove_tree(files, path)
    else:
        with contextlib.suppress(FileNotFoundError):
            files.unlink(path)
