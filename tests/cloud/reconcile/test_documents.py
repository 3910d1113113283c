"""What instances' networks and guests are told, computed from what clients have asked for."""

from __future__ import annotations

import base64
import datetime
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509 import load_pem_x509_certificate

from celaje.cloud.reconcile.identity_documents import Signer, identity_document
from celaje.cloud.reconcile.interface_documents import vpc_groups
from celaje.cloud.reconcile.networks import Documents
from celaje.cloud.reconcile.role_sessions import LIFE, RENEWED, RoleSessions
from celaje.cloud.state.hosts import LOCAL, Host
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.zones import public_name_inside
from celaje.network.messages import Attach, Rule
from tests.cloud.ec2.acting import NOW
from tests.cloud.served import REGION, Owner, ServedCloud
from tests.system.tiny_image import AMI, register_tiny_image

IDENTITY = "dynamic/instance-identity"


@pytest.fixture
def documents(served_cloud: ServedCloud, tmp_path: Path) -> Documents:
    register_tiny_image(served_cloud.database, served_cloud.root.account, REGION)
    with served_cloud.database.write() as session:
        session.merge(Host(id=LOCAL, memory=1 << 30, cpus=1 << 20, architectures="riscv64", noted=NOW))
    return Documents(served_cloud.settings, tmp_path)


def launched(ec2: Any, **request: Any) -> str:
    answer = ec2.run_instances(ImageId=AMI, InstanceType="t3.nano", MinCount=1, MaxCount=1, **request)
    return str(answer["Instances"][0]["InstanceId"])


def document(served_cloud: ServedCloud, documents: Documents, instance: str) -> Attach:
    with served_cloud.database.read() as session:
        return documents.one(session, session.get_one(Instance, instance))[0]


def leaves(served_cloud: ServedCloud, documents: Documents, instance: str) -> dict[str, str]:
    told = document(served_cloud, documents, instance).metadata
    assert told is not None
    return told.extra


def test_an_interface_has_the_place_that_clients_are_told(
    served_cloud: ServedCloud, documents: Documents, ec2: Any
) -> None:
    instance = launched(ec2)
    [reservation] = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    [shown] = reservation["Instances"]
    found = document(served_cloud, documents, instance)
    [subnet] = ec2.describe_subnets(SubnetIds=[shown["SubnetId"]])["Subnets"]
    assert (found.interface, found.network.name) == (instance, shown["VpcId"])
    assert (found.address, found.subnet) == (shown["PrivateIpAddress"], subnet["CidrBlock"])
    assert found.public_address == shown["PublicIpAddress"]
    assert f"{found.host_name}.{found.network.domain}" == shown["PrivateDnsName"]
    assert [group.name for group in found.groups] == [shown["SecurityGroups"][0]["GroupId"]]
    [service] = found.services
    assert (service.address, service.host_port) == ("169.254.169.250", served_cloud.settings.port)
    assert service.host_address == "127.169.254.250"  # where the API knows guests from who owns the host
    assert found.bandwidth.to_guest == 5_000_000_000 // 8


def test_public_names_are_of_awss_form_where_the_vpc_gives_any(
    served_cloud: ServedCloud, documents: Documents, ec2: Any
) -> None:
    instance = launched(ec2, PrivateIpAddress="172.31.9.8")
    [reservation] = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    [shown] = reservation["Instances"]
    [interface] = shown["NetworkInterfaces"]
    card = interface["NetworkInterfaceId"]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=card, PrivateIpAddresses=["172.31.9.9"])
    made = ec2.allocate_address()
    ec2.associate_address(AllocationId=made["AllocationId"], NetworkInterfaceId=card, PrivateIpAddress="172.31.9.9")

    def names() -> list[str | None]:
        found = document(served_cloud, documents, instance)
        return [found.public_name, *(one.public_name for one in found.secondary)]

    given = [
        f"ec2-{one.replace('.', '-')}.compute-1.amazonaws.com" for one in (shown["PublicIpAddress"], made["PublicIp"])
    ]
    assert names() == given
    for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
        ec2.modify_vpc_attribute(VpcId=shown["VpcId"], **{attribute: {"Value": False}})
        assert names() == [None, None]
        ec2.modify_vpc_attribute(VpcId=shown["VpcId"], **{attribute: {"Value": True}})
    assert names() == given
    assert public_name_inside("eu-west-1", "198.51.100.4") == "ec2-198-51-100-4.eu-west-1.compute.amazonaws.com"


