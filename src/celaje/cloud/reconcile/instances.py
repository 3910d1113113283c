"""The controller of instances: brings machines to what their rows say, many at a time.

What is to be done is decided in instance_decision.py, one step an instance; here the steps are taken. Each is done in a
thread of a pool, asks the host outside of any transaction, and notes afterwards what has come of it, if the row still
says what it said: an action that came meanwhile wins, and is looked at next.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from celaje.cloud.ec2 import block_devices, network_interfaces
from celaje.cloud.ec2.public_addresses import release_public
from celaje.cloud.reconcile import launching, machines
from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.cpu_shares import CpuShares
from celaje.cloud.reconcile.instance_decision import PRESS_AGAIN_SECONDS, Intent, Step, decided
from celaje.cloud.reconcile.launching import VolumesReady
from celaje.cloud.reconcile.process_watch import ProcessWatch
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import rebooted_for
from celaje.cloud.state.instances import (
    PENDING,
    RUNNING,
    SHUTTING_DOWN,
    STOPPED,
    TERMINATED,
    TERMINATED_IS_LISTED,
    Instance,
)
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.tags import remove_tags
from celaje.errors import CelajeError
from celaje.host import record, removal, starting
from celaje.host.record import MachineDirectory
from celaje.network.messages import Attach

log = logging.getLogger(__name__)

AT_ONCE = 8  # machines that are started, stopped or removed at the same time
LOOK_SECONDS = 30.0  # what nobody tells of is seen by then
WAIT_SECONDS = 0.25  # for volumes that are being made
SWEEP_SECONDS = 5.0  # between looks for what killed processes have left of machines
_FAILED = "Server.InternalError"
_BY_GUEST = "Client.InstanceInitiatedShutdown"

Wake = Callable[[Iterable[str]], None]
DocumentsOf = Callable[[Session, Instance], Mapping[int, Attach]]


class InstancesController:
    """`wake` tells other controllers, and this one; `documents` says what an instance's interfaces are. `shares` of the
    host's CPUs are kept where that can be."""

    name = "instances"

    def __init__(self, database: Database, wake: Wake, documents: DocumentsOf, shares: CpuShares | None = None) -> None:
        self._database = database
        self._wake = wake
        self._documents = documents
        self._shares = shares or CpuShares(None)
        self._retries = Retries()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="celaje-instance")
        self._watch = ProcessWatch(self._look_again)
        self._begun = False
        self._swept = -SWEEP_SECONDS
        self._busy: set[str] = set()
        self._pressed: dict[str, float] = {}
        self._changing = threading.Lock()
        self._steps: Mapping[Step, Callable[[str], None]] = {
            Step.START: self._start,
            Step.NOTE_RUNNING: self._note_running,
            Step.PRESS: self._press,
            Step.RESET: self._reset,
            Step.KILL: machines.kill,
            Step.NOTE_STOPPED: self._note_stopped,
            Step.NOTE_SHUT_DOWN: self._note_shut_down,
            Step.NOTE_FAILED: self._note_failed,
            Step.GIVE_UP: self._give_up,
            Step.REMOVE: self._remove,
            Step.FORGET: self._forget,
        }

    def close(self) -> None:
        """Finish what is being done, and watch no more."""
        self._pool.shutdown(cancel_futures=True)
        self._watch.close()

    def _look_again(self) -> None:
        self._wake((self.name,))

    def step(self) -> float | None:
        """Begin every step that is due now."""
        now = datetime.datetime.now(datetime.UTC)
        with self._changing:  # before the rows are read: of one whose step ends meanwhile they say what was before it
            busy = set(self._busy)
        with self._database.read() as session:
            rows = list(
                session.scalars(
                    select(Instance).where(
                        or_(Instance.state != TERMINATED, Instance.since <= now - TERMINATED_IS_LISTED)
                    )
                )
            )
            waiting = [row.id for row in rows if row.wanted == "running" and row.state == PENDING]
            ready = launching.volumes_ready(session, waiting)
            imaged = set(rebooted_for(session).values())
        again = sooner(LOOK_SECONDS, self._sweep())
        for row in rows:
            if row.id not in busy:  # whoever is at it wakes us
                again = sooner(again, self._consider(row, ready.get(row.id), row.id in imaged, now))
        if not self._begun:
            self._begun = True
            log.info("%d instances are there; %d machines run, and are watched", len(rows), len(self._watch))
        return sooner(again, self._retries.next())

    def _sweep(self) -> float | None:
        """Finish what was being made or removed when its process was killed. After how many seconds to look again,
        where something is left: what somebody is at just now looks the same."""
        if not record.hidden():
            return None
        left = self._swept + SWEEP_SECONDS - time.monotonic()
        if left > 0:
            return left
        self._swept = time.monotonic()
        removal.sweep()
        return SWEEP_SECONDS if record.hidden() else None

    def _consider(
        self, row: Instance, volumes: VolumesReady | None, imaged: bool, now: datetime.datetime
    ) -> float | None:
        """Begin the next step of one instance; after how many seconds to look at it again. `imaged`: its volumes are
        being snapshotted, for which it was switched off."""
        seen, process = machines.seen(row.id, row.launched)
        if process is not None:
            self._watch.watch(process)
        step = decided(_intent(row, volumes, imaged), seen, now)
        if step is Step.NOTHING:
            return WAIT_SECONDS if row.state == PENDING and not seen.alive else None
        if step is Step.PRESS:
            left = self._pressed.get(row.id, 0.0) + PRESS_AGAIN_SECONDS - time.monotonic()
            if left > 0:
                return left
        attempt = f"{row.id} {row.wanted}"  # that it cannot start delays no termination
        if step is not Step.GIVE_UP and not self._retries.due(attempt):
            return None
        with self._changing:
            self._busy.add(row.id)
        self._pool.submit(self._take, step, row.id, attempt)
        return None

    def _take(self, step: Step, instance: str, attempt: str) -> None:
        """One step, in a thread of the pool; `attempt` is what is tried again later if it fails."""
        try:
            self._steps[step](instance)
        except Exception as error:  # a mistake with one instance must not end the thread that serves others
            if not isinstance(error, CelajeError | OSError):
                log.exception("%s: a mistake in celaje itself at: %s", instance, step.value)
            pause = self._retries.failed(attempt)
            log.warning("%s: cannot %s: %s; tried again in %.1f s", instance, step.value, error, pause)
            self._note_failure(instance, str(error))
        else:
            self._retries.succeeded(attempt)
        finally:
            with self._changing:
                self._busy.discard(instance)
            self._look_again()

    def _note_failure(self, instance: str, text: str) -> None:
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is not None:
                row.failure = text

    # Steps. Each may find that the row says something else by now, and leaves it to the next look then.

    def _start(self, instance: str) -> None:
        with self._database.read() as session:
            row = session.get(Instance, instance)
            if row is None or row.wanted != "running":
                return
            plan = launching.machine_plan(session, row, self._documents(session, row))
        recovered = machines.seen(instance, row.launched)[0].end is not None and row.reboot_asked is None
        process = starting.start(launching.made(plan))
        self._watch.watch(process)
        self._note_running(instance, recovered)

    def _note_running(self, instance: str, recovered: bool = False) -> None:
        now = datetime.datetime.now(datetime.UTC)
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is None or row.wanted != "running":
                return
            vcpus = row.vcpus
            row.failure, row.reboot_asked = "", None
            if recovered:
                row.recoveries += 1
            if row.state != RUNNING:
                row.enter(RUNNING, now)
            for interface in network_interfaces.of_instances(session, [instance])[instance]:
                # Of a further card the controller of interfaces finds out whether it was among those at the start.
                if interface.attachment_state == "attaching" and interface.card == 0:
                    interface.attachment_state = "attached"
        process = MachineDirectory.of(instance).holder()
        if process is not None:
            self._shares.place(instance, process, vcpus)
        self._wake(("volumes", "networks", "interfaces", "checks"))

    def _press(self, instance: str) -> None:
        self._pressed[instance] = time.monotonic()
        machines.press(instance)

    def _reset(self, instance: str) -> None:
        machines.reset(instance)
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is not None:
                row.reboot_asked = None

    def _note_stopped(self, instance: str) -> None:
        self._stopped(instance, "stopped")

    def _stopped(self, instance: str, wanted: str, *, code: str = "", reason: str = "", transition: str = "") -> None:
        """It is stopped: by the client's wish if it was `wanted` so already, otherwise by itself."""
        launching.without_store(instance)
        self._shares.release(instance)
        now = datetime.datetime.now(datetime.UTC)
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is None or row.wanted not in (wanted, "stopped"):
                return
            if row.wanted == "stopped":
                code, reason, transition = row.reason_code, row.reason, row.transition_reason
            row.wanted, row.forced, row.reboot_asked = "stopped", False, None
            row.enter(STOPPED, now, code=code, reason=reason, transition=transition)
            interface = session.get(NetworkInterface, row.interface)
            if interface is not None:
                release_public(session, interface)
        self._pressed.pop(instance, None)
        self._wake(("volumes", "networks"))

    def _note_shut_down(self, instance: str) -> None:
        with self._database.read() as session:
            row = session.get(Instance, instance)
        if row is None:
            return
        reason = f"{_BY_GUEST}: Instance initiated shutdown"
        if row.shutdown_behaviour != "terminate":
            self._stopped(instance, "running", code=_BY_GUEST, reason=reason)
            return
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is not None and row.wanted == "running":
                row.wanted = "terminated"
                row.enter(SHUTTING_DOWN, datetime.datetime.now(datetime.UTC), code=_BY_GUEST, reason=reason)

    def _note_failed(self, instance: str) -> None:
        why = machines.last_words(instance)
        log.error("%s: its machine failed: %s", instance, why)
        self._stopped(
            instance,
            "running",
            code=_FAILED,
            reason=f"{_FAILED}: the instance's machine failed: {why}",
            transition=_FAILED,
        )

    def _give_up(self, instance: str) -> None:
        """It never came up: a new instance is terminated, one that was stopped is so again."""
        with self._database.read() as session:
            row = session.get(Instance, instance)
            problem = launching.volumes_ready(session, [instance])[instance].problem
        if row is None:
            return
        reason = f"{_FAILED}: {problem or row.failure or 'the machine could not be started'}"
        log.error("%s is given up: %s", instance, reason)
        if row.launched != row.created:
            self._stopped(instance, "running", code=_FAILED, reason=reason, transition=_FAILED)
            return
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is not None and row.wanted == "running":
                row.wanted = "terminated"
                row.enter(
                    SHUTTING_DOWN,
                    datetime.datetime.now(datetime.UTC),
                    code=_FAILED,
                    reason=reason,
                    transition=_FAILED,
                )

    def _remove(self, instance: str) -> None:
        machines.keep_console(instance)
        launching.remove(instance)
        self._shares.release(instance)
        now = datetime.datetime.now(datetime.UTC)
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is None or row.state == TERMINATED:
                return
            for interface in network_interfaces.of_instances(session, [instance])[instance]:
                if interface.delete_on_termination:
                    network_interfaces.release(session, interface.id)
                else:
                    network_interfaces.detach(session, interface)
            block_devices.release(session, instance, now)
            row.failure = ""
            row.enter(TERMINATED, now, code=row.reason_code, reason=row.reason, transition=row.transition_reason)
        self._pressed.pop(instance, None)
        self._wake(("volumes", "networks"))

    def _forget(self, instance: str) -> None:
        with self._database.write() as session:
            row = session.get(Instance, instance)
            if row is not None and row.state == TERMINATED:
                session.delete(row)
                remove_tags(session, instance)
        machines.forget_console(instance)


def _intent(row: Instance, volumes: VolumesReady | None, imaged: bool) -> Intent:
    return Intent(
        wanted=row.wanted,
        state=row.state,
        asked=row.since,
        reboot_asked=row.reboot_asked,
        forced=row.forced,
        recovers=row.auto_recovery != "disabled",
        recoveries=row.recoveries,
        failing=bool(row.failure),
        ready=(volumes is None or volumes.ready) and not imaged,
        hopeless=volumes is not None and bool(volumes.problem) and not volumes.ready,
    )
