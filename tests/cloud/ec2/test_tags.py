"""Tags on whatever an account has."""

from __future__ import annotations

import pytest

from tests.cloud.served import refusal


def tag(**tags):
    return [{"Key": key, "Value": value} for key, value in tags.items()]


@pytest.fixture
def vpc(ec2):
    return ec2.describe_vpcs()["Vpcs"][0]["VpcId"]


def tags_of(ec2, resource):
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [resource]}])["Tags"]
    return {each["Key"]: each["Value"] for each in found}


def test_tags_are_seen_where_the_resource_is_and_in_the_list_of_all(ec2, vpc):
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ec2.create_tags(Resources=[vpc, subnet], Tags=tag(Name="home", team="red"))
    assert ec2.describe_vpcs()["Vpcs"][0]["Tags"] == tag(Name="home", team="red")
    assert len(ec2.describe_subnets(Filters=[{"Name": "tag:team", "Values": ["red"]}])["Subnets"]) == 1
    listed = ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["vpc"]}])["Tags"]
    assert listed == [
        {"Key": key, "Value": value, "ResourceId": vpc, "ResourceType": "vpc"}
        for key, value in (("Name", "home"), ("team", "red"))
    ]


def test_a_new_value_replaces_the_old_one(ec2, vpc):
    ec2.create_tags(Resources=[vpc], Tags=tag(Name="old"))
    ec2.create_tags(Resources=[vpc], Tags=tag(Name="new"))
    assert tags_of(ec2, vpc) == {"Name": "new"}


def test_tags_are_deleted_by_key_by_key_and_value_or_all(ec2, vpc):
    ec2.create_tags(Resources=[vpc], Tags=tag(a="1", b="2", c="3", d="4"))
    ec2.delete_tags(Resources=[vpc], Tags=[{"Key": "a"}, {"Key": "b", "Value": "other"}, {"Key": "z"}])
    assert tags_of(ec2, vpc) == {"b": "2", "c": "3", "d": "4"}
    ec2.delete_tags(Resources=[vpc], Tags=tag(b="2"))
    assert tags_of(ec2, vpc) == {"c": "3", "d": "4"}
    ec2.delete_tags(Resources=[vpc])
    assert tags_of(ec2, vpc) == {}


def test_a_resource_has_fifty_tags_at_most(ec2, vpc):
    ec2.create_tags(Resources=[vpc], Tags=tag(**{f"k{n}": "" for n in range(50)}))
    ec2.create_tags(Resources=[vpc], Tags=tag(k1="again"))
    assert refusal(ec2.create_tags, Resources=[vpc], Tags=tag(more=""))[0] == "TagLimitExceeded"


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([{"Key": "aws:mine", "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "AWS:mine", "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "", "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "k" * 129, "Value": ""}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
        ([], "MissingParameter"),
    ],
)
def test_a_tag_that_cannot_be_is_refused(ec2, vpc, tags, code):
    assert refusal(ec2.create_tags, Resources=[vpc], Tags=tags)[0] == code


def test_where_one_resource_is_not_there_none_is_tagged(ec2, vpc):
    assert refusal(ec2.create_tags, Resources=[vpc, "subnet-0123456789abcdef0"], Tags=tag(a="1")) == (
        "InvalidSubnetID.NotFound",
        "The subnet ID 'subnet-0123456789abcdef0' does not exist",
    )
    assert refusal(ec2.create_tags, Resources=[vpc, "cat-1"], Tags=tag(a="1")) == (
        "InvalidID",
        "The ID 'cat-1' is not valid",
    )
    assert tags_of(ec2, vpc) == {}


def test_tags_come_in_pages(ec2, vpc):
    ec2.create_tags(Resources=[vpc], Tags=tag(**{f"k{n:02}": "" for n in range(12)}))
    keys, token = [], None
    while True:
        page = ec2.describe_tags(MaxResults=5, **({"NextToken": token} if token else {}))
        keys += [each["Key"] for each in page["Tags"]]
        if (token := page.get("NextToken")) is None:
            break
    assert keys == [f"k{n:02}" for n in range(12)]


def test_empty_lists_are_refused_in_words_of_ec2s_own(ec2):
    assert refusal(ec2.create_tags, Resources=[], Tags=tag(a="1")) == (
        "MissingParameter",
        "The request must contain the parameter resourceIdSet",
    )
    for action in (ec2.start_instances, ec2.stop_instances, ec2.reboot_instances, ec2.terminate_instances):
        assert refusal(action, InstanceIds=[]) == ("InvalidParameterCombination", "No instances specified")
