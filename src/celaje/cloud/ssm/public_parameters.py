"""Public parameters: names under which everybody finds the newest public image.

    /aws/service/celaje/debian-mini/latest/image-id    ami-…
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.pagination import page
from celaje.cloud.state.images import Image

if TYPE_CHECKING:
    from mypy_boto3_ssm import type_defs as ssm

ACTIONS = Actions("ssm")
ROOT = "/aws/service/celaje"
NAMES_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    value: str
    version: int
    changed: datetime.datetime


def image_parameters(session: Session, region: str) -> dict[str, _Parameter]:
    """The parameters of a region by name: one for each name of a public image. An image that is still being made counts
    where there is no other."""
    # Celaje's own alone: anybody may call an image of theirs so, and make it public.
    query = select(Image).where(
        Image.public, Image.revision != "", Image.region == region, Image.state.in_(("available", "pending"))
    )
    by_name: dict[str, list[Image]] = {}
    for image in sorted(
        session.scalars(query), key=lambda image: (image.state == "available", image.created, image.id)
    ):
        by_name.setdefault(image.name, []).append(image)
    found = {}
    for image_name, images in by_name.items():
        name = f"{ROOT}/{image_name}/latest/image-id"
        found[name] = _Parameter(name, images[-1].id, len(images), images[-1].created)
    return found


def _described(call: Call, parameter: _Parameter) -> dict[str, object]:
    return {
        "ARN": f"arn:aws:ssm:{call.region}::parameter{parameter.name}",
        "DataType": "aws:ec2:image",
        "LastModifiedDate": parameter.changed,
        "Name": parameter.name,
        "Type": "String",
        "Value": parameter.value,
        "Version": parameter.version,
    }


@ACTIONS.action
def get_parameter(call: Call, request: ssm.GetParameterRequestTypeDef) -> Answer:
    """One public parameter. AwsError ParameterNotFound."""
    name = request["Name"]
    found = image_parameters(call.session, call.region).get(name)
    if found is None:
        raise AwsError("ParameterNotFound", f"There is no parameter {name[:200]}; those that there are begin {ROOT}/")
    return {"Parameter": _described(call, found)}


@ACTIONS.action
def get_parameters(call: Call, request: ssm.GetParametersRequestTypeDef) -> Answer:
    """Several, and the names that nothing has."""
    names = list(dict.fromkeys(request["Names"]))
    if len(names) > NAMES_AT_ONCE:
        raise AwsError("ValidationException", f"At most {NAMES_AT_ONCE} names at once; given: {len(names)}")
    found = image_parameters(call.session, call.region)
    return {
        "InvalidParameters": [name for name in names if name not in found],
        "Parameters": [_described(call, found[name]) for name in names if name in found],
    }


@ACTIONS.action
def get_parameters_by_path(call: Call, request: ssm.GetParametersByPathRequestTypeDef) -> Answer:
    """All below a path; without Recursive those directly in it."""
    path = request["Path"].rstrip("/") + "/"
    found = [
        parameter
        for name, parameter in image_parameters(call.session, call.region).items()
        if name.startswith(path) and (request.get("Recursive") or "/" not in name[len(path) :])
    ]
    paged, token = page(call, request, found, key=lambda one: one.name, least=1, most=10, default=10)
    return {"NextToken": token, "Parameters": [_described(call, parameter) for parameter in paged]}
