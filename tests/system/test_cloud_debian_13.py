"""debian-13 as an instance: what Debian's own cloud-init, ssh and curl make of the cloud's metadata, keys and S3."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest

from celaje import paths
from tests.system import cloud_host as clouds
from tests.system.cloud_host import CloudHost, cloud_host, ssh, until_state

LOGIN_SECONDS = 1500.0
ROOT_GIB = 4
SCRIPT = "#!/bin/sh\nid -un > /root/script-ran\n"
CONFIG = """#cloud-config
write_files:
- path: /etc/config-ran
  content: written
runcmd:
- id -un > /root/command-ran
"""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
# What a program of an instance does that has no SDK: credentials of the role, and a request that curl signs.
SIGNED = """
set -eu
imds=http://169.254.169.254/latest
token=$(curl -sf -X PUT $imds/api/token -H "X-aws-ec2-metadata-token-ttl-seconds: 60")
about() { curl -sf -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/$1"; }
credentials=$(about iam/security-credentials/$(about iam/security-credentials/))
of() { echo "$credentials" | python3 -c "import json, sys; print(json.load(sys.stdin)[\\"$1\\"])"; }
signed() {
    curl -s --aws-sigv4 aws:amz:REGION:s3 --user "$(of AccessKeyId):$(of SecretAccessKey)" \\
        -H "X-Amz-Security-Token: $(of Token)" "$@"
}
bucket=http://169.254.169.250:PORT/for-instances
"""
FETCH = "signed -f $bucket/told.txt\n"
ANSWER = "signed -o /dev/null -w '%{http_code}' -X PUT --data-binary 'told from inside' $bucket/answer.txt\n"

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


@pytest.fixture
def cloud(built_image: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudHost]:
    monkeypatch.setattr(clouds, "SECONDS", LOGIN_SECONDS)
    with cloud_host(paths.home(), built_image("debian-13")) as host:
        yield host


@pytest.fixture
def key(tmp_path: Path, tool: Callable[[str], str]) -> Path:
    path = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def profile_for_instances(iam: Any) -> str:
    """An instance profile with a role, as a client of AWS makes it; its name."""
    iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.attach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    iam.create_instance_profile(InstanceProfileName="reader")
    iam.add_role_to_instance_profile(InstanceProfileName="reader", RoleName="reader")
    return "reader"


def test_debian_13_comes_up_as_on_ec2_and_reaches_s3_with_its_role(cloud: CloudHost, key: Path) -> None:
    ec2, s3 = cloud.client(), cloud.client("s3")
    s3.create_bucket(Bucket="for-instances")
    s3.put_object(Bucket="for-instances", Key="told.txt", Body=b"told from outside\n")
    ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
    [group] = ec2.describe_security_groups()["SecurityGroups"]
    ec2.authorize_security_group_ingress(
        GroupId=group["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
    )
    user_data = MIMEMultipart()
    user_data.attach(MIMEText(SCRIPT, "x-shellscript"))
    user_data.attach(MIMEText(CONFIG, "cloud-config"))
    image = cloud.image(ec2)
    [described] = ec2.describe_images(ImageIds=[image])["Images"]
    [launched] = ec2.run_instances(
        ImageId=image,
        InstanceType="t3.micro",
        KeyName="mine",
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": profile_for_instances(cloud.client("iam"))},
        UserData=user_data.as_string(),
        MetadataOptions={"HttpTokens": "required"},
        BlockDeviceMappings=[{"DeviceName": described["RootDeviceName"], "Ebs": {"VolumeSize": ROOT_GIB}}],
    )["Instances"]
    instance = launched["InstanceId"]
    until_state(ec2, instance, "running")

    status = ssh(key, instance, "cloud-init status --wait --long").splitlines()
    assert "status: done" in status
    assert "errors: []" in status
    assert any("DataSourceEc2" in line for line in status)
    facts = ssh(
        key,
        instance,
        "hostname; id -un; cloud-init query instance_id; sudo cat /root/script-ran /etc/config-ran; "
        "echo; sudo cat /root/command-ran",
    )
    host = launched["PrivateDnsName"].partition(".")[0]
    assert facts.split() == [host, "admin", instance, "root", "written", "root"]
    assert int(ssh(key, instance, "df --output=size -m / | tail -n 1")) > (ROOT_GIB - 0.5) * 1024
    assert ssh(key, instance, "systemctl --failed --no-legend --plain") == ""
    # Tokens are required: version 1 is refused.
    refused = ssh(key, instance, "curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/")
    assert refused == "401"

    signed = SIGNED.replace("REGION", clouds.REGION).replace("PORT", str(cloud.port))
    assert ssh(key, instance, signed + FETCH) == "told from outside\n"
    # The role may read and no more, until its policies say otherwise.
    assert ssh(key, instance, signed + ANSWER) == "403"
    cloud.client("iam").attach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    assert ssh(key, instance, signed + ANSWER) == "200"
    assert s3.get_object(Bucket="for-instances", Key="answer.txt")["Body"].read() == b"told from inside"

    ec2.terminate_instances(InstanceIds=[instance])
    until_state(ec2, instance, "terminated")
