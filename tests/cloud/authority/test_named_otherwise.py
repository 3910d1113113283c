"""A denial of a resource holds however a request names it, and of a session's policies for as long as it lasts."""

from __future__ import annotations

from typing import Any

import pytest

from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume
from tests.cloud.authority.test_permissions import DENIED, Staff, allow, arn, deny, document, session_of, trusting
from tests.cloud.belongings import belongings
from tests.cloud.served import Owner, refusal


@pytest.fixture
def ada(owner: Owner) -> Staff:
    return Staff(owner)


def refused(ada: Staff, action: str, resource: str, operation: str, **request: Any) -> bool:
    """Whether a user that may do everything but that is refused, and one that may do that alone is not denied."""
    ada.may(allow("*"), deny(action, resource))
    held = refusal(getattr(ada.client(), operation), DryRun=True, **request)[0] == DENIED
    ada.may(allow(action, resource))
    given = refusal(getattr(ada.client(), operation), DryRun=True, **request)[0]
    return held and given == "DryRunOperation"


def test_a_group_by_its_name(owner, ada, ec2):
    group = ec2.create_security_group(GroupName="web", Description="x")["GroupId"]
    assert refused(ada, "ec2:DeleteSecurityGroup", arn(owner, "security-group", group), "delete_security_group",
                   GroupName="web")  # fmt: skip


def test_a_group_of_the_same_name_in_another_vpc_is_not_asked_for(owner, ada, ec2):
    group = ec2.create_security_group(GroupName="web", Description="x")["GroupId"]
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    ec2.create_security_group(GroupName="web", Description="x", VpcId=vpc)
    ada.may(allow("ec2:DeleteSecurityGroup", arn(owner, "security-group", group)))
    ada.client().delete_security_group(GroupName="web")
    assert [one["VpcId"] for one in ec2.describe_security_groups()["SecurityGroups"] if one["GroupName"] == "web"] == [
        vpc
    ]


def test_an_elastic_address_by_its_number_and_by_its_association(owner, ada, ec2):
    made = ec2.allocate_address()
    name = arn(owner, "elastic-ip", made["AllocationId"])
    assert refused(ada, "ec2:DisassociateAddress", name, "disassociate_address", PublicIp=made["PublicIp"])
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    card = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    association = ec2.associate_address(AllocationId=made["AllocationId"], NetworkInterfaceId=card)["AssociationId"]
    ada.may(allow("*"), deny("ec2:DisassociateAddress", name))
    assert refusal(ada.client().disassociate_address, AssociationId=association)[0] == DENIED


def test_an_address_is_taken_away_by_who_may_do_that_to_its_interface_as_well(owner, ada, ec2):
    made = ec2.allocate_address()
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    card = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    association = ec2.associate_address(AllocationId=made["AllocationId"], NetworkInterfaceId=card)["AssociationId"]
    address, interface = arn(owner, "elastic-ip", made["AllocationId"]), arn(owner, "network-interface", card)
    taken = ada.client().disassociate_address
    for request in ({"AssociationId": association}, {"PublicIp": made["PublicIp"]}):
        ada.may(allow("ec2:DisassociateAddress", address))
        assert refusal(taken, DryRun=True, **request)[0] == DENIED
        ada.may(allow("*"), deny("ec2:DisassociateAddress", interface))
        assert refusal(taken, DryRun=True, **request)[0] == DENIED
        ada.may(allow("ec2:DisassociateAddress", [address, interface]))
        assert refusal(taken, DryRun=True, **request)[0] == "DryRunOperation"
    taken(AssociationId=association)
    assert "AssociationId" not in ec2.describe_addresses(AllocationIds=[made["AllocationId"]])["Addresses"][0]


def test_a_copy_is_asked_for_by_what_is_copied_where_that_is(owner, ada, ec2):
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    with owner.cloud.database.write() as session:
        session.get_one(Volume, volume).state = "available"
    source = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    with owner.cloud.database.write() as session:
        session.get_one(Snapshot, source).state = "completed"
    ec2.create_tags(Resources=[source], Tags=[{"Key": "team", "Value": "red"}])
    copy = ada.keys.client("ec2", "eu-west-1").copy_snapshot
    asked = {"SourceRegion": "us-east-1", "SourceSnapshotId": source}
    there, here = f"arn:aws:ec2:us-east-1::snapshot/{source}", "arn:aws:ec2:eu-west-1::snapshot/*"
    ada.may(allow("ec2:CopySnapshot", here))
    assert refusal(copy, **asked)[0] == DENIED
    ada.may(allow("ec2:CopySnapshot", [here.replace("*", source), there]))
    assert refusal(copy, **asked)[0] == DENIED
    red = {"StringEquals": {"aws:ResourceTag/team": "red", "ec2:Owner": owner.account}}
    ada.may(allow("ec2:CopySnapshot", there, Condition=red), allow("ec2:CopySnapshot", here))
    assert copy(**asked)["SnapshotId"] != source


def test_a_route_table_by_its_association(owner, ada, ec2):
    table = ec2.describe_route_tables()["RouteTables"][0]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    association = ec2.associate_route_table(RouteTableId=table["RouteTableId"], SubnetId=subnet)["AssociationId"]
    ada.may(allow("*"), deny("ec2:DisassociateRouteTable", arn(owner, "route-table", table["RouteTableId"])))
    assert refusal(ada.client().disassociate_route_table, AssociationId=association)[0] == DENIED


