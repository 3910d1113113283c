"""GetConsoleOutput: what the guest said on its serial line, from the ring in its machine's directory."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.ec2.instance_lookup import find_instance
from celaje.errors import CelajeError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")


@ACTIONS.action
def get_console_output(call: Call, request: ec2.GetConsoleOutputRequestTypeDef) -> Answer:
    """The last 64 KiB, also after a stop, and for the hour that a terminated one is listed. Nothing of an instance that
    has not started."""
    from celaje.cloud.reconcile import machines  # what it imports would make the first answer of a cloud wait

    instance = find_instance(call, request["InstanceId"])
    try:
        said = machines.console_output(instance.id)
    except CelajeError:
        return {"InstanceId": instance.id, "Timestamp": call.now}
    return {"InstanceId": instance.id, "Output": base64.b64encode(said).decode("ascii"), "Timestamp": call.now}
