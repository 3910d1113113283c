"""The volumes of one home: made, found, opened, removed.

A volume is made under a name aside of its own and gets its name, whole and durable, in one rename; it is removed the
same way round. What it stands on is linked into its directory, so that an image may be built anew or removed, and a
snapshot removed, while volumes need it; where the host makes no link (another file system), the file is copied, or
shared if the file system can.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from celaje import paths
from celaje.disk.base import BLOCK, HASH, Base, FileBase, ManifestBase, NoBase, SectionBase
from celaje.disk.chunk_place import ChosenChunkStore
from celaje.disk.chunk_store import ChunkStore
from celaje.disk.cluster_map import ABSENT, CLUSTER, ClusterMap, create_map
from celaje.disk.description import (
    FILE_NAME,
    Below,
    ImageBelow,
    Lower,
    NothingBelow,
    SectionBelow,
    SnapshotBelow,
    VolumeDescription,
    checked_id,
    checked_name,
    checked_size,
    lower_of,
    new_id,
    parse,
    section_is_sound,
)
from celaje.disk.files import CREATE, HOST, READ, WRITE, Files, aside, contents, opened, remove_tree, write_fully
from celaje.disk.layout import Layout, store_lock
from celaje.disk.manifest import read_manifest
from celaje.disk.snapshots import Snapshot, Snapshots
from celaje.disk.sweep import Swept, sweep, volume_names
from celaje.disk.volume import Progress, Volume, no_progress
from celaje.errors import CelajeError, InputError, NotFound, UsageError

HASHES_NAME = "section.hashes"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image's raw disk file, and the SHA-256 of its content (hexadecimal), which the caller knows to be true."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A published snapshot, by its id."""

    snapshot: str


@dataclass(frozen=True, slots=True)
class SectionSource:
    """A disk in the file of a machine snapshot, as `section.MachineCut` gave it there: its clusters from `offset` on,
    over `lower`. `image` is the file of an image under it, where one is needed and the caller has it. `hashes` are of
    its blocks, as `base.SectionBase` wants them; without them what is read is not compared with anything."""

    path: Path
    offset: int
    extents: Sequence[tuple[int, int]]
    size: int
    lower: Lower
    image: Path | None = None
    hashes: bytes | None = None


class VolumeInUse(InputError):
    """Somebody has the volume open."""


Source = ImageSource | SnapshotSource | SectionSource


