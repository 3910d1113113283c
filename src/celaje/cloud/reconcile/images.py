"""The controller of images: what was made of an instance can be launched when its snapshots are whole."""

from __future__ import annotations

import contextlib
import datetime
import logging

from sqlalchemy import select

from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.volumes import Wake
from celaje.cloud.state.database import Database
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import PENDING, Instance
from celaje.cloud.state.snapshots import Snapshot
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.errors import CelajeError, ImageError, NotFound
from celaje.image import store
from celaje.image.disk_image import image_from_disk

log = logging.getLogger(__name__)

DEREGISTERED_IS_KNOWN = datetime.timedelta(hours=1)  # as InvalidAMIID.Unavailable


class ImagesController:
    """Makes images of instances bootable when their snapshots are there, and removes deregistered ones."""

    name = "images"

    def __init__(self, database: Database, wake: Wake, store: VolumeStore | None = None) -> None:
        self._database = database
        self._wake = wake
        self._volumes = store or VolumeStore()
        self._retries = Retries()

    def step(self) -> float | None:
        """Look at those that are pending or gone."""
        with self._database.read() as session:
            pending = session.scalars(select(Image).where(Image.state == "pending", Image.revision == "")).all()
            gone = session.scalars(select(Image).where(Image.state == "deregistered")).all()
        for image in pending:
            if self._retries.due(image.id):
                self._try(image)
        waits = [self._remove(image) for image in gone]
        return sooner(self._retries.next(), *waits)

    def _try(self, image: Image) -> None:
        try:
            self._finish(image)
        except ImageError as error:
            self._fail(image.id, str(error))
        except (CelajeError, OSError) as error:
            pause = self._retries.failed(image.id)
            log.warning("%s: %s; tried again in %.1f s", image.id, error, pause)
        else:
            self._retries.succeeded(image.id)

    def _finish(self, image: Image) -> None:
        wanted = [one.snapshot for one in image.devices if one.snapshot]
        with self._database.read() as session:
            found = {one.id: one for one in session.scalars(select(Snapshot).where(Snapshot.id.in_(wanted)))}
        for identifier in wanted:
            snapshot = found.get(identifier)
            if snapshot is None or snapshot.state == "error":
                why = snapshot.problem if snapshot else "it was deleted"
                self._fail(image.id, f"the snapshot {identifier} cannot be had: {why}")
                return
        if any(snapshot.state != "completed" for snapshot in found.values()):
            return  # the controller of snapshots wakes this one
        self._let_start(image.id)
        root = next(one.snapshot for one in image.devices if one.device == image.root_device)
        self._make_bootable(image, found[root])
        with self._database.write() as session:
            row = session.get_one(Image, image.id)
            if row.state == "pending":
                row.state, row.problem = "available", ""

    def _let_start(self, identifier: str) -> None:
        """An instance that was switched off for its snapshots may be started again: they are whole, or never will
        be."""
        with self._database.write() as session:
            row = session.get(Image, identifier)
            if row is None or not row.reboot_pending:
                return
            row.reboot_pending = False
        self._wake(("instances",))

    def _make_bootable(self, image: Image, root: Snapshot) -> None:
        """Kernel and initrd of what is in the snapshot now: its guest may have upgraded them."""
        if image.host_image in store.names():
            return
        if root.host_image:
            raise ImageError(f"the root snapshot {root.id} stands for an image of this cloud; launch that one")
        base = self._base(image)
        # A volume for a moment: what is read of it is checked against the chunks' hashes.
        with contextlib.ExitStack() as after:
            described = self._volumes.create(size=None, source=SnapshotSource(root.id), identifier=new_id("vol"))
            after.callback(self._volumes.remove, described.id)
            disk = after.enter_context(contextlib.closing(self._volumes.open(described.id, read_only=True)))
            image_from_disk(image.host_image, disk, base, with_disk=False)

    def _base(self, image: Image) -> store.Image | None:
        with self._database.read() as session:
            source = session.get(Image, image.source_image)
        with contextlib.suppress(CelajeError):
            return store.described(source.host_image) if source is not None else None
        return None

    def _fail(self, identifier: str, problem: str) -> None:
        log.error("%s: %s", identifier, problem)
        with self._database.write() as session:
            row = session.get_one(Image, identifier)
            if row.state == "pending":  # it may have been deregistered meanwhile
                row.state, row.problem = "failed", problem
        self._let_start(identifier)

    def _remove(self, image: Image) -> float | None:
        """Machines have links to their kernels; one that is about to be made needs the image still. Returns after how
        many seconds to look again: that it was deregistered is known for a while."""
        with self._database.read() as session:
            starting = select(Instance.id).where(Instance.image == image.id, Instance.state == PENDING)
            if session.scalars(starting).first() is not None:
                return 5.0
        if image.host_image == image.id:
            with contextlib.suppress(NotFound):
                store.remove(image.host_image)
        if image.deregistered is not None:
            left = image.deregistered + DEREGISTERED_IS_KNOWN - datetime.datetime.now(datetime.UTC)
            if left > datetime.timedelta():
                return left.total_seconds()
        with self._database.write() as session:
            row = session.get(Image, image.id)
            if row is not None:
                session.delete(row)
        return None
