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
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.volumes import Wake
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import Image
from celaje.cloud.state.snapshots import Snapshot
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


class SnapshotsController:
    """Drives the manifests of snapshots to what the table says."""

    name = "snapshots"

    def __init__(self, database: Database, wake: Wake, store: VolumeStore | None = None) -> None:
        self._database = database
        self._wake = wake
        self._store = store or VolumeStore()
        self._retries = Retries()
        self._pool = ThreadPoolExecutor(AT_ONCE, "celaje-snapshot")
        self._taking: set[str] = set()  # snapshots, and the volumes that they are taken of
        self._changing = threading.Lock()

    def step(self) -> float | None:
        """Begin what is pending, remove what is to go."""
        with self._database.read() as session:
            of_volumes = select(Snapshot).where(Snapshot.state == "pending", Snapshot.host_image == "")
            pending = session.scalars(of_volumes.order_by(Snapshot.created)).all()
            doomed = session.scalars(select(Snapshot.id).where(Snapshot.state == "deleting")).all()
        for snapshot in pending:
            with self._changing:
                busy = not self._taking.isdisjoint((snapshot.id, snapshot.volume))
                if busy or not self._retries.due(snapshot.id):
                    continue
                self._taking |= {snapshot.id, snapshot.volume}
            self._pool.submit(self._take, snapshot)
        for identifier in doomed:
            self._remove(identifier)
        return sooner(self._retries.next(), 1.0 if doomed else None)

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
                self._taking -= {snapshot.id, snapshot.volume}
            self._wake((self.name, "images", "volumes"))

    def _taken(self, snapshot: Snapshot) -> None:
        try:
            self._store.snapshots.describe(snapshot.id)
        except NotFound:
            self._copy(snapshot)
        with self._database.write() as session:
            row = session.get(Snapshot, snapshot.id)
            if row is not None and row.state == "pending":
                row.state, row.progress, row.problem = "completed", 100, ""
                row.completed = datetime.datetime.now(datetime.UTC)

    def _copy(self, snapshot: Snapshot) -> None:
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
            row.problem = str(error)
            if final or session.get(Volume, snapshot.volume) is None:
                row.state = "error"

    def _remove(self, identifier: str) -> None:
        """Not while a volume is about to be made of it, or it is being taken: then later."""
        with self._changing:
            if identifier in self._taking:
                return
        with self._database.read() as session:
            waiting = select(Volume.id).where(Volume.snapshot == identifier, ~Volume.made, Volume.state == "creating")
            pending = session.scalars(select(Image).where(Image.state == "pending")).all()
            if session.scalars(waiting).first() is not None or any(
                device.snapshot == identifier for image in pending for device in image.devices
            ):
                return
        try:
            with contextlib.suppress(NotFound):
                self._store.snapshots.remove(identifier)
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
