"""Launch templates: what a version holds, which one is launched, and how a request's parameters go over it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import Instance
from tests.cloud.ec2.test_instances import AMI, _images, shown  # noqa: F401  the images are a fixture for all tests
from tests.cloud.served import REGION, Owner, ServedCloud, refusal

UNKNOWN = "lt-00000000000000000"
DATA: dict[str, Any] = {
    "ImageId": AMI,
    "InstanceType": "t3.nano",
    "UserData": base64.b64encode(b"#!/bin/sh\n").decode(),
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 10, "VolumeType": "gp3", "Iops": 4000}},
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2}},
    ],
    "TagSpecifications": [
        {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "template"}, {"Key": "b", "Value": "template"}]},
        {"ResourceType": "spot-instances-request", "Tags": [{"Key": "a", "Value": "x"}]},
    ],
    "MetadataOptions": {"HttpTokens": "required"},
}


def made(ec2: Any, name: str = "template", **data: Any) -> str:
    return str(
        ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=DATA | data)["LaunchTemplate"][
            "LaunchTemplateId"
        ]
    )


def run(ec2: Any, template: dict[str, str], **request: Any) -> dict[str, Any]:
    [instance] = ec2.run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1, **request)["Instances"]
    return shown(ec2, instance["InstanceId"])


def volumes(ec2: Any, instance: dict[str, Any]) -> dict[str, dict[str, Any]]:
    ids = {one["Ebs"]["VolumeId"]: one["DeviceName"] for one in instance["BlockDeviceMappings"]}
    return {ids[one["VolumeId"]]: one for one in ec2.describe_volumes(VolumeIds=list(ids))["Volumes"]}


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {one["Key"]: one["Value"] for one in instance["Tags"]}


def test_a_launch_of_a_template_has_what_the_template_says(served_cloud: ServedCloud, ec2: Any) -> None:
    template = made(ec2)
    instance = run(ec2, {"LaunchTemplateId": template})
    assert (instance["ImageId"], instance["InstanceType"]) == (AMI, "t3.nano")
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert {name: one["Size"] for name, one in volumes(ec2, instance).items()} == {"/dev/sda1": 10, "/dev/sdf": 2}
    with served_cloud.database.read() as session:
        assert session.get_one(Instance, instance["InstanceId"]).user_data == b"#!/bin/sh\n"
    assert tags(instance) == {
        "a": "template",
        "b": "template",
        "aws:ec2launchtemplate:id": template,
        "aws:ec2launchtemplate:version": "1",
    }


def test_what_the_request_says_goes_over_the_template(ec2: Any) -> None:
    made(ec2)
    instance = run(
        ec2,
        {"LaunchTemplateName": "template"},
        InstanceType="t3.micro",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 12}},
            {"DeviceName": "/dev/sdf", "NoDevice": ""},
        ],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "b", "Value": "request"}]}],
        MetadataOptions={"HttpPutResponseHopLimit": 3},
    )
    assert instance["InstanceType"] == "t3.micro"
    [(device, volume)] = volumes(ec2, instance).items()
    assert (device, volume["Size"], volume["Iops"]) == ("/dev/sda1", 12, 4000)
    assert (tags(instance)["a"], tags(instance)["b"]) == ("template", "request")
    options = instance["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 3)


def test_the_default_version_is_launched_unless_another_is_named(ec2: Any) -> None:
    template = made(ec2)
    second = ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.micro"}
    )["LaunchTemplateVersion"]
    assert (second["VersionNumber"], second["DefaultVersion"]) == (2, False)
    assert second["LaunchTemplateData"]["ImageId"] == AMI
    assert run(ec2, {"LaunchTemplateId": template})["InstanceType"] == "t3.nano"
    assert run(ec2, {"LaunchTemplateId": template, "Version": "$Latest"})["InstanceType"] == "t3.micro"
    changed = ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")["LaunchTemplate"]
    assert (changed["DefaultVersionNumber"], changed["LatestVersionNumber"]) == (2, 2)
    assert run(ec2, {"LaunchTemplateId": template, "Version": "$Default"})["InstanceType"] == "t3.micro"
    assert run(ec2, {"LaunchTemplateId": template, "Version": "1"})["InstanceType"] == "t3.nano"


def test_versions_are_listed_newest_first_and_their_numbers_are_not_given_again(ec2: Any) -> None:
    template = made(ec2)
    for _ in range(3):
        ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": AMI})

    def numbers(**request: Any) -> list[int]:
        asked = ec2.describe_launch_template_versions(LaunchTemplateId=template, **request)
        return [one["VersionNumber"] for one in asked["LaunchTemplateVersions"]]

    assert numbers() == [4, 3, 2, 1]
    assert numbers(MinVersion="2", MaxVersion="3") == [3, 2]
    assert numbers(Versions=["$Latest", "$Default"]) == [4, 1]
    pages = ec2.get_paginator("describe_launch_template_versions").paginate(
        LaunchTemplateId=template, PaginationConfig={"PageSize": 3}
    )
    assert [len(one["LaunchTemplateVersions"]) for one in pages] == [3, 1]
    answer = ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["4", "1", "9"])
    assert [one["VersionNumber"] for one in answer["SuccessfullyDeletedLaunchTemplateVersions"]] == [4]
    failed = answer["UnsuccessfullyDeletedLaunchTemplateVersions"]
    codes = {one["VersionNumber"]: one["ResponseError"]["Code"] for one in failed}
    assert codes == {1: "unexpectedError", 9: "launchTemplateVersionDoesNotExist"}
    assert numbers() == [3, 2, 1]
    ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": AMI})
    assert numbers()[0] == 5


def test_a_deleted_template_is_gone_and_its_name_is_free(ec2: Any) -> None:
    template = made(ec2)
    instance = run(ec2, {"LaunchTemplateId": template})
    ec2.delete_launch_template(LaunchTemplateName="template")
    assert ec2.describe_launch_templates()["LaunchTemplates"] == []
    code, _ = refusal(ec2.describe_launch_templates, LaunchTemplateIds=[template])
    assert code == "InvalidLaunchTemplateId.NotFound"
    assert shown(ec2, instance["InstanceId"])["State"]["Name"] == "pending"
    assert made(ec2) != template


def test_the_data_of_an_instance_launches_another_like_it(ec2: Any) -> None:
    made(ec2)
    first = run(ec2, {"LaunchTemplateName": "template"})
    data = ec2.get_launch_template_data(InstanceId=first["InstanceId"])["LaunchTemplateData"]
    assert data["UserData"] == DATA["UserData"]
    ec2.create_launch_template(LaunchTemplateName="copy", LaunchTemplateData=data)
    second = run(ec2, {"LaunchTemplateName": "copy"})
    assert second["SubnetId"] == first["SubnetId"]
    assert {name: one["Size"] for name, one in volumes(ec2, second).items()} == {"/dev/sda1": 10, "/dev/sdf": 2}
    assert tags(second)["a"] == "template"


def test_templates_are_found_by_name_and_tag(ec2: Any) -> None:
    made(ec2)
    ec2.create_launch_template(
        LaunchTemplateName="other",
        LaunchTemplateData={"InstanceType": "t3.nano"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": [{"Key": "k", "Value": "v"}]}],
    )
    [found] = ec2.describe_launch_templates(Filters=[{"Name": "tag:k", "Values": ["v"]}])["LaunchTemplates"]
    assert (found["LaunchTemplateName"], found["Tags"]) == ("other", [{"Key": "k", "Value": "v"}])
    [found] = ec2.describe_launch_templates(LaunchTemplateNames=["template"])["LaunchTemplates"]
    assert found["CreatedBy"].endswith(":root")
    latest = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    assert {one["LaunchTemplateName"] for one in latest} == {"template", "other"}


def test_a_templates_interface_and_a_requests_subnet_contradict_each_other(ec2: Any) -> None:
    made(ec2, NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": False}])
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    instance = run(ec2, {"LaunchTemplateName": "template"})
    assert "PublicIpAddress" not in instance
    code, _ = refusal(
        ec2.run_instances, LaunchTemplate={"LaunchTemplateName": "template"}, SubnetId=subnet, MinCount=1, MaxCount=1
    )
    assert code == "InvalidParameterCombination"


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ({"LaunchTemplateId": UNKNOWN}, "InvalidLaunchTemplateId.NotFound"),
        ({"LaunchTemplateId": "lt-x"}, "InvalidLaunchTemplateId.Malformed"),
        ({"LaunchTemplateName": "nobody"}, "InvalidLaunchTemplateName.NotFoundException"),
        ({"LaunchTemplateName": "template", "Version": "7"}, "InvalidLaunchTemplateId.VersionNotFound"),
        ({"LaunchTemplateName": "template", "Version": "latest"}, "InvalidParameterValue"),
        ({"LaunchTemplateName": "template", "LaunchTemplateId": UNKNOWN}, "InvalidParameterCombination"),
        ({}, "MissingParameter"),
    ],
)
def test_a_launch_of_what_is_not_there_is_refused(ec2: Any, template: dict[str, str], code: str) -> None:
    made(ec2)
    assert refusal(ec2.run_instances, LaunchTemplate=template, MinCount=1, MaxCount=1)[0] == code


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("ab", {}, "InvalidLaunchTemplateName.MalformedException"),
        ("a b c", {}, "InvalidLaunchTemplateName.MalformedException"),
        ("taken", {}, "InvalidLaunchTemplateName.AlreadyExistsException"),
        ("fine", {"KeyName": "x" * 65_536}, "InvalidParameterValue"),
        ("fine", {"UserData": "no base64!"}, "InvalidUserData.Malformed"),
        ("fine", {"UserData": "not base64 encoded"}, "InvalidUserData.Malformed"),  # it has base64's letters
        ("fine", {"TagSpecifications": [{"ResourceType": "vpc", "Tags": [{"Key": "a"}]}]}, "InvalidParameterValue"),
        ("fine", {"InstanceRequirements": {"VCpuCount": {"Min": 1}, "MemoryMiB": {"Min": 1}}}, "InvalidParameterCo"),
    ],
)
def test_templates_that_cannot_be_are_refused(ec2: Any, name: str, data: dict[str, Any], code: str) -> None:
    made(ec2, "taken")
    asked = {"InstanceType": "t3.nano"} | data
    found, _ = refusal(ec2.create_launch_template, LaunchTemplateName=name, LaunchTemplateData=asked)
    assert found.startswith(code)
    assert len(ec2.describe_launch_templates()["LaunchTemplates"]) == 1


def test_requirements_instead_of_a_type_are_refused_at_the_launch(ec2: Any) -> None:
    requirements = {"VCpuCount": {"Min": 1}, "MemoryMiB": {"Min": 1}}
    ec2.create_launch_template(
        LaunchTemplateName="vague", LaunchTemplateData={"ImageId": AMI, "InstanceRequirements": requirements}
    )
    given = {"LaunchTemplateName": "vague"}
    assert refusal(ec2.run_instances, LaunchTemplate=given, MinCount=1, MaxCount=1)[0] == "Unsupported"
    assert run(ec2, given, InstanceType="t3.nano")["InstanceType"] == "t3.nano"


def test_another_region_has_other_templates(owner: Owner, ec2: Any) -> None:
    made(ec2)
    assert owner.client("ec2", "eu-west-1").describe_launch_templates()["LaunchTemplates"] == []
    assert REGION == "us-east-1"


def test_tags_that_tell_of_the_template_stay_when_all_tags_are_deleted(ec2: Any) -> None:
    template = made(ec2)
    instance = run(ec2, {"LaunchTemplateId": template})
    ec2.delete_tags(Resources=[instance["InstanceId"]])
    assert set(tags(shown(ec2, instance["InstanceId"]))) == {
        "aws:ec2launchtemplate:id",
        "aws:ec2launchtemplate:version",
    }


def test_a_versions_image_is_told_by_its_parameters_name_or_as_it_is_now(served_cloud: ServedCloud, ec2: Any) -> None:
    identifier = new_id("ami")
    with served_cloud.database.write() as session:
        own = session.get_one(Image, AMI)
        columns = {"account": own.account, "region": REGION, "created": own.created, "devices": own.devices}
        session.add(
            Image(
                id=identifier, name="named-mini", architecture="riscv64", state="available", public=True,
                revision="1", host_image="debian-mini", **columns,
            )
        )  # fmt: skip
    name = "resolve:ssm:/aws/service/celaje/named-mini/latest/image-id"
    asked = {"LaunchTemplateId": made(ec2, ImageId=name)}

    def told(**request: Any) -> str:
        [version] = ec2.describe_launch_template_versions(**asked, **request)["LaunchTemplateVersions"]
        return str(version["LaunchTemplateData"]["ImageId"])

    assert (told(), told(ResolveAlias=True)) == (name, identifier)
    assert run(ec2, asked)["ImageId"] == identifier
    with served_cloud.database.write() as session:
        session.delete(session.get_one(Image, identifier))


def test_versions_of_all_templates_are_told_only_by_their_aliases(ec2: Any) -> None:
    made(ec2, "one")
    assert len(ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]) == 1
    for asked, code in (({}, "MissingParameter"), ({"Versions": ["1"]}, "InvalidParameterValue")):
        found, message = refusal(ec2.describe_launch_template_versions, **asked)
        assert found == code
        assert "for all your launch templates, for \u2018--versions\u2019 specify" in message


def test_a_version_that_there_is_not_becomes_no_default(ec2: Any) -> None:
    made(ec2, "one")
    assert refusal(ec2.modify_launch_template, LaunchTemplateName="one", DefaultVersion="2") == (
        "InvalidLaunchTemplateId.VersionNotFound",
        "The launch template version 2 is not found for the specified launch template.",
    )
    both = {"LaunchTemplateId": "lt-00000000000000000", "LaunchTemplateName": "one", "DefaultVersion": "1"}
    assert refusal(ec2.modify_launch_template, **both)[1].startswith("Either provide launch template ID or")
    [template] = ec2.describe_launch_templates()["LaunchTemplates"]
    assert template["DefaultVersionNumber"] == 1
