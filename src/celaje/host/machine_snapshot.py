"""A machine's snapshot as a host sees it: beside what `machine/snapshot` keeps, which disks and card the machine has,
and what it starts from again after a reset.

A file may come from anybody. So nothing in it opens a file of this host, or a port of it to the guest: disks are
volumes, whose contents are in the file over an image that is found here by its hash; a kernel that was given as a file
is in the file; and ports of the host that were open to the guest are opened again only by who restores (`--network`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from celaje.disk.description import ImageBelow, new_id
from celaje.disk.section import MachineCut, decoded_base
from celaje.disk.volume import Volume
from celaje.disk.volumes import SectionSource, VolumeStore
from celaje.errors import CelajeError, InputError, NotFound, UsageError
from celaje.host import record as records
from celaje.host import removal
from celaje.host.disks import Disks
from celaje.host.interface_file import FURTHER_MOST, write_interface
from celaje.host.machine_options import Boot
from celaje.host.messages import AttachedDisk
from celaje.host.network_card import attach_request
from celaje.host.network_options import NetworkOptions
from celaje.host.record import MachineDirectory, Record, RestoredFrom
from celaje.image import store
from celaje.image.store import Image
from celaje.machine.machine import Machine
from celaje.machine.snapshot.capture import Taken, take
from celaje.machine.snapshot.file import Progress
from celaje.machine.snapshot.restore import Restored
from celaje.machine.snapshot.state import DiskState
from celaje.network.messages import Attach, Bandwidth
from celaje.typed_data import from_json

FORMAT = 1
Role = Literal["kernel", "initrd", "firmware"]
ROLES: tuple[Role, ...] = get_args(Role)


class SavedCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network card beyond the first: interface `number` of the machine, and what of it a copy of the guest needs."""

    number: Annotated[int, msgspec.Meta(ge=1, le=FURTHER_MOST)]
    network: str
    mac: str
    address: str
    bandwidth: Bandwidth = Bandwidth()


