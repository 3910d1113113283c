"""Public images by name."""

from __future__ import annotations

import datetime

import pytest
from sqlalchemy import select

from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import Image
from tests.cloud.served import REGION, refusal

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)


@pytest.fixture
def image(served_cloud):
    """The newest of two public images of a name, which the test forgets."""

    def made(age, **changed):
        columns = {
            "id": new_id("ami"),
            "account": served_cloud.root.account,
            "region": REGION,
            "created": NOW - datetime.timedelta(days=age),
            "name": "testing-mini",
            "architecture": "riscv64",
            "state": "available",
            "public": True,
            "revision": "1",
            "devices": [],
            "host_image": "testing-mini",
        }
        return Image(**(columns | changed))

    images = [made(2), made(1), made(0, state="pending"), made(0, public=False, revision="", account="999999999999")]
    images.append(made(0, revision="", account="999999999999"))  # somebody's own of that name, for everybody
    newest = images[1].id
    with served_cloud.database.write() as session:
        session.add_all(images)
    yield newest
    with served_cloud.database.write() as session:
        for each in images:
            session.delete(session.get_one(Image, each.id))


def test_a_name_finds_the_newest_public_image_of_the_region(owner, image):
    ssm = owner.client("ssm")
    name = "/aws/service/celaje/testing-mini/latest/image-id"
    found = ssm.get_parameter(Name=name)["Parameter"]
    assert (found["Value"], found["Version"], found["Type"]) == (image, 3, "String")
    several = ssm.get_parameters(Names=[name, "/my/own"])
    assert [each["Value"] for each in several["Parameters"]] == [image]
    assert several["InvalidParameters"] == ["/my/own"]
    assert refusal(ssm.get_parameter, Name="/my/own")[0] == "ParameterNotFound"
    assert refusal(owner.client("ssm", "eu-west-1").get_parameter, Name=name)[0] == "ParameterNotFound"


def test_an_image_that_is_being_made_has_its_name_already(owner, served_cloud, image):
    name = "/aws/service/celaje/testing-mini/latest/image-id"
    with served_cloud.database.write() as session:
        for each in session.scalars(select(Image).where(Image.name == "testing-mini", Image.public)):
            each.state = "pending"
    found = owner.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    code, message = refusal(
        owner.client().run_instances, ImageId=f"resolve:ssm:{name}", InstanceType="t3.nano", MinCount=1, MaxCount=1
    )
    assert code == "InvalidAMIID.Unavailable"
    assert found in message


def test_an_instance_is_launched_of_a_parameter(owner, image):
    ec2 = owner.client()
    request = {"InstanceType": "t3.nano", "MinCount": 1, "MaxCount": 1}
    unknown = refusal(ec2.run_instances, ImageId="resolve:ssm:/my/own", **request)
    assert unknown[0] == "InvalidParameterValue"
    name = "resolve:ssm:/aws/service/celaje/testing-mini/latest/image-id"
    code, _ = refusal(ec2.run_instances, ImageId=name, DryRun=True, **request)
    # The image is found: what this host has, or what disks the image lacks, is looked at after it.
    assert code in ("DryRunOperation", "InsufficientInstanceCapacity", "InvalidBlockDeviceMapping")


def test_a_path_lists_what_is_below_it(owner, image):
    ssm = owner.client("ssm")
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path="/aws/service/celaje", Recursive=True)
    assert image in [each["Value"] for page in pages for each in page["Parameters"]]
    assert ssm.get_parameters_by_path(Path="/aws/service/celaje")["Parameters"] == []
    inside = ssm.get_parameters_by_path(Path="/aws/service/celaje/testing-mini/latest/")["Parameters"]
    assert [each["Value"] for each in inside] == [image]
