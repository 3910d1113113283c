"""The controller of volumes: makes them, attaches and detaches them, makes them larger, removes them.

    the row says                      and here                                   what is done
    ──────────────────────────────    ───────────────────────────────────────    ─────────────────────────────────────
    not made                          no file                                    make it, over its snapshot
                                      there is the file                          note it: made, available or in use
    attachment attaching              its machine runs without it                have the machine attach it
                                      its machine runs with it, or is stopped    note it: attached
    attachment detaching              its machine runs with it                   have the machine detach it
                                      its machine does not have it               the attachment goes
    modification modifying            the file is smaller                        make it larger, note it: optimizing
    modification optimizing           whatever                                   note it: completed
    deleting                          no snapshot of it is pending               remove the file, then the row

A machine that does not run has no say: when it starts, the controller of instances gives it the volumes of its rows.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
from collections.abc import Callable, Iterable

from sqlalchemy import select

from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.state.database import Database
from celaje.cloud.state.instances import PENDING, RUNNING, STOPPED, TERMINATED, Instance
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import remove_tags
from celaje.cloud.state.volumes import Volume, VolumeAttachment, VolumeModification
from celaje.disk.volumes import ImageSource, SnapshotSource, VolumeStore
from celaje.errors import CelajeError, HostError, ImageError, NotFound
from celaje.host import control, messages
from celaje.host.messages import AttachedDisk
from celaje.host.record import MachineDirectory
from celaje.image.store import open_image

log = logging.getLogger(__name__)

GIB = 1 << 30
OPTIMIZING_SECONDS = 1.0  # that a modification is shown as optimizing
Wake = Callable[[Iterable[str]], None]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def source_of(snapshot: Snapshot) -> ImageSource | SnapshotSource:
    """What a volume of it is made over. ImageError, NotFound."""
    if not snapshot.host_image:
        return SnapshotSource(snapshot.id)
    image = open_image(snapshot.host_image)
    disk = image.file("disk")
    if disk is None:
        raise ImageError(f"the image {snapshot.host_image} has no disk any more; build it again")
    return ImageSource(disk, image.description.files["disk"].sha256)


class VolumesController:
    """Drives the files of volumes, and machines' disks, to what the tables say. `wake` tells other controllers."""

    name = "volumes"

    def __init__(self, database: Database, wake: Wake, store: VolumeStore | None = None) -> None:
        self._database = database
        self._wake = wake
        self._store = store or VolumeStore()
        self._retries = Retries()
        self._begun = False

    def step(self) -> float | None:
        """See the module's table."""
        if not self._begun:
            self._attach_what_is_missing()
            self._begun = True
        with self._database.read() as session:
            unmade = session.scalars(select(Volume.id).where(Volume.state != "deleting", ~Volume.made)).all()
            changing = session.scalars(
                select(VolumeAttachment.volume).where(VolumeAttachment.state.in_(("attaching", "detaching")))
            ).all()
            by_state = select(VolumeModification.volume)
            modifying = session.scalars(by_state.where(VolumeModification.state == "modifying")).all()
            optimizing = session.scalars(by_state.where(VolumeModification.state == "optimizing")).all()
            doomed = session.scalars(select(Volume.id).where(Volume.state == "deleting")).all()
        work: list[tuple[Callable[[str], None], Iterable[str]]] = [
            (self._make, unmade),
            (self._settle, changing),
            (self._optimized, optimizing),
            (self._modify, modifying),
            (self._remove, doomed),
        ]
        for task, identifiers in work:
            for identifier in identifiers:
                self._try(task, identifier)
        return sooner(self._retries.next(), OPTIMIZING_SECONDS if modifying else 1.0 if changing else None)

    def _try(self, task: Callable[[str], None], identifier: str) -> None:
        if not self._retries.due(identifier):
            return
        try:
            task(identifier)
        except (CelajeError, OSError) as error:
            pause = self._retries.failed(identifier)
            log.warning("%s: %s; tried again in %.1f s", identifier, error, pause)
            with self._database.write() as session:
                volume = session.get(Volume, identifier)
                if volume is not None:
                    volume.problem = str(error)
        else:
            self._retries.succeeded(identifier)

    # Making.

    def _make(self, identifier: str) -> None:
        with self._database.read() as session:
            volume = session.get(Volume, identifier)
            if volume is None or volume.state in ("deleting", "error"):
                return
            snapshot = session.get(Snapshot, volume.snapshot) if volume.snapshot else None
        try:
            self._store.describe(identifier)
        except NotFound:
            try:
                source = None if snapshot is None else source_of(snapshot)
                self._store.create(size=volume.size * GIB, source=source, identifier=identifier)
            except (NotFound, ImageError) as error:
                self._fail(identifier, str(error))
                return
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
                self._fail(identifier, f"the host's file system takes no file of {volume.size} GiB")
                return
        with self._database.write() as session:
            volume = session.get_one(Volume, identifier)
            volume.made, volume.problem = True, ""
            if volume.state == "creating":
                attached = session.get(VolumeAttachment, identifier) is not None
                volume.state = "in-use" if attached else "available"
        self._settle(identifier)
        self._wake(("instances", "snapshots"))

    def _fail(self, identifier: str, problem: str) -> None:
        """It can never be made: what it was to be made of is gone or damaged."""
        log.error("%s cannot be made: %s", identifier, problem)
        with self._database.write() as session:
            volume = session.get_one(Volume, identifier)
            volume.state, volume.problem = "error", problem
        self._wake(("instances",))

    # At machines.

    def _settle(self, identifier: str) -> None:
        """Bring an attachment to what it is becoming, as far as its machine is there for it."""
        with self._database.read() as session:
            attachment = session.get(VolumeAttachment, identifier)
            volume = session.get(Volume, identifier)
            instance = session.get(Instance, attachment.instance) if attachment else None
        if attachment is None or volume is None or not volume.made:
            return
        state = TERMINATED if instance is None else instance.state
        if attachment.state == "attaching":
            # While it stops, its machine is what it was; it is looked at again when that is over.
            if state not in (RUNNING, STOPPED, PENDING):
                return
            if state == RUNNING and not attachment.is_root and not self._attached(attachment):
                return
        elif attachment.state != "detaching" or not self._detached(attachment, state):
            return
        self._note(attachment)
        self._wake(("networks",))  # the guest's metadata has a list of its disks

    def _note(self, was: VolumeAttachment) -> None:
        """What it was becoming has come about, unless it is becoming something else by now, or is another one."""
        with self._database.write() as session:
            held = session.get(VolumeAttachment, was.volume)
            if held is None or (held.instance, held.state, held.since) != (was.instance, was.state, was.since):
                return
            if was.state == "attaching":
                held.state = "attached"
                return
            session.delete(held)
            volume = session.get(Volume, was.volume)
            if volume is not None and volume.state == "in-use":
                volume.state = "available"

    def _attached(self, attachment: VolumeAttachment) -> bool:
        """Whether its machine, which is to run, has it. One that is just being started again has what it had when that
        began, which need not be all that it is to have."""
        connection = control.connected(MachineDirectory.of(attachment.instance))
        if connection is None:
            return False
        with connection:
            described = connection.ask(messages.Describe(), messages.Description)
            if all(disk.source != attachment.volume for disk in described.disks):
                connection.ask(messages.AttachDisk(disk=AttachedDisk(source=attachment.volume)), messages.DiskAttached)
        return True

    def _detached(self, attachment: VolumeAttachment, state: str) -> bool:
        """Whether its machine does not have it: for certain only where it runs, or is not about to."""
        connection = control.connected(MachineDirectory.of(attachment.instance))
        if connection is None:
            return state not in (RUNNING, PENDING)
        with connection, contextlib.suppress(NotFound):  # it has it no more
            connection.ask(messages.DetachDisk(source=attachment.volume), messages.Done)
        return True

    def _attach_what_is_missing(self) -> None:
        """Once, when the daemon begins: a machine that was started just before the last one ended may lack a volume
        that is noted as attached."""
        query = (
            select(VolumeAttachment)
            .join(Instance, Instance.id == VolumeAttachment.instance)
            .where(Instance.state == RUNNING, VolumeAttachment.state == "attached", ~VolumeAttachment.is_root)
        )
        with self._database.read() as session:
            rows = session.scalars(query).all()
        for row in rows:
            try:
                self._attached(row)
            except (CelajeError, OSError) as error:
                log.warning("%s at %s: %s", row.volume, row.instance, error)

    # Growing and going.

    def _modify(self, identifier: str) -> None:
        with self._database.read() as session:
            modification = session.get(VolumeModification, identifier)
            attachment = session.get(VolumeAttachment, identifier)
            volume = session.get(Volume, identifier)
        if modification is None:
            return
        if volume is None or volume.state == "deleting":
            with self._database.write() as session:
                session.delete(session.get_one(VolumeModification, identifier))
            return
        wanted = modification.size * GIB
        if self._store.describe(identifier).size < wanted:
            machine = control.connected(MachineDirectory.of(attachment.instance)) if attachment else None
            if machine is None:
                self._store.grow(identifier, wanted)
            else:
                with machine:
                    machine.ask(messages.GrowVolume(volume=identifier, size=wanted), messages.Done)
        with self._database.write() as session:
            done = session.get_one(VolumeModification, identifier)
            volume = session.get_one(Volume, identifier)
            volume.size, volume.kind = done.size, done.kind
            volume.iops, volume.throughput = done.iops, done.throughput
            done.state, done.progress = "optimizing", 50

    def _optimized(self, identifier: str) -> None:
        """Nothing of a volume moves for another type or size: what AWS does meanwhile is done at the next look."""
        with self._database.write() as session:
            done = session.get(VolumeModification, identifier)
            if done is not None and done.state == "optimizing":
                done.state, done.progress, done.ended = "completed", 100, _now()

    def _remove(self, identifier: str) -> None:
        with self._database.read() as session:
            attachment = session.get(VolumeAttachment, identifier)
            promised = select(Snapshot.id).where(Snapshot.volume == identifier, Snapshot.state == "pending")
            waits = session.scalars(promised).first() is not None
        if attachment is not None or waits:
            return  # until the controller of instances has released it, and that of snapshots has read it
        with contextlib.suppress(NotFound):
            self._store.remove(identifier)
        with self._database.write() as session:
            volume = session.get(Volume, identifier)
            modification = session.get(VolumeModification, identifier)
            if modification is not None:
                session.delete(modification)
            if volume is not None:
                session.delete(volume)
            remove_tags(session, identifier)
        self._wake(("chunks",))


class ChunksController:
    """Gives back the space of chunks that nothing refers to any more, after volumes or snapshots have gone."""

    name = "chunks"
    BUSY_SECONDS = 30.0  # something is being made; its chunks have no name yet

    def __init__(self, store: VolumeStore | None = None) -> None:
        self._store = store or VolumeStore()

    def step(self) -> float | None:
        """Sweep, if nothing is being made just now."""
        try:
            self._store.layout.make(self._store.files)
            return None if self._store.sweep() is not None else self.BUSY_SECONDS
        except HostError as error:
            log.warning("chunks cannot be swept: %s", error)
            return self.BUSY_SECONDS
