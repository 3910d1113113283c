"""Who may do what, through boto3: users, groups, boundaries, roles and their sessions, in EC2, IAM, STS and SSM."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from celaje.cloud.authority.authority import PolicyAuthority
from celaje.cloud.aws.action import Call, Caller
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.errors import AwsError
from tests.cloud.belongings import TRUST, belongings, instance_with
from tests.cloud.served import Owner, refusal

DENIED = "UnauthorizedOperation"
AWS = "arn:aws:iam::aws:policy/"


def allow(action: Any, resource: Any = "*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def deny(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return allow(action, resource, "Deny", **more)


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trusting(account: str, **condition: Any) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": account}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    return document({**statement, **({"Condition": condition} if condition else {})})


class Staff:
    """A user of an account, and what its owner does about it."""

    def __init__(self, owner: Owner, name: str = "ada") -> None:
        self.owner, self.name, self.iam = owner, name, owner.client("iam")
        self.iam.create_user(UserName=name)
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        self.keys = Owner(owner.cloud, owner.account, key["AccessKeyId"], key["SecretAccessKey"])
        self.arn = f"arn:aws:iam::{owner.account}:user/{name}"

    def may(self, *statements: dict[str, Any]) -> None:
        """Give the user these statements and no others."""
        self.iam.put_user_policy(UserName=self.name, PolicyName="own", PolicyDocument=document(*statements))

    def client(self, service: str = "ec2") -> Any:
        return self.keys.client(service)


@pytest.fixture
def ada(owner: Owner) -> Staff:
    return Staff(owner)


def session_of(owner: Owner, answer: Any) -> Owner:
    made = answer["Credentials"]
    return Owner(owner.cloud, owner.account, made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])


def arn(owner: Owner, sort: str, identifier: str) -> str:
    return f"arn:aws:ec2:us-east-1:{owner.account}:{sort}/{identifier}"


def test_a_user_without_policies_may_only_ask_who_it_is(owner, ada):
    assert ada.client("sts").get_caller_identity()["Arn"] == ada.arn
    code, message = refusal(ada.client().describe_vpcs)
    assert code == DENIED
    assert message.startswith(
        f"You are not authorized to perform this operation. User: {ada.arn} is not authorized to perform: "
        "ec2:DescribeVpcs on resource: * because no identity-based policy allows the ec2:DescribeVpcs action. "
        "Encoded authorization failure message: "
    )
    sentence = (
        f"User: {ada.arn} is not authorized to perform: iam:ListUsers on resource: "
        f"arn:aws:iam::{owner.account}:user/ because no identity-based policy allows the iam:ListUsers action"
    )
    assert refusal(ada.client("iam").list_users) == ("AccessDenied", sentence)
    name = "/aws/service/celaje/x"
    sentence = (
        f"User: {ada.arn} is not authorized to perform: ssm:GetParameter on resource: "
        "arn:aws:ssm:us-east-1::parameter/aws/service/celaje/x because no identity-based policy allows the "
        "ssm:GetParameter action"
    )
    assert refusal(ada.client("ssm").get_parameter, Name=name) == ("AccessDeniedException", sentence)


def test_what_is_given_counts_at_once_and_so_does_what_is_taken(ada):
    ec2 = ada.client()
    for _ in range(3):
        ada.may(allow("ec2:DescribeVpcs"))
        assert len(ec2.describe_vpcs()["Vpcs"]) == 1
        ada.may(allow("ec2:*"), deny("ec2:DescribeVpcs"))
        assert "with an explicit deny in an identity-based policy" in refusal(ec2.describe_vpcs)[1]
    ada.iam.delete_user_policy(UserName="ada", PolicyName="own")
    assert refusal(ec2.describe_subnets)[0] == DENIED


def test_a_reason_is_decoded_by_its_account_alone(served_cloud, owner, ada):
    message = refusal(ada.client().describe_vpcs)[1]
    encoded = message.rpartition(": ")[2]
    assert refusal(ada.client("sts").decode_authorization_message, EncodedMessage=encoded)[0] == "AccessDenied"
    decoded = json.loads(owner.client("sts").decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"])
    assert (decoded["allowed"], decoded["explicitDeny"]) == (False, False)
    assert decoded["context"]["action"] == "ec2:DescribeVpcs"
    assert decoded["context"]["principal"]["arn"] == ada.arn
    other = served_cloud.owner().client("sts")
    for sts, text in ((other, encoded), (owner.client("sts"), encoded[:-6] + "AAAAAA"), (other, "?")):
        assert refusal(sts.decode_authorization_message, EncodedMessage=text)[0] == (
            "InvalidAuthorizationMessageException"
        )


def test_a_dry_run_is_refused_as_the_run_is(ada):
    vpc = ada.owner.client().describe_vpcs()["Vpcs"][0]["VpcId"]
    asked = {"GroupName": "web", "Description": "x", "VpcId": vpc, "DryRun": True}
    assert refusal(ada.client().create_security_group, **asked)[0] == DENIED
    ada.may(allow("ec2:CreateSecurityGroup"))
    assert refusal(ada.client().create_security_group, **asked)[0] == "DryRunOperation"


def test_groups_give_what_they_have_to_their_members(owner, ada):
    ada.iam.create_group(GroupName="readers")
    ada.iam.attach_group_policy(GroupName="readers", PolicyArn=AWS + "AmazonEC2ReadOnlyAccess")
    ada.iam.put_group_policy(GroupName="readers", PolicyName="x", PolicyDocument=document(deny("ec2:DescribeSubnets")))
    ec2 = ada.client()
    assert refusal(ec2.describe_vpcs)[0] == DENIED
    ada.iam.add_user_to_group(GroupName="readers", UserName="ada")
    assert ec2.describe_vpcs()["Vpcs"]
    assert refusal(ec2.describe_subnets)[0] == DENIED
    assert refusal(ada.iam.delete_user, UserName="ada")[0] == "DeleteConflict"
    [found] = ada.iam.get_group(GroupName="readers")["Users"]
    assert found["UserName"] == "ada"
    assert [group["GroupName"] for group in ada.iam.list_groups_for_user(UserName="ada")["Groups"]] == ["readers"]
    ada.iam.remove_user_from_group(GroupName="readers", UserName="ada")
    assert refusal(ec2.describe_vpcs)[0] == DENIED


def test_a_tag_of_a_user_is_replaced_whatever_the_case_of_its_key(owner, ada):
    """A condition must not find the value that was to be no more."""
    ada.iam.tag_user(UserName="ada", Tags=[{"Key": "Team", "Value": "red"}])
    ada.may(allow("ec2:DescribeVpcs", Condition={"StringEquals": {"aws:PrincipalTag/team": "red"}}))
    assert ada.client().describe_vpcs()["Vpcs"]
    ada.iam.tag_user(UserName="ada", Tags=[{"Key": "team", "Value": "blue"}])
    assert ada.iam.list_user_tags(UserName="ada")["Tags"] == [{"Key": "team", "Value": "blue"}]
    assert refusal(ada.client().describe_vpcs)[0] == DENIED
    ada.iam.untag_user(UserName="ada", TagKeys=["TEAM"])
    assert ada.iam.list_user_tags(UserName="ada")["Tags"] == []


def test_who_hands_out_rights_below_a_boundary_takes_none_away(owner, ada):
    """A delegated administrator's policy, as in AWS's guide: conditions look at the boundary that a user has."""
    boundary = ada.iam.create_policy(PolicyName="most", PolicyDocument=document(allow("ec2:*")))["Policy"]["Arn"]
    below = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    handing = ["iam:CreateUser", "iam:PutUserPolicy", "iam:DeleteUserPermissionsBoundary"]
    ada.may(allow(handing, Condition=below), deny("iam:DeleteUserPermissionsBoundary", Condition=below))
    mine = ada.client("iam")
    own = {"PolicyName": "own", "PolicyDocument": document(allow("*"))}
    assert refusal(mine.create_user, UserName="bob")[0] == "AccessDenied"
    mine.create_user(UserName="bob", PermissionsBoundary=boundary)
    mine.put_user_policy(UserName="bob", **own)
    ada.iam.create_user(UserName="eve")
    for name in ("eve", "ada", "nobody"):
        assert refusal(mine.put_user_policy, UserName=name, **own)[0] == "AccessDenied"
    code, message = refusal(mine.delete_user_permissions_boundary, UserName="bob")
    assert (code, "with an explicit deny" in message) == ("AccessDenied", True)


def test_a_boundary_bounds_and_gives_nothing(owner, ada):
    policy = ada.iam.create_policy(PolicyName="bound", PolicyDocument=document(allow("ec2:DescribeVpcs")))["Policy"]
    ada.may(allow("ec2:*"))
    ada.iam.put_user_permissions_boundary(UserName="ada", PermissionsBoundary=policy["Arn"])
    assert ada.client().describe_vpcs()["Vpcs"]
    assert "because no permissions boundary allows the ec2:DescribeSubnets" in refusal(ada.client().describe_subnets)[1]
    assert ada.iam.get_user(UserName="ada")["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == policy["Arn"]
    assert refusal(ada.iam.delete_policy, PolicyArn=policy["Arn"])[0] == "DeleteConflict"
    ada.iam.create_policy_version(
        PolicyArn=policy["Arn"], PolicyDocument=document(allow("ec2:DescribeSubnets")), SetAsDefault=True
    )
    assert ada.client().describe_subnets()["Subnets"]
    assert refusal(ada.client().describe_vpcs)[0] == DENIED
    ada.iam.delete_user_permissions_boundary(UserName="ada")
    assert ada.client().describe_vpcs()["Vpcs"]


@pytest.mark.parametrize(
    ("statements", "vpcs", "instances", "users"),
    [
        ([allow("*")], True, True, True),
        ([allow("ec2:Describe*")], True, True, False),
        ([allow("EC2:describevpcs")], True, False, False),
        ([{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}], True, True, False),
        ([allow("*"), deny("ec2:DescribeV*")], False, True, True),
        ([allow("*", "arn:aws:iam::*:user/*")], False, False, True),
        ([allow("ec2:*", Condition={"StringEquals": {"aws:RequestedRegion": "us-east-1"}})], True, True, False),
        ([allow("ec2:*", Condition={"StringEquals": {"ec2:Region": "eu-west-1"}})], False, False, False),
        ([allow("ec2:*", Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}})], True, True, False),
        ([allow("ec2:*", Condition={"Bool": {"aws:SecureTransport": "true"}})], True, True, False),
        ([allow("ec2:*", Condition={"DateGreaterThan": {"aws:CurrentTime": "2020-01-01"}})], True, True, False),
        ([allow("*", Condition={"StringLike": {"aws:userid": "AIDA*", "aws:username": "a?a"}})], True, True, True),
        ([allow("*", Condition={"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/ada"}})], True, True, True),
        ([allow("*", Condition={"Null": {"aws:TokenIssueTime": "false"}})], False, False, False),
    ],
)  # fmt: skip
def test_calls_are_allowed_as_the_documents_say(ada, statements, vpcs, instances, users):
    ada.may(*statements)
    for expected, call in (
        (vpcs, ada.client().describe_vpcs),
        (instances, ada.client().describe_instances),
        (users, ada.client("iam").list_users),
    ):
        if expected:
            call()
        else:
            refusal(call)


def test_an_action_is_asked_for_each_resource_and_its_tags(owner, ada):
    own = owner.client()
    vpc = own.describe_vpcs()["Vpcs"][0]["VpcId"]
    red, blue = (
        own.create_security_group(
            GroupName=colour,
            Description="x",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [{"Key": "Team", "Value": colour}]}],
        )["GroupId"]
        for colour in ("red", "blue")
    )
    port = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "1.2.3.4/32"}]}
    rule = {"IpPermissions": [port]}
    ec2 = ada.client()
    ada.may(allow("ec2:AuthorizeSecurityGroupIngress", arn(owner, "security-group", red)))
    ec2.authorize_security_group_ingress(GroupId=red, **rule)
    assert f"on resource: {arn(owner, 'security-group', blue)} because" in refusal(
        ec2.authorize_security_group_ingress, GroupId=blue, **rule
    )[1]
    ada.may(allow("ec2:*", Condition={"StringEquals": {"aws:ResourceTag/team": "blue"}}))
    ec2.authorize_security_group_ingress(GroupId=blue, **rule)
    assert refusal(ec2.delete_security_group, GroupId=red)[0] == DENIED
    ec2.delete_security_group(GroupId=blue)


def test_what_is_made_may_need_tags_and_tags_may_be_given_only_then(owner, ada):
    ec2 = ada.client()
    ada.may(allow("ec2:CreateVolume", Condition={"StringEquals": {"aws:RequestTag/team": "red"}}))

    def make(colour: str | None) -> Any:
        tags = [{"ResourceType": "volume", "Tags": [{"Key": "team", "Value": colour}]}] if colour else []
        return {"AvailabilityZone": "us-east-1a", "Size": 1, "TagSpecifications": tags}

    assert "ec2:CreateVolume" in refusal(ec2.create_volume, **make(None))[1]
    assert "ec2:CreateVolume" in refusal(ec2.create_volume, **make("blue"))[1]
    assert "to perform: ec2:CreateTags on resource" in refusal(ec2.create_volume, **make("red"))[1]
    condition = {"StringEquals": {"ec2:CreateAction": "CreateVolume"}}
    ada.may(allow("ec2:CreateVolume"), allow("ec2:CreateTags", Condition=condition))
    volume = ec2.create_volume(**make("red"))["VolumeId"]
    assert refusal(ec2.create_tags, Resources=[volume], Tags=[{"Key": "a", "Value": "b"}])[0] == DENIED
    ada.may(allow("ec2:CreateTags", Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}))
    ec2.create_tags(Resources=[volume], Tags=[{"Key": "a", "Value": "b"}])
    assert refusal(ec2.create_tags, Resources=[volume], Tags=[{"Key": "c", "Value": "b"}])[0] == DENIED


def test_instances_are_stopped_by_who_may_stop_those(owner, ada):
    own = owner.client()
    subnet = own.describe_subnets()["Subnets"][0]["SubnetId"]
    interfaces = [own.create_network_interface(SubnetId=subnet)["NetworkInterface"] for _ in range(2)]
    first, second = (instance_with(owner.cloud, each["NetworkInterfaceId"]) for each in interfaces)
    ada.may(allow("ec2:StopInstances", arn(owner, "instance", first)))
    ec2 = ada.client()
    assert refusal(ec2.stop_instances, InstanceIds=[first, second])[0] == DENIED
    ec2.stop_instances(InstanceIds=[first])
    ada.may(allow("ec2:StopInstances", Condition={"StringEquals": {"ec2:InstanceType": "t3.micro"}}))
    ec2.stop_instances(InstanceIds=[second])


def test_a_launch_needs_every_resource_and_the_role_that_it_passes(owner, ada):
    ada.iam.create_role(RoleName="Strong", AssumeRolePolicyDocument=TRUST)
    ada.iam.create_instance_profile(InstanceProfileName="strong")
    ada.iam.add_role_to_instance_profile(InstanceProfileName="strong", RoleName="Strong")
    launch = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro", "DryRun": True}
    image = {**launch, "ImageId": belongings(owner, "mine")["ami"]}
    may = ("DryRunOperation", "InsufficientInstanceCapacity")  # what it is answered is whether there is a host
    ec2 = ada.client()
    ada.may(allow("ec2:RunInstances"), deny("ec2:RunInstances", "arn:aws:ec2:*:*:volume/*"))
    assert "with an explicit deny" in refusal(ec2.run_instances, **image)[1]
    ada.may(allow("ec2:RunInstances"))
    assert refusal(ec2.run_instances, **image)[0] in may
    assert refusal(ec2.run_instances, **{**image, "ImageId": "ami-0fedcba9876543210"})[0] == "InvalidAMIID.NotFound"
    passing = {**image, "IamInstanceProfile": {"Name": "strong"}}
    assert "to perform: iam:PassRole on resource: arn:aws:iam::" in refusal(ec2.run_instances, **passing)[1]
    template = {"LaunchTemplateName": "strong", "LaunchTemplateData": {"IamInstanceProfile": {"Name": "strong"}}}
    owner.client().create_launch_template(**template)
    by_template = {**image, "LaunchTemplate": {"LaunchTemplateName": "strong"}}
    assert "to perform: iam:PassRole on resource" in refusal(ec2.run_instances, **by_template)[1]
    ada.may(
        allow("ec2:RunInstances"),
        allow("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}),
    )
    assert refusal(ec2.run_instances, **passing)[0] in may
    ada.may(allow("ec2:RunInstances", Condition={"StringEqualsIfExists": {"ec2:InstanceType": "t3.nano"}}))
    assert refusal(ec2.run_instances, **image)[0] == DENIED


def test_a_launch_is_asked_for_the_subnet_and_the_groups_that_it_comes_to(owner, ada):
    own = owner.client()
    subnets = own.describe_subnets()["Subnets"]
    group = own.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    image = belongings(owner, "mine")["ami"]
    launch = {"ImageId": image, "MinCount": 1, "MaxCount": 1}
    own.create_tags(Resources=[each["SubnetId"] for each in subnets], Tags=[{"Key": "closed", "Value": "yes"}])
    closed = {"StringEquals": {"aws:ResourceTag/closed": "yes"}}
    ada.may(allow("ec2:RunInstances"), deny("ec2:RunInstances", "arn:aws:ec2:*:*:subnet/*", Condition=closed))
    assert "with an explicit deny" in refusal(ada.client().run_instances, **launch)[1]
    ada.may(allow("ec2:RunInstances"), deny("ec2:RunInstances", arn(owner, "security-group", group)))
    assert "with an explicit deny" in refusal(ada.client().run_instances, **launch)[1]
    ada.may(allow("ec2:RunInstances", Condition={"StringEqualsIfExists": {"ec2:InstanceType": "t3.nano"}}))
    assert f"{arn(owner, 'instance', '*')} because" in refusal(ada.client().run_instances, **launch)[1]
    own.create_launch_template(LaunchTemplateName="small", LaunchTemplateData={"InstanceType": "t3.nano"})
    small = {**launch, "LaunchTemplate": {"LaunchTemplateName": "small"}}
    may = ("DryRunOperation", "InsufficientInstanceCapacity")  # what it is answered is whether there is a host
    assert refusal(ada.client().run_instances, **small, DryRun=True)[0] in may


def test_a_zone_is_closed_and_open_however_it_is_named(owner, ada):
    in_a = {"StringEquals": {"ec2:AvailabilityZone": "us-east-1a"}}
    names = [{"AvailabilityZone": "us-east-1a"}, {"AvailabilityZoneId": "use1-az1"}]
    others = [{"AvailabilityZone": "us-east-1b"}, {"AvailabilityZoneId": "use1-az2"}]
    ada.may(allow("ec2:CreateVolume", Condition=in_a))
    for zone in names:
        assert ada.client().create_volume(**zone, Size=1)["AvailabilityZone"] == "us-east-1a"
    for zone in others:
        assert refusal(ada.client().create_volume, **zone, Size=1)[0] == DENIED
    ada.may(allow("ec2:CreateVolume"), deny("ec2:CreateVolume", Condition=in_a))
    for zone in names:
        assert refusal(ada.client().create_volume, **zone, Size=1)[0] == DENIED
    for zone in others:
        assert ada.client().create_volume(**zone, Size=1)["AvailabilityZone"] == "us-east-1b"


def test_a_launch_is_asked_for_its_zone_and_its_metadata_however_they_come_about(owner, ada):
    """What the request says, what a template says, and what nobody says."""
    image = belongings(owner, "mine")["ami"]
    instances = "arn:aws:ec2:*:*:instance/*"

    def launch(**said: Any) -> str:
        asked = {"ImageId": image, "InstanceType": "t3.nano", "MinCount": 1, "MaxCount": 1, **said}
        code, message = refusal(ada.client().run_instances, **asked, DryRun=True)
        assert code in (DENIED, "DryRunOperation", "InsufficientInstanceCapacity"), message
        return "denied" if code == DENIED else "allowed"

    in_a = {"Placement": {"AvailabilityZone": "us-east-1a"}}
    in_b = [{"Placement": {"AvailabilityZone": "us-east-1b"}}, {"Placement": {"AvailabilityZoneId": "use1-az2"}}]
    closed = {"StringEquals": {"ec2:AvailabilityZone": "us-east-1b"}}
    for sort in ("instance", "volume", "network-interface", "subnet"):
        ada.may(allow("ec2:RunInstances"), deny("ec2:RunInstances", f"arn:aws:ec2:*:*:{sort}/*", Condition=closed))
        assert [launch(**where) for where in (in_a, {}, *in_b)] == ["allowed", "allowed", "denied", "denied"]
    others = {"NotResource": instances, "Resource": None}
    only = {"StringEquals": {"ec2:AvailabilityZone": "us-east-1a"}}
    rest = {name: value for name, value in {**allow("ec2:RunInstances"), **others}.items() if value is not None}
    ada.may(allow("ec2:RunInstances", instances, Condition=only), rest)
    assert [launch(**where) for where in (in_a, {}, *in_b)] == ["allowed", "allowed", "denied", "denied"]

    careful = {"MetadataOptions": {"HttpTokens": "required"}}
    old = {"StringNotEquals": {"ec2:MetadataHttpTokens": "required"}}
    ada.may(allow("ec2:*"), deny("ec2:RunInstances", instances, Condition=old))
    assert [launch(), launch(**careful)] == ["denied", "allowed"]
    ada.client().create_launch_template(LaunchTemplateName="careful", LaunchTemplateData=careful)
    assert launch(LaunchTemplate={"LaunchTemplateName": "careful"}) == "allowed"
    far = {"NumericGreaterThan": {"ec2:MetadataHttpPutResponseHopLimit": "1"}}
    ada.may(allow("ec2:*"), deny("ec2:RunInstances", instances, Condition=far))
    assert [launch(), launch(MetadataOptions={"HttpPutResponseHopLimit": 2})] == ["allowed", "denied"]


def test_a_denial_holds_however_the_resource_is_named(owner, ada):
    own, found = owner.client(), belongings(owner, "mine")
    ec2 = ada.client()

    def closed(sort: str, identifier: str) -> None:
        ada.may(allow("*"), deny("ec2:*", arn(owner, sort, identifier)))

    closed("key-pair", "mine")
    for named in ({"KeyName": "mine"}, {"KeyPairId": found["key pair"]}):
        assert refusal(ec2.delete_key_pair, **named)[0] == DENIED
    closed("security-group", found["sg"])
    for named in ({"GroupName": "mine"}, {"GroupId": found["sg"]}):
        assert refusal(ec2.delete_security_group, **named)[0] == DENIED
    closed("elastic-ip", found["eipalloc"])
    for named in ({"PublicIp": found["public address"]}, {"AssociationId": found["eipassoc"]}):
        assert refusal(ec2.disassociate_address, **named)[0] == DENIED
    closed("launch-template", found["lt"])
    for named in ({"LaunchTemplateName": found["lt name"]}, {"LaunchTemplateId": found["lt"]}):
        assert refusal(ec2.delete_launch_template, **named)[0] == DENIED
    table = own.create_route_table(VpcId=found["vpc"])["RouteTable"]["RouteTableId"]
    association = own.associate_route_table(RouteTableId=table, SubnetId=found["subnet"])["AssociationId"]
    closed("route-table", table)
    assert refusal(ec2.disassociate_route_table, AssociationId=association)[0] == DENIED
    ada.may(allow("*"))
    ec2.disassociate_route_table(AssociationId=association)
    ec2.delete_launch_template(LaunchTemplateName=found["lt name"])


def test_a_user_may_be_let_look_after_itself_alone(owner, ada):
    Staff(owner, "bob")
    ada.may(allow("iam:*AccessKey*", "arn:aws:iam::*:user/${aws:username}"))
    iam = ada.client("iam")
    key = iam.create_access_key(UserName="ada")["AccessKey"]["AccessKeyId"]
    iam.delete_access_key(AccessKeyId=key)
    assert refusal(iam.create_access_key, UserName="bob")[0] == "AccessDenied"
    ada.may(allow("iam:AttachUserPolicy", Condition={"ArnEquals": {"iam:PolicyARN": AWS + "ReadOnlyAccess"}}))
    iam.attach_user_policy(UserName="bob", PolicyArn=AWS + "ReadOnlyAccess")
    assert refusal(iam.attach_user_policy, UserName="ada", PolicyArn=AWS + "AdministratorAccess")[0] == "AccessDenied"


def test_a_role_is_assumed_by_whom_both_sides_allow(served_cloud, owner, ada):
    role = ada.iam.create_role(RoleName="Reader", AssumeRolePolicyDocument=trusting(owner.account))["Role"]["Arn"]
    asked = {"RoleArn": role, "RoleSessionName": "visit"}
    sts = ada.client("sts")
    assert "because no identity-based policy allows the sts:AssumeRole action" in refusal(sts.assume_role, **asked)[1]
    ada.may(allow("sts:AssumeRole", role))
    session = session_of(owner, sts.assume_role(**asked))
    identity = session.client("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{owner.account}:assumed-role/Reader/visit"
    ada.iam.delete_user_policy(UserName="ada", PolicyName="own")
    ada.iam.update_assume_role_policy(RoleName="Reader", PolicyDocument=trusting(ada.arn))
    sts.assume_role(**asked)  # it is named: nothing more is needed in the same account
    other = Staff(served_cloud.owner())
    other.may(allow("sts:AssumeRole"))
    assert refusal(other.client("sts").assume_role, **asked)[1] == (
        f"User: {other.arn} is not authorized to perform: sts:AssumeRole on resource: {role}"
    )
    condition = {"StringEquals": {"sts:ExternalId": "secret"}, "Bool": {"aws:SecureTransport": "true"}}
    ada.iam.update_assume_role_policy(
        RoleName="Reader", PolicyDocument=trusting(other.owner.account, **condition)
    )
    assert refusal(other.client("sts").assume_role, **asked)[0] == "AccessDenied"
    assert refusal(other.client("sts").assume_role, **asked, ExternalId="wrong")[0] == "AccessDenied"
    other.client("sts").assume_role(**asked, ExternalId="secret")
    other.may(deny("sts:AssumeRole"), allow("*"))
    assert refusal(other.client("sts").assume_role, **asked, ExternalId="secret")[0] == "AccessDenied"


def test_a_session_has_of_its_role_what_its_own_policies_allow(owner, ada):
    ada.may(allow("sts:*"))
    role = ada.iam.create_role(RoleName="Reader", AssumeRolePolicyDocument=trusting(owner.account))["Role"]["Arn"]
    asked = {"RoleArn": role, "RoleSessionName": "visit"}
    ada.iam.attach_role_policy(RoleName="Reader", PolicyArn=AWS + "AmazonEC2ReadOnlyAccess")
    sts = ada.client("sts")
    whole = session_of(owner, sts.assume_role(**asked)).client()
    assert whole.describe_vpcs()["Vpcs"]
    assert whole.describe_subnets()["Subnets"]
    answer = sts.assume_role(**asked, Policy=document(allow(["ec2:DescribeVpcs", "ec2:CreateVolume"])))
    assert 0 < answer["PackedPolicySize"] < 100
    narrowed = session_of(owner, answer).client()
    assert narrowed.describe_vpcs()["Vpcs"]
    assert "because no session policy allows the ec2:DescribeSubnets action" in refusal(narrowed.describe_subnets)[1]
    create = {"AvailabilityZone": "us-east-1a", "Size": 1}
    assert "because no identity-based policy allows" in refusal(narrowed.create_volume, **create)[1]
    managed = sts.assume_role(**asked, PolicyArns=[{"arn": AWS + "AmazonS3ReadOnlyAccess"}])
    assert refusal(session_of(owner, managed).client().describe_vpcs)[0] == DENIED
    assert refusal(sts.assume_role, **asked, Policy="{")[0] == "MalformedPolicyDocument"
    tagged = allow("ec2:DescribeVpcs", Condition={"StringEquals": {"aws:PrincipalTag/team": "red"}})
    ada.iam.detach_role_policy(RoleName="Reader", PolicyArn=AWS + "AmazonEC2ReadOnlyAccess")
    ada.iam.put_role_policy(RoleName="Reader", PolicyName="x", PolicyDocument=document(tagged))
    assert refusal(session_of(owner, sts.assume_role(**asked)).client().describe_vpcs)[0] == DENIED
    red = session_of(owner, sts.assume_role(**asked, Tags=[{"Key": "Team", "Value": "red"}]))
    assert red.client().describe_vpcs()["Vpcs"]
    chained = {**asked, "DurationSeconds": 3700}
    ada.iam.update_role(RoleName="Reader", MaxSessionDuration=7200)
    ada.iam.put_role_policy(RoleName="Reader", PolicyName="chain", PolicyDocument=document(allow("sts:*")))
    assert "role chaining" in refusal(red.client("sts").assume_role, **chained)[1]
    sts.assume_role(**chained)


def test_a_users_session_may_what_the_user_may_but_nothing_of_iam(owner, ada):
    ada.may(allow("ec2:Describe*"), allow("iam:*"))
    session = session_of(owner, ada.client("sts").get_session_token(DurationSeconds=900))
    assert session.client("sts").get_caller_identity()["Arn"] == ada.arn
    assert session.client().describe_vpcs()["Vpcs"]
    assert refusal(session.client("iam").list_users)[0] == "InvalidClientTokenId"
    assert refusal(session.client("sts").get_session_token)[0] == "AccessDenied"
    ada.iam.delete_user_policy(UserName="ada", PolicyName="own")
    assert refusal(session.client().describe_vpcs)[0] == DENIED
    key = owner.client("sts").get_access_key_info(AccessKeyId=ada.keys.key)
    assert key["Account"] == owner.account


def test_roots_may_everything_in_their_account(owner):
    assert owner.client().describe_vpcs()["Vpcs"]
    root = session_of(owner, owner.client("sts").get_session_token())
    assert root.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{owner.account}:root"
    assert root.client().describe_vpcs()["Vpcs"]
    assert refusal(root.client("iam").list_users)[0] == "InvalidClientTokenId"
    assert refusal(root.client("sts").get_access_key_info, AccessKeyId=owner.key)[0] == "AccessDenied"


@pytest.mark.parametrize(
    ("name", "reads", "writes"),
    [
        ("AdministratorAccess", True, True),
        ("PowerUserAccess", True, True),
        ("AmazonEC2FullAccess", True, True),
        ("AmazonVPCFullAccess", True, True),
        ("ReadOnlyAccess", True, False),
        ("AmazonEC2ReadOnlyAccess", True, False),
        ("AmazonS3FullAccess", False, False),
        ("AmazonSSMManagedInstanceCore", False, False),
        ("CloudWatchAgentServerPolicy", False, False),
    ],
)
def test_awss_own_policies_give_what_their_names_say(ada, name, reads, writes):
    ada.iam.attach_user_policy(UserName="ada", PolicyArn=AWS + name)
    ec2 = ada.client()
    vpc = ada.owner.client().describe_vpcs()["Vpcs"][0]["VpcId"]
    asked = {"GroupName": "web", "Description": "x", "VpcId": vpc, "DryRun": True}
    if reads:
        ec2.describe_vpcs()
    else:
        assert refusal(ec2.describe_vpcs)[0] == DENIED
    assert refusal(ec2.create_security_group, **asked)[0] == ("DryRunOperation" if writes else DENIED)
    found = ada.iam.get_policy(PolicyArn=AWS + name)["Policy"]
    version = ada.iam.get_policy_version(PolicyArn=AWS + name, VersionId=found["DefaultVersionId"])
    assert version["PolicyVersion"]["Document"]["Version"] == "2012-10-17"


def test_a_request_that_was_verified_before_its_account_was_closed_writes_nothing(served_cloud, owner):
    """What a closed account's request would do between its verification and its transaction."""
    served_cloud.root.client("organizations").close_account(AccountId=owner.account)
    database = served_cloud.database
    action = served_cloud.registry.get("ec2", "CreateVolume")
    with database.read() as session:
        call = Call(
            service="ec2",
            operation="CreateVolume",
            region="us-east-1",
            caller=Caller(owner.account, f"arn:aws:iam::{owner.account}:root", owner.account, owner.key),
            request_id="r",
            now=datetime.datetime.now(datetime.UTC),
            session=session,
        )
    dispatcher = Dispatcher(database, lambda name: None, PolicyAuthority(database))
    members = {"AvailabilityZone": "us-east-1a", "Size": 1}
    with pytest.raises(AwsError, match="InvalidClientTokenId"):
        dispatcher.run(action, call, members, None, lambda answer: None)
