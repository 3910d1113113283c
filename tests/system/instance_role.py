"""An instance's role from within its guest: credentials that version 2 of the metadata service gives, used through the
address that the cloud's API has in every network. The guest has no SDK, so ssh carries connections of one out there."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.system.cloud_host import REGION, CloudHost, ssh, ssh_command, until

API = "169.254.169.250"
BUCKET, KEY = "of-the-role", "told.txt"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
FETCH = r"""
token=$(printf 'PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n%s: 60\r\nConnection: close\r\n\r\n' \
    X-aws-ec2-metadata-token-ttl-seconds | nc 169.254.169.254 80 | tail -n 1)
about=http://169.254.169.254/latest/meta-data/iam/security-credentials
about() { wget -qO- --header "X-aws-ec2-metadata-token: $token" "$about/$1" 2>/dev/null; }
role=$(about "") && about "$role" || true
"""


def policy(*actions: str) -> str:
    """A document that allows these."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextlib.contextmanager
def through_the_guest(key: Path, instance: str, port: int) -> Iterator[int]:
    """A port here whose connections the guest makes on to the API's address in its network."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        mine = int(free.getsockname()[1])
    there = f"127.0.0.1:{mine}:{API}:{port}"
    command = [*ssh_command(key, instance), "-o", "ExitOnForwardFailure=yes", "-L", there, "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as carrier:
        assert carrier.stdin is not None
        assert carrier.stdout is not None
        carrier.stdin.write(b"up\n")
        carrier.stdin.flush()
        try:
            assert carrier.stdout.readline() == b"up\n"
            yield mine
        finally:
            carrier.kill()


def refused(call: Any, **words: Any) -> str:
    """The code with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**words)
    return str(caught.value.response["Error"]["Code"])


def role_acts_from_within_as_its_policies_say(cloud: CloudHost, key: Path, instance: str) -> None:
    """Allowed and denied by the role's policy, from the first call on after each change."""
    iam, ec2, s3 = cloud.client("iam"), cloud.client(), cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"told")
    iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(TRUST))
    named = {"RoleName": "reader", "PolicyName": "of-the-test"}
    iam.put_role_policy(**named, PolicyDocument=policy("s3:GetObject", "ec2:DescribeInstances"))
    iam.create_instance_profile(InstanceProfileName="profile")
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="reader")
    ec2.associate_iam_instance_profile(IamInstanceProfile={"Name": "profile"}, InstanceId=instance)
    given = json.loads(until(lambda: ssh(key, instance, FETCH), "the role's credentials"))

    with through_the_guest(key, instance, cloud.port) as port:

        def client(service: str, **others: str) -> Any:
            words = {
                "aws_access_key_id": given["AccessKeyId"],
                "aws_secret_access_key": given["SecretAccessKey"],
                "aws_session_token": given["Token"],
                **others,
            }
            return boto3.client(
                service,  # type: ignore[call-overload]  # whichever the test names
                region_name=REGION,
                endpoint_url=f"http://127.0.0.1:{port}",
                config=Config(retries={"total_max_attempts": 1}),
                **words,
            )

        arn = client("sts").get_caller_identity()["Arn"]
        assert arn.endswith(f":assumed-role/reader/{instance}")
        objects, instances = client("s3"), client("ec2")
        place = {"Bucket": BUCKET, "Key": KEY}
        assert objects.get_object(**place)["Body"].read() == b"told"
        assert refused(objects.put_object, **place, Body=b"mine") == "AccessDenied"
        [reservation] = instances.describe_instances()["Reservations"]
        assert reservation["Instances"][0]["InstanceId"] == instance
        assert refused(instances.describe_volumes) == "UnauthorizedOperation"
        assert refused(instances.terminate_instances, InstanceIds=[instance]) == "UnauthorizedOperation"

        iam.put_role_policy(**named, PolicyDocument=policy("s3:PutObject", "ec2:DescribeVolumes"))
        objects.put_object(**place, Body=b"from within")
        assert refused(objects.get_object, **place) == "AccessDenied"
        assert instances.describe_volumes()["Volumes"]
        assert refused(instances.describe_instances) == "UnauthorizedOperation"
        iam.delete_role_policy(**named)
        assert refused(objects.put_object, **place, Body=b"again") == "AccessDenied"
        assert refused(instances.describe_volumes) == "UnauthorizedOperation"
        assert s3.get_object(**place)["Body"].read() == b"from within"
        # Nobody's key, and the role's without its token.
        assert refused(client("ec2", aws_access_key_id="000000000000").describe_volumes) == "AuthFailure"
