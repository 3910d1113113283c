"""Instance profiles: how an instance comes to a role, at launch and while it lives."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.instance_lookup import NETWORKS, find_live_instance
from celaje.cloud.state.instances import TERMINATED, Instance
from celaje.cloud.state.roles import InstanceProfile

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")


def profile_arn(profile: InstanceProfile) -> str:
    """Its ARN."""
    return f"arn:aws:iam::{profile.account}:instance-profile{profile.path}{profile.name}"


def find_profile(call: Call, given: Mapping[str, Any] | None) -> tuple[str, str]:
    """(ARN, id) of the caller's profile that a request names, both "" where it names none. AwsError."""
    arn, name = (given or {}).get("Arn"), (given or {}).get("Name")
    if not arn and not name:
        return "", ""
    if arn and name:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'",
        )
    folded = str(name or str(arn).rpartition("/")[2]).lower()
    rows = select(InstanceProfile).where(InstanceProfile.account == call.account, InstanceProfile.folded == folded)
    profile = call.session.scalars(rows).one_or_none()
    if profile is None or (arn and profile_arn(profile) != arn):
        member, value = ("arn", arn) if arn else ("name", name)
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({str(value)[:128]}) for parameter iamInstanceProfile.{member} is invalid. Invalid IAM Instance "
            f"Profile {'ARN' if arn else 'name'}",
        )
    return profile_arn(profile), profile.id


def _association(instance: Instance, state: str) -> dict[str, object]:
    return {
        "AssociationId": instance.profile_association,
        "InstanceId": instance.id,
        "IamInstanceProfile": {"Arn": instance.profile, "Id": instance.profile_id},
        "State": state,
    }


def _associate(call: Call, instance: Instance, given: Mapping[str, Any]) -> None:
    instance.profile, instance.profile_id = find_profile(call, given)
    if not instance.profile:
        raise AwsError("MissingParameter", "The request must contain the parameter IamInstanceProfile.Name or Arn")
    instance.profile_association = f"iip-assoc-{secrets.token_hex(9)[:17]}"
    call.wake(NETWORKS)


def _associated(call: Call, association: str) -> Instance:
    rows = select(Instance).where(
        Instance.profile_association == association,
        Instance.account == call.account,
        Instance.region == call.region,
        Instance.state != TERMINATED,
    )
    instance = call.session.scalars(rows).one_or_none() if association else None
    if instance is None:
        raise AwsError(
            "NoSuchAssociation", f"An invalid association-id of '{association[:64]}' was given: there is none of it."
        )
    return instance


@ACTIONS.action
def associate_iam_instance_profile(call: Call, request: ec2.AssociateIamInstanceProfileRequestTypeDef) -> Answer:
    """Give an instance that has none a profile."""
    instance = find_live_instance(call, request["InstanceId"])
    if instance.profile:
        raise AwsError(
            "IncorrectState", f"There is an existing association for instance {instance.id}; replace or remove it."
        )
    _associate(call, instance, request["IamInstanceProfile"])
    return {"IamInstanceProfileAssociation": _association(instance, "associating")}


@ACTIONS.action
def replace_iam_instance_profile_association(
    call: Call, request: ec2.ReplaceIamInstanceProfileAssociationRequestTypeDef
) -> Answer:
    """Another profile in place of the one that an instance has."""
    instance = _associated(call, request["AssociationId"])
    _associate(call, instance, request["IamInstanceProfile"])
    return {"IamInstanceProfileAssociation": _association(instance, "associating")}


@ACTIONS.action
def disassociate_iam_instance_profile(call: Call, request: ec2.DisassociateIamInstanceProfileRequestTypeDef) -> Answer:
    """Take an instance's profile away."""
    instance = _associated(call, request["AssociationId"])
    answered = _association(instance, "disassociating")
    instance.profile = instance.profile_id = instance.profile_association = ""
    call.wake(NETWORKS)
    return {"IamInstanceProfileAssociation": answered}


_FILTERS = Filters[Instance](
    {"instance-id": lambda instance: instance.id, "state": lambda instance: "associated"},
)


@ACTIONS.action
def describe_iam_instance_profile_associations(
    call: Call, request: ec2.DescribeIamInstanceProfileAssociationsRequestTypeDef
) -> Answer:
    """Which instances have profiles."""
    rows = select(Instance).where(
        Instance.account == call.account,
        Instance.region == call.region,
        Instance.profile_association != "",
        Instance.state != TERMINATED,
    )
    if wanted := request.get("AssociationIds"):
        rows = rows.where(Instance.profile_association.in_(wanted))
    matches = _FILTERS.matcher(request.get("Filters"))
    found = [row for row in call.session.scalars(rows) if matches(row)]
    paged, token = page(call, request, found, key=lambda row: row.profile_association)
    return {"IamInstanceProfileAssociations": [_association(row, "associated") for row in paged], "NextToken": token}
