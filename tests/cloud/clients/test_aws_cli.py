"""The AWS CLI's usual commands of EC2, IAM, STS and SSM (those of S3: tests/cloud/s3/test_clients.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.cloud.served import REGION, Owner

pytest.importorskip("awscli", reason="awscli is not installed (make clients)")

_COMMAND = [sys.executable, "-c", "import sys; from awscli.clidriver import main; sys.exit(main())"]
Aws = Callable[..., Any]


@pytest.fixture
def aws(owner: Owner) -> Aws:
    """What a command answers; what it says, with its status, where it fails."""
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{owner.cloud.port}",
        "AWS_ACCESS_KEY_ID": owner.key,
        "AWS_SECRET_ACCESS_KEY": owner.secret,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_DEFAULT_OUTPUT": "json",
        "AWS_PAGER": "",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }

    def run(*words: str, fails: bool = False) -> Any:
        done = subprocess.run([*_COMMAND, *words], capture_output=True, text=True, env=environment)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else json.loads(done.stdout or "null")

    return run


def test_what_the_cli_launches_it_describes_and_terminates(aws: Aws, image: str) -> None:
    aws("ec2", "create-key-pair", "--key-name", "cli")
    group = aws("ec2", "create-security-group", "--group-name", "cli", "--description", "of the CLI")["GroupId"]
    aws("ec2", "authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "22",
        "--cidr", "0.0.0.0/0")  # fmt: skip
    [instance] = aws(
        "ec2", "run-instances", "--image-id", image, "--instance-type", "t3.nano", "--key-name", "cli",
        "--security-group-ids", group, "--user-data", "#!/bin/sh\ntrue\n",
        "--block-device-mappings", "DeviceName=/dev/sdf,Ebs={VolumeSize=1}",
        "--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=cli}]",
    )["Instances"]  # fmt: skip
    told = aws("ec2", "describe-instances", "--filters", "Name=tag:Name,Values=cli", "--query",
               "Reservations[].Instances[].[InstanceId,KeyName,SecurityGroups[0].GroupId,State.Name]")  # fmt: skip
    assert told == [[instance["InstanceId"], "cli", group, "pending"]]
    [changed] = aws("ec2", "terminate-instances", "--instance-ids", instance["InstanceId"])["TerminatingInstances"]
    assert changed["CurrentState"]["Name"] == "shutting-down"


def test_the_cli_reads_page_by_page(aws: Aws) -> None:
    for number in range(7):
        aws("ec2", "create-volume", "--size", "1", "--availability-zone", "us-east-1a",
            "--tag-specifications", f"ResourceType=volume,Tags=[{{Key=Name,Value=v{number}}}]")  # fmt: skip
    whole = aws("ec2", "describe-volumes", "--page-size", "5")["Volumes"]
    assert sorted(tag["Value"] for volume in whole for tag in volume["Tags"]) == [f"v{number}" for number in range(7)]
    part = aws("ec2", "describe-volumes", "--max-items", "3")
    rest = aws("ec2", "describe-volumes", "--starting-token", part["NextToken"])
    assert len(part["Volumes"]) + len(rest["Volumes"]) == 7


def test_identities_and_who_asks(aws: Aws, owner: Owner) -> None:
    assert aws("sts", "get-caller-identity")["Account"] == owner.account
    aws("iam", "create-user", "--user-name", "ann")
    aws("iam", "create-access-key", "--user-name", "ann")
    assert [user["UserName"] for user in aws("iam", "list-users")["Users"]] == ["ann"]
    assert len(aws("iam", "list-access-keys", "--user-name", "ann")["AccessKeyMetadata"]) == 1


def test_a_dry_run_and_a_refusal_are_told_with_their_codes(aws: Aws, image: str) -> None:
    words = ("ec2", "run-instances", "--image-id", image, "--dry-run")
    assert "DryRunOperation" in aws(*words, fails=True)
    assert "InvalidAMIID.NotFound" in aws("ec2", "run-instances", "--image-id", "ami-0fedcba9876543210", fails=True)
    assert "UnsupportedOperation" in aws("ec2", "describe-verified-access-groups", fails=True)
