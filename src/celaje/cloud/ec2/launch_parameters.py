"""Parameters of launches that a template keeps, and how a request's own go over them.

AWS names nearly all of them alike in both. What a request says replaces what the template says, and where both say
something of the same thing it is joined:

    structures (MetadataOptions, Placement, …)    member by member; an instance profile is one thing
    BlockDeviceMappings                           by DeviceName, and of a volume member by member
    NetworkInterfaces                             by DeviceIndex, member by member
    TagSpecifications                             by resource type and key
    SecurityGroupIds, SecurityGroups              one of them in the request replaces both
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import checked_tags
from celaje.cloud.ec2.user_data import decoded_user_data

_RENAMED = {"RamDiskId": "RamdiskId", "ElasticGpuSpecifications": "ElasticGpuSpecification"}
_MADE_BY_A_LAUNCH = ("instance", "volume", "network-interface")
_OTHER_TAGGED = ("spot-instances-request", "elastic-gpu")  # AWS takes them in templates; no launch here makes one
_GROUPS = ("SecurityGroupIds", "SecurityGroups")
_WHOLE = ("IamInstanceProfile",)


def checked_data(given: Mapping[str, Any]) -> dict[str, Any]:
    """A template's parameters, if they can be kept. That they fit each other and this cloud shows at a launch, as at
    AWS. AwsError."""
    if given.get("InstanceType") and given.get("InstanceRequirements"):
        raise AwsError(
            "InvalidParameterCombination", "InstanceType and InstanceRequirements cannot be specified together"
        )
    decoded_user_data(given.get("UserData"), malformed="InvalidUserData.Malformed")
    for specification in given.get("TagSpecifications") or ():
        resource_type = specification.get("ResourceType")
        if resource_type not in (*_MADE_BY_A_LAUNCH, *_OTHER_TAGGED):
            raise AwsError(
                "InvalidParameterValue",
                f"'{str(resource_type)[:100]}' is not a valid taggable resource type for this operation; expected "
                f"{' or '.join(_MADE_BY_A_LAUNCH)}",
            )
        checked_tags(specification.get("Tags"))
    return dict(given)


def answered_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """A template's parameters as answers have them: the one moment among them is kept as text."""
    market = data.get("InstanceMarketOptions") or {}
    spot = market.get("SpotOptions") or {}
    until = spot.get("ValidUntil")
    if not isinstance(until, str):
        return dict(data)
    moment = datetime.datetime.fromisoformat(until)
    return {**data, "InstanceMarketOptions": {**market, "SpotOptions": {**spot, "ValidUntil": moment}}}


def merged(template: Mapping[str, Any], request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of a launch: the request's over the template's. AwsError for requirements instead of a type."""
    if template.get("InstanceRequirements") and not request.get("InstanceType"):
        raise AwsError(
            "Unsupported",
            "The launch template has InstanceRequirements, and types are not chosen by requirements here: give an "
            "InstanceType.",
        )
    found = {_RENAMED.get(name, name): value for name, value in template.items() if name != "InstanceRequirements"}
    if any(request.get(name) for name in _GROUPS):
        for name in _GROUPS:
            found.pop(name, None)
    for name, value in request.items():
        found[name] = _joined(name, found.get(name), value)
    found["TagSpecifications"] = [
        one for one in found.get("TagSpecifications") or () if one.get("ResourceType") not in _OTHER_TAGGED
    ]
    found.pop("LaunchTemplate", None)
    return found


def _joined(name: str, before: Any, value: Any) -> Any:
    if not before or name in _WHOLE:
        return value
    if name == "BlockDeviceMappings":
        return _by_key(before, value, "DeviceName", _device)
    if name == "NetworkInterfaces":
        return _by_key(before, value, "DeviceIndex", _interface)
    if name == "TagSpecifications":
        return _by_key(before, value, "ResourceType", _tags)
    if isinstance(before, Mapping) and isinstance(value, Mapping):
        return {**before, **value}
    return value


def _by_key(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], key: str, join: Any) -> list[Any]:
    """Items of both lists; those of the same key joined. What the request has twice stays so, and is refused later."""
    asked = {one.get(key): one for one in after}
    found = [join(one, asked[one.get(key)]) if one.get(key) in asked else one for one in before]
    there = {one.get(key) for one in before}
    seen: set[Any] = set()
    for one in after:
        if one.get(key) not in there or one.get(key) in seen:
            found.append(one)
        seen.add(one.get(key))
    return found


def _device(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    if before.get("Ebs") and after.get("Ebs"):
        return {**before, **after, "Ebs": {**before["Ebs"], **after["Ebs"]}}
    return after


def _interface(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    return after if after.get("NetworkInterfaceId") else {**before, **after}


def _tags(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    joined = {one.get("Key"): one for one in [*(before.get("Tags") or ()), *(after.get("Tags") or ())]}
    return {**before, "Tags": list(joined.values())}
