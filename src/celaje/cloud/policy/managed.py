"""Policies of AWS's own, by their names: what the documents that AWS publishes say of the services that there are here.

What they say of other services is left out: nothing asks for it.
"""

from __future__ import annotations

import json

PREFIX = "arn:aws:iam::aws:policy/"


def _allow(*actions: str) -> str:
    statement = {"Effect": "Allow", "Action": list(actions) if len(actions) > 1 else actions[0], "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _power_user() -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "NotAction": ["iam:*", "organizations:*", "account:*"], "Resource": "*"},
                {
                    "Effect": "Allow",
                    "Action": ["iam:ListRoles", "organizations:DescribeOrganization"],
                    "Resource": "*",
                },
            ],
        }
    )


_VPC_NOUNS = (
    "Address CarrierGateway CustomerGateway DhcpOptions InternetGateway NatGateway NetworkAcl NetworkAclEntry "
    "NetworkInterface Route RouteTable SecurityGroup Subnet Tags Vpc VpcEndpoint VpcPeeringConnection"
).split()

# By what follows `arn:aws:iam::aws:policy/`, which may have a path.
DOCUMENTS = {
    "AdministratorAccess": _allow("*"),
    "PowerUserAccess": _power_user(),
    "ReadOnlyAccess": _allow(
        "ec2:Describe*",
        "ec2:Get*",
        "ec2:List*",
        "ec2:Search*",
        "iam:Generate*",
        "iam:Get*",
        "iam:List*",
        "iam:Simulate*",
        "organizations:Describe*",
        "organizations:List*",
        "s3:DescribeJob",
        "s3:Get*",
        "s3:List*",
        "ssm:Describe*",
        "ssm:Get*",
        "ssm:List*",
        "sts:GetAccessKeyInfo",
        "sts:GetCallerIdentity",
        "sts:GetSessionToken",
    ),
    "AmazonEC2FullAccess": _allow("ec2:*"),
    "AmazonEC2ReadOnlyAccess": _allow("ec2:Describe*", "ec2:GetSecurityGroupsForVpc"),
    "AmazonVPCFullAccess": _allow(
        "ec2:Accept*",
        "ec2:AllocateAddress",
        "ec2:Assign*",
        "ec2:Associate*",
        "ec2:Attach*Gateway",
        "ec2:AttachNetworkInterface",
        "ec2:AuthorizeSecurityGroup*",
        *(f"ec2:{verb}{noun}*" for verb in ("Create", "Delete") for noun in _VPC_NOUNS),
        "ec2:CreateDefaultSubnet",
        "ec2:CreateDefaultVpc",
        "ec2:Describe*",
        "ec2:Detach*Gateway",
        "ec2:DetachNetworkInterface",
        "ec2:Disassociate*",
        "ec2:GetSecurityGroupsForVpc",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:ModifySecurityGroupRules",
        "ec2:ModifySubnetAttribute",
        "ec2:ModifyVpc*",
        "ec2:ReleaseAddress",
        "ec2:Replace*",
        "ec2:ResetNetworkInterfaceAttribute",
        "ec2:RevokeSecurityGroup*",
        "ec2:Unassign*",
        "ec2:UpdateSecurityGroupRuleDescriptions*",
    ),
    "AmazonVPCReadOnlyAccess": _allow(
        "ec2:DescribeAccountAttributes",
        "ec2:DescribeAddresses",
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeNatGateways",
        "ec2:DescribeNetwork*",
        "ec2:DescribePrefixLists",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroup*",
        "ec2:DescribeSubnets",
        "ec2:DescribeTags",
        "ec2:DescribeVpc*",
        "ec2:GetSecurityGroupsForVpc",
    ),
    "AmazonS3FullAccess": _allow("s3:*", "s3-object-lambda:*"),
    "AmazonS3ReadOnlyAccess": _allow("s3:Get*", "s3:List*", "s3:Describe*"),
    "AmazonSSMManagedInstanceCore": _allow(
        "ssm:DescribeAssociation",
        "ssm:DescribeDocument",
        "ssm:GetDeployablePatchSnapshotForInstance",
        "ssm:GetDocument",
        "ssm:GetManifest",
        "ssm:GetParameter",
        "ssm:GetParameters",
        "ssm:ListAssociations",
        "ssm:ListInstanceAssociations",
        "ssm:PutComplianceItems",
        "ssm:PutConfigurePackageResult",
        "ssm:PutInventory",
        "ssm:UpdateAssociationStatus",
        "ssm:UpdateInstanceAssociationStatus",
        "ssm:UpdateInstanceInformation",
        "ssmmessages:*",
        "ec2messages:*",
    ),
    "AmazonSSMFullAccess": _allow("ssm:*", "ssmmessages:*", "ec2messages:*"),
    "AmazonSSMReadOnlyAccess": _allow("ssm:Describe*", "ssm:Get*", "ssm:List*"),
    "IAMFullAccess": _allow("iam:*", "organizations:DescribeAccount", "organizations:DescribeOrganization"),
    "IAMReadOnlyAccess": _allow("iam:Generate*", "iam:Get*", "iam:List*", "iam:Simulate*"),
}


def document_of(arn: str) -> str | None:
    """The document of a policy of AWS's own, None for one that this cloud does not know."""
    return DOCUMENTS.get(arn.removeprefix(PREFIX)) if arn.startswith(PREFIX) else None
