"""Tags in requests, checked as EC2 checks them.

tags = tags_for(request.get("TagSpecifications"), "volume")                # {"Name": "data"}
tags = tags_by_type(request.get("TagSpecifications"), "instance", "volume", "network-interface")["instance"]
tags = checked_tags(request.get("Tags"))                                   # CreateTags
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celaje.cloud.aws.errors import AwsError

KEY_LENGTH = 128
VALUE_LENGTH = 256
TAGS = 50  # of one resource

Given = Sequence[Mapping[str, object]] | None


def tags_for(specifications: Given, resource_type: str) -> dict[str, str]:
    """The tags for the one kind of resource that the action makes."""
    return tags_by_type(specifications, resource_type)[resource_type]


def tags_by_type(specifications: Given, *resource_types: str) -> dict[str, dict[str, str]]:
    """The tags by resource type, empty where none are given. AwsError InvalidParameterValue for a type that is not
    among `resource_types`, the ones that the action can make."""
    found: dict[str, dict[str, str]] = {resource_type: {} for resource_type in resource_types}
    seen: set[str] = set()
    for given in specifications or ():
        resource_type = str(given.get("ResourceType") or "")
        if not resource_type:
            raise AwsError("InvalidParameterValue", "Tag specification resource type must have a value")
        if resource_type not in found:
            raise AwsError(
                "InvalidParameterValue",
                f"'{resource_type[:100]}' is not a valid taggable resource type for this operation; "
                f"expected {' or '.join(resource_types)}",
            )
        if resource_type in seen:
            raise AwsError(
                "InvalidParameterValue", f"The tag specification for {resource_type} is given more than once"
            )
        seen.add(resource_type)
        tags = given.get("Tags")
        if not isinstance(tags, list) or not tags:
            raise AwsError("InvalidParameterValue", "Tag specification must have at least one tag")
        found[resource_type] = checked_tags(tags)
    return found


def checked_tags(tags: Given) -> dict[str, str]:
    """Key to value. A tag without a value has an empty one."""
    found: dict[str, str] = {}
    for tag in tags or ():
        key, value = str(tag.get("Key") or ""), str(tag.get("Value") or "")
        if not key:
            raise AwsError("InvalidParameterValue", "Tag key cannot be null or empty")
        if key.lower().startswith("aws:"):
            raise AwsError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        if len(key) > KEY_LENGTH:
            raise AwsError("InvalidParameterValue", f"Tag key exceeds the maximum length of {KEY_LENGTH} characters")
        if len(value) > VALUE_LENGTH:
            raise AwsError(
                "InvalidParameterValue", f"Tag value exceeds the maximum length of {VALUE_LENGTH} characters"
            )
        if key in found:
            raise AwsError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        found[key] = value
    if len(found) > TAGS:
        raise AwsError("TagLimitExceeded", f"A resource can have at most {TAGS} tags; {len(found)} were given")
    return found
