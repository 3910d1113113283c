"""What a policy forbids is not had in a roundabout way: by a launch template, or by an import."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cloud.authority.test_permissions import Staff, allow, deny
from tests.cloud.belongings import TRUST
from tests.cloud.ec2.test_instances import AMI, _images  # noqa: F401  images, for all tests
from tests.cloud.served import Owner, refusal

DENIED = "UnauthorizedOperation"


@pytest.fixture
def ada(owner: Owner) -> Staff:
    return Staff(owner)


def template(owner: Owner, name: str, **data: Any) -> dict[str, Any]:
    made = {"ImageId": AMI, "InstanceType": "t3.nano"} | data
    owner.client().create_launch_template(LaunchTemplateName=name, LaunchTemplateData=made)
    return {"LaunchTemplate": {"LaunchTemplateName": name}, "MinCount": 1, "MaxCount": 1}


def test_a_template_passes_no_role_that_its_user_may_not_pass(owner: Owner, ada: Staff) -> None:
    iam = owner.client("iam")
    iam.create_role(RoleName="strong", AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName="strong")
    iam.add_role_to_instance_profile(InstanceProfileName="strong", RoleName="strong")
    asked = template(owner, "with-a-role", IamInstanceProfile={"Name": "strong"})
    ada.may(allow("ec2:*"))
    code, message = refusal(ada.client().run_instances, **asked)
    assert code == DENIED
    assert "iam:PassRole" in message
    ada.may(allow("ec2:*"), allow("iam:PassRole"))
    assert ada.client().run_instances(**asked)["Instances"]


def test_what_a_template_launches_is_asked_with_its_own_parameters(owner: Owner, ada: Staff) -> None:
    large = template(owner, "large", InstanceType="t3.micro")
    small = template(owner, "small")
    kind = {"StringEquals": {"ec2:InstanceType": "t3.micro"}}
    ada.may(allow("ec2:*"), deny("ec2:RunInstances", "arn:aws:ec2:*:*:instance/*", Condition=kind))
    assert refusal(ada.client().run_instances, **large)[0] == DENIED
    assert refusal(ada.client().run_instances, **(small | {"InstanceType": "t3.micro"}))[0] == DENIED
    assert ada.client().run_instances(**small)["Instances"]


def test_who_may_launch_one_image_launches_it_by_a_template(owner: Owner, ada: Staff) -> None:
    asked = template(owner, "of-one-image")
    others = [f"arn:aws:ec2:*:*:{sort}/*" for sort in ("instance", "volume", "network-interface", "subnet")]
    others += ["arn:aws:ec2:*:*:security-group/*", "arn:aws:ec2:*:*:launch-template/*"]
    ada.may(allow("ec2:RunInstances", [f"arn:aws:ec2:*::image/{AMI}", *others]))
    assert ada.client().run_instances(**asked)["Instances"]
    ada.may(allow("ec2:RunInstances", [f"arn:aws:ec2:*::image/{AMI}", *others[:-1]]))
    assert refusal(ada.client().run_instances, **asked)[0] == DENIED


def test_an_import_reads_no_object_that_its_user_may_not_read(owner: Owner, ada: Staff) -> None:
    asked = {"DiskContainer": {"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "secret.raw"}}}
    ada.may(allow("ec2:*"))
    code, message = refusal(ada.client().import_snapshot, **asked)
    assert code == "AccessDenied"
    assert "s3:GetObject on resource: \"arn:aws:s3:::disks/secret.raw\"" in message
    ada.may(allow("ec2:*"), allow("s3:GetObject", "arn:aws:s3:::disks/*"))
    assert ada.client().import_snapshot(**asked)["SnapshotTaskDetail"]["Status"] == "active"
    assert owner.client().import_snapshot(**asked)["SnapshotTaskDetail"]["Status"] == "active"
