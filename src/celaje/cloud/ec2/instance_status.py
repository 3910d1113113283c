"""Status checks: what the controller found when it last asked each machine and its guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.instance_lookup import find_instances, state_of
from celaje.cloud.state.instances import CODES, RUNNING, Instance
from celaje.cloud.state.prepared import owned
from celaje.cloud.state.zones import zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_REACHABLE = {"ok": "passed", "impaired": "failed", "initializing": "initializing"}
_UNKNOWN = "not-applicable"


def _status(row: Instance, check: str) -> str:
    return check if row.state == RUNNING else _UNKNOWN


def _reachability(row: Instance, check: str) -> str | None:
    return _REACHABLE[check] if row.state == RUNNING else None


_FILTERS = Filters[Instance](
    {
        "availability-zone": lambda row: row.zone,
        "availability-zone-id": lambda row: zone_id(row.region, row.zone),
        "instance-state-code": lambda row: CODES[row.state],
        "instance-state-name": lambda row: row.state,
        "instance-status.reachability": lambda row: _reachability(row, row.checked.instance),
        "instance-status.status": lambda row: _status(row, row.checked.instance),
        "system-status.reachability": lambda row: _reachability(row, row.checked.system),
        "system-status.status": lambda row: _status(row, row.checked.system),
        "attached-ebs-status.status": lambda row: _status(row, row.checked.system),
    },
    never=(
        "event.code",
        "event.description",
        "event.instance-event-id",
        "event.not-after",
        "event.not-before",
        "event.not-before-deadline",
    ),
)


@ACTIONS.action
def describe_instance_status(call: Call, request: ec2.DescribeInstanceStatusRequestTypeDef) -> Answer:
    """Of running instances; of all where IncludeAllInstances is said."""
    identifiers = request.get("InstanceIds")
    if identifiers:
        rows = find_instances(call, identifiers)
    else:
        rows = owned(call.session, Instance, call.account, call.region)
    everything = request.get("IncludeAllInstances", False)
    matches = _FILTERS.matcher(request.get("Filters"))
    found = [row for row in rows if (everything or row.state == RUNNING) and matches(row)]
    paged, token = page(call, request, found, key=lambda row: f"{row.created:%Y%m%d%H%M%S%f} {row.id}")
    return {"InstanceStatuses": [_described(row) for row in paged], "NextToken": token}


def _described(row: Instance) -> dict[str, object]:
    return {
        "AvailabilityZone": row.zone,
        "AvailabilityZoneId": zone_id(row.region, row.zone),
        "Events": [],
        "InstanceId": row.id,
        "InstanceState": state_of(row.state),
        "InstanceStatus": _summary(row, row.checked.instance),
        "SystemStatus": _summary(row, row.checked.system),
        "AttachedEbsStatus": _summary(row, row.checked.system),
    }


def _summary(row: Instance, check: str) -> dict[str, object]:
    if row.state != RUNNING:
        return {"Status": _UNKNOWN}
    detail: dict[str, object] = {"Name": "reachability", "Status": _REACHABLE[check]}
    if check == "impaired":
        detail["ImpairedSince"] = row.checked_since
    return {"Status": check, "Details": [detail]}
