"""The controller of instances, where no machine can be started. What machines do is tested apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from celaje.cloud.reconcile.instances import InstancesController
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.volumes import Volume
from celaje.errors import HostError
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
