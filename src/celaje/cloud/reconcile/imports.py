"""The controller of imports: a disk in a bucket becomes a snapshot and, where that was asked for, an image.

A few at a time, in threads of their own; accounts share the places (fair_share.py). The snapshot has its identifier
before it is made: one that was published just before everything was killed is found under it. Only the object that was
there when the import was asked for is read, since it was then that its reader's rights were looked at. What the object
holds is hostile: its format is read by the room of disks, which checks every offset, and what is refused there ends the
task with the reason.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.fair_share import FairShare
from celaje.cloud.reconcile.volumes import GIB, Wake
from celaje.cloud.s3.grants import owner_of_object
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.objects import Opened
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.import_tasks import ImportTask, take_away
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import remove_tags
from celaje.disk.files import HOST, READ, opened
from celaje.disk.qcow2 import Qcow2Disk, is_qcow2
from celaje.disk.snapshots import Contents
from celaje.disk.transfer import RawDisk
from celaje.disk.volumes import VolumeStore
from celaje.errors import CelajeError, InputError, NotFound
from celaje.paths import made

log = logging.getLogger(__name__)

AT_ONCE, OF_ONE_ACCOUNT = 4, 3  # imports that are under way
LARGEST = 1 << 40  # bytes of a disk
TOLD_SECONDS = 1.0
LISTED = datetime.timedelta(days=7)
PATIENCE = datetime.timedelta(minutes=15)
ROOT_DEVICE = "/dev/sda1"
PREPARING = "preparing ami"  # its snapshot and image are there, and the image is being made bootable
_PIECE = 1 << 20


class _Cancelled(Exception):
    """Its user does not want it any more."""


class _Leaving(Exception):
    """The daemon ends; the next one begins it anew."""


class ImportsController:
    """Carries out import tasks. `scratch` is a directory for objects that do not lie in one file."""

    name = "imports"

    def __init__(
        self, database: Database, wake: Wake, objects: ObjectStore, scratch: Path, store: VolumeStore | None = None
    ) -> None:
        self._database = database
        self._wake = wake
        self._objects = objects
        self._scratch = scratch
        self._store = store or VolumeStore()
        self._retries = Retries()
        self._swept = False
        self._turns = FairShare(AT_ONCE, OF_ONE_ACCOUNT)
        self._pool = ThreadPoolExecutor(AT_ONCE, "celaje-import")
        self._busy: dict[str, str] = {}  # tasks that are under way, and whose they are
        self._forgotten: set[str] = set()  # tasks that have left nothing
        self._changing = threading.Lock()
        self._leaving = False

    @property
    def busy(self) -> int:
        """How many are under way."""
        with self._changing:
            return len(self._busy)

    def leave(self) -> None:
        """Begin no more, and break off what is under way."""
        self._leaving = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self) -> float | None:
        """Begin those that are active and have a place; clean up after those that ended, and forget them a week
        later."""
        if not self._swept:
            for left in self._scratch.glob("import-*"):
                left.unlink(missing_ok=True)
            self._swept = True
        now = datetime.datetime.now(datetime.UTC)
        with self._changing:  # before the rows are read: of one that ends meanwhile they say what was before
            busy = set(self._busy)
        with self._database.read() as session:
            query = select(ImportTask).where(ImportTask.status == "active").order_by(ImportTask.created)
            active = session.scalars(query).all()
            undone = session.scalars(select(ImportTask).where(ImportTask.status == "deleted")).all()
            ended = select(ImportTask.id).where(ImportTask.status != "active", ImportTask.created < now - LISTED)
            old = session.scalars(ended).all()
        for task in undone:
            self._clean_up(task)
        if old:
            with self._database.write() as session:
                for identifier in old:
                    session.delete(session.get_one(ImportTask, identifier))
                    remove_tags(session, identifier)
        waits = [self._follow(task) for task in active if task.message == PREPARING]
        idle = [task for task in active if task.message != PREPARING and task.id not in busy]
        self._begin([task for task in idle if self._retries.due(task.id)])
        return sooner(self._retries.next(), 1.0 if any(waits) else None)

    def _begin(self, tasks: list[ImportTask]) -> None:
        by_id = {task.id: task for task in tasks}
        with self._changing:
            if self._leaving:
                return
            chosen = self._turns.chosen([(task.id, task.account) for task in tasks], self._busy)
            self._busy |= {name: by_id[name].account for name in chosen}
        for name in chosen:
            self._pool.submit(self._try, by_id[name])

    def _try(self, task: ImportTask) -> None:
        """One, in a thread of the pool."""
        try:
            self._register(task, self._snapshot(task))
        except (_Cancelled, _Leaving):
            pass
        except (InputError, AwsError, NotFound) as error:
            self._fail(task, error.message if isinstance(error, AwsError) else str(error))
        except Exception as error:  # a mistake with one import must not end the thread that serves others
            if not isinstance(error, CelajeError | OSError):
                log.exception("%s: a mistake in celaje itself", task.id)
            pause = self._retries.failed(task.id)
            log.warning("%s: %s; tried again in %.1f s", task.id, error, pause)
            if datetime.datetime.now(datetime.UTC) - task.created > PATIENCE:
                self._fail(task, str(error))
        else:
            self._retries.succeeded(task.id)
        finally:
            with self._changing:
                self._busy.pop(task.id, None)
            self._wake((self.name,))

    def _clean_up(self, task: ImportTask) -> None:
        """One that failed, or was cancelled, leaves no snapshot that no row is of."""
        with self._changing:
            if task.id in self._busy or task.id in self._forgotten:
                return
            self._forgotten.add(task.id)
        self._retries.succeeded(task.id)
        with self._database.read() as session:
            if session.get(Snapshot, task.snapshot) is not None:
                return  # it goes as any other
        with contextlib.suppress(NotFound):
            self._store.snapshots.remove(task.snapshot)
            self._wake(("chunks",))

    def _snapshot(self, task: ImportTask) -> int:
        """Its size in GiB, once it is published."""
        with contextlib.suppress(NotFound):
            return self._store.snapshots.describe(task.snapshot).size // GIB
        self._note(task, 0, "validating")
        with self._disk(task) as disk:
            if not 0 < disk.size <= LARGEST:
                raise InputError(f"the disk has {disk.size} bytes; more than 0 and at most {LARGEST} are imported")
            told = time.monotonic()

            def progress(done: int, of: int) -> None:
                nonlocal told
                if self._leaving:
                    raise _Leaving
                if time.monotonic() - told > TOLD_SECONDS:
                    told = time.monotonic()
                    self._note(task, 5 + 85 * done // of, "converting")

            self._note(task, 5, "converting")
            size = -(-disk.size // GIB)
            self._store.snapshots.of_disk(disk, size * GIB, task.snapshot, task.description, progress)
            return size

    @contextlib.contextmanager
    def _disk(self, task: ImportTask) -> Iterator[Contents]:
        bucket = self._objects.buckets.get(task.bucket)
        if bucket is None or bucket.account != task.account:
            raise InputError(f"the bucket {task.bucket} is none of this account's")
        if task.etag == "":
            raise InputError(f"there was no {task.key} in the bucket {task.bucket} when the import was asked for")
        found = self._objects.objects.open(bucket, task.key.encode(), None if task.etag is None else task.version)
        try:
            if task.etag not in (None, found.object.etag):
                raise InputError(f"{task.key} in the bucket {task.bucket} is another one than was asked for")
            if owner_of_object(bucket, found.object.attributes) != task.account:
                raise InputError(f"the object {task.key} in the bucket {task.bucket} is another account's")
            with self._database.write() as session:
                session.get_one(ImportTask, task.id).size = found.object.size
            with self._file(task, found) as path, opened(HOST, path, READ) as fd:
                if is_qcow2(path, HOST):
                    if task.format != "QCOW2":
                        raise InputError("the object is a qcow2 image; import it with the Format QCOW2")
                    yield Qcow2Disk(HOST, fd, task.key)
                elif task.format == "QCOW2":
                    raise InputError("the object is no qcow2 image; a raw disk is imported with the Format RAW")
                else:
                    yield RawDisk(HOST, fd)
        finally:
            found.close()

    @contextlib.contextmanager
    def _file(self, task: ImportTask, found: Opened) -> Iterator[Path]:
        """A file that has the object and nothing else."""
        if found.body is None and len(found.object.segments) == 1 and not found.encrypted:
            ((path, _, _),) = found.pieces(0, found.object.size)
            yield path
            return
        path = made(self._scratch) / task.id
        try:
            with open(path, "wb") as file:
                if found.body is not None or found.encrypted:
                    for block in found.blocks(0, found.object.size):
                        if self._leaving:
                            raise _Leaving
                        file.write(block)
                for source, offset, length in () if found.encrypted else found.pieces(0, found.object.size):
                    with open(source, "rb") as part:
                        while length:
                            if self._leaving:
                                raise _Leaving
                            count = os.copy_file_range(part.fileno(), file.fileno(), min(length, _PIECE), offset)
                            if not count:
                                raise OSError(f"{source} ends before its object does")
                            offset, length = offset + count, length - count
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _register(self, task: ImportTask, size: int) -> None:
        """The rows of what was made, in one transaction with the task's."""
        now = datetime.datetime.now(datetime.UTC)
        common = {"account": task.account, "region": task.region, "created": now, "host_image": ""}
        with self._database.write() as session:
            row = session.get_one(ImportTask, task.id)
            if row.status != "active":
                raise _Cancelled
            about = task.description or f"Created by import task {task.id}"
            session.merge(
                Snapshot(
                    id=task.snapshot, volume="", size=size, description=about, state="completed", progress=100,
                    completed=now, origin="import", **common,
                )
            )  # fmt: skip
            if not task.image:
                row.status, row.progress, row.message = "completed", 100, ""
                return
            device = BlockDevice(device=ROOT_DEVICE, snapshot=task.snapshot, size=size, kind="gp2")
            session.add(
                Image(
                    id=task.image, name=task.id, description=task.description, architecture=task.architecture,
                    state="pending", root_device=ROOT_DEVICE, devices=[device], **(common | {"host_image": task.image}),
                )
            )  # fmt: skip
            row.progress, row.message = 95, PREPARING
        self._wake(("images",))

    def _follow(self, task: ImportTask) -> bool:
        """Whether the image is still being looked at."""
        with self._database.write() as session:
            image, row = session.get(Image, task.image), session.get_one(ImportTask, task.id)
            if image is not None and image.state == "pending" and row.status == "active":
                return True
            if row.status == "active":
                if image is None or image.state != "available":
                    why = image.problem if image is not None and image.problem else "it was deregistered"
                    row.status, row.message = "deleted", f"ClientError: the image cannot be booted: {why}"
                    take_away(session, task)
                else:
                    row.status, row.progress, row.message = "completed", 100, ""
        self._wake(("images", "snapshots"))
        return False

    def _note(self, task: ImportTask, percent: int, message: str) -> None:
        with self._database.write() as session:
            row = session.get(ImportTask, task.id)
            if row is None or row.status != "active":
                raise _Cancelled
            row.progress, row.message = percent, message

    def _fail(self, task: ImportTask, why: str) -> None:
        log.info("%s: %s", task.id, why)
        with self._database.write() as session:
            row = session.get(ImportTask, task.id)
            if row is not None and row.status == "active":
                row.status, row.message = "deleted", f"ClientError: Disk validation failed [{why}]"[:1000]
