"""The machine that an instance is to be, from its rows; and how it is made on this host, as often as it is asked for.

Order matters where a kill may come between two steps. The directory is made without its disks, since whoever finds one
that is half made removes it with the disks that its record names (host/removal.py); they are written into it once it
stands. For the same reason they are taken out of the record before the directory goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy.orm import Session

from celaje.cloud.ec2.instance_types import TYPES
from celaje.cloud.ec2.interface_attachments import most_interfaces
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.volumes import Volume, VolumeAttachment, attached_to
from celaje.errors import CelajeError, HostError, NotFound
from celaje.host import record
from celaje.host.configuration import resolved
from celaje.host.interface_file import further_interfaces, remove_interface, write_interface
from celaje.host.machine_options import Boot, MachineOptions
from celaje.host.messages import AttachedDisk
from celaje.host.network_options import NetworkOptions
from celaje.host.record import MachineDirectory, Record
from celaje.network.messages import Attach

MIB, GIB = 1 << 20, 1 << 30
STORE = "instance-store-{}.raw"


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """`image` is the host's, "" where it is gone, which a machine that has been made does not mind; `store` has the
    bytes of each disk of the instance store. `interfaces` are its network cards', 0 the first; there is room for
    `cards` besides that."""

    instance: str
    image: str
    memory: int
    cpus: int
    mac: str
    network: str
    root: str
    attached: tuple[str, ...]
    store: tuple[int, ...]
    cards: int
    interfaces: Mapping[int, Attach]


@dataclass(frozen=True, slots=True)
class VolumesReady:
    """Of one instance: whether all of its volumes are made, and what is wrong with one that never will be."""

    ready: bool
    problem: str = ""


def volumes_ready(session: Session, instances: Sequence[str]) -> dict[str, VolumesReady]:
    """By instance."""
    attachments = attached_to(session, list(instances))
    found = {}
    for instance, held in attachments.items():
        volumes = [session.get(Volume, one.volume) for one in held if one.state != "detaching"]
        problem = next((one.problem or "a volume is lost" for one in volumes if one and one.state == "error"), "")
        found[instance] = VolumesReady(all(one is not None and one.made for one in volumes), problem)
    return found


def machine_plan(session: Session, instance: Instance, interfaces: Mapping[int, Attach]) -> MachinePlan:
    """What the rows say. NotFound where something that it is made of is no more."""
    image = session.get(Image, instance.image)
    attachments = [one for one in attached_to(session, [instance.id])[instance.id] if one.state != "detaching"]
    root = _root(attachments)
    if root is None:
        raise NotFound(f"{instance.id} has no root volume; attach one at {instance.root_device}")
    return MachinePlan(
        instance=instance.id,
        image=image.host_image if image else "",
        memory=instance.memory * MIB,
        cpus=instance.vcpus,
        mac=interfaces[0].mac,
        network=interfaces[0].network.name,
        root=root.volume,
        attached=tuple(one.volume for one in attachments if not one.is_root),
        store=tuple(size * GIB for size in TYPES[instance.instance_type].instance_store_gib),
        cards=most_interfaces(instance.instance_type) - 1,
        interfaces=interfaces,
    )


def _root(attachments: Sequence[VolumeAttachment]) -> VolumeAttachment | None:
    return next((one for one in attachments if one.is_root), None)


def made(plan: MachinePlan) -> MachineDirectory:
    """The machine as it is to be, off. CelajeError."""
    directory = MachineDirectory.of(plan.instance)
    held = _held(directory)
    image = plan.image or (held.options.image if held else None)
    if image is None:
        raise NotFound(f"the image of {plan.instance} is no more; launch an instance of another one")
    options = MachineOptions(
        image=image,
        memory=plan.memory,
        cpus=plan.cpus,
        network=NetworkOptions(network=plan.network),
        cards=plan.cards,
    )
    if held is None:
        boot = dataclasses.replace(resolved(options), disk=None, disk_sha256=None)
        held = record.create(_bare(plan, options, boot)).record()
    stores = _stores(directory, plan)
    disks = [AttachedDisk(source=volume) for volume in plan.attached]
    disks += [AttachedDisk(source=path, is_file=True) for path in stores]
    wanted = msgspec.structs.replace(
        held, options=options, mac=plan.mac, root=plan.root, attached=tuple(disks), restored_from=None, goes_on=False
    )
    if wanted != held:
        directory.write_record(wanted)
    for card, interface in plan.interfaces.items():
        write_interface(directory, interface, card)
    for card in further_interfaces(directory):
        if card not in plan.interfaces:
            remove_interface(directory, card)
    return directory


def _held(directory: MachineDirectory) -> Record | None:
    try:
        return directory.record()
    except NotFound:
        return None


def _bare(plan: MachinePlan, options: MachineOptions, boot: Boot) -> Record:
    new = record.new_record(plan.instance, options, boot)
    return msgspec.structs.replace(new, instance=plan.instance, mac=plan.mac)


def _stores(directory: MachineDirectory, plan: MachinePlan) -> list[str]:
    """The disks of the instance store: sparse files, empty at each start."""
    paths = []
    for number, size in enumerate(plan.store):
        path = directory.path / STORE.format(number)
        try:
            with open(path, "wb") as file:
                os.ftruncate(file.fileno(), size)
        except OSError as error:
            raise HostError(f"cannot make {path} of {size} bytes: {error.strerror}; make room there") from error
        paths.append(str(path))
    return paths


def without_store(instance: str) -> None:
    """What was in the instance store is gone, as it is at every stop."""
    for path in MachineDirectory.of(instance).path.glob(STORE.format("*")):
        path.unlink(missing_ok=True)


def remove(instance: str) -> None:
    """The machine is gone; its volumes are not its own to take. One that there is not is no mistake. HostError."""
    directory = MachineDirectory.of(instance)
    if not directory.path.exists():
        return
    with contextlib.suppress(CelajeError):  # a record that cannot be read names no disks
        held = directory.record()
        if held.root is not None or held.attached:
            directory.write_record(msgspec.structs.replace(held, root=None, attached=()))
    directory.remove()
