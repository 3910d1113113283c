"""Accounts, made and closed through the API by the root account alone."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from celaje.cloud.state.base import Base
from tests.cloud.served import Owner, refusal


@pytest.fixture
def organizations(served_cloud):
    return served_cloud.root.client("organizations")


def made(organizations, name):
    return organizations.create_account(AccountName=name, Email=f"{name}@example.com")["CreateAccountStatus"]


def test_an_account_is_made_and_its_first_user_is_made_from_outside(served_cloud, organizations):
    served_cloud.woken.clear()
    status = made(organizations, "research")
    assert status["State"] == "SUCCEEDED"
    assert "credentials" in served_cloud.woken
    assert organizations.describe_create_account_status(CreateAccountRequestId=status["Id"])[
        "CreateAccountStatus"
    ] == status
    account = status["AccountId"]
    arn = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
    keys = served_cloud.root.client("sts").assume_role(RoleArn=arn, RoleSessionName="first")["Credentials"]
    inside = Owner(served_cloud, account, keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    inside.client("iam").create_user(UserName="admin")
    administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
    inside.client("iam").attach_user_policy(UserName="admin", PolicyArn=administrator)
    key = inside.client("iam").create_access_key(UserName="admin")["AccessKey"]
    admin = Owner(served_cloud, account, key["AccessKeyId"], key["SecretAccessKey"])
    assert admin.client("sts").get_caller_identity()["Account"] == account
    assert len(admin.client("ec2").describe_vpcs()["Vpcs"]) == 1
    assert refusal(served_cloud.owner().client("sts").assume_role, RoleArn=arn, RoleSessionName="other")[0] == (
        "AccessDenied"
    )


def test_accounts_are_listed_and_the_root_account_is_the_first(served_cloud, organizations):
    status = made(organizations, "listed")
    pages = organizations.get_paginator("list_accounts").paginate()
    accounts = [account for page in pages for account in page["Accounts"]]
    assert accounts[0]["Id"] == served_cloud.root.account
    [found] = [account for account in accounts if account["Name"] == "listed"]
    assert (found["Id"], found["Email"], found["Status"]) == (status["AccountId"], "listed@example.com", "ACTIVE")
    described = organizations.describe_account(AccountId=status["AccountId"])["Account"]
    assert described["Arn"] == found["Arn"]


@pytest.mark.parametrize("spelt", [str.lower, str.upper])
def test_a_name_is_one_accounts(organizations, spelt):
    name = f"taken-{spelt.__name__}"
    made(organizations, name)
    assert refusal(organizations.create_account, AccountName=spelt(name), Email="a@b.example")[0] == (
        "DuplicateAccountException"
    )


def test_only_the_root_account_may(served_cloud, owner):
    other = owner.client("organizations")
    for action, request in (
        (other.create_account, {"AccountName": "mine", "Email": "a@b.example"}),
        (other.list_accounts, {}),
        (other.describe_account, {"AccountId": served_cloud.root.account}),
        (other.close_account, {"AccountId": served_cloud.root.account}),
    ):
        assert refusal(action, **request)[0] == "AccessDeniedException"
    assert other.describe_organization()["Organization"]["MasterAccountId"] == served_cloud.root.account


def test_a_closed_account_leaves_nothing_and_its_keys_sign_no_more(served_cloud, organizations):
    owner = served_cloud.owner()
    ec2, s3 = owner.client("ec2"), owner.client("s3")
    owner.client("iam").create_user(UserName="ada", Tags=[{"Key": "a", "Value": "b"}])
    address = ec2.allocate_address()["AllocationId"]
    s3.create_bucket(Bucket=f"of-{owner.account}")
    code, message = refusal(organizations.close_account, AccountId=owner.account)
    assert code == "ConstraintViolationException"
    assert "1 elastic addresses, 1 buckets" in message
    ec2.release_address(AllocationId=address)
    s3.delete_bucket(Bucket=f"of-{owner.account}")
    organizations.close_account(AccountId=owner.account)
    assert refusal(organizations.describe_account, AccountId=owner.account)[0] == "AccountNotFoundException"
    assert refusal(owner.client("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    with served_cloud.database.read() as session:
        for table in Base.metadata.sorted_tables:
            if "account" in table.columns:
                assert session.execute(select(table).where(table.c.account == owner.account)).all() == [], table.name


def test_the_root_account_cannot_be_closed(served_cloud, organizations):
    code, _ = refusal(organizations.close_account, AccountId=served_cloud.root.account)
    assert code == "ConstraintViolationException"
