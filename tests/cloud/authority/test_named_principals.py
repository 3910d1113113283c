"""Principals of policies are whoever had the name when the policy was written."""

from __future__ import annotations

import json
from typing import Any

from tests.cloud.served import Owner, ServedCloud, User, refusal


def trusting(*arns: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": list(arns)}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def giving(bucket: str, arn: str, effect: str = "Allow") -> str:
    statement = {
        "Effect": effect, "Principal": {"AWS": arn}, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*",
    }  # fmt: skip
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def principal_of(policy: Any) -> Any:
    content = json.loads(policy) if isinstance(policy, str) else policy
    return content["Statement"][0]["Principal"]["AWS"]


def test_a_user_made_anew_under_a_name_that_a_role_trusts_is_not_trusted(owner: Owner) -> None:
    iam = owner.client("iam")
    first = User(owner, "ada")
    role = iam.create_role(RoleName="trusting", AssumeRolePolicyDocument=trusting(first.arn))["Role"]
    assume = {"RoleArn": role["Arn"], "RoleSessionName": "me"}
    assert first.client("sts").assume_role(**assume)["Credentials"]
    assert principal_of(iam.get_role(RoleName="trusting")["Role"]["AssumeRolePolicyDocument"]) == [first.arn]
    identifier = iam.get_user(UserName="ada")["User"]["UserId"]
    first.delete()
    assert principal_of(iam.get_role(RoleName="trusting")["Role"]["AssumeRolePolicyDocument"]) == [identifier]
    second = User(owner, "ada")
    assert second.arn == first.arn
    assert refusal(second.client("sts").assume_role, **assume)[0] == "AccessDenied"
    [listed] = [one for one in iam.list_roles()["Roles"] if one["RoleName"] == "trusting"]
    assert principal_of(listed["AssumeRolePolicyDocument"]) == [identifier]
    iam.update_assume_role_policy(RoleName="trusting", PolicyDocument=trusting(second.arn))
    assert second.client("sts").assume_role(**assume)["Credentials"]


def test_a_user_that_was_renamed_is_still_trusted_and_shown_by_its_new_name(owner: Owner) -> None:
    iam = owner.client("iam")
    ada = User(owner, "ada")
    role = iam.create_role(RoleName="trusting", AssumeRolePolicyDocument=trusting(ada.arn))["Role"]
    iam.update_user(UserName="ada", NewUserName="lovelace", NewPath="/science/")
    assert ada.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="me")["Credentials"]
    shown = iam.get_role(RoleName="trusting")["Role"]["AssumeRolePolicyDocument"]
    assert principal_of(shown) == [f"arn:aws:iam::{owner.account}:user/science/lovelace"]


def test_a_role_made_anew_has_nothing_of_a_buckets_policy(owner: Owner, served_cloud: ServedCloud) -> None:
    iam, s3 = owner.client("iam"), owner.client("s3")
    bucket = f"given-{owner.account}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    user = User(owner, "ada", "sts:AssumeRole")

    def session() -> Any:
        arn = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=trusting(user.arn))["Role"]["Arn"]
        made = user.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
        return Owner(
            served_cloud, owner.account, made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]
        ).client("s3")

    reader = session()
    role = f"arn:aws:iam::{owner.account}:role/reader"
    s3.put_bucket_policy(Bucket=bucket, Policy=giving(bucket, role))
    assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    identifier = iam.get_role(RoleName="reader")["Role"]["RoleId"]
    iam.delete_role(RoleName="reader")
    assert principal_of(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == identifier
    again = session()
    assert refusal(again.get_object, Bucket=bucket, Key="k")[0] == "AccessDenied"
    s3.put_bucket_policy(Bucket=bucket, Policy=giving(bucket, role))
    assert principal_of(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == role
    assert again.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_denial_of_a_user_does_not_hold_another_of_its_name(owner: Owner) -> None:
    s3 = owner.client("s3")
    bucket = f"denied-{owner.account}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    first = User(owner, "ada", "s3:*")
    s3.put_bucket_policy(Bucket=bucket, Policy=giving(bucket, first.arn, "Deny"))
    assert refusal(first.client("s3").get_object, Bucket=bucket, Key="k")[0] == "AccessDenied"
    first.delete()
    second = User(owner, "ada", "s3:*")
    assert second.client("s3").get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_principal_that_its_account_does_not_have_is_refused(owner: Owner) -> None:
    iam, s3 = owner.client("iam"), owner.client("s3")
    nobody = f"arn:aws:iam::{owner.account}:user/nobody"
    code, message = refusal(iam.create_role, RoleName="r", AssumeRolePolicyDocument=trusting(nobody))
    assert (code, message) == ("MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{nobody}"')
    bucket = f"refused-{owner.account}"
    s3.create_bucket(Bucket=bucket)
    code, message = refusal(s3.put_bucket_policy, Bucket=bucket, Policy=giving(bucket, nobody))
    assert (code, message) == ("MalformedPolicy", "Invalid principal in policy")
    assert refusal(s3.get_bucket_policy, Bucket=bucket)[0] == "NoSuchBucketPolicy"
    # An account that is AWS's and not this cloud's: nobody here is it, and its policies are taken.
    s3.put_bucket_policy(Bucket=bucket, Policy=giving(bucket, "arn:aws:iam::127311923021:role/delivery"))
    assert iam.create_role(RoleName="r", AssumeRolePolicyDocument=trusting("arn:aws:iam::127311923021:root"))["Role"]
