"""Sessions of roles: who may become one, and what its credentials sign for."""

from __future__ import annotations

import json

import pytest

from celaje.cloud.sts.trust import trusts
from tests.cloud.authority.test_permissions import Staff, allow
from tests.cloud.served import Owner, refusal

READ_ONLY = "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"


def trust(principal, effect="Allow", action="sts:AssumeRole", **more):
    return {"Effect": effect, "Principal": principal, "Action": action, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def iam(owner):
    return owner.client("iam")


def test_a_role_that_trusts_the_account_is_assumed_and_signs(owner, iam):
    arn = iam.create_role(RoleName="Deploy", AssumeRolePolicyDocument=document(trust({"AWS": owner.account})))[
        "Role"
    ]["Arn"]
    answer = owner.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")
    made = answer["Credentials"]
    session = Owner(
        owner.cloud, owner.account, made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]
    )
    identity = session.client("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{owner.account}:assumed-role/Deploy/me"
    assert identity["Arn"] == answer["AssumedRoleUser"]["Arn"]
    assert refusal(session.client("ec2").describe_vpcs)[0] == "UnauthorizedOperation"
    iam.attach_role_policy(RoleName="Deploy", PolicyArn=READ_ONLY)
    assert len(session.client("ec2").describe_vpcs()["Vpcs"]) == 1
    iam.detach_role_policy(RoleName="Deploy", PolicyArn=READ_ONLY)
    iam.delete_role(RoleName="Deploy")
    assert refusal(session.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    iam.create_role(RoleName="Deploy", AssumeRolePolicyDocument=document(trust({"AWS": owner.account})))
    assert refusal(session.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    without = Owner(owner.cloud, owner.account, made["AccessKeyId"], made["SecretAccessKey"])
    assert refusal(without.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    other = owner.client("sts").assume_role(RoleArn=arn, RoleSessionName="you")["Credentials"]
    mixed = Owner(owner.cloud, owner.account, made["AccessKeyId"], made["SecretAccessKey"], other["SessionToken"])
    assert refusal(mixed.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"


def test_a_role_of_another_account_is_assumed_only_where_it_trusts_the_caller(served_cloud, owner, iam):
    other = served_cloud.owner()
    arn = iam.create_role(RoleName="Deploy", AssumeRolePolicyDocument=document(trust({"AWS": owner.account})))[
        "Role"
    ]["Arn"]
    missing = arn.replace("Deploy", "Nothing")
    answers = {
        refusal(other.client("sts").assume_role, RoleArn=named, RoleSessionName="me")[1].replace(named, "…")
        for named in (arn, missing)
    }
    assert answers == {
        f"User: arn:aws:iam::{other.account}:root is not authorized to perform: sts:AssumeRole on resource: …"
    }
    iam.update_assume_role_policy(RoleName="Deploy", PolicyDocument=document(trust({"AWS": other.account})))
    answer = other.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")
    assert answer["AssumedRoleUser"]["Arn"].startswith(f"arn:aws:sts::{owner.account}:")
    assert refusal(owner.client("sts").assume_role, RoleArn=arn, RoleSessionName="me")[0] == "AccessDenied"


@pytest.mark.parametrize("principal", [{"Service": "ec2.amazonaws.com"}, {"AWS": "{other}"}, {"AWS": "{colleague}"}])
def test_who_may_assume_every_role_assumes_none_that_trusts_somebody_else(served_cloud, owner, iam, principal):
    other, colleague = served_cloud.owner(), Staff(owner, "colleague")
    ada = Staff(owner)
    ada.may(allow("sts:AssumeRole"))
    principal = {sort: who.format(other=other.account, colleague=colleague.arn) for sort, who in principal.items()}
    arn = iam.create_role(RoleName="Deploy", AssumeRolePolicyDocument=document(trust(principal)))["Role"]["Arn"]
    missing = arn.replace("Deploy", "Nothing")
    for named in (arn, missing):
        assert refusal(ada.client("sts").assume_role, RoleArn=named, RoleSessionName="me") == (
            "AccessDenied",
            f"User: {ada.arn} is not authorized to perform: sts:AssumeRole on resource: {named}",
        )
    iam.update_assume_role_policy(RoleName="Deploy", PolicyDocument=document(trust({"AWS": owner.account})))
    ada.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")


def test_a_session_lasts_no_longer_than_its_role_allows(owner, iam):
    arn = iam.create_role(RoleName="Deploy", AssumeRolePolicyDocument=document(trust("*")))["Role"]["Arn"]
    sts = owner.client("sts")
    asked = {"RoleArn": arn, "RoleSessionName": "me", "DurationSeconds": 3601}
    assert refusal(sts.assume_role, **asked) == (
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
    )
    for member in ("SerialNumber", "SourceIdentity"):
        narrowed = {"RoleArn": arn, "RoleSessionName": "me", member: "arn:aws:iam::1:mfa/x"}
        assert refusal(sts.assume_role, **narrowed)[0] == "ValidationError"


EC2 = "ec2.amazonaws.com"


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([trust({"Service": [EC2]})], True),
        ([trust({"Service": "lambda.amazonaws.com"})], False),
        ([trust({"AWS": "111111111111"})], False),
        ([trust({"AWS": "111111111111", "Service": []})], False),
        ([trust({"AWS": [], "Service": [EC2]})], True),
        ([trust({"Service": EC2}, action="sts:TagSession")], False),
        ([trust({"Service": EC2}), trust({"Service": EC2}, effect="Deny")], False),
        ([trust({"Service": EC2}, Condition={"Bool": {"aws:SecureTransport": "true"}})], False),
        ([trust({"Service": EC2}, Condition={"StringSame": {"a": "b"}})], False),
    ],
)
def test_a_service_is_trusted_by_its_name(statements, allowed):
    assert trusts(document(*statements), EC2) is allowed
