"""celaje's own images: known from the first start on, built in the background, and available in every region then.

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
from collections.abc import Callable, Iterable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.state.accounts import Account
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.snapshots import Snapshot
from celaje.errors import CelajeError, InputError
from celaje.image import recipes, store

log = logging.getLogger(__name__)

GIB = 1 << 30
ROOT_DEVICE = "/dev/sda1"
BUILD_FAILED_SECONDS = 60.0
BUILD_NICENESS = 15  # whoever works meanwhile is not to notice


def image_id(region: str, name: str, revision: str) -> str:
    """The identifier of a public image."""
    digest = hashlib.blake2b(f"{region}/{name}/{revision}".encode(), digest_size=16).hexdigest()
    return f"ami-{digest[:17]}"


def check_recipes(names: Iterable[str]) -> None:
    """InputError where settings name an image that no recipe makes."""
    if unknown := set(names) - recipes.RECIPES.keys():
        raise InputError(
            f"there is no recipe of an image {min(unknown)!r}, which the cloud's settings.json names; there are: "
            f"{', '.join(recipes.RECIPES)}"
        )


def register(session: Session, names: Iterable[str], regions: Iterable[str], now: datetime.datetime) -> None:
    """Rows of the images that these recipes make, pending where they are new. One that is pending and that nobody
    builds any more goes."""
    revision = recipes.revision()
    names = tuple(names)
    owner = session.scalars(select(Account.id).order_by(Account.created, Account.id)).first()
    if owner is None:
        raise CelajeError("the cloud has no account yet; start it again: celaje up")
    for row in session.scalars(select(Image).where(Image.revision != "", Image.state == "pending")):
        if row.name not in names or row.revision != revision:
            session.delete(row)
    for region in regions:
        for name in names:
            identifier = image_id(region, name, revision)
            if session.get(Image, identifier) is None:
                session.add(_public_row(identifier, name, revision, region, owner, now))


class PublicImagesController:
    """Builds celaje's own images, one after the other, each in a process of its own, and registers them everywhere."""

    name = "public-images"

    def __init__(
        self,
        database: Database,
        wake: Callable[[Iterable[str]], None],
        names: Iterable[str],
        regions: Iterable[str],
        log_to: Path,
    ) -> None:
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
        with self._database.write() as session:
            register(session, self._names, self._regions, datetime.datetime.now(datetime.UTC))
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
                    row.state, row.deregistered = "deregistered", now
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
