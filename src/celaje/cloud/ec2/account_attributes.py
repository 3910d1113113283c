"""What an account may have, and whether it has a default VPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.addresses import ADDRESSES_PER_REGION
from celaje.cloud.ec2.security_groups import GROUPS_PER_INTERFACE
from celaje.cloud.ec2.vpcs import default_vpc

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_INSTANCES = 10_000  # what AWS calls a limit here only informs: memory and CPUs of the hosts decide


@ACTIONS.action
def describe_account_attributes(call: Call, request: ec2.DescribeAccountAttributesRequestTypeDef) -> Answer:
    """All attributes, or those that are named."""
    vpc = default_vpc(call.session, call.account, call.region)
    attributes = {
        "supported-platforms": "VPC",
        "default-vpc": vpc.id if vpc else "none",
        "max-instances": str(_INSTANCES),
        "max-elastic-ips": str(ADDRESSES_PER_REGION),
        "vpc-max-elastic-ips": str(ADDRESSES_PER_REGION),
        "vpc-max-security-groups-per-interface": str(GROUPS_PER_INTERFACE),
    }
    names: list[str] = list(request.get("AttributeNames") or attributes)
    for name in names:
        if name not in attributes:
            raise AwsError("InvalidParameterValue", f"The attribute '{name}' is not one of {', '.join(attributes)}")
    return {
        "AccountAttributes": [
            {"AttributeName": name, "AttributeValues": [{"AttributeValue": attributes[name]}]} for name in names
        ]
    }
