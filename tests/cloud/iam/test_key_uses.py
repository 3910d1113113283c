"""When keys were last used, through boto3."""

from __future__ import annotations

import datetime

from celaje.cloud.aws.action import Call, Caller
from celaje.cloud.state.accounts import AccessKey
from tests.cloud.served import Owner, ServedCloud, User, refusal


def test_the_last_use_of_a_key_is_told_before_and_after_it_is_written_down(
    owner: Owner, served_cloud: ServedCloud
) -> None:
    iam = owner.client("iam")
    user = User(owner, "ada", "*")
    never = iam.get_access_key_last_used(AccessKeyId=user.key)
    assert never["UserName"] == "ada"
    assert never["AccessKeyLastUsed"] == {"ServiceName": "N/A", "Region": "N/A"}
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    user.client("ec2", "eu-west-1").describe_vpcs()
    used = iam.get_access_key_last_used(AccessKeyId=user.key)["AccessKeyLastUsed"]
    assert (used["ServiceName"], used["Region"]) == ("ec2", "eu-west-1")
    assert before <= used["LastUsedDate"] <= datetime.datetime.now(datetime.UTC)
    served_cloud.uses.step()
    assert served_cloud.uses.last(user.key) is None
    assert iam.get_access_key_last_used(AccessKeyId=user.key)["AccessKeyLastUsed"] == used
    user.client("iam", "eu-west-1").list_users()
    used = iam.get_access_key_last_used(AccessKeyId=user.key)["AccessKeyLastUsed"]
    assert (used["ServiceName"], used["Region"]) == ("iam", "us-east-1")


def test_who_began_to_ask_before_a_use_was_written_down_is_told_of_it(owner: Owner, served_cloud: ServedCloud) -> None:
    root = f"arn:aws:iam::{owner.account}:root"
    with served_cloud.database.read() as session:
        assert session.get_one(AccessKey, owner.key).used is None  # what this session sees from now on
        owner.client("ec2").describe_vpcs()
        served_cloud.uses.step()
        now = datetime.datetime.now(datetime.UTC)
        call = Call(
            "iam", "GetAccessKeyLastUsed", "us-east-1", Caller(owner.account, root, root), "request", now, session
        )
        answer = served_cloud.uses.get_access_key_last_used(call, {"AccessKeyId": owner.key})
        assert answer["AccessKeyLastUsed"]["ServiceName"] == "ec2"


def test_a_request_that_is_not_well_signed_is_no_use(owner: Owner, served_cloud: ServedCloud) -> None:
    user = User(owner, "ada", "*")
    forged = Owner(served_cloud, owner.account, user.key, "x" * 40)
    assert refusal(forged.client("sts").get_caller_identity)[0] == "SignatureDoesNotMatch"
    used = owner.client("iam").get_access_key_last_used(AccessKeyId=user.key)["AccessKeyLastUsed"]
    assert used["ServiceName"] == "N/A"


def test_keys_of_another_account_and_of_nobody_are_answered_alike(owner: Owner, served_cloud: ServedCloud) -> None:
    iam, other = owner.client("iam"), served_cloud.owner()
    for key in (other.key, "AKIAAAAAAAAAAAAAAAAA"):
        code, message = refusal(iam.get_access_key_last_used, AccessKeyId=key)
        assert (code, message.endswith(f"access key {key}")) == ("AccessDenied", True)


def test_who_may_ask_for_one_user_may_not_ask_for_another(owner: Owner) -> None:
    ada, bob = User(owner, "ada"), User(owner, "bob")
    policy = (
        '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iam:GetAccessKeyLastUsed", '
        f'"Resource": "{bob.arn}"}}}}'
    )
    owner.client("iam").put_user_policy(UserName="ada", PolicyName="own", PolicyDocument=policy)
    iam = ada.client("iam")
    assert iam.get_access_key_last_used(AccessKeyId=bob.key)["UserName"] == "bob"
    assert refusal(iam.get_access_key_last_used, AccessKeyId=ada.key)[0] == "AccessDenied"
