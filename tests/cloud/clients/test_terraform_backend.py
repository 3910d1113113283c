"""Terraform's state in a bucket, locked by objects (backend "s3" with use_lockfile). It needs no provider."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cloud.served import REGION, Owner

CONFIGURATION = """
terraform {
  backend "s3" {
    bucket         = "BUCKET"
    key            = "some/terraform.tfstate"
    region         = "us-east-1"
    use_path_style = true
    use_lockfile   = true
    encrypt        = true
  }
}
variable "text" { default = "first" }
resource "terraform_data" "one" { input = var.text }
output "said" { value = terraform_data.one.output }
"""


class Terraform:
    """The command in a folder of its own."""

    def __init__(self, owner: Owner, bucket: str, directory: Path) -> None:
        (directory / "main.tf").write_text(CONFIGURATION.replace("BUCKET", bucket))
        (directory / "terraformrc").write_text("disable_checkpoint = true\n")
        self._directory = directory
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{owner.cloud.port}",
            "AWS_ACCESS_KEY_ID": owner.key,
            "AWS_SECRET_ACCESS_KEY": owner.secret,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "TF_CLI_CONFIG_FILE": str(directory / "terraformrc"),
            "TF_IN_AUTOMATION": "1",
            "HOME": str(directory),
        }

    def run(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["terraform", *words, "-no-color"],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout


@pytest.fixture
def bucket(owner: Owner) -> str:
    name = f"states-{owner.account}"
    s3 = owner.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def terraform(owner: Owner, bucket: str, tmp_path: Path) -> Terraform:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    return Terraform(owner, bucket, tmp_path)


def test_a_state_is_kept_in_a_bucket_with_its_versions_and_workspaces(
    owner: Owner, bucket: str, terraform: Terraform
) -> None:
    s3 = owner.client("s3")
    terraform.run("init", "-input=false")
    terraform.run("apply", "-auto-approve")
    terraform.run("apply", "-auto-approve", "-var=text=second")
    got = s3.get_object(Bucket=bucket, Key="some/terraform.tfstate")
    assert json.load(got["Body"])["outputs"]["said"]["value"] == "second"
    assert got["ServerSideEncryption"] == "AES256"
    versions = s3.list_object_versions(Bucket=bucket, Prefix="some/terraform.tfstate")["Versions"]
    assert len([each for each in versions if each["Key"] == "some/terraform.tfstate"]) >= 2
    terraform.run("workspace", "new", "other")
    terraform.run("apply", "-auto-approve", "-var=text=other")
    keys = {each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert keys == {"some/terraform.tfstate", "env:/other/some/terraform.tfstate"}
    terraform.run("workspace", "select", "default")
    assert json.loads(terraform.run("output", "-json"))["said"]["value"] == "second"


def test_a_state_that_somebody_has_locked_is_not_changed(owner: Owner, bucket: str, terraform: Terraform) -> None:
    s3 = owner.client("s3")
    terraform.run("init", "-input=false")
    terraform.run("apply", "-auto-approve")
    lock = {"ID": "00000000-0000-0000-0000-000000000000", "Operation": "OperationTypeApply", "Who": "somebody@else"}
    s3.put_object(Bucket=bucket, Key="some/terraform.tfstate.tflock", Body=json.dumps(lock))
    said = terraform.run("apply", "-auto-approve", "-var=text=second", fails=True)
    assert "Error acquiring the state lock" in said
    assert "PreconditionFailed" in said
    assert lock["ID"] in said
    terraform.run("force-unlock", "-force", lock["ID"])
    assert json.loads(terraform.run("output", "-json"))["said"]["value"] == "first"
    terraform.run("apply", "-auto-approve", "-var=text=second")
    assert json.loads(terraform.run("output", "-json"))["said"]["value"] == "second"
