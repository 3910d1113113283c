"""The controller of snapshots: takes them, several at once, and removes them.

A snapshot has its identifier before it is taken, so that one that was being taken when everything was killed is found
under it, whole, or is taken anew.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from celaje.cloud.ebs.written_blocks import hidden_volume, written_blocks
from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.volumes import GIB, Wake, source_of
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import Image, rebooted_for
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.snapshots import BLOCKS, Snapshot
from celaje.cloud.state.tags import remove_tags
from celaje.cloud.state.volumes import Volume, VolumeAttachment
from celaje.disk.volumes import VolumeStore
from celaje.errors import CelajeError, NotFound
from celaje.host import control, messages
from celaje.host.record import MachineDirectory

log = logging.getLogger(__name__)

AT_ONCE = 2  # snapshots; each has threads of its own that compress
TOLD_SECONDS = 1.0  # between two notes of how far one is
PATIENCE = datetime.timedelta(minutes=15)  # for which one that fails is tried again


LOOK_SECONDS = 30.0  # at what is written by EBS's direct API: somebody may have ended in the middle
SHUT_DOWN_SECONDS = 0.25  # until it is looked again whether a guest has shut down for its snapshots


def _kept_busy(snapshot: Snapshot) -> set[str]:
    return {snapshot.id, snapshot.volume} - {""}


class SnapshotsController:
    """Drives the manifests of snapshots to what the table says."""

    name = "snapshots"

    def __init__(
        self,
        database: Database,
        wake: Wake,
        store: VolumeStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._begun = clock()
        self._database = database
        self._wake = wake
        self._store = store or VolumeStore()
        self._written = written_blocks(self._store.layout.home)
        self._retries = Retries()
        self._pool = ThreadPoolExecutor(AT_ONCE, "celaje-snapshot")
        self._taking: set[str] = set()  # snapshots, and the volumes that they are taken of
        self._changing = threading.Lock()

    def step(self) -> float | None:
        """Begin what is pending, remove what is to go."""
        with self._database.read() as session:
            waiting = select(Snapshot).where(Snapshot.state == "pending", Snapshot.host_image == "")
            rows = session.scalars(waiting.order_by(Snapshot.created)).all()
            rebooted = rebooted_for(session)
            doomed = session.scalars(select(Snapshot.id).where(Snapshot.state == "deleting")).all()
        written = [row for row in rows if row.origin == BLOCKS and not row.sealed]
        for snapshot in written:
            self._time_out(snapshot)
        pending = [row for row in rows if row.origin in ("", "copy") or row.sealed]
        early = {row.id for row in pending if row.id in rebooted and self._shuts_down(rebooted[row.id])}
        pending = [row for row in pending if row.id not in early]
        for snapshot in pending:
            with self._changing:
                busy = not self._taking.isdisjoint(_kept_busy(snapshot))
                if busy or not self._retries.due(snapshot.id):
                    continue
                self._taking |= _kept_busy(snapshot)
            self._pool.submit(self._take, snapshot)
        for identifier in doomed:
            self._remove(identifier)
        again = SHUT_DOWN_SECONDS if early else 1.0 if doomed else LOOK_SECONDS if written else None
        return sooner(self._retries.next(), again)

    def _shuts_down(self, instance: str) -> bool:
        """Whether an instance is still at shutting down. One that did not, and was reset, is snapshotted as it runs."""
        with self._database.read() as session:
            row = session.get(Instance, instance)
        if row is None or row.reboot_asked is None:
            return False
        return MachineDirectory.of(instance).holder() is not None

    def _time_out(self, snapshot: Snapshot) -> None:
        """One that is written block by block, and to which nothing has come for too long. While no daemon ran nothing
        could come: it has all of its time again from this one's start."""

        def over() -> bool:
            since = max(snapshot.created.timestamp(), self._written.last(snapshot.id), self._begun)
            return self._clock() >= since + 60 * snapshot.timeout

        if not over():
            return
        with self._written.held(snapshot.id), self._database.write() as session:
            row = session.get(Snapshot, snapshot.id)
            if row is None or row.state != "pending" or row.sealed or not over():  # a block came in the last moment
                return
            row.state, row.problem = "error", f"nothing was written for {snapshot.timeout} minutes"
        self._written.forget(snapshot.id)

    def _take(self, snapshot: Snapshot) -> None:
        try:
            self._taken(snapshot)
        except (CelajeError, OSError) as error:
            pause = self._retries.failed(snapshot.id)
            log.warning("%s of %s: %s; tried again in %.1f s", snapshot.id, snapshot.volume, error, pause)
            self._note_problem(snapshot, error)
        except Exception:  # a mistake of ours stops this snapshot for a while and no other
            self._retries.failed(snapshot.id)
            log.exception("%s", snapshot.id)
        else:
            self._retries.succeeded(snapshot.id)
        finally:
            with self._changing:
                self._taking -= _kept_busy(snapshot)
            self._wake((self.name, "images", "volumes", "instances"))

    def _taken(self, snapshot: Snapshot) -> None:
        try:
            self._store.snapshots.describe(snapshot.id)
        except NotFound:
            if snapshot.origin == "copy":
                self._copy_snapshot(snapshot)
            elif snapshot.origin == BLOCKS:
                self._copy_blocks(snapshot)
            else:
                self._copy_volume(snapshot)
        if snapshot.origin in ("copy", BLOCKS):  # before it is completed: nobody looks for its volume afterwards
            self._written.forget(snapshot.id)
        with self._database.write() as session:
            row = session.get(Snapshot, snapshot.id)
            if row is not None and row.state == "pending":
                row.state, row.progress, row.problem = "completed", 100, ""
                row.completed = datetime.datetime.now(datetime.UTC)

    def _copy_blocks(self, snapshot: Snapshot) -> None:
        """Of the volume that the blocks were written to; where none were, of one that is made now."""
        with self._written.held(snapshot.id):
            self._written.sums(snapshot.id, snapshot.size, snapshot.source)
            self._written.close(snapshot.id)
        with contextlib.closing(self._store.open(hidden_volume(snapshot.id))) as volume:
            self._store.snapshot(volume, description=snapshot.description, identifier=snapshot.id)

    def _copy_snapshot(self, snapshot: Snapshot) -> None:
        """Another manifest of the same chunks. An image's disk is none yet: it becomes one through a volume over it."""
        with self._database.read() as session:
            source = session.get(Snapshot, snapshot.source)
        if source is None:
            raise NotFound(f"the snapshot {snapshot.source} was deleted before it was copied")
        if not source.host_image:
            self._store.snapshots.copy(source.id, snapshot.id, snapshot.description)
            return
        volume = hidden_volume(snapshot.id)
        with contextlib.suppress(NotFound):  # of a daemon that was killed here
            self._store.remove(volume)
        self._store.create(size=snapshot.size * GIB, source=source_of(source), identifier=volume)
        try:
            with contextlib.closing(self._store.open(volume)) as opened:
                self._store.snapshot(opened, description=snapshot.description, identifier=snapshot.id)
        finally:
            self._store.remove(volume)

    def _copy_volume(self, snapshot: Snapshot) -> None:
        """In the machine that has the volume open, or here."""
        told = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal told
            if total and time.monotonic() - told > TOLD_SECONDS:
                told = time.monotonic()
                self._note_progress(snapshot.id, min(99, 100 * done // total))

        with self._database.read() as session:
            attachment = session.get(VolumeAttachment, snapshot.volume)
            if session.get(Volume, snapshot.volume) is None:
                raise NotFound(f"the volume {snapshot.volume} was deleted before its snapshot was taken")
        machine = control.connected(MachineDirectory.of(attachment.instance)) if attachment is not None else None
        if machine is not None:
            with machine:
                described = machine.ask(messages.Describe(), messages.Description)
                if any(disk.source == snapshot.volume for disk in described.disks):
                    request = messages.SnapshotVolume(
                        volume=snapshot.volume, description=snapshot.description, snapshot=snapshot.id
                    )
                    machine.ask(request, messages.VolumeSnapshot, lambda one: progress(one.done, one.total), None)
                    return
        with contextlib.closing(self._store.open(snapshot.volume)) as volume:
            self._store.snapshot(volume, progress, snapshot.description, snapshot.id)

    def _note_progress(self, identifier: str, percent: int) -> None:
        with self._database.write() as session:
            row = session.get(Snapshot, identifier)
            if row is not None and row.state == "pending":
                row.progress = percent

    def _note_problem(self, snapshot: Snapshot, error: Exception) -> None:
        """One that fails again and again, or whose volume is gone, has failed."""
        final = datetime.datetime.now(datetime.UTC) - snapshot.created > PATIENCE
        with self._database.write() as session:
            row = session.get(Snapshot, snapshot.id)
            if row is None or row.state != "pending":
                return
            again, row.problem = bool(row.problem), str(error)
            # What fails again keeps no instance switched off: then the image is as without a reboot.
            for image in session.scalars(select(Image).where(Image.state == "pending", Image.reboot_pending)):
                if again and any(one.snapshot == snapshot.id for one in image.devices):
                    image.reboot_pending = False
            of, needed = (Snapshot, snapshot.source) if snapshot.origin == "copy" else (Volume, snapshot.volume)
            if final or (snapshot.origin != BLOCKS and session.get(of, needed) is None):
                row.state = "error"

    def _remove(self, identifier: str) -> None:
        """Not while a volume is about to be made of it, or it is being taken: then later."""
        with self._changing:
            if identifier in self._taking:
                return
        with self._database.read() as session:
            row = session.get(Snapshot, identifier)
            by_way_of_a_volume = row is not None and row.origin in ("copy", BLOCKS)
            waiting = select(Volume.id).where(Volume.snapshot == identifier, ~Volume.made, Volume.state == "creating")
            copied = select(Snapshot.id).where(Snapshot.source == identifier, Snapshot.state == "pending")
            pending = session.scalars(select(Image).where(Image.state == "pending")).all()
            if any(session.scalars(query).first() is not None for query in (waiting, copied)) or any(
                device.snapshot == identifier for image in pending for device in image.devices
            ):
                return
        try:
            with contextlib.suppress(NotFound):
                self._store.snapshots.remove(identifier)
            if by_way_of_a_volume:
                self._written.forget(identifier)
        except (CelajeError, OSError) as error:
            log.warning("%s cannot be removed: %s", identifier, error)
            self._retries.failed(identifier)
            return
        self._retries.succeeded(identifier)
        with self._database.write() as session:
            row = session.get(Snapshot, identifier)
            if row is not None:
                session.delete(row)
            remove_tags(session, identifier)
        self._wake(("chunks",))
