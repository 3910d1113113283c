"""Users, keys, roles, profiles and policies, through boto3."""

from __future__ import annotations

import json

import pytest

from tests.cloud.served import Owner, User, refusal

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
READ = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}


@pytest.fixture
def iam(owner):
    return owner.client("iam")


@pytest.fixture
def role(iam):
    return iam.create_role(RoleName="Web", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]


def test_a_users_key_signs_for_its_account_until_it_is_taken_away(owner, iam):
    made = iam.create_user(UserName="Ada", Path="/staff/", Tags=[{"Key": "team", "Value": "red"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{owner.account}:user/staff/Ada"
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    assert key["Status"] == "Active"
    ada = Owner(owner.cloud, owner.account, key["AccessKeyId"], key["SecretAccessKey"])
    identity = ada.client("sts").get_caller_identity()
    assert (identity["Account"], identity["Arn"], identity["UserId"]) == (owner.account, made["Arn"], made["UserId"])
    assert refusal(ada.client("iam").get_user)[0] == "AccessDenied"
    iam.attach_user_policy(UserName="Ada", PolicyArn="arn:aws:iam::aws:policy/IAMReadOnlyAccess")
    assert ada.client("iam").get_user()["User"]["UserName"] == "Ada"
    assert ada.client("iam").list_access_keys()["AccessKeyMetadata"][0]["AccessKeyId"] == key["AccessKeyId"]
    assert refusal(iam.delete_user, UserName="Ada") == (
        "DeleteConflict",
        "Cannot delete entity, must delete access keys first.",
    )
    iam.update_access_key(UserName="Ada", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refusal(ada.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    iam.delete_access_key(UserName="Ada", AccessKeyId=key["AccessKeyId"])
    iam.detach_user_policy(UserName="Ada", PolicyArn="arn:aws:iam::aws:policy/IAMReadOnlyAccess")
    iam.delete_user(UserName="Ada")
    assert refusal(iam.get_user, UserName="Ada") == (
        "NoSuchEntity",
        "The user with name Ada cannot be found.",
    )


def test_who_signs_as_the_root_is_told_so(owner, iam):
    identity = owner.client("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:iam::{owner.account}:root"
    assert identity["UserId"] == owner.account
    assert iam.get_user()["User"]["Arn"] == identity["Arn"]


def test_a_new_key_of_a_root_comes_into_the_owners_file(owner, iam):
    owner.cloud.woken.clear()
    key = iam.create_access_key()["AccessKey"]["AccessKeyId"]
    assert owner.cloud.woken == {"credentials"}
    assert key in [each["AccessKeyId"] for each in iam.list_access_keys()["AccessKeyMetadata"]]
    iam.delete_access_key(AccessKeyId=key)
    assert [each["AccessKeyId"] for each in iam.list_access_keys()["AccessKeyMetadata"]] == [owner.key]


def test_a_user_has_two_keys_at_most(iam):
    iam.create_user(UserName="ada")
    for _ in range(2):
        iam.create_access_key(UserName="ada")
    assert refusal(iam.create_access_key, UserName="ada") == (
        "LimitExceeded",
        "Cannot exceed quota for AccessKeysPerUser: 2",
    )


def test_names_are_one_whatever_their_case(iam, role):
    assert refusal(iam.create_role, RoleName="WEB", AssumeRolePolicyDocument=json.dumps(TRUST)) == (
        "EntityAlreadyExists",
        "Role with name WEB already exists.",
    )
    assert iam.get_role(RoleName="web")["Role"]["RoleId"] == role["RoleId"]


def test_a_role_is_read_whole(owner, iam, role):
    found = iam.get_role(RoleName="Web")["Role"]
    assert found["Arn"] == f"arn:aws:iam::{owner.account}:role/Web"
    assert found["AssumeRolePolicyDocument"] == TRUST
    assert found["MaxSessionDuration"] == 3600
    iam.update_role(RoleName="Web", Description="of the web", MaxSessionDuration=7200)
    other = {**TRUST, "Statement": [{**TRUST["Statement"][0], "Principal": {"AWS": owner.account}}]}
    iam.update_assume_role_policy(RoleName="Web", PolicyDocument=json.dumps(other))
    [found] = iam.list_roles()["Roles"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("of the web", 7200)
    assert found["AssumeRolePolicyDocument"] == other
    iam.tag_role(RoleName="Web", Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    iam.untag_role(RoleName="Web", TagKeys=["a"])
    assert iam.list_role_tags(RoleName="Web")["Tags"] == [{"Key": "b", "Value": "2"}]


@pytest.mark.parametrize("document", ["{", "[]", "{}", '{"Statement": []}', '{"Statement": [{"Effect": "Perhaps"}]}'])
def test_a_document_that_is_no_policy_is_refused(iam, document):
    code, _ = refusal(iam.create_role, RoleName="x", AssumeRolePolicyDocument=document)
    assert code == "MalformedPolicyDocument"


def test_policies_are_put_attached_listed_and_removed(owner, iam, role):
    iam.put_role_policy(RoleName="Web", PolicyName="read", PolicyDocument=json.dumps(READ))
    assert iam.get_role_policy(RoleName="Web", PolicyName="read")["PolicyDocument"] == READ
    assert iam.list_role_policies(RoleName="Web")["PolicyNames"] == ["read"]
    policy = iam.create_policy(PolicyName="Read", PolicyDocument=json.dumps(READ))["Policy"]
    iam.attach_role_policy(RoleName="Web", PolicyArn=policy["Arn"])
    iam.attach_role_policy(RoleName="Web", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    attached = iam.list_attached_role_policies(RoleName="Web")["AttachedPolicies"]
    assert {each["PolicyName"] for each in attached} == {"Read", "AmazonS3ReadOnlyAccess"}
    assert iam.get_policy(PolicyArn=policy["Arn"])["Policy"]["AttachmentCount"] == 1
    version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId="v1")["PolicyVersion"]
    assert version["Document"] == READ
    assert refusal(iam.delete_policy, PolicyArn=policy["Arn"])[0] == "DeleteConflict"
    assert refusal(iam.delete_role, RoleName="Web")[1] == "Cannot delete entity, must detach all policies first."
    for each in attached:
        iam.detach_role_policy(RoleName="Web", PolicyArn=each["PolicyArn"])
    assert refusal(iam.delete_role, RoleName="Web")[1] == "Cannot delete entity, must delete policies first."
    iam.delete_role_policy(RoleName="Web", PolicyName="read")
    iam.delete_policy(PolicyArn=policy["Arn"])
    iam.delete_role(RoleName="Web")
    assert iam.list_roles()["Roles"] == []


def test_a_policy_has_five_versions_of_which_one_counts(iam):
    arn = iam.create_policy(PolicyName="Read", PolicyDocument=json.dumps(READ))["Policy"]["Arn"]
    write = json.dumps({**READ, "Statement": [{**READ["Statement"][0], "Action": "s3:PutObject"}]})
    second = iam.create_policy_version(PolicyArn=arn, PolicyDocument=write, SetAsDefault=True)["PolicyVersion"]
    assert (second["VersionId"], second["IsDefaultVersion"]) == ("v2", True)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v2"
    found = iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]
    assert found["Document"] == json.loads(write)
    for _ in range(3):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=write)
    assert refusal(iam.create_policy_version, PolicyArn=arn, PolicyDocument=write)[0] == "LimitExceeded"
    assert refusal(iam.delete_policy_version, PolicyArn=arn, VersionId="v2")[0] == "DeleteConflict"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v5")
    for version in ("v1", "v2", "v3", "v4"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version)
    for version in ("v2", "v99"):
        assert refusal(iam.get_policy_version, PolicyArn=arn, VersionId=version)[0] == "NoSuchEntity"
    again = iam.create_policy_version(PolicyArn=arn, PolicyDocument=write)["PolicyVersion"]
    assert again["VersionId"] == "v6"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v6")
    iam.delete_policy(PolicyArn=arn)


def test_a_profile_gives_a_role_to_instances_and_has_one(owner, iam, role):
    profile = iam.create_instance_profile(InstanceProfileName="web")["InstanceProfile"]
    assert profile["Arn"] == f"arn:aws:iam::{owner.account}:instance-profile/web"
    owner.cloud.woken.clear()
    iam.add_role_to_instance_profile(InstanceProfileName="web", RoleName="Web")
    assert owner.cloud.woken == {"networks"}
    found = iam.get_instance_profile(InstanceProfileName="web")["InstanceProfile"]
    assert [each["RoleId"] for each in found["Roles"]] == [role["RoleId"]]
    assert refusal(iam.add_role_to_instance_profile, InstanceProfileName="web", RoleName="Web")[0] == "LimitExceeded"
    assert len(iam.list_instance_profiles_for_role(RoleName="Web")["InstanceProfiles"]) == 1
    assert refusal(iam.delete_role, RoleName="Web")[0] == "DeleteConflict"
    assert refusal(iam.delete_instance_profile, InstanceProfileName="web")[0] == "DeleteConflict"
    iam.remove_role_from_instance_profile(InstanceProfileName="web", RoleName="Web")
    iam.delete_instance_profile(InstanceProfileName="web")
    iam.delete_role(RoleName="Web")


def test_lists_come_in_pages_and_waiters_see_what_was_made(iam):
    for number in range(5):
        iam.create_user(UserName=f"user{number}")
    pages = iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 2})
    assert [user["UserName"] for page in pages for user in page["Users"]] == [f"user{n}" for n in range(5)]
    iam.get_waiter("user_exists").wait(UserName="user0")


def test_a_user_may_be_renamed_and_keeps_keys_and_tags(owner, iam):
    iam.create_user(UserName="Ada", Tags=[{"Key": "team", "Value": "red"}])
    key = iam.create_access_key(UserName="Ada")["AccessKey"]
    iam.create_user(UserName="Bob")
    assert refusal(iam.update_user, UserName="Ada", NewUserName="BOB")[0] == "EntityAlreadyExists"
    iam.update_user(UserName="Ada", NewUserName="Eve", NewPath="/staff/")
    eve = Owner(owner.cloud, owner.account, key["AccessKeyId"], key["SecretAccessKey"])
    assert eve.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{owner.account}:user/staff/Eve"
    assert iam.list_user_tags(UserName="eve")["Tags"] == [{"Key": "team", "Value": "red"}]
    assert refusal(iam.get_user, UserName="Ada")[0] == "NoSuchEntity"


def test_policies_have_tags(iam):
    made = iam.create_policy(PolicyName="read", PolicyDocument=json.dumps(READ), Tags=[{"Key": "a", "Value": "1"}])
    arn = made["Policy"]["Arn"]
    iam.tag_policy(PolicyArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert iam.list_policy_tags(PolicyArn=arn)["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
    iam.untag_policy(PolicyArn=arn, TagKeys=["b"])
    assert iam.get_policy(PolicyArn=arn)["Policy"]["Tags"] == [{"Key": "a", "Value": "2"}]
    assert refusal(iam.list_policy_tags, PolicyArn=f"{arn}-other")[0] == "NoSuchEntity"


def test_a_roles_description_may_change_in_the_older_way(iam, role):
    assert iam.update_role_description(RoleName="web", Description="new")["Role"]["Description"] == "new"
    assert iam.get_role(RoleName="Web")["Role"]["Description"] == "new"


def test_what_no_user_can_have_is_listed_as_nothing(iam):
    iam.create_user(UserName="Ada")
    assert iam.list_mfa_devices(UserName="Ada")["MFADevices"] == []
    assert iam.list_virtual_mfa_devices()["VirtualMFADevices"] == []
    assert iam.list_signing_certificates(UserName="Ada")["Certificates"] == []
    assert iam.list_ssh_public_keys(UserName="Ada")["SSHPublicKeys"] == []
    assert iam.list_service_specific_credentials(UserName="Ada")["ServiceSpecificCredentials"] == []
    for action in (iam.get_login_profile, iam.delete_login_profile):
        assert refusal(action, UserName="Ada") == ("NoSuchEntity", "Login Profile for User Ada cannot be found.")
    assert refusal(iam.list_mfa_devices, UserName="Bob")[0] == "NoSuchEntity"


def test_tags_that_iam_would_not_take_are_refused(iam):
    def refused(*tags):
        return refusal(iam.create_user, UserName="Ada", Tags=[{"Key": key, "Value": value} for key, value in tags])

    assert refused(("team", "a"), ("Team", "b"))[0] == "InvalidInput"
    assert refused(("wrong!", "a"))[0] == refused(("right", "wrong!"))[0] == "ValidationError"
    assert refusal(iam.get_user, UserName="Ada")[0] == "NoSuchEntity"
    iam.create_user(UserName="Ada", Tags=[{"Key": "Größe: a/b=c+d-e@f", "Value": ""}])
    assert "Tags" not in iam.create_user(UserName="Bob")["User"]


def test_a_policys_description_and_tags_are_told_where_aws_tells_them(iam):
    made = iam.create_policy(PolicyName="read", PolicyDocument=json.dumps(READ), Description="reads")["Policy"]
    assert not made.keys() & {"Description", "Tags"}
    told = iam.get_policy(PolicyArn=made["Arn"])["Policy"]
    assert (told["Description"], told["Tags"]) == ("reads", [])
    [listed] = iam.list_policies(Scope="Local")["Policies"]
    assert not listed.keys() & {"Description", "Tags"}


AWS = "arn:aws:iam::aws:policy/"


def test_awss_policies_are_those_of_aws_and_count(owner, iam):
    user = User(owner, "ada")
    names = {one["Arn"].removeprefix(AWS) for page in iam.get_paginator("list_policies").paginate(Scope="AWS")
             for one in page["Policies"]}  # fmt: skip
    usual = {
        "AmazonEC2FullAccess", "AmazonS3FullAccess", "ReadOnlyAccess", "PowerUserAccess",
        "AmazonSSMManagedInstanceCore", "SecurityAudit", "job-function/ViewOnlyAccess", "AmazonEKS_CNI_Policy",
        "CloudWatchAgentServerPolicy",
        "service-role/AWSLambdaBasicExecutionRole", "service-role/AmazonEBSCSIDriverPolicy", "IAMUserChangePassword",
    }  # fmt: skip
    assert usual <= names
    iam.attach_user_policy(UserName="ada", PolicyArn=f"{AWS}job-function/ViewOnlyAccess")
    ec2 = user.client()
    assert ec2.describe_vpcs()["Vpcs"]
    assert refusal(ec2.create_vpc, CidrBlock="10.0.0.0/16")[0] == "UnauthorizedOperation"
    iam.attach_user_policy(UserName="ada", PolicyArn=f"{AWS}AmazonVPCFullAccess")
    assert ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    shown = iam.get_policy(PolicyArn=f"{AWS}AmazonVPCFullAccess")["Policy"]
    assert (shown["AttachmentCount"], shown["PolicyName"], shown["Path"]) == (1, "AmazonVPCFullAccess", "/")
    version = iam.get_policy_version(PolicyArn=shown["Arn"], VersionId=shown["DefaultVersionId"])["PolicyVersion"]
    assert "ec2:CreateVpc" in str(version["Document"])
    [attached] = iam.list_policies(Scope="AWS", OnlyAttached=True, PathPrefix="/job-function/")["Policies"]
    assert attached["Arn"] == f"{AWS}job-function/ViewOnlyAccess"


def test_a_policy_that_aws_does_not_have_is_not_attached(iam):
    iam.create_user(UserName="ada")
    for name in ("AmazonEC2FullAcess", "ViewOnlyAccess", "job-function/AmazonEC2FullAccess", "x y"):
        arn = f"{AWS}{name}"
        assert refusal(iam.attach_user_policy, UserName="ada", PolicyArn=arn) == (
            "NoSuchEntity", f"Policy {arn} does not exist or is not attachable.",
        )  # fmt: skip
        assert refusal(iam.put_user_permissions_boundary, UserName="ada", PermissionsBoundary=arn)[0] == "NoSuchEntity"
        assert refusal(iam.get_policy, PolicyArn=arn)[0] == "NoSuchEntity"
    services = f"{AWS}aws-service-role/AutoScalingServiceRolePolicy"
    assert iam.get_policy(PolicyArn=services)["Policy"]["Path"] == "/aws-service-role/"
    assert refusal(iam.attach_user_policy, UserName="ada", PolicyArn=services)[0] == "PolicyNotAttachable"
    assert iam.list_attached_user_policies(UserName="ada")["AttachedPolicies"] == []


def test_an_empty_list_of_principals_beside_others_names_nobody(owner, iam):
    principal = {"AWS": f"arn:aws:iam::{owner.account}:root", "Service": []}  # as modules of Terraform write it
    trust = {**TRUST, "Statement": [{**TRUST["Statement"][0], "Principal": principal}]}
    role = iam.create_role(RoleName="listed", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    assert role["AssumeRolePolicyDocument"] == trust
    nobody = {**TRUST, "Statement": [{**TRUST["Statement"][0], "Principal": {"Service": []}}]}
    code, _ = refusal(iam.update_assume_role_policy, RoleName="listed", PolicyDocument=json.dumps(nobody))
    assert code == "MalformedPolicyDocument"


def test_a_groups_policies_are_put_attached_listed_and_taken_away_and_count_for_its_members(owner, iam):
    iam.create_group(GroupName="readers")
    iam.put_group_policy(GroupName="readers", PolicyName="read", PolicyDocument=json.dumps(READ))
    assert iam.get_group_policy(GroupName="readers", PolicyName="read")["PolicyDocument"] == READ
    assert iam.list_group_policies(GroupName="readers")["PolicyNames"] == ["read"]
    policy = iam.create_policy(PolicyName="Read", PolicyDocument=json.dumps(READ))["Policy"]["Arn"]
    assert [each["VersionId"] for each in iam.list_policy_versions(PolicyArn=policy)["Versions"]] == ["v1"]
    iam.attach_group_policy(GroupName="readers", PolicyArn=policy)
    assert iam.list_attached_group_policies(GroupName="readers")["AttachedPolicies"] == [
        {"PolicyName": "Read", "PolicyArn": policy}
    ]
    entities = iam.list_entities_for_policy(PolicyArn=policy)
    assert [each["GroupName"] for each in entities["PolicyGroups"]] == ["readers"]
    assert entities["PolicyUsers"] == entities["PolicyRoles"] == []
    assert refusal(iam.delete_group, GroupName="readers")[0] == "DeleteConflict"
    iam.detach_group_policy(GroupName="readers", PolicyArn=policy)
    assert iam.list_attached_group_policies(GroupName="readers")["AttachedPolicies"] == []
    iam.delete_group_policy(GroupName="readers", PolicyName="read")
    assert refusal(iam.get_group_policy, GroupName="readers", PolicyName="read")[0] == "NoSuchEntity"
    iam.delete_group(GroupName="readers")
    assert iam.list_groups()["Groups"] == []


def test_who_has_a_policy_is_told_in_pages_and_by_path(iam):
    policy = iam.create_policy(PolicyName="Read", PolicyDocument=json.dumps(READ))["Policy"]["Arn"]
    for name, path in (("ada", "/"), ("eve", "/staff/"), ("zoe", "/staff/")):
        iam.create_user(UserName=name, Path=path)
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
    iam.create_group(GroupName="readers", Path="/staff/")
    iam.attach_group_policy(GroupName="readers", PolicyArn=policy)

    def told(**request):
        pages = iam.get_paginator("list_entities_for_policy").paginate(
            PolicyArn=policy, PaginationConfig={"PageSize": 2}, **request
        )
        pages = list(pages)
        return [[one["UserName"] for one in page["PolicyUsers"]] for page in pages], [
            [one["GroupName"] for one in page["PolicyGroups"]] for page in pages
        ]

    assert told() == ([["ada"], ["eve", "zoe"]], [["readers"], []])
    assert told(PathPrefix="/staff/") == ([["eve"], ["zoe"]], [["readers"], []])
    assert told(EntityFilter="User") == ([["ada", "eve"], ["zoe"]], [[], []])


def test_a_users_own_policy_is_read_as_it_was_put(iam):
    iam.create_user(UserName="ada")
    iam.put_user_policy(UserName="ada", PolicyName="read", PolicyDocument=json.dumps(READ))
    assert iam.get_user_policy(UserName="ada", PolicyName="read")["PolicyDocument"] == READ


def test_a_roles_boundary_is_told_until_it_is_deleted(iam, role):
    policy = iam.create_policy(PolicyName="Read", PolicyDocument=json.dumps(READ))["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName="Web", PermissionsBoundary=policy)
    boundary = iam.get_role(RoleName="Web")["Role"]["PermissionsBoundary"]
    assert boundary == {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": policy}
    assert refusal(iam.delete_policy, PolicyArn=policy)[0] == "DeleteConflict"
    iam.delete_role_permissions_boundary(RoleName="Web")
    assert "PermissionsBoundary" not in iam.get_role(RoleName="Web")["Role"]


def test_a_profiles_tags_come_and_go(iam):
    iam.create_instance_profile(InstanceProfileName="profile")
    iam.tag_instance_profile(InstanceProfileName="profile", Tags=[{"Key": "team", "Value": "red"}])
    told = iam.get_instance_profile(InstanceProfileName="profile")["InstanceProfile"]
    assert told["Tags"] == [{"Key": "team", "Value": "red"}]
    iam.untag_instance_profile(InstanceProfileName="profile", TagKeys=["team"])
    assert not iam.get_instance_profile(InstanceProfileName="profile")["InstanceProfile"].get("Tags")
