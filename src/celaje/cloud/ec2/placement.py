"""Whether hosts have room for instances: the rule is Host's sums, which overcommitment (settings) is in already."""

from __future__ import annotations

from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_types import InstanceType
from celaje.cloud.state.hosts import LOCAL, Host
from celaje.cloud.state.instances import held


def room(session: Session, kind: InstanceType) -> int:
    """How many more instances of a type can be started. One host: zones are names."""
    host = session.get(Host, LOCAL)
    if host is None:
        return 0
    memory, cpus = held(session, host.id)
    return max(0, min((host.memory - memory) // kind.memory_mib, (host.cpus - cpus) // kind.vcpus))


def require_room(session: Session, kind: InstanceType, least: int, zone: str) -> int:
    """How many more can be started, `least` at least. AwsError InsufficientInstanceCapacity."""
    free = room(session, kind)
    if free >= least:
        return free
    host = session.get(Host, LOCAL)
    memory, cpus = held(session, LOCAL)
    has = (
        "no host has reported"
        if host is None
        else (f"instances have {memory} of the host's {host.memory} MiB of memory and {cpus} of its {host.cpus} vCPUs")
    )
    raise AwsError(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind.name} capacity in the Availability Zone you requested ({zone}): "
        f"{least} would take {least * kind.memory_mib} MiB and {least * kind.vcpus} vCPUs, and {has}. "
        "Terminate or stop others, or choose a smaller type.",
        status=500,
    )