class VolumeStore:
    """The volumes, snapshots and chunks under `home` (default: CELAJE_HOME). `threads` copy a snapshot's chunks.

    `chunks`: where chunks are kept (default: where the home's owner has chosen, see `chunk_place`).
    """

    def __init__(
        self,
        home: Path | None = None,
        files: Files = HOST,
        threads: int | None = None,
        chunks: ChunkStore | None = None,
    ) -> None:
        self.layout = Layout(paths.home() if home is None else home)
        self.files = files
        self.chunks: ChunkStore = ChosenChunkStore(files, self.layout) if chunks is None else chunks
        cache = paths.cache() / "manifests" if files is HOST else None
        self.snapshots = Snapshots(files, self.layout, self.chunks, cache, threads)

    # --- what there is ---

    def names(self) -> list[str]:
        """The names of the volumes, sorted."""
        return volume_names(self.files, self.layout)

    def list(self) -> list[VolumeDescription]:
        """The volumes, by name. InputError if one cannot be read."""
        found = []
        for name in self.names():
            with contextlib.suppress(NotFound):  # removed meanwhile
                found.append(self._describe(self.layout.volumes / name))
        return found

    def describe(self, name_or_id: str) -> VolumeDescription:
        """The volume of that name or id. NotFound, InputError."""
        return self._describe(self.directory(name_or_id))

    def _describe(self, directory: Path) -> VolumeDescription:
        try:
            return parse(contents(self.files, directory / FILE_NAME), directory / FILE_NAME)
        except FileNotFoundError:
            if self.files.identity(directory) is None:
                raise self._unknown(directory.name) from None
            raise InputError(
                f"the volume {directory} has no {FILE_NAME}; put it back from a copy, or remove the directory"
            ) from None

    def directory(self, name_or_id: str) -> Path:
        """The directory of the volume of that name or id. NotFound."""
        with contextlib.suppress(UsageError):
            directory = self.layout.volumes / checked_name(name_or_id)
            if self.files.identity(directory) is not None:
                return directory
            if name_or_id.startswith("vol-"):
                for name in self.names():
                    with contextlib.suppress(CelajeError):
                        if self._describe(self.layout.volumes / name).id == name_or_id:
                            return self.layout.volumes / name
        raise self._unknown(name_or_id)

    def _unknown(self, name: str) -> NotFound:
        have = ", ".join(self.names())
        known = f"there are: {have}" if have else "there are none yet; make one: celaje vm volume create NAME --size 8G"
        return NotFound(f"there is no volume {name!r}; {known}")

    def hydrated(self, name_or_id: str) -> float | None:
        """What part of a volume made from a snapshot is here, from 0 to 1, as of what is durable while it is in use.
        None for a volume that does not hydrate. NotFound, InputError, OSError."""
        directory = self.directory(name_or_id)
        described = self._describe(directory)
        if not isinstance(lower_of(described.base), SnapshotBelow):
            return None
        clusters = -(-described.size // CLUSTER)
        with opened(self.files, directory / "map", READ) as fd:
            states = ClusterMap(self.files, fd, directory / "map", described.id, clusters).states
        return 1 - states.count(ABSENT) / clusters

    # --- making ---

    def create(
        self,
        name: str | None = None,
        *,
        size: int | None = None,
        source: Source | None = None,
        fill: Callable[[Volume], None] | None = None,
        identifier: str | None = None,
    ) -> VolumeDescription:
        """Make a volume, durable when this returns. Without a name it is named by its id, which is `identifier` or new.

        `size` in bytes; without it, that of `source`. `fill` may write into it before anybody sees it. InputError where
        there is one of that name, or `size` is less than the source's; NotFound; OSError.
        """
        identifier = new_id("vol") if identifier is None else checked_id(identifier)
        name = identifier if name is None else checked_name(name)
        place = self.layout.volumes / name
        self.layout.make(self.files)
        with store_lock(self.files, self.layout, exclusive=False):
            if self.files.identity(place) is not None:
                raise self._taken(name)
            fresh = aside(place)
            self.files.mkdir(fresh)
            try:
                base = self._put_base(fresh, source)
                least = 0 if isinstance(base, NothingBelow) else base.size
                if size is None and not least:
                    raise UsageError("an empty volume needs a size, such as --size 8G")
                described = VolumeDescription(
                    id=identifier, name=name, size=checked_size(least if size is None else size),
                    created=time.time_ns(), base=base,
                )  # fmt: skip
                if described.size < least:
                    raise InputError(f"a volume over this must have at least its {least} bytes, not {described.size}")
                self._make_files(fresh, described)
                if fill:
                    with contextlib.closing(self._open(fresh, read_only=False)) as volume:
                        fill(volume)
                        volume.flush()
                self.files.rename(fresh, place)
            except BaseException as error:
                remove_tree(self.files, fresh)
                if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise self._taken(name) from None
                raise
            self.files.sync_directory(self.layout.volumes)
            return described

    def _taken(self, name: str) -> InputError:
        return InputError(f"there is a volume {name} already; choose another name, or: celaje vm volume rm {name}")

    def _make_files(self, fresh: Path, described: VolumeDescription) -> None:
        with opened(self.files, fresh / "head", CREATE) as fd:
            self.files.truncate(fd, described.size)
            self.files.fdatasync(fd)
        create_map(self.files, fresh / "map", described.id)
        with opened(self.files, fresh / FILE_NAME, CREATE) as fd:
            write_fully(self.files, fd, [described.to_json()], 0)
            self.files.fdatasync(fd)
        self.files.sync_directory(fresh)

    def _put_base(self, fresh: Path, source: Source | None) -> Below:
        if not isinstance(source, SectionSource):
            return self._put_lower(fresh / "base", source)
        match source.lower:
            case NothingBelow():
                lower = self._put_lower(fresh / "base", None)
            case SnapshotBelow(snapshot):
                lower = self._put_lower(fresh / "base", SnapshotSource(snapshot))
            case ImageBelow(sha256):
                given = source.image or next(self._siblings(sha256), None)
                if given is None:
                    raise NotFound(
                        f"the machine snapshot {source.path} needs the image whose disk has the SHA-256 {sha256};"
                        " build or copy it here (celaje vm image ls)"
                    )
                lower = self._put_lower(fresh / "base", ImageSource(given, sha256))
        if lower != source.lower:
            raise InputError(f"what the machine snapshot {source.path} was taken over is not what is here: {lower}")
        self._link(source.path, fresh / "section")
        with opened(self.files, fresh / "section", READ) as fd:
            size = self.files.size(fd)
        checked = source.hashes is not None
        below = SectionBelow(size, source.offset, list(source.extents), source.size, lower, checked)
        if not section_is_sound(below):
            raise InputError(f"a disk of the machine snapshot {source.path} overlaps itself, or lies outside the file")
        if source.hashes is not None:
            if len(source.hashes) != _hash_bytes(below):
                raise InputError(f"a disk of the machine snapshot {source.path} lacks hashes")
            with opened(self.files, fresh / HASHES_NAME, CREATE) as fd:
                write_fully(self.files, fd, [source.hashes, blake3(source.hashes).digest()], 0)
                self.files.fdatasync(fd)
        return below

    def _put_lower(self, target: Path, source: ImageSource | SnapshotSource | None) -> Lower:
        match source:
            case None:
                return NothingBelow()
            case SnapshotSource(snapshot):
                described = self.snapshots.describe(snapshot)
                self._link(self.layout.manifest(snapshot), target)
                return SnapshotBelow(snapshot, described.size)
            case ImageSource(path, sha256):
                for candidate in (path, *self._siblings(sha256)):
                    if self._link(candidate, target, copy=False):
                        break
                else:
                    self._link(path, target)
                with opened(self.files, target, READ) as fd:
                    return ImageBelow(sha256, self.files.size(fd))

    def _siblings(self, sha256: str) -> Iterator[Path]:
        """The files of volumes over the same image: links to a copy that one of them had to make."""
        for name in self.names():
            with contextlib.suppress(CelajeError):
                below = lower_of(self._describe(self.layout.volumes / name).base)
                if isinstance(below, ImageBelow) and below.sha256 == sha256:
                    yield self.layout.volumes / name / "base"

    def _link(self, path: Path, target: Path, copy: bool = True) -> bool:
        """Have a file under a second name; where that cannot be, a durable copy, if one is wanted."""
        try:
            self.files.link(path, target)
            return True
        except FileNotFoundError:
            raise NotFound(f"there is no file {path} to make a volume of") from None
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
        if copy:
            with opened(self.files, path, READ) as given, opened(self.files, target, CREATE) as taken:
                for _ in self.files.copy(given, taken, self.files.size(given)):
                    pass
                self.files.fdatasync(taken)
        return copy

    # --- using ---

    def open(self, name_or_id: str, *, read_only: bool = False) -> Volume:
        """The volume, for this opener alone (or for readers alone) until it is closed.

        NotFound; VolumeInUse; InputError if it is damaged; OSError.
        """
        return self._open(self.directory(name_or_id), read_only)

    def _open(self, directory: Path, read_only: bool) -> Volume:
        with contextlib.ExitStack() as undo:
            head = self._lock(directory, exclusive=not read_only)
            undo.callback(self.files.close, head)
            described = self._describe(directory)
            have = self.files.size(head)
            if have < described.size:
                raise InputError(
                    f"{directory / 'head'} has {have} bytes, not the {described.size} of its volume; the rest"
                    " is lost; make the volume again from its last snapshot"
                )
            path = directory / "map"
            try:
                fd = self.files.open(path, READ if read_only else WRITE)
            except FileNotFoundError:
                raise InputError(f"the volume {directory} has no map; put it back from a copy") from None
            undo.callback(self.files.close, fd)
            states = ClusterMap(self.files, fd, path, described.id, -(-described.size // CLUSTER))
            volume = Volume(
                self.files, directory, described, head, states, self._open_base(directory, described), read_only
            )
            undo.pop_all()
            return volume

    def _lock(self, directory: Path, exclusive: bool) -> int:
        """The head's descriptor, locked."""
        path = directory / "head"
        try:
            fd = self.files.open(path, WRITE if exclusive else READ)
        except FileNotFoundError:
            if self.files.identity(directory) is None:
                raise self._unknown(directory.name) from None
            raise InputError(f"the volume {directory} has no head; put it back from a copy") from None
        if not self.files.lock(fd, exclusive, False):
            inode = self.files.identity(fd)
            self.files.close(fd)
            raise VolumeInUse(
                f"the volume {directory.name} is in use{_by(inode)}; stop what uses it (celaje vm ls), and try again"
            )
        if self.files.identity(path) != self.files.identity(fd):
            self.files.close(fd)
            raise self._unknown(directory.name)
        return fd

    def _open_base(self, directory: Path, described: VolumeDescription) -> Base:
        below = described.base
        if not isinstance(below, SectionBelow):
            return self._open_lower(directory, below)
        hashes = self._hashes(directory, below)
        lower = self._open_lower(directory, below.lower)
        path = directory / "section"
        try:
            fd = self.files.open(path, READ)
            if self.files.size(fd) == below.file_size:
                return SectionBase(self.files, fd, below, lower, path, hashes)
            self.files.close(fd)
        except FileNotFoundError:
            lower.close()
            raise InputError(f"what the volume {directory.name} stands on, {path}, is missing; put it back") from None
        lower.close()
        raise InputError(
            f"{path}, the machine snapshot that the volume {directory.name} stands on, must have {below.file_size}"
            " bytes; put it back from a copy"
        )

    def _hashes(self, directory: Path, below: SectionBelow) -> bytes | None:
        """The hashes of the blocks of a volume's section, if it has them."""
        if not below.checked:
            return None
        path = directory / HASHES_NAME
        try:
            content = contents(self.files, path)
        except FileNotFoundError:
            raise InputError(f"the volume {directory.name} has no {path}; put it back from a copy") from None
        hashes = content[:-HASH]
        if len(hashes) != _hash_bytes(below) or blake3(hashes).digest() != content[-HASH:]:
            raise InputError(f"{path} is altered; put it back from a copy, or restore the machine again")
        return hashes

    def _open_lower(self, directory: Path, below: Lower) -> Base:
        path = directory / "base"
        try:
            match below:
                case NothingBelow():
                    return NoBase()
                case SnapshotBelow():
                    return ManifestBase(read_manifest(self.files, path), self.chunks)
                case ImageBelow(sha256, size):
                    fd = self.files.open(path, READ)
                    if self.files.size(fd) == size:
                        return FileBase(self.files, fd, size)
                    self.files.close(fd)
                    raise InputError(f"{path} must have {size} bytes; put the image of SHA-256 {sha256} back there")
        except FileNotFoundError:
            raise InputError(
                f"what the volume {directory.name} stands on, {path}, is missing; put it back"
            ) from None

    def grow(self, name_or_id: str, size: int) -> VolumeDescription:
        """Make a volume that is not in use larger. NotFound, InputError, OSError."""
        with contextlib.closing(self.open(name_or_id)) as volume:
            volume.grow(size)
            return volume.description

    def snapshot(
        self, volume: Volume, progress: Progress = no_progress, description: str = "", identifier: str | None = None
    ) -> Snapshot:
        """Take a snapshot of an open volume. Blocks this thread; the volume's I/O goes on. InputError; OSError."""
        return self.snapshots.begin(volume, description, identifier).run(progress)

    # --- removing ---

    def remove(self, name_or_id: str) -> None:
        """Take a volume away, durably. NotFound; InputError if it is in use; OSError. Its chunks stay until a sweep."""
        directory = self.directory(name_or_id)
        with store_lock(self.files, self.layout, exclusive=False), contextlib.ExitStack() as held:
            if self.files.identity(directory / "head") is not None:
                held.callback(self.files.close, self._lock(directory, exclusive=True))
            gone = aside(directory)
            try:
                self.files.rename(directory, gone)
            except FileNotFoundError:
                raise self._unknown(directory.name) from None
            self.files.sync_directory(self.layout.volumes)
            remove_tree(self.files, gone)

    def sweep(self, *, wait: bool = False) -> Swept | None:
        """Take away chunks that nothing refers to. None if something is being made now and `wait` is not set."""
        return sweep(self.files, self.layout, self.chunks, wait=wait)


def _hash_bytes(below: SectionBelow) -> int:
    """How many bytes the hashes of a section have."""
    return -(-sum(count for _, count in below.extents) * CLUSTER // BLOCK) * HASH


def _by(inode: tuple[int, int] | None) -> str:
    """Who has locked a file, as far as the host tells: " by process 1234 (celaje)"."""
    if inode is None:
        return ""
    device, number = inode
    name = f"{os.major(device):02x}:{os.minor(device):02x}:{number}"
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if name in fields and "FLOCK" in fields:
                process = int(fields[fields.index("FLOCK") + 3])
                command = Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
                return f" by process {process} ({command})"
    return ""
