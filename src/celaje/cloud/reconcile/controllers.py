"""All controllers of a daemon, made and ended together."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from celaje.cloud.iam.key_uses import KeyUses
from celaje.cloud.reconcile.checks import ChecksController
from celaje.cloud.reconcile.controller import Controller, Controllers
from celaje.cloud.reconcile.cpu_shares import CpuShares, own_group
from celaje.cloud.reconcile.credentials import CredentialsController
from celaje.cloud.reconcile.images import ImagesController
from celaje.cloud.reconcile.imports import ImportsController
from celaje.cloud.reconcile.instances import InstancesController
from celaje.cloud.reconcile.interfaces import InterfacesController
from celaje.cloud.reconcile.networks import Documents, NetworksController
from celaje.cloud.reconcile.object_lifecycle import LifecycleController
from celaje.cloud.reconcile.public_images import PublicImagesController
from celaje.cloud.reconcile.snapshots import SnapshotsController
from celaje.cloud.reconcile.volumes import ChunksController, VolumesController
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database
from celaje.errors import CelajeError
from celaje.host import starting

log = logging.getLogger(__name__)

BUILD_LOG = "image-build.log"


class Preparation:
    """Keeps the template that machines are forked from running, and makes the regions' keys, so that the first launch
    need not wait for either."""

    name = "preparation"
    LOOK_SECONDS = 60.0

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def step(self) -> float | None:
        """Do what is missing."""
        try:
            if starting.template_process() is None:
                starting.start_template()
        except CelajeError as error:
            log.warning("the template of machines does not start: %s", error)
        self._documents.prepare()
        return self.LOOK_SECONDS


class Reconciliation:
    """The controllers of the cloud in `directory`."""

    def __init__(
        self, database: Database, settings: Settings, directory: Path, store: ObjectStore, uses: KeyUses
    ) -> None:
        documents = Documents(settings, directory)
        self._instances = InstancesController(database, self.wake, documents.one, CpuShares(own_group()))
        self._public = PublicImagesController(
            database, self.wake, settings.images, settings.regions, directory / BUILD_LOG
        )
        self._networks = NetworksController(database, documents)
        self._imports = ImportsController(database, self.wake, store, directory / "imports")
        controllers: list[Controller] = [
            self._instances,
            self._networks,
            InterfacesController(database, self.wake, documents.one),
            ChecksController(database),
            CredentialsController(database, directory),
            VolumesController(database, self.wake),
            SnapshotsController(database, self.wake),
            ImagesController(database, self.wake),
            self._imports,
            self._public,
            ChunksController(),
            LifecycleController(store, settings.lifecycle_day_seconds),
            uses,
            Preparation(documents),
        ]
        self._controllers = Controllers(controllers)

    def start(self) -> None:
        """Run them; each looks at everything once."""
        self._controllers.start()

    def wake(self, names: Iterable[str]) -> None:
        """Let these look again."""
        self._controllers.wake(names)

    def close(self) -> None:
        """Finish the steps that are under way."""
        self._public.leave()
        self._imports.leave()
        if not self._controllers.stop():
            log.warning("a controller is still at something; the next daemon goes on with it")
        self._instances.close()
        self._networks.end_unused()
