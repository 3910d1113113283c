"""The controllers of images: celaje's own are built in the background, and those of instances when their snapshots are.

A public image is known before it is built, so that clients can wait for it: its identifier follows from the region, its
name, and the recipes. One that other recipes made stays until the new one is there.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.volumes import GIB, Wake
from celaje.cloud.state.accounts import Account
from celaje.cloud.state.database import Database
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.instances import PENDING, RUNNING, Instance
from celaje.cloud.state.snapshots import Snapshot
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.errors import CelajeError, ImageError, NotFound
from celaje.image import recipes, store
from celaje.image.disk_image import image_from_disk

log = logging.getLogger(__name__)

ROOT_DEVICE = "/dev/sda1"
BUILD_FAILED_SECONDS = 60.0
BUILD_NICENESS = 15  # whoever works meanwhile is not to notice


def image_id(region: str, name: str, revision: str) -> str:
    """The identifier of a public image."""
    digest = hashlib.blake2b(f"{region}/{name}/{revision}".encode(), digest_size=16).hexdigest()
    return f"ami-{digest[:17]}"


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
        for image in gone:
            self._remove(image)
        return sooner(self._retries.next(), 5.0 if gone else None)

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
        self._reboot(image)
        root = next(one.snapshot for one in image.devices if one.device == image.root_device)
        self._make_bootable(image, found[root])
        with self._database.write() as session:
            row = session.get_one(Image, image.id)
            if row.state == "pending":
                row.state, row.problem = "available", ""

    def _reboot(self, image: Image) -> None:
        if not image.reboot_pending:
            return
        with self._database.write() as session:
            row = session.get_one(Image, image.id)
            instance = session.get(Instance, image.source_instance)
            if row.reboot_pending and instance is not None and instance.state == RUNNING:
                instance.reboot_asked = datetime.datetime.now(datetime.UTC)
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
            row.state, row.problem = "failed", problem

    def _remove(self, image: Image) -> None:
        """Machines have links to their kernels; one that is about to be made needs the image still."""
        with self._database.read() as session:
            starting = select(Instance.id).where(Instance.image == image.id, Instance.state == PENDING)
            if session.scalars(starting).first() is not None:
                return
        if image.host_image == image.id:
            with contextlib.suppress(NotFound):
                store.remove(image.host_image)
        with self._database.write() as session:
            row = session.get(Image, image.id)
            if row is not None:
                session.delete(row)


class PublicImagesController:
    """Builds celaje's own images, one after the other, each in a process of its own, and registers them everywhere."""

    name = "public-images"

    def __init__(self, database: Database, wake: Wake, names: Iterable[str], regions: Iterable[str], log_to: Path):
        self._database = database
        self._wake = wake
        self._names = tuple(names)
        self._regions = tuple(regions)
        self._log_to = log_to
        self._settled: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving = threading.Event()

    def step(self) -> float | None:
        """Register all, then build the first that is not there."""
        self._register()
        for name in self._names:
            if name in self._settled:
                continue
            if not recipes.is_current(name) and not self._build(name):
                return None if self._leaving.is_set() else BUILD_FAILED_SECONDS
            self._publish(name)
            self._settled.add(name)
        return None

    def leave(self) -> None:
        """End the build that is under way; the next daemon begins it again, with what it had downloaded."""
        self._leaving.set()
        process = self._process
        if process is not None:
            process.terminate()

    def _register(self) -> None:
        """Rows of what is to come, pending, with the snapshots behind them."""
        revision = recipes.revision()
        now = datetime.datetime.now(datetime.UTC)
        with self._database.write() as session:
            owner = session.scalars(select(Account.id).order_by(Account.created, Account.id)).first()
            if owner is None:
                raise CelajeError("the cloud has no account yet; start it again: celaje up")
            for row in session.scalars(select(Image).where(Image.revision != "", Image.state == "pending")):
                if row.name not in self._names or row.revision != revision:
                    session.delete(row)  # it was never there, and nobody builds it any more
            for region in self._regions:
                for name in self._names:
                    identifier = image_id(region, name, revision)
                    if session.get(Image, identifier) is None:
                        session.add(_public_row(identifier, name, revision, region, owner, now))

    def _build(self, name: str) -> bool:
        if self._leaving.is_set():
            return False
        log.info("building the image %s; what it says is in %s", name, self._log_to)
        self._note(name, "it is being built; it takes a few minutes")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "celaje", "image", "build", name, "--unless-current"]
        with open(self._log_to, "wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, BUILD_NICENESS)
            status = self._process.wait()
        self._process = None
        if status == 0:
            return True
        lines = self._log_to.read_text(errors="replace").strip().splitlines()
        problem = lines[-1] if lines else f"the build ended with status {status}"
        log.error("the image %s cannot be built: %s", name, problem)
        self._note(name, f"it cannot be built: {problem}; tried again every minute, see {self._log_to}")
        return False

    def _note(self, name: str, problem: str) -> None:
        with self._database.write() as session:
            for row in _of_name(session, name):
                if row.state == "pending":
                    row.problem = problem

    def _publish(self, name: str) -> None:
        """The image is there: in every region it is available, and those that other recipes made are gone."""
        image = store.described(name)
        size = -(-image.description.files["disk"].size // GIB)
        now = datetime.datetime.now(datetime.UTC)
        revision = recipes.revision()
        with self._database.write() as session:
            for row in _of_name(session, name):
                if row.revision != revision:
                    row.state = "deregistered"
                    for device in row.devices:
                        old = session.get(Snapshot, device.snapshot)
                        if old is not None:
                            old.state = "deleting"
                    continue
                (device,) = row.devices
                snapshot = session.get(Snapshot, device.snapshot)
                if snapshot is None:
                    snapshot = Snapshot(
                        id=device.snapshot,
                        account=row.account,
                        region=row.region,
                        created=now,
                        volume="",
                        size=size,
                        description=f"the disk of {name}",
                        host_image=name,
                        public=True,
                    )
                    session.add(snapshot)
                snapshot.state, snapshot.progress, snapshot.size = "completed", 100, size
                snapshot.completed = snapshot.completed or now
                row.devices = [BlockDevice(device=ROOT_DEVICE, snapshot=snapshot.id, size=size)]
                row.architecture = image.description.architecture
                row.state, row.problem = "available", ""
        self._wake(("images", "snapshots"))


def _of_name(session: Session, name: str) -> list[Image]:
    rows = session.scalars(select(Image).where(Image.name == name, Image.public, Image.revision != ""))
    return [row for row in rows if row.state != "deregistered"]


def _public_row(
    identifier: str, name: str, revision: str, region: str, owner: str, now: datetime.datetime
) -> Image:
    recipe = recipes.RECIPES[name]
    return Image(
        id=identifier,
        account=owner,
        region=region,
        created=now,
        name=name,
        description=recipe.about,
        architecture=recipe.architecture,
        state="pending",
        problem="it waits to be built",
        public=True,
        root_device=ROOT_DEVICE,
        devices=[BlockDevice(device=ROOT_DEVICE, snapshot=f"snap-{identifier.removeprefix('ami-')}")],
        host_image=name,
        revision=revision,
    )
