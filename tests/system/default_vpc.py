"""A default VPC that clients have made, in the place of the one that an account is born with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


def made_anew(ec2: EC2Client, zone: str) -> str:
    """CreateDefaultVpc once there is none, and CreateDefaultSubnet once it has none in the zone; that subnet's id."""
    [vpc] = [one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"] if one["IsDefault"]]
    [gateway] = ec2.describe_internet_gateways(Filters=[{"Name": "attachment.vpc-id", "Values": [vpc]}])[
        "InternetGateways"
    ]
    ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
    ec2.delete_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"])
    for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc)
    again = ec2.create_default_vpc()["Vpc"]["VpcId"]
    [first] = ec2.describe_subnets(
        Filters=[{"Name": "vpc-id", "Values": [again]}, {"Name": "availability-zone", "Values": [zone]}]
    )["Subnets"]
    ec2.delete_subnet(SubnetId=first["SubnetId"])
    return str(ec2.create_default_subnet(AvailabilityZone=zone)["Subnet"]["SubnetId"])
