"""The controller of instances, where no machine can be started. What machines do is tested apart."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from celaje import paths
from celaje.cloud.reconcile.instance_decision import Step
from celaje.cloud.reconcile.instances import SWEEP_SECONDS, InstancesController
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.volumes import Volume
from celaje.errors import HostError
from celaje.host import record
from celaje.network.messages import Attach
from tests.cloud.ec2.test_instances import _images, launched, shown
from tests.cloud.served import Owner, ServedCloud

__all__ = ["_images"]


@pytest.fixture
def served_cloud(tmp_path: Path) -> Iterator[ServedCloud]:
    """One of the test's own: the controller looks at every instance that there is."""
    made = ServedCloud(tmp_path)
    yield made
    made.close()


def test_an_instance_that_cannot_be_started_is_terminated_without_waiting_for_another_attempt(
    served_cloud: ServedCloud, owner: Owner, ec2: Any
) -> None:
    [instance] = launched(ec2)
    tried: list[str] = []

    def documents(session: Session, row: Instance) -> Mapping[int, Attach]:
        tried.append(row.id)
        raise HostError("there is no host in this test")

    with served_cloud.database.write() as session:
        for volume in session.query(Volume).filter_by(account=owner.account):
            volume.made = True
    done = threading.Event()
    controller = InstancesController(served_cloud.database, lambda names: done.set(), documents)
    controller.step()
    assert done.wait(60)
    assert tried == [instance]
    ec2.terminate_instances(InstanceIds=[instance])
    done.clear()
    controller.step()
    assert done.wait(60)
    controller.close()
    assert shown(ec2, instance)["State"]["Name"] == "terminated"


def test_a_step_that_ends_while_a_controller_looks_is_not_taken_again(served_cloud: ServedCloud, ec2: Any) -> None:
    """The row was read as it was before the end. Twice is once too often where a guest is reset."""
    [instance] = launched(ec2)
    ec2.terminate_instances(InstanceIds=[instance])
    let_go, ended = threading.Event(), threading.Event()
    taken: list[str] = []

    class Held(InstancesController):
        def _take(self, step: Step, instance: str, attempt: str) -> None:
            taken.append(instance)
            assert let_go.wait(60)
            super()._take(step, instance, attempt)
            ended.set()

        def _sweep(self) -> float | None:
            if let_go.is_set():
                assert ended.wait(60)
            return super()._sweep()

    controller = Held(served_cloud.database, lambda names: None, lambda session, row: {})
    controller.step()
    let_go.set()
    controller.step()
    controller._pool.shutdown()  # what was begun is finished; `close` would cancel it
    controller.close()
    assert taken == [instance]
    assert shown(ec2, instance)["State"]["Name"] == "terminated"


def test_what_a_killed_process_has_left_of_a_machine_is_taken_away_while_nothing_else_happens(
    served_cloud: ServedCloud,
) -> None:
    left = paths.made(record.machines_directory()) / f".i-0123456789abcdef0.{'0' * 16}"
    left.mkdir()
    controller = InstancesController(served_cloud.database, lambda names: None, lambda session, row: {})
    again = controller.step()
    assert left.exists()  # it may be somebody's who has only begun
    assert again is not None
    assert again <= SWEEP_SECONDS
    hour_ago = time.time() - 3600
    os.utime(left, (hour_ago, hour_ago))
    assert controller.step() is not None
    assert left.exists()  # it was looked at a moment ago
    later = InstancesController(served_cloud.database, lambda names: None, lambda session, row: {})
    later.step()
    assert not left.exists()
    controller.close()
    later.close()
