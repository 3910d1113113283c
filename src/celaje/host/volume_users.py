"""Which machine a volume is a disk of, and what is asked of that machine while it has the volume open."""

from __future__ import annotations

from dataclasses import dataclass

from celaje.disk.description import VolumeDescription
from celaje.errors import CelajeError, UsageError
from celaje.host import control, messages
from celaje.host.control import ProgressTold
from celaje.host.record import MachineDirectory, names


@dataclass(frozen=True, slots=True)
class VolumeUser:
    """A machine that has a volume as its root or attached, running or not."""

    directory: MachineDirectory
    is_root: bool

    @property
    def running(self) -> bool:
        """Whether it has the volume open."""
        return self.directory.holder() is not None


def users_of(identifier: str) -> list[VolumeUser]:
    """The machines that have the volume of that id as a disk."""
    found: list[VolumeUser] = []
    for name in names():
        directory = MachineDirectory.of(name)
        try:
            record = directory.record()
        except CelajeError:
            continue  # `celaje vm ls` tells of it
        if record.root == identifier:
            found.append(VolumeUser(directory, is_root=True))
        elif any(disk.source == identifier for disk in record.attached):
            found.append(VolumeUser(directory, is_root=False))
    return found


def user_of(volume: VolumeDescription) -> VolumeUser | None:
    """The machine whose disk a volume is; a running one where several have it attached."""
    found = users_of(volume.id)
    return next((user for user in found if user.running), found[0] if found else None)


def refuse_used(volume: VolumeDescription) -> None:
    """UsageError for a volume that a machine starts with."""
    user = user_of(volume)
    if user is None:
        return
    name = user.directory.name
    if user.is_root:
        raise UsageError(f"{volume.name} is the root disk of the machine {name}; it goes with it: celaje vm rm {name}")
    raise UsageError(
        f"{volume.name} is attached to the machine {name}; first: celaje vm detach {name} {volume.name}"
    )


def snapshot(
    user: VolumeUser,
    volume: VolumeDescription,
    progress: ProgressTold,
    description: str = "",
    identifier: str | None = None,
) -> str:
    """Have a running machine take a snapshot of its volume; returns the snapshot's identifier."""
    request = messages.SnapshotVolume(volume=volume.id, description=description, snapshot=identifier)
    return control.ask(user.directory.name, request, messages.VolumeSnapshot, progress).snapshot


def grow(user: VolumeUser, volume: VolumeDescription, size: int) -> None:
    """Have a running machine make its volume larger, and tell its guest."""
    control.ask(user.directory.name, messages.GrowVolume(volume=volume.id, size=size), messages.Done)