class Owner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the host's part of a snapshot says. `disks` are its volumes, the root (without a target) first; `files` are
    the roles of ROLES that are sections of the file, `cards` its network cards beyond the first."""

    format: int = FORMAT
    record: Record
    address: str | None
    disks: list[AttachedDisk]
    files: list[Role]
    cards: list[SavedCard] = []


def save(
    machine: Machine,
    record: Record,
    address: str | None,
    disks: Disks,
    path: Path,
    progress: Progress,
    cards: Sequence[SavedCard] = (),
) -> Taken:
    """Write a snapshot of the running machine of `record`, whose private address is `address`, to `path`.

    UsageError for a machine with a disk that is a plain file; otherwise as `capture.take`.
    """
    held: list[AttachedDisk] = []

    def cut() -> list[MachineCut]:
        volumes: list[Volume] = []
        for disk, backend in disks.backends():
            if not isinstance(backend, Volume):
                raise _plain(disk.source)
            held.append(disk)
            volumes.append(backend)
        with contextlib.ExitStack() as undo:
            cuts: list[MachineCut] = []
            for volume in volumes:
                cuts.append(MachineCut(volume, volume.description.id))
                undo.callback(cuts[-1].close)
            undo.pop_all()
            return cuts

    if record.options.disks:
        raise _plain(record.options.disks[0].path)
    # What an image brought is found by the image's hash; what a person gave is nowhere but here.
    given: dict[Role, str | None] = {role: getattr(record.options, role) for role in ROLES}
    files = {role: Path(text) for role, text in given.items() if text is not None}

    def owner() -> bytes:
        said = Owner(record=record, address=address, disks=held, files=sorted(files), cards=list(cards))
        return msgspec.json.encode(said)

    travelling = {str(role): file for role, file in files.items()}
    return take(machine, path, cut, owner, progress, travelling, disks.unchanging)


def _plain(path: str) -> UsageError:
    return UsageError(
        f"the disk {path} is a plain file, which no snapshot can hold still; "
        f"make it a volume (celaje vm volume import NAME {path}) and attach that"
    )


def open_snapshot(path: Path) -> tuple[Restored, Owner]:
    """The snapshot at `path`, checked as far as a restore needs. NotFound, InputError."""
    found = Restored(path)
    try:
        owner = from_json(found.state.owner, Owner)
        if owner.format != FORMAT:
            raise InputError(
                f"the machine snapshot {path} has format {owner.format}, and this celaje knows format {FORMAT}; "
                "restore it with the celaje that took it"
            )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UsageError) as error:
        found.close()
        raise InputError(f"the machine snapshot {path} does not say what its machine is ({error})") from error
    except BaseException:
        found.close()
        raise
    return found, owner


@dataclasses.dataclass(frozen=True, slots=True)
class NewMachine:
    """A machine that was made of a snapshot and is not started yet; `closed` are ports of the host that it had open."""

    directory: MachineDirectory
    volumes: tuple[str, ...]
    closed: tuple[int, ...]

    def unmake(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(CelajeError, OSError):
            removal.remove(self.directory)
        _remove_volumes(self.volumes)


def make_machine(name: str, path: Path, network: NetworkOptions | None = None) -> NewMachine:
    """The machine `name`, which goes on from the snapshot at `path` when it is started next.

    Its card is plugged in as it was, or as `network` says. UsageError where the name is taken, NotFound for an image
    that is not here, InputError for a file that is not what it must be.
    """
    path = path.absolute()
    directory = MachineDirectory.of(name)
    if directory.exists():
        raise records.taken(name)
    found, owner = open_snapshot(path)
    volumes: list[str] = []
    try:
        old = owner.record
        cards = [restored_card(name, one, network) for one in owner.cards]
        network, closed = card(path, old.options.network, network)
        files = {role: str(directory.path / role) for role in ROLES if role in owner.files}
        kernel, initrd, firmware = (files.get(role) for role in ROLES)
        options = dataclasses.replace(
            old.options, disks=(), network=network, kernel=kernel, initrd=initrd, firmware=firmware
        )
        images = {one.base: _image_under(one) for one in found.state.disks}
        brought = next((image for image in images.values() if image is not None), None)
        if brought is not None:
            kernel, initrd, firmware = (files.get(role) or _text(brought.file(role)) for role in ROLES)
        boot = Boot(kernel, initrd, firmware, old.boot.append)
        planned = _planned(name, found, owner, images)
        attached = {disk.target: disk for disk, _, _ in planned}
        root = attached.pop(None, None)
        new = msgspec.structs.replace(
            records.new_record(name, options, boot),
            mac=old.mac,
            instance=old.instance,
            address=owner.address,
            ssh_keys=old.ssh_keys,
            user_data=old.user_data,
            root=None if root is None else root.source,
            attached=tuple(attached.values()),
            brought=tuple(disk.source for disk in attached.values()),
            restored_from=RestoredFrom(path=str(path), size=found.file.size),
            goes_on=True,
        )

        def prepare(place: Path) -> None:
            volume_store = VolumeStore()
            for disk, wish, source in planned:
                volume_store.create(wish, source=source, size=source.size, identifier=disk.source)
                volumes.append(disk.source)
            for role in owner.files:
                _extract(found, role, place / role)
            for saved, interface in zip(owner.cards, cards, strict=True):
                write_interface(MachineDirectory(place), interface, saved.number)

        records.create(new, prepare)
    except BaseException:
        _remove_volumes(volumes)
        raise
    finally:
        found.close()
    return NewMachine(directory, tuple(volumes), closed)


def card(
    path: Path, saved: NetworkOptions | None, wanted: NetworkOptions | None
) -> tuple[NetworkOptions | None, tuple[int, ...]]:
    """The network of a restored machine, and the ports of the host that are closed to it now."""
    if saved is None:
        if wanted is not None:
            raise UsageError(f"the machine in {path} has no network card; leave out --network")
        return None, ()
    if wanted is not None:
        return dataclasses.replace(wanted, mac=saved.mac), ()
    return dataclasses.replace(saved, host_ports=()), tuple(port.port for port in saved.host_ports)


def restored_card(name: str, saved: SavedCard, wanted: NetworkOptions | None) -> Attach:
    """The document of a card beyond the first of the restored machine `name`: in the network where it was, or in that
    of the `wanted` first card, with nothing of the host's open to the guest."""
    options = NetworkOptions(network=saved.network if wanted is None else wanted.network)
    asked = attach_request(f"{name}-{saved.number}", options, mac=saved.mac, address=saved.address)
    return msgspec.structs.replace(asked, bandwidth=saved.bandwidth)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _image_under(disk: DiskState) -> Image | None:
    """The image here whose disk is under a saved disk; None where it was not made over one, or a volume here has it."""
    try:
        lower = decoded_base(disk.base)
    except ValueError as error:
        raise InputError(f"the machine snapshot cannot be restored: {error}") from error
    if not isinstance(lower, ImageBelow):
        return None
    for name in store.names():
        with contextlib.suppress(CelajeError):  # a broken image is somebody else's
            image = store.described(name)
            file = image.description.files.get("disk")
            if file is not None and file.sha256 == lower.sha256:
                return image
    return None


def _planned(
    name: str, found: Restored, owner: Owner, images: dict[bytes, Image | None]
) -> list[tuple[AttachedDisk, str, SectionSource]]:
    """For each disk of the snapshot: as what it is attached, the volume's name, and what that is made of."""
    saved = {disk.name: disk for disk in found.state.disks}
    if sorted(saved) != sorted(disk.source for disk in owner.disks):
        raise InputError(f"the machine snapshot {found.path} does not have the disks that it speaks of")
    if len({disk.target for disk in owner.disks}) != len(owner.disks):
        raise InputError(f"the machine snapshot {found.path} has two disks in one place")
    planned = []
    for number, given in enumerate(owner.disks):
        disk, target = saved[given.source], given.target
        section = found.file.section(disk.section)
        image = images[disk.base]
        source = SectionSource(
            found.path, section.offset, disk.extents, disk.size, decoded_base(disk.base),
            image=None if image is None else image.file("disk"), hashes=section.hashes,
        )  # fmt: skip
        wish = f"{name}-root" if target is None else f"{name}-disk{number}"
        planned.append((AttachedDisk(source=new_id("vol"), read_only=given.read_only, target=target), wish, source))
    return planned


def _extract(found: Restored, role: str, place: Path) -> None:
    """A file that travelled with the machine, each block checked."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        for block in found.file.blocks(found.file.section(role)):
            file.write(block)
        file.flush()
        os.fsync(descriptor)


def _remove_volumes(identifiers: Sequence[str]) -> None:
    volume_store = VolumeStore()
    for identifier in identifiers:
        with contextlib.suppress(NotFound):
            volume_store.remove(identifier)
