"""Sessions of roles: who may become one, and what its credentials sign for."""

from __future__ import annotations

import json

import pytest

from celaje.cloud.sts.trust import trusts
from tests.cloud.served import Owner, refusal


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
    assert len(session.client("ec2").describe_vpcs()["Vpcs"]) == 1
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


def test_what_would_narrow_a_session_and_cannot_be_kept_is_refused(owner, iam):
    arn = iam.create_role(RoleName="Deploy", AssumeRolePolicyDocument=document(trust("*")))["Role"]["Arn"]
    sts = owner.client("sts")
    narrowed = {"RoleArn": arn, "RoleSessionName": "me", "Policy": document({"Effect": "Deny", "Action": "*"})}
    assert refusal(sts.assume_role, **narrowed)[0] == "ValidationError"
    for seconds in (899, 3601):
        asked = {"RoleArn": arn, "RoleSessionName": "me", "DurationSeconds": seconds}
        if seconds > 900:
            assert refusal(sts.assume_role, **asked) == (
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            )


ME = frozenset(("111111111111", "arn:aws:iam::111111111111:root", "arn:aws:iam::111111111111:user/ada"))


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([trust({"AWS": "111111111111"})], True),
        ([trust({"AWS": ["222222222222", "arn:aws:iam::111111111111:user/ada"]})], True),
        ([trust({"AWS": "*"}, action=["sts:Assume*"])], True),
        ([trust("*", action="*")], True),
        ([trust("*", action="sts:TagSession")], False),
        ([trust({"AWS": "arn:aws:iam::111111111111:user/bob"})], False),
        ([trust({"Service": "ec2.amazonaws.com"})], False),
        ([trust({"AWS": "111111111111"}), trust({"AWS": "111111111111"}, effect="Deny")], False),
        ([trust({"AWS": "111111111111"}), trust("*", effect="Deny", Condition={"Bool": {"x": "y"}})], False),
        ([trust("*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})], False),
        ([trust("*", Condition={"StringEquals": {"sts:ExternalId": "secret"}})], True),
        ([trust("*", Condition={"StringEquals": {"sts:ExternalId": "other"}})], False),
        ([trust("*", Condition={"StringEquals": {"sts:ExternalId": "secret", "aws:x": "y"}})], False),
        ([{"Effect": "Allow", "NotPrincipal": {"AWS": "2"}, "Action": "sts:AssumeRole"}], False),
        ([{"Effect": "Allow", "Principal": "*", "NotAction": "s3:*"}], False),
        ([{"Effect": "Deny", "Principal": "*", "NotAction": "s3:*"}, trust("*")], False),
    ],
)
def test_trust_policies_allow_only_what_is_understood(statements, allowed):
    assert trusts(document(*statements), ME, external_id="secret") is allowed


def test_a_service_is_trusted_by_its_name_alone():
    text = document(trust({"Service": ["ec2.amazonaws.com"]}))
    assert trusts(text, frozenset(), service="ec2.amazonaws.com")
    assert not trusts(text, frozenset(), service="lambda.amazonaws.com")
