"""Tags of managed policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.iam.entities import remove_tags, set_tags, tags_of
from celaje.cloud.iam.listing import listed
from celaje.cloud.iam.policies import find_policy

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")


@ACTIONS.action
def tag_policy(call: Call, request: iam.TagPolicyRequestTypeDef) -> Answer:
    """Add tags to a policy."""
    set_tags(call, find_policy(call, request["PolicyArn"]).id, request["Tags"])
    return {}


@ACTIONS.action
def untag_policy(call: Call, request: iam.UntagPolicyRequestTypeDef) -> Answer:
    """Remove tags from a policy."""
    remove_tags(call, find_policy(call, request["PolicyArn"]).id, request["TagKeys"])
    return {}


@ACTIONS.action
def list_policy_tags(call: Call, request: iam.ListPolicyTagsRequestTypeDef) -> Answer:
    """The tags of a policy."""
    tags = tags_of(call.session, find_policy(call, request["PolicyArn"]).id)
    return listed(call, request, "Tags", tags, lambda tag: tag["Key"], lambda tag: tag)
