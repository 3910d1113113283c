"""Checking a store: either it is consistent, or here is what is not, and what has been left over.

    damage   something that was promised is not there or not what it was: a chunk, a manifest, a map, a base garbage
    nothing refers to it and nobody is making it: half-made volumes, unfinished files, chunks without a manifest note
    what could not be looked at now: a volume in use

Without `deep`, everything is there, of the right size, and manifests, headers and maps are whole. With it, every chunk
and base has the content that its hash says, and the clusters that a map calls clean are those of the baseline.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from celaje.disk.base import SectionBase
from celaje.disk.chunk_store import CHUNK, ChunkError, fetch, name_of
from celaje.disk.cluster_map import ABSENT, CLEAN, CLUSTER
from celaje.disk.description import ImageBelow, SnapshotBelow, lower_of
from celaje.disk.files import READ, is_aside, opened, read_fully
from celaje.disk.layout import MANIFEST_SUFFIX, store_lock
from celaje.disk.manifest import Manifest, read_manifest
from celaje.disk.sweep import leftovers, sweep
from celaje.disk.volume import Progress, Volume, no_progress
from celaje.disk.volumes import VolumeInUse, VolumeStore
from celaje.errors import CelajeError, InputError, NotFound

_CLUSTERS = CHUNK // CLUSTER


@dataclass(slots=True)
class Report:
    """What a check found, each a sentence. The store is consistent if `damage` is empty."""

    damage: list[str] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    removed: int = 0


def check(
    store: VolumeStore, *, deep: bool = False, repair: bool = False, progress: Progress = no_progress
) -> Report:
    """Look at everything in `store`. `repair` removes the garbage, if there is no damage. OSError if reading fails."""
    report = Report()
    if not store.layout.is_made(store.files):
        return report
    wanted: dict[bytes, str] = {}
    with store_lock(store.files, store.layout, exclusive=False):
        _snapshots(store, report, wanted)
        for name in store.names():
            _volume(store, name, report, wanted, deep)
        _chunks(store, report, wanted, deep, progress)
    _leftovers(store, report, wanted, repair)
    return report


def _want(wanted: dict[bytes, str], manifest: Manifest, who: str) -> None:
    for name in manifest.distinct():
        wanted.setdefault(name, who)


def _snapshots(store: VolumeStore, report: Report, wanted: dict[bytes, str]) -> None:
    for name in store.files.names(store.layout.snapshots):
        if is_aside(name):
            continue
        path = store.layout.snapshots / name
        if not name.endswith(MANIFEST_SUFFIX):
            report.notes.append(f"{path} is none of celaje's files")
            continue
        try:
            manifest = read_manifest(store.files, path)
        except FileNotFoundError:  # removed meanwhile
            continue
        except InputError as error:
            report.damage.append(str(error))
            continue
        if f"{manifest.snapshot}{MANIFEST_SUFFIX}" != name:
            report.damage.append(f"{path} is the manifest of {manifest.snapshot}; give it that name, or remove it")
        _want(wanted, manifest, f"the snapshot {manifest.snapshot}")


def _volume(store: VolumeStore, name: str, report: Report, wanted: dict[bytes, str], deep: bool) -> None:
    base = store.layout.volumes / name / "base"
    try:
        described = store.describe(name)
        if described.name != name:
            report.damage.append(f"the volume in {base.parent} calls itself {described.name}; give it that name")
        if isinstance(lower_of(described.base), SnapshotBelow):
            _want(wanted, read_manifest(store.files, base), f"the volume {name}")
        with contextlib.closing(store.open(name, read_only=True)) as volume:
            if deep:
                _contents(store, volume, report)
    except NotFound:  # removed meanwhile
        pass
    except FileNotFoundError:
        if store.files.identity(base.parent) is not None:
            report.damage.append(f"what the volume {name} stands on, {base}, is missing; put it back")
    except VolumeInUse:
        report.notes.append(f"the volume {name} is in use; its head and map are not looked at")
    except CelajeError as error:
        report.damage.append(str(error))


def _contents(store: VolumeStore, volume: Volume, report: Report) -> None:
    """Whether a base is what its hash says, and what is called clean is the baseline's."""
    described = volume.description
    below = lower_of(described.base)
    if isinstance(below, ImageBelow):
        path = volume.directory / "base"
        found = _sha256(store, path)
        if found != below.sha256:
            report.damage.append(
                f"{path} is altered: its SHA-256 is {found}, not {below.sha256};"
                " put the image's file back there"
            )
            return
    if isinstance(volume.base, SectionBase) and (wrong := list(volume.base.damage())):
        report.damage += (f"the volume {described.name}: {each}" for each in wrong)
        return
    baseline: Manifest | None = None
    if described.baseline is not None:
        try:
            baseline = store.snapshots.manifest(described.baseline)
        except CelajeError:  # a removed one is no harm; a damaged one has been reported
            return
    for number in range(-(-volume.size // CHUNK)):
        states = volume.states(number * _CLUSTERS, (number + 1) * _CLUSTERS)
        if CLEAN not in states or states.count(CLEAN) + states.count(ABSENT) != len(states):
            continue
        try:
            here = _chunk(volume, number)
            then = bytearray(CHUNK)
            if baseline is None:
                volume.base.readinto([memoryview(then)], number * CHUNK)
            same = here == then if baseline is None else name_of(here) == baseline.name(number)
        except OSError as error:
            report.damage.append(f"chunk {number} of the volume {described.name} cannot be read: {error.strerror}")
            continue
        if not same:
            against = described.baseline or "its base"
            report.damage.append(
                f"chunk {number} of the volume {described.name} differs from {against}, and its map says that it"
                " does not; the next snapshot would miss that: export what it holds, and import that as a new volume"
            )


def _chunk(volume: Volume, number: int) -> bytearray:
    block = bytearray(CHUNK)
    start = number * CHUNK
    volume.read_at([memoryview(block)[: min(CHUNK, volume.size - start)]], start)
    return block


def _sha256(store: VolumeStore, path: Path) -> str:
    digest = hashlib.sha256()
    block = bytearray(1 << 20)
    with opened(store.files, path, READ) as fd:
        size = store.files.size(fd)
        for at in range(0, size, len(block)):
            window = memoryview(block)[: min(len(block), size - at)]
            read_fully(store.files, fd, [window], at)
            digest.update(window)
    return digest.hexdigest()


def _chunks(store: VolumeStore, report: Report, wanted: dict[bytes, str], deep: bool, progress: Progress) -> None:
    for done, (name, who) in enumerate(sorted(wanted.items())):
        try:
            if deep:
                fetch(store.chunks, name)
            elif not store.chunks.has(name):
                store.chunks.get(name)
        except ChunkError as error:
            report.damage.append(f"{who} needs it: {error}")
        progress((done + 1) * CHUNK, len(wanted) * CHUNK)


def _leftovers(store: VolumeStore, report: Report, wanted: dict[bytes, str], repair: bool) -> None:
    with store_lock(store.files, store.layout, exclusive=True, wait=False) as held:
        if not held:
            report.notes.append("a volume or a snapshot is being made or removed; leftovers are not looked for")
            return
        report.garbage += [f"{path} is left over" for path in leftovers(store.files, store.layout, store.chunks)]
        if not report.damage:
            # What was made since the lock was given up names its chunks too; so this is looked at once more.
            names = dict(wanted)
            _snapshots(store, Report(), names)
            for name in store.names():
                _volume(store, name, Report(), names, deep=False)
            unnamed = sum(1 for name in store.chunks.list() if name not in names)
            if unnamed:
                report.garbage.append(f"{unnamed} chunks of the chunk store are in no snapshot or volume")
    if repair and report.garbage:
        if report.damage:
            report.notes.append("nothing is removed while something is damaged: it might be needed to mend it")
            return
        swept = sweep(store.files, store.layout, store.chunks, wait=False)
        report.removed = 0 if swept is None else swept.chunks + swept.leftovers
