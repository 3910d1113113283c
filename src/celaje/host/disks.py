"""A machine's disks: the volume that is its root, and those that come and go on its SCSI controller.

A disk is named by its source: a volume's identifier, or a raw file's absolute path.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from celaje.disk.volume import Progress, Volume, no_progress
from celaje.disk.volumes import ImageSource, VolumeInUse, VolumeStore
from celaje.errors import HostError, InputError, NotFound, UsageError
from celaje.host.hydration import Hydration
from celaje.host.machine_options import Boot
from celaje.host.messages import AttachedDisk, DiskDescription
from celaje.machine.virtio.block_backend import BlockBackend, RawFile
from celaje.machine.virtio.scsi import VirtioScsi


def root_volume(name: str, boot: Boot, size: int | None = None, identifier: str | None = None) -> str:
    """Make the root volume of the machine `name` over its image's disk; returns its identifier: `identifier`, or new.

    `size` in bytes, without it the disk's. InputError if it is smaller than that, or there is such a volume already.
    """
    assert boot.disk is not None
    assert boot.disk_sha256 is not None
    source = ImageSource(Path(boot.disk), boot.disk_sha256)
    return VolumeStore().create(f"{name}-root", source=source, size=size, identifier=identifier).id


def remove_volume(identifier: str) -> None:
    """Take a volume away, if it is there. InputError where it is in use."""
    with contextlib.suppress(NotFound):
        VolumeStore().remove(identifier)


def found(source: str, read_only: bool = False) -> AttachedDisk:
    """What a person means by VOLUME|FILE: a file if it is written with a slash, or if there is no volume of that name.

    NotFound if it is neither.
    """
    if os.sep not in source:
        try:
            return AttachedDisk(source=VolumeStore().describe(source).id, read_only=read_only)
        except NotFound:
            if not os.path.exists(source):
                raise
    path = os.path.abspath(source)
    if not os.path.exists(path):
        raise NotFound(f"there is no file {source} to attach; a volume is given by its name: celaje vm volume ls")
    return AttachedDisk(source=path, is_file=True, read_only=read_only)


LINGERING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Held:
    disk: AttachedDisk
    backend: BlockBackend
    target: int | None  # of the SCSI controller; None is the root
    hydration: Hydration | None = None


class Disks:
    """The disks of one machine, from any thread. `scsi` must be set before `attach` and `detach`."""

    def __init__(self, store: VolumeStore | None = None) -> None:
        self._store = store or VolumeStore()
        self._held: dict[str, _Held] = {}
        self._lock = threading.RLock()
        self.scsi: VirtioScsi | None = None
        self.look_at_sizes: Callable[[], None] = lambda: None
        """Has the machine see that its root disk has another size."""

    def root(self, identifier: str) -> Volume:
        """Open the root volume. NotFound; InputError where it is in use."""
        volume = self._opened(identifier, read_only=False)
        self._held[identifier] = _Held(AttachedDisk(source=identifier), volume, None, _hydration(volume))
        return volume

    def _opened(self, source: str, read_only: bool) -> Volume:
        """Open a volume. A process that ends keeps its volumes locked for a moment after the machine's own lock."""
        until = time.monotonic() + LINGERING_SECONDS
        while True:
            try:
                return self._store.open(source, read_only=read_only)
            except VolumeInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)

    def attach(self, disk: AttachedDisk) -> tuple[int, str]:
        """Show the guest one more disk: (target, serial number). InputError, NotFound."""
        assert self.scsi is not None
        with self._lock:
            if disk.source in self._held:
                raise UsageError(f"{disk.source} is attached already; first: celaje vm detach NAME {disk.source}")
            backend: BlockBackend
            if disk.is_file:
                backend = RawFile(disk.source, read_only=disk.read_only)
            else:
                backend = self._opened(disk.source, disk.read_only)
            try:
                target = self.scsi.attach(backend, disk.target)
            except BaseException:
                backend.close()
                raise
            self._held[disk.source] = _Held(
                msgspec.structs.replace(disk, target=target), backend, target, _hydration(backend)
            )
            return target, backend.serial.decode("ascii", "replace")

    def detach(self, source: str) -> None:
        """Take a disk away; what the guest has written is durable then. NotFound, UsageError, HostError."""
        assert self.scsi is not None
        with self._lock:
            held = self._held.get(source)
            if held is None:
                attached = ", ".join(one.disk.source for one in self._held.values() if one.target is not None)
                raise NotFound(f"{source} is not attached; there are: {attached or 'none'}")
            if held.target is None:
                raise UsageError(f"{source} is the machine's root disk, which cannot be detached while it runs")
            del self._held[source]
            if held.hydration is not None:
                held.hydration.stop()
            try:
                self.scsi.detach(held.target)
            except OSError as error:
                raise HostError(
                    f"{source} is detached, but what was written last may not be durable: {error.strerror}; check it"
                ) from error

    def attached(self) -> tuple[AttachedDisk, ...]:
        """What was attached, without the root."""
        with self._lock:
            return tuple(held.disk for held in self._held.values() if held.target is not None)

    def rest(self) -> None:
        """Nothing is done in the background from here on: the machine is about to end."""
        for held in list(self._held.values()):
            if held.hydration is not None:
                held.hydration.stop()

    @contextlib.contextmanager
    def unchanging(self) -> Iterator[None]:
        """No disk comes, goes or grows inside. Waits until one that is on its way has."""
        with self._lock:
            yield

    def backends(self) -> list[tuple[AttachedDisk, BlockBackend]]:
        """Every disk and what is behind it, the root (without a target) first."""
        with self._lock:
            return [(held.disk, held.backend) for held in self._held.values()]

    def snapshot(
        self, identifier: str, progress: Progress = no_progress, description: str = "", snapshot: str | None = None
    ) -> str:
        """Take a snapshot of a volume in use; returns its identifier. Blocks this thread, not the guest. NotFound."""
        return self._store.snapshot(self._volume(identifier), progress, description, snapshot).id

    def grow(self, identifier: str, size: int) -> None:
        """Make a volume in use larger, and tell the guest. NotFound, InputError."""
        with self._lock:
            self._volume(identifier).grow(size)
            target = self._held[identifier].target
            if target is None:
                self.look_at_sizes()
            elif self.scsi is not None:
                self.scsi.capacity_changed(target)

    def _volume(self, identifier: str) -> Volume:
        with self._lock:
            held = self._held.get(identifier)
        if held is None or not isinstance(held.backend, Volume):
            raise NotFound(f"the machine has no volume {identifier}; celaje vm ls --json shows its disks")
        if held.disk.read_only:
            raise InputError(f"the volume {identifier} is attached for reading only; detach it first")
        return held.backend

    def describe(self) -> tuple[DiskDescription, ...]:
        """Every disk, the root first."""
        with self._lock:
            return tuple(
                DiskDescription(
                    source=held.disk.source,
                    size=held.backend.size,
                    read_only=held.disk.read_only,
                    target=held.target,
                )
                for held in self._held.values()
            )


def _hydration(backend: BlockBackend) -> Hydration | None:
    """What fetches the rest of a volume in the background, begun."""
    if not isinstance(backend, Volume):
        return None
    hydration = Hydration(backend)
    hydration.start()
    return hydration
