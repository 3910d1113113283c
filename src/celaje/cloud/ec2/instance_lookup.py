"""Finding the instances that a request names."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.state.instances import CODES, TERMINATED, Instance

_AT_ONCE = 500
_MISSING_SHOWN = 10
CONTROLLER = "instances"
NETWORKS = "networks"
VOLUMES = "volumes"


def find_instances(call: Call, identifiers: Sequence[str]) -> list[Instance]:
    """The caller's instances of these ids, in their order, each once; terminated ones too as long as they are listed.
    AwsError InvalidInstanceID.Malformed or InvalidInstanceID.NotFound."""
    wanted = list(dict.fromkeys(checked_id(one, "i", "InvalidInstanceID") for one in identifiers))
    found: dict[str, Instance] = {}
    for at in range(0, len(wanted), _AT_ONCE):
        rows = select(Instance).where(
            Instance.id.in_(wanted[at : at + _AT_ONCE]),
            Instance.account == call.account,
            Instance.region == call.region,
        )
        found |= {row.id: row for row in call.session.scalars(rows)}
    missing = [one for one in wanted if one not in found]
    if missing:
        named = ", ".join(missing[:_MISSING_SHOWN])
        text = f"ID '{named}' does" if len(missing) == 1 else f"IDs '{named}' do"
        raise AwsError("InvalidInstanceID.NotFound", f"The instance {text} not exist")
    return [found[one] for one in wanted]


def find_instance(call: Call, identifier: str) -> Instance:
    """One. AwsError InvalidInstanceID.Malformed or InvalidInstanceID.NotFound."""
    return find_instances(call, [identifier])[0]


def find_live_instance(call: Call, identifier: str) -> Instance:
    """One that is not terminated. AwsError as above, or IncorrectInstanceState."""
    instance = find_instance(call, identifier)
    if instance.state == TERMINATED:
        raise AwsError(
            "IncorrectInstanceState", f"The instance '{instance.id}' is terminated; nothing of it can be changed."
        )
    return instance


def state_of(name: str) -> dict[str, object]:
    """A state as answers have it."""
    return {"Code": CODES[name], "Name": name}
