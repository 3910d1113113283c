"""The controller of interfaces, where what is asked of it changes meanwhile. What guests see is tested apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy.orm import Session

from celaje.cloud.reconcile.interfaces import InterfacesController
from celaje.cloud.state.instances import RUNNING, STOPPED, Instance
from celaje.network.messages import Attach
from tests.cloud.ec2.test_instances import _images, become, launched
from tests.cloud.ec2.test_interface_attachments import created, described, subnet
from tests.cloud.served import ServedCloud

__all__ = ["_images", "subnet"]


class Attached:
    """An instance with one more interface, which is attaching. `meanwhile` is done while the controller is at it."""

    def __init__(self, cloud: ServedCloud, ec2: Any, place: dict[str, Any], state: Any) -> None:
        self.ec2 = ec2
        [self.instance] = launched(ec2, InstanceType="t3.small")
        become(cloud, self.instance, state, "stopped" if state == STOPPED else "running")
        self.interface = created(ec2, place)["NetworkInterfaceId"]
        self.attachment = ec2.attach_network_interface(
            NetworkInterfaceId=self.interface, InstanceId=self.instance, DeviceIndex=1
        )["AttachmentId"]
        self.meanwhile: Callable[[], None] = lambda: None
        self.controller = InterfacesController(cloud.database, lambda names: None, self._documents)

    def _documents(self, session: Session, instance: Instance) -> Mapping[int, Attach]:
        if instance.id == self.instance:
            self.meanwhile()
        return {}

    def detach(self) -> None:
        self.ec2.detach_network_interface(AttachmentId=self.attachment)

    @property
    def state(self) -> str | None:
        found = described(self.ec2, self.interface).get("Attachment")
        return None if found is None else str(found["Status"])


def test_one_that_is_detached_while_it_is_being_attached_is_detached_by_the_next_step(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any]
) -> None:
    held = Attached(served_cloud, ec2, subnet, STOPPED)
    held.meanwhile = held.detach
    held.controller.step()
    assert held.state == "detaching", "it was just attached: noting that it is detached would leave it at its machine"
    held.meanwhile = lambda: None
    held.controller.step()
    assert held.state is None


@pytest.mark.parametrize("leaves", [False, True])
def test_at_an_instance_whose_machine_is_just_being_started_again_nothing_is_noted_before_it_is_asked(
    served_cloud: ServedCloud, ec2: Any, subnet: dict[str, Any], leaves: bool
) -> None:
    held = Attached(served_cloud, ec2, subnet, RUNNING)
    if leaves:
        held.detach()
    before = held.state
    assert held.controller.step() is not None, "it is looked at again"
    assert held.state == before
    become(served_cloud, held.instance, STOPPED, "stopped")
    held.controller.step()
    assert held.state == (None if leaves else "attached")
