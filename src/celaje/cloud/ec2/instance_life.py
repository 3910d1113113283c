"""Starting, stopping, rebooting and terminating instances, as EC2's state machine allows it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_lookup import CONTROLLER, NETWORKS, find_instances, state_of
from celaje.cloud.ec2.instance_types import TYPES
from celaje.cloud.ec2.placement import require_room
from celaje.cloud.ec2.public_addresses import assign_public
from celaje.cloud.state.instances import (
    PENDING,
    RUNNING,
    SHUTTING_DOWN,
    STOPPED,
    STOPPING,
    TERMINATED,
    Checks,
    Instance,
)
from celaje.cloud.state.networks import NetworkInterface
from celaje.cloud.state.volumes import VolumeAttachment

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_BY_USER = "Client.UserInitiatedShutdown"


def _wrong_state(instance: Instance, verb: str) -> AwsError:
    return AwsError(
        "IncorrectInstanceState", f"The instance '{instance.id}' is not in a state from which it can be {verb}."
    )


def _initiated(now: datetime.datetime) -> str:
    return f"User initiated ({now:%Y-%m-%d %H:%M:%S} GMT)"


def _changes(instances: Sequence[Instance], change: Callable[[Instance], None]) -> list[dict[str, object]]:
    """Change each; what is answered about it."""
    answered: list[dict[str, object]] = []
    for instance in instances:
        previous = instance.state
        change(instance)
        answered.append(
            {
                "InstanceId": instance.id,
                "CurrentState": state_of(instance.state),
                "PreviousState": state_of(previous),
            }
        )
    return answered


@ACTIONS.action
def start_instances(call: Call, request: ec2.StartInstancesRequestTypeDef) -> Answer:
    """One that runs already is left alone."""
    instances = find_instances(call, request["InstanceIds"])
    for instance in instances:
        if instance.state not in (PENDING, RUNNING, STOPPED):
            raise _wrong_state(instance, "started")
        if instance.state == STOPPED and not _has_root(call, instance):
            raise AwsError(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' has no volume attached at its root device {instance.root_device}; "
                "attach one first",
            )

    def start(instance: Instance) -> None:
        if instance.state != STOPPED:
            return
        call.session.flush()
        require_room(call.session, TYPES[instance.instance_type], 1, instance.zone)
        interface = call.session.get(NetworkInterface, instance.interface)
        if interface is not None and interface.wants_public:
            assign_public(call.session, interface, call.settings.public_pool)
        instance.wanted, instance.launched = "running", call.now
        instance.forced, instance.failure, instance.recoveries, instance.reboot_asked = False, "", 0, None
        instance.checked, instance.checked_since = Checks(), None
        instance.enter(PENDING, call.now)

    answered = _changes(instances, start)
    call.wake(CONTROLLER)
    call.wake(NETWORKS)
    return {"StartingInstances": answered}


def _has_root(call: Call, instance: Instance) -> bool:
    rows = select(VolumeAttachment.volume).where(
        VolumeAttachment.instance == instance.id, VolumeAttachment.is_root, VolumeAttachment.state != "detaching"
    )
    return call.session.scalars(rows).first() is not None


@ACTIONS.action
def stop_instances(call: Call, request: ec2.StopInstancesRequestTypeDef) -> Answer:
    """By the power button, and without it where Force or SkipOsShutdown is said. One that is stopped, or about to be,
    is left alone."""
    instances = find_instances(call, request["InstanceIds"])
    if request.get("Hibernate"):
        raise AwsError(
            "UnsupportedHibernationConfiguration",
            f"The instance '{instances[0].id}' was not launched with hibernation, which no instance here can be.",
        )
    forced = bool(request.get("Force") or request.get("SkipOsShutdown"))
    for instance in instances:
        if instance.state not in (RUNNING, STOPPING, STOPPED):
            raise _wrong_state(instance, "stopped")
        if instance.stop_protected and instance.state == RUNNING:
            raise AwsError(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be stopped. Modify its 'disableApiStop' instance attribute and "
                "try again.",
            )

    def stop(instance: Instance) -> None:
        if instance.state == STOPPING:
            instance.forced = instance.forced or forced
        if instance.state != RUNNING:
            return
        instance.wanted, instance.forced, instance.reboot_asked = "stopped", forced, None
        instance.enter(
            STOPPING,
            call.now,
            code=_BY_USER,
            reason=f"{_BY_USER}: User initiated shutdown",
            transition=_initiated(call.now),
        )

    answered = _changes(instances, stop)
    call.wake(CONTROLLER)
    return {"StoppingInstances": answered}


@ACTIONS.action
def reboot_instances(call: Call, request: ec2.RebootInstancesRequestTypeDef) -> Answer:
    """The guest is asked to shut down and started again; one that does not listen is reset."""
    instances = find_instances(call, request["InstanceIds"])
    for instance in instances:
        if instance.state not in (PENDING, RUNNING):
            raise _wrong_state(instance, "rebooted")
    for instance in instances:
        if instance.state == RUNNING and instance.reboot_asked is None:
            instance.reboot_asked = call.now
    call.wake(CONTROLLER)
    return {}


@ACTIONS.action
def terminate_instances(call: Call, request: ec2.TerminateInstancesRequestTypeDef) -> Answer:
    """All of them or, where one is protected, none."""
    instances = find_instances(call, request["InstanceIds"])
    for instance in instances:
        if instance.protected and instance.state not in (SHUTTING_DOWN, TERMINATED):
            raise AwsError(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' instance "
                "attribute and try again.",
            )

    def terminate(instance: Instance) -> None:
        if instance.state in (SHUTTING_DOWN, TERMINATED):
            return
        instance.wanted, instance.reboot_asked = "terminated", None
        instance.enter(
            SHUTTING_DOWN,
            call.now,
            code=_BY_USER,
            reason=f"{_BY_USER}: User initiated shutdown",
            transition=_initiated(call.now),
        )

    answered = _changes(instances, terminate)
    call.wake(CONTROLLER)
    return {"TerminatingInstances": answered}


def _monitor(call: Call, identifiers: Sequence[str], on: bool) -> Answer:
    instances = find_instances(call, identifiers)
    for instance in instances:
        if instance.state in (SHUTTING_DOWN, TERMINATED):
            raise _wrong_state(instance, "monitored")
        instance.monitoring = on
    call.wake(NETWORKS)
    return {
        "InstanceMonitorings": [
            {"InstanceId": one.id, "Monitoring": {"State": "enabled" if on else "disabled"}} for one in instances
        ]
    }


@ACTIONS.action
def monitor_instances(call: Call, request: ec2.MonitorInstancesRequestTypeDef) -> Answer:
    """Detailed monitoring: remembered, and shown in the metadata."""
    return _monitor(call, request["InstanceIds"], True)


@ACTIONS.action
def unmonitor_instances(call: Call, request: ec2.UnmonitorInstancesRequestTypeDef) -> Answer:
    """Basic monitoring again."""
    return _monitor(call, request["InstanceIds"], False)