def test_groups_of_a_vpc_stand_with_their_rules(served_cloud: ServedCloud, documents: Documents, ec2: Any) -> None:
    [group] = ec2.describe_security_groups()["SecurityGroups"]
    ec2.authorize_security_group_ingress(
        GroupId=group["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="10.0.0.0/8"
    )
    with served_cloud.database.read() as session:
        [found] = vpc_groups(session, group["VpcId"])
    assert found.name == group["GroupId"]
    assert Rule("in", "tcp", "10.0.0.0/8", 22, 22) in found.rules
    assert Rule("in", "any", f"group:{group['GroupId']}") in found.rules
    assert Rule("out", "any") in found.rules


def test_a_guest_is_told_what_its_owner_said(served_cloud: ServedCloud, documents: Documents, ec2: Any) -> None:
    key = ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    assert key["KeyMaterial"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}, {"Key": "a/b", "Value": "no"}]}]
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 3, "InstanceMetadataTags": "enabled"}
    instance = launched(ec2, KeyName="mine", UserData="#!/bin/sh\n", TagSpecifications=tags, MetadataOptions=options)
    told = document(served_cloud, documents, instance).metadata
    assert told is not None
    assert told.user_data == b"#!/bin/sh\n"
    assert list(told.public_keys) == ["mine"]
    assert told.public_keys["mine"].startswith("ssh-ed25519 ")
    assert (told.tokens_required, told.hop_limit, told.enabled) == (True, 3, True)
    assert told.extra["tags/instance/Name"] == "web"
    assert not any("a/b" in path for path in told.extra)  # no path can have that key
    ec2.modify_instance_metadata_options(InstanceId=instance, HttpEndpoint="disabled", InstanceMetadataTags="disabled")
    told = document(served_cloud, documents, instance).metadata
    assert told is not None
    assert not told.enabled
    assert not any(path.startswith("tags/") for path in told.extra)


def test_what_cloud_init_and_sdks_ask_for_is_there(served_cloud: ServedCloud, documents: Documents, ec2: Any) -> None:
    instance = launched(ec2)
    found = leaves(served_cloud, documents, instance)
    assert found["placement/region"] == REGION
    assert found["placement/availability-zone"] == "us-east-1a"
    assert found["placement/availability-zone-id"] == "use1-az1"
    assert found["block-device-mapping/root"] == "/dev/sda1"
    assert (found["ami-id"], found["instance-type"]) == (AMI, "t3.nano")
    assert found["services/domain"] == "amazonaws.com"
    mac = document(served_cloud, documents, instance).mac
    for leaf in ("interface-id", "owner-id", "subnet-id", "vpc-id", "security-group-ids", "vpc-ipv4-cidr-blocks"):
        assert found[f"network/interfaces/macs/{mac}/{leaf}"]
    assert not any(path.startswith("iam/") for path in found)


def role(owner: Owner, service: str, name: str) -> None:
    iam = owner.client("iam")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", **trust}))
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def test_the_credentials_of_a_role_sign_as_that_role(
    served_cloud: ServedCloud, documents: Documents, owner: Owner, ec2: Any
) -> None:
    role(owner, "ec2.amazonaws.com", "reader")
    instance = launched(ec2, IamInstanceProfile={"Name": "reader"})
    found = leaves(served_cloud, documents, instance)
    assert found == leaves(served_cloud, documents, instance)  # not other ones each time
    assert json.loads(found["iam/info"])["InstanceProfileArn"].endswith(":instance-profile/reader")
    keys = json.loads(found["iam/security-credentials/reader"])
    sts = boto3.client(
        "sts",
        endpoint_url=f"http://127.0.0.1:{served_cloud.port}",
        region_name=REGION,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["Token"],
    )
    assert sts.get_caller_identity()["Arn"].endswith(f":assumed-role/reader/{instance}")


def test_a_role_that_does_not_trust_ec2_gives_no_credentials(
    served_cloud: ServedCloud, documents: Documents, owner: Owner, ec2: Any
) -> None:
    role(owner, "lambda.amazonaws.com", "function")
    instance = launched(ec2, IamInstanceProfile={"Name": "function"})
    assert not any(path.startswith("iam/") for path in leaves(served_cloud, documents, instance))


def test_credentials_are_renewed_long_before_they_expire(
    served_cloud: ServedCloud, documents: Documents, owner: Owner, ec2: Any
) -> None:
    role(owner, "ec2.amazonaws.com", "long")
    instance = launched(ec2, IamInstanceProfile={"Name": "long"})
    sessions = RoleSessions()
    with served_cloud.database.read() as session:
        rows = [session.get_one(Instance, instance)]
        first = sessions.of(session, rows, NOW)[instance]
        assert sessions.of(session, rows, NOW + LIFE - RENEWED - datetime.timedelta(seconds=1))[instance] == first
        assert sessions.next(NOW) == (LIFE - RENEWED).total_seconds()
        later = sessions.of(session, rows, NOW + LIFE - RENEWED)[instance]
    assert later.keys.access_key != first.keys.access_key
    sessions.keep([])
    assert sessions.next(NOW) is None


def test_an_identity_document_is_signed_by_the_regions_certificate(tmp_path: Path) -> None:
    text = identity_document(
        account="1" * 12,
        architecture="riscv64",
        zone="us-east-1a",
        image=AMI,
        instance="i-0123456789abcdef0",
        instance_type="t3.nano",
        launched=NOW,
        private_address="172.31.0.9",
        region=REGION,
    )
    signer = Signer(tmp_path, REGION)
    found = signer.leaves(text)
    certificate = load_pem_x509_certificate(signer.certificate())
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)
    key.verify(base64.b64decode(found[f"{IDENTITY}/signature"]), text.encode(), padding.PKCS1v15(), SHA256())
    signed = base64.b64decode(found[f"{IDENTITY}/pkcs7"])
    assert pkcs7.load_der_pkcs7_certificates(signed) == [certificate]
    assert text.encode() in signed
    assert json.loads(found[f"{IDENTITY}/document"])["pendingTime"] == "2026-11-25T12:00:00Z"
    [path] = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer(tmp_path, REGION).certificate() == signer.certificate()
