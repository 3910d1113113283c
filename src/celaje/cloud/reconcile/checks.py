"""The status checks: does an instance's machine answer, and does its guest?

`system` asks the machine's process on its control socket. `instance` asks the guest by ARP, as EC2 does: any kernel
that has taken its address answers.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping

from sqlalchemy import select

from celaje.cloud.reconcile import machines
from celaje.cloud.reconcile.controller import sooner
from celaje.cloud.state.database import Database
from celaje.cloud.state.instances import RUNNING, Checks, Instance
from celaje.errors import CelajeError
from celaje.network import client

log = logging.getLogger(__name__)

STEADY_SECONDS = 15.0
INITIALIZING_SECONDS = 1.0  # clients wait for the first answer
SILENT_SECONDS = 50.0  # three questions that the guest has not answered
GRACE = datetime.timedelta(minutes=5)  # for a guest that boots: not impaired before


class ChecksController:
    """Looks at running instances, and notes what changed."""

    name = "checks"

    def __init__(self, database: Database) -> None:
        self._database = database

    def step(self) -> float | None:
        """Look at each once."""
        now = datetime.datetime.now(datetime.UTC)
        with self._database.read() as session:
            rows = session.scalars(select(Instance).where(Instance.state == RUNNING)).all()
        if not rows:
            return None
        heard = {network: _heard(network) for network in {row.vpc for row in rows}}
        found = {row.id: _checked(row, heard[row.vpc].get(row.id), now) for row in rows}
        changed = {row.id: found[row.id] for row in rows if found[row.id] != row.checked}
        if changed:
            self._note(changed, now)
        starting = any("initializing" in (one.system, one.instance) for one in found.values())
        return sooner(STEADY_SECONDS, INITIALIZING_SECONDS if starting else None)

    def _note(self, changed: Mapping[str, Checks], now: datetime.datetime) -> None:
        with self._database.write() as session:
            for instance, checks in changed.items():
                row = session.get(Instance, instance)
                if row is not None and row.state == RUNNING:
                    row.checked, row.checked_since = checks, now


def _heard(network: str) -> dict[str, float | None]:
    """How many seconds ago each guest was last heard; nothing of a network that does not answer."""
    try:
        return client.heard(network)
    except (CelajeError, OSError):
        return {}


def _checked(row: Instance, heard: float | None, now: datetime.datetime) -> Checks:
    answers = machines.answers(row.id)
    speaks = answers and heard is not None and heard < SILENT_SECONDS
    late = now - row.launched > GRACE
    return Checks(
        system="ok" if answers else "impaired" if late or row.checked.system != "initializing" else "initializing",
        instance="ok" if speaks else "impaired" if late or row.checked.instance == "ok" else row.checked.instance,
    )
