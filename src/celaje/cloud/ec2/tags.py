"""Tags: on any resource of the account's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import TAGS, checked_tags
from celaje.cloud.ec2 import images, launch_templates, snapshots, volumes
from celaje.cloud.ec2.addresses import ADDRESSES, INSTANCES
from celaje.cloud.ec2.dhcp_options import DHCP_OPTIONS
from celaje.cloud.ec2.internet_gateways import GATEWAYS
from celaje.cloud.ec2.key_pairs import KEY_PAIRS
from celaje.cloud.ec2.nat_gateways import NAT_GATEWAYS
from celaje.cloud.ec2.network_acls import NETWORK_ACLS
from celaje.cloud.ec2.network_interfaces import INTERFACES
from celaje.cloud.ec2.route_tables import ROUTE_TABLES
from celaje.cloud.ec2.security_group_rules import RULES
from celaje.cloud.ec2.security_groups import GROUPS
from celaje.cloud.ec2.subnets import SUBNETS
from celaje.cloud.ec2.vpcs import VPCS
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.prepared import IDENTIFIERS, values_of
from celaje.cloud.state.tags import Tag, set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
RESOURCES_AT_ONCE = 1000

# By the prefix of identifiers: AWS's word for the type, and what raises unless it is the caller's own.
_TYPES: dict[str, tuple[str, Callable[[Call, str], object]]] = {
    "acl": ("network-acl", NETWORK_ACLS.check),
    "ami": ("image", images.found),
    "dopt": ("dhcp-options", DHCP_OPTIONS.check),
    "eipalloc": ("elastic-ip", ADDRESSES.check),
    "eni": ("network-interface", INTERFACES.check),
    "i": ("instance", INSTANCES.check),
    "igw": ("internet-gateway", GATEWAYS.check),
    "key": ("key-pair", KEY_PAIRS.check),
    "lt": ("launch-template", launch_templates.find),
    "nat": ("natgateway", NAT_GATEWAYS.check),
    "rtb": ("route-table", ROUTE_TABLES.check),
    "sg": ("security-group", GROUPS.check),
    "sgr": ("security-group-rule", RULES.check),
    "snap": ("snapshot", snapshots.found),
    "subnet": ("subnet", SUBNETS.check),
    "vol": ("volume", volumes.found),
    "vpc": ("vpc", VPCS.check),
}


def _types_of(call: Call, resources: list[str]) -> dict[str, str]:
    """Each resource's type, by identifier. AwsError if one is not the caller's."""
    if not resources:
        raise AwsError("MissingParameter", "The request must contain the parameter resourceIdSet")
    if len(resources) > RESOURCES_AT_ONCE:
        raise AwsError(
            "InvalidParameterValue", f"At most {RESOURCES_AT_ONCE} resources at once; given: {len(resources)}"
        )
    found = {}
    for resource in dict.fromkeys(resources):
        prefix, dash, _ = resource.partition("-")
        if not dash or prefix not in _TYPES:
            raise AwsError("InvalidID", f"The ID '{resource[:100]}' is not valid")
        resource_type, check = _TYPES[prefix]
        check(call, resource)
        found[resource] = resource_type
    return found


def _changed(call: Call, types: dict[str, str]) -> None:
    """Instances whose metadata has their tags are told."""
    instances = [resource for resource, resource_type in types.items() if resource_type == "instance"]
    told = values_of(call.session, _OPTIONS, instances)
    if any(options.instance_metadata_tags == "enabled" for (options,) in told):
        call.wake("networks")


_OPTIONS = select(Instance.metadata_options).where(Instance.id.in_(IDENTIFIERS))


@ACTIONS.action
def create_tags(call: Call, request: Request) -> Answer:
    """Add tags to resources, or give their keys new values: to all of them or, where one is refused, to none."""
    given = request["Tags"]
    if not given:
        raise AwsError("MissingParameter", "The request must contain the parameter tagSet")
    tags = checked_tags(given)
    types = _types_of(call, list(request["Resources"]))
    present = tags_of(call.session, types)
    for resource, resource_type in types.items():
        if len(present[resource].keys() | tags.keys()) > TAGS:
            raise AwsError(
                "TagLimitExceeded",
                f"The maximum number of Tags for a resource has been reached: {resource} can have {TAGS}",
            )
        set_tags(call.session, resource, resource_type, call.account, call.region, tags)
    _changed(call, types)
    return {}


@ACTIONS.action
def delete_tags(call: Call, request: Request) -> Answer:
    """Remove tags by key, or by key and value; without any all of them. A tag that is not there is no error."""
    types = _types_of(call, list(request["Resources"]))
    given = request.get("Tags")
    of_resources = delete(Tag).where(Tag.resource.in_(list(types)))
    if not given:
        call.session.execute(of_resources.where(~Tag.key.startswith("aws:")))
    for tag in given or ():
        key, value = tag.get("Key"), tag.get("Value")
        if not key:
            raise AwsError("InvalidParameterValue", "Tag key cannot be null or empty")
        if key.lower().startswith("aws:"):
            raise AwsError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        of_key = of_resources.where(Tag.key == key)
        call.session.execute(of_key if value is None else of_key.where(Tag.value == value))
    _changed(call, types)
    return {}


@dataclass(frozen=True, slots=True)
class _Found:
    resource: str
    resource_type: str
    key: str
    value: str


_FILTERS = Filters[_Found](
    {
        "key": lambda tag: tag.key,
        "resource-id": lambda tag: tag.resource,
        "resource-type": lambda tag: tag.resource_type,
        "value": lambda tag: tag.value,
    },
    tags=lambda tag: {tag.key: tag.value},
)


@ACTIONS.action
def describe_tags(call: Call, request: ec2.DescribeTagsRequestTypeDef) -> Answer:
    """The tags of the account's resources."""
    matches = _FILTERS.matcher(request.get("Filters"))
    query = select(Tag.resource, Tag.resource_type, Tag.key, Tag.value)
    query = query.where(Tag.account == call.account, Tag.region == call.region)
    only = _FILTERS.wanted(request.get("Filters"), "resource-id")
    if only is not None:
        query = query.where(Tag.resource.in_(only))
    rows = (_Found(*row) for row in call.session.execute(query))
    found, token = page(call, request, filter(matches, rows), key=lambda tag: f"{tag.resource} {tag.key}", default=1000)
    return {
        "NextToken": token,
        "Tags": [
            {"Key": tag.key, "ResourceId": tag.resource, "ResourceType": tag.resource_type, "Value": tag.value}
            for tag in found
        ],
    }
