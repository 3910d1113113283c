"""How the metadata service answers an instance: at launch, and changed while it lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_lookup import NETWORKS, find_live_instance
from celaje.cloud.state.instances import MetadataOptions

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_WORDS = {
    "HttpTokens": ("http_tokens", ("optional", "required")),
    "HttpEndpoint": ("http_endpoint", ("enabled", "disabled")),
    "HttpProtocolIpv6": ("http_protocol_ipv6", ("disabled",)),
    "InstanceMetadataTags": ("instance_metadata_tags", ("enabled", "disabled")),
}
_HOPS = (1, 64)


def launch_options(given: Mapping[str, Any] | None, version_2_only: bool) -> MetadataOptions:
    """Those of a new instance; an image may ask for version 2, with a hop more for containers. AwsError."""
    usual = MetadataOptions(
        http_tokens="required" if version_2_only else "optional",
        http_put_response_hop_limit=2 if version_2_only else 1,
    )
    return changed(usual, given or {})


def changed(options: MetadataOptions, given: Mapping[str, Any]) -> MetadataOptions:
    """`options` with what is given. AwsError InvalidParameterValue."""
    changes: dict[str, Any] = {}
    for member, (name, words) in _WORDS.items():
        value = given.get(member)
        if value is None:
            continue
        if value not in words:
            raise AwsError(
                "InvalidParameterValue",
                f"Value ({str(value)[:64]}) for parameter {member} is invalid. It must be {' or '.join(words)}.",
            )
        changes[name] = value
    hops = given.get("HttpPutResponseHopLimit")
    if hops is not None:
        if not _HOPS[0] <= hops <= _HOPS[1]:
            raise AwsError(
                "InvalidParameterValue",
                f"Value ({hops}) for parameter HttpPutResponseHopLimit is invalid. It must be from 1 to 64.",
            )
        changes["http_put_response_hop_limit"] = hops
    return msgspec.structs.replace(options, **changes)


def answered(options: MetadataOptions, state: str) -> dict[str, object]:
    """As answers have them."""
    return {
        "State": state,
        "HttpTokens": options.http_tokens,
        "HttpPutResponseHopLimit": options.http_put_response_hop_limit,
        "HttpEndpoint": options.http_endpoint,
        "HttpProtocolIpv6": options.http_protocol_ipv6,
        "InstanceMetadataTags": options.instance_metadata_tags,
    }


@ACTIONS.action
def modify_instance_metadata_options(call: Call, request: ec2.ModifyInstanceMetadataOptionsRequestTypeDef) -> Answer:
    """At once, also where it runs."""
    instance = find_live_instance(call, request["InstanceId"])
    instance.metadata_options = changed(instance.metadata_options, request)
    call.wake(NETWORKS)
    return {"InstanceId": instance.id, "InstanceMetadataOptions": answered(instance.metadata_options, "pending")}