def test_an_access_list_by_its_association(owner, ada, ec2):
    access = ec2.describe_network_acls()["NetworkAcls"][0]
    other = ec2.create_network_acl(VpcId=access["VpcId"])["NetworkAcl"]["NetworkAclId"]
    association = access["Associations"][0]["NetworkAclAssociationId"]
    ada.may(allow("*"), deny("ec2:ReplaceNetworkAclAssociation", arn(owner, "network-acl", access["NetworkAclId"])))
    replace = ada.client().replace_network_acl_association
    assert refusal(replace, AssociationId=association, NetworkAclId=other)[0] == DENIED


def test_a_launch_template_by_its_name(owner, ada, ec2):
    data = {"InstanceType": "t3.micro"}
    made = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)["LaunchTemplate"]
    name = arn(owner, "launch-template", made["LaunchTemplateId"])
    assert refused(ada, "ec2:DeleteLaunchTemplate", name, "delete_launch_template", LaunchTemplateName="web")


def test_a_launch_of_a_template_is_asked_for_by_what_the_template_says(owner, ada, ec2):
    image = belongings(owner, "mine")["ami"]
    data = {"ImageId": image, "InstanceType": "t3.micro"}
    made = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)["LaunchTemplate"]
    asked = {"LaunchTemplate": {"LaunchTemplateName": "web"}, "MinCount": 1, "MaxCount": 1, "DryRun": True}
    of_image = f"arn:aws:ec2:us-east-1::image/{image}"
    others = [arn(owner, sort, "*") for sort in ("subnet", "security-group", "volume", "network-interface")]
    small = allow("ec2:RunInstances", arn(owner, "instance", "*"),
                  Condition={"StringEquals": {"ec2:InstanceType": "t3.micro"}})  # fmt: skip
    template = arn(owner, "launch-template", made["LaunchTemplateId"])
    ada.may(allow("ec2:RunInstances", [of_image, template, *others]), small)
    may = ("DryRunOperation", "InsufficientInstanceCapacity")  # what it is answered is whether there is a host
    assert refusal(ada.client().run_instances, **asked)[0] in may
    assert refusal(ada.client().run_instances, **asked, InstanceType="t3.large")[0] == DENIED
    ada.may(allow("*"), deny("ec2:RunInstances", of_image))
    assert refusal(ada.client().run_instances, **asked)[0] == DENIED
    ada.may(allow("*"), deny("ec2:RunInstances", template))
    assert refusal(ada.client().run_instances, **asked)[0] == DENIED


def test_a_key_pair_by_its_id_and_with_its_tags(owner, ada, ec2):
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "team", "Value": "red"}]}]
    made = ec2.create_key_pair(KeyName="door", TagSpecifications=tags)
    name = arn(owner, "key-pair", "door")
    assert refused(ada, "ec2:DeleteKeyPair", name, "delete_key_pair", KeyPairId=made["KeyPairId"])
    ada.may(allow("*"), deny("ec2:DeleteKeyPair", Condition={"StringEquals": {"aws:ResourceTag/team": "red"}}))
    assert refusal(ada.client().delete_key_pair, KeyName="door")[0] == DENIED
    assert refusal(ada.client().delete_key_pair, KeyPairId=made["KeyPairId"])[0] == DENIED


def test_a_user_is_renamed_only_to_what_may_be_renamed(owner, ada):
    owner.client("iam").create_user(UserName="bob", Path="/dev/")
    ada.may(allow("iam:UpdateUser", f"arn:aws:iam::{owner.account}:user/dev/*"))
    iam = ada.client("iam")
    assert refusal(iam.update_user, UserName="bob", NewPath="/admin/")[0] == "AccessDenied"
    iam.update_user(UserName="bob", NewUserName="rob")
    iam.update_user(UserName="rob", NewPath="/dev/more/")


def test_sessions_that_were_begun_before_a_moment_are_revoked(owner, ada):
    iam = owner.client("iam")
    role = iam.create_role(RoleName="night", AssumeRolePolicyDocument=trusting(ada.arn))["Role"]["Arn"]

    def put(moment: str) -> None:
        older = {"DateLessThan": {"aws:TokenIssueTime": moment}}
        text = document(allow("ec2:*"), deny("*", Condition=older))
        iam.put_role_policy(RoleName="night", PolicyName="own", PolicyDocument=text)

    made = ada.client("sts").assume_role(RoleArn=role, RoleSessionName="shift")
    ec2 = session_of(owner, made).client("ec2")
    put("2000-01-01T00:00:00Z")
    assert ec2.describe_vpcs()["Vpcs"]
    put("2999-01-01T00:00:00Z")
    assert refusal(ec2.describe_vpcs)[0] == DENIED


def test_a_session_is_narrowed_by_policies_of_the_roles_account_alone(served_cloud, owner, ada):
    other = served_cloud.owner()
    text = document(allow("*"))
    secret = other.client("iam").create_policy(PolicyName="secret", PolicyDocument=text)["Policy"]["Arn"]
    trust = trusting(ada.arn)
    role = owner.client("iam").create_role(RoleName="night", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    assume = ada.client("sts").assume_role
    asked = {"RoleArn": role, "RoleSessionName": "shift"}
    assert refusal(assume, **asked, PolicyArns=[{"arn": secret}])[0] == "ValidationError"
    assert assume(**asked, PolicyArns=[{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}])["Credentials"]


def test_a_policy_of_awss_tells_how_many_of_the_account_it_bounds(served_cloud, owner, ada):
    aws = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    for one in (owner, served_cloud.owner()):
        one.client("iam").create_user(UserName="bounded", PermissionsBoundary=aws)
    policy = owner.client("iam").get_policy(PolicyArn=aws)["Policy"]
    assert (policy["PermissionsBoundaryUsageCount"], policy["AttachmentCount"]) == (1, 0)
