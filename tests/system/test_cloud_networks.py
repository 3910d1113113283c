"""What a cloud's networks let through, with real guests: groups and addresses that change while instances run, and
accounts that do not meet."""

from __future__ import annotations

import configparser
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from celaje import paths
from tests.system.cloud_host import REGION, CloudHost, cloud_host, ssh, until, until_state

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

PORT = 8080
# What docs/network.md says of guests that are to reach each other by addresses of 127/8.
LOOPBACK_IS_SMALL = (
    "ip route add local 127.0.0.0/16 dev lo table local && ip route del local 127.0.0.0/8 dev lo table local && "
    "sysctl -qw net.ipv4.conf.all.route_localnet=1"
)
SERVER = f"#!/bin/sh\nmkdir /srv/www\necho hello > /srv/www/index.html\nhttpd -p {PORT} -h /srv/www\n"


@pytest.fixture
def cloud(tmp_path: Path, built_image: Callable[[str], Path]) -> Iterator[CloudHost]:
    with cloud_host(paths.home(), built_image("debian-mini")) as host:
        yield host


def answers(address: str) -> bool:
    """Whether the server of an instance is reached at a public address."""
    try:
        with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=5) as page:
            return bool(page.read() == b"hello\n")
    except (urllib.error.URLError, OSError):
        return False


def public_address(ec2: EC2Client, instance: str) -> str:
    """Where clients are told that an instance is."""
    [reservation] = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return str(reservation["Instances"][0]["PublicIpAddress"])


def test_groups_and_addresses_change_while_an_instance_runs(cloud: CloudHost) -> None:
    ec2 = cloud.client()
    group = ec2.create_security_group(GroupName="web", Description="of the web server")["GroupId"]
    opened: dict[str, Any] = {"GroupId": group, "IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT}
    rule = ec2.authorize_security_group_ingress(**opened, CidrIp="0.0.0.0/0")["SecurityGroupRules"][0]
    answer = ec2.run_instances(
        ImageId=cloud.image(ec2),
        InstanceType="t3.nano",
        MinCount=1,
        MaxCount=1,
        SecurityGroupIds=[group],
        UserData=SERVER,
    )
    instance = answer["Instances"][0]["InstanceId"]
    until_state(ec2, instance, "running")
    own = public_address(ec2, instance)
    until(lambda: answers(own), "the server's answer")
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    until(lambda: not answers(own), "the end of a rule that was revoked")
    ec2.authorize_security_group_ingress(**opened, CidrIp="10.0.0.0/8")
    assert not answers(own)
    ec2.authorize_security_group_ingress(**opened, CidrIp="0.0.0.0/0")
    until(lambda: answers(own), "what the new rule admits")
    made = ec2.allocate_address()
    association = ec2.associate_address(AllocationId=made["AllocationId"], InstanceId=instance)["AssociationId"]
    assert public_address(ec2, instance) == made["PublicIp"]
    until(lambda: answers(made["PublicIp"]), "the elastic address")
    until(lambda: not answers(own), "the end of the instance's own address")
    ec2.disassociate_address(AssociationId=association)
    again = public_address(ec2, instance)
    assert again not in (own, made["PublicIp"])
    until(lambda: answers(again), "an address of its own again")
    until(lambda: not answers(made["PublicIp"]), "the end of the association")
    other = ec2.create_security_group(GroupName="closed", Description="admits nothing")["GroupId"]
    ec2.modify_instance_attribute(InstanceId=instance, Groups=[other])
    until(lambda: not answers(again), "the end of the group")


def client_of(cloud: CloudHost, account: str, service: str) -> Any:
    """A client with the keys that the owner's file has of an account."""
    profiles = configparser.RawConfigParser()

    def known() -> bool:
        profiles.read(cloud.directory / "credentials")
        return profiles.has_section(account)

    until(known, f"the keys of {account}")
    return boto3.client(
        service,  # type: ignore[call-overload]  # whichever the test names
        region_name=REGION,
        endpoint_url=f"http://127.0.0.1:{cloud.port}",
        aws_access_key_id=profiles[account]["aws_access_key_id"],
        aws_secret_access_key=profiles[account]["aws_secret_access_key"],
    )


def test_instances_of_two_accounts_do_not_meet(cloud: CloudHost, tmp_path: Path, tool: Callable[[str], str]) -> None:
    key = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    made = cloud.client("organizations").create_account(AccountName="other", Email="other@example.com")
    account = made["CreateAccountStatus"]["AccountId"]
    mine, theirs = cloud.client(), client_of(cloud, "other", "ec2")
    image = cloud.image(mine)
    instances = {}
    for name, ec2, address in (("mine", mine, "172.31.5.5"), ("theirs", theirs, "172.31.5.6")):
        ec2.import_key_pair(KeyName="key", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
        [group] = ec2.describe_security_groups()["SecurityGroups"]
        ec2.authorize_security_group_ingress(
            GroupId=group["GroupId"], IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        )
        [subnet] = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1a"]}])["Subnets"]
        answer = ec2.run_instances(
            ImageId=image,
            InstanceType="t3.nano",
            MinCount=1,
            MaxCount=1,
            KeyName="key",
            SubnetId=subnet["SubnetId"],
            PrivateIpAddress=address,
            # Who is served has all that is asked for here.
            UserData=f"#!/bin/sh\n{LOOPBACK_IS_SMALL}\n{SERVER}" if name == "mine" else SERVER.replace("hello", name),
        )
        instances[name] = answer["Instances"][0]["InstanceId"]
    for ec2, instance in ((mine, instances["mine"]), (theirs, instances["theirs"])):
        until_state(ec2, instance, "running")
    until(lambda: answers(public_address(mine, instances["mine"])), "the server's answer")
    said = ssh(
        key,
        instances["theirs"],
        f"wget -T 3 -qO- http://172.31.5.5:{PORT}/ || echo unreached; "
        # A guest answers SSH without waiting for what its user data does.
        f"until wget -qO- http://172.31.5.6:{PORT}/ 2>/dev/null; do sleep 0.2; done; "
        "wget -qO- http://169.254.169.254/latest/dynamic/instance-identity/document",
    )
    assert said.splitlines()[:2] == ["unreached", "theirs"]
    assert f'"accountId": "{account}"' in said
    assert instances["mine"] not in said

    # By the public address they do, once their kernels do not take it for their own loopback's.
    public = {name: public_address(ec2, instances[name]) for name, ec2 in (("mine", mine), ("theirs", theirs))}
    asked = f"wget -T 60 -qO- http://{public['mine']}:{PORT}/"
    said = ssh(
        key,
        instances["theirs"],
        f"{asked}; sudo sh -c '{LOOPBACK_IS_SMALL}'; {asked}; "
        f"sudo ping -c 1 -W 60 {public['mine']} | grep -c ' seq='",
    )
    assert said.split() == ["theirs", "hello", "1"]
    [group] = mine.describe_security_groups()["SecurityGroups"]
    its_address = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": f"{public['theirs']}/32"}]}
    mine.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[its_address])
    everybody = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    mine.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[everybody])
    assert ssh(key, instances["theirs"], asked) == "hello\n"  # that is what rules see
    mine.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[its_address])
    refused = asked.replace("-T 60", "-T 2") + " || echo unreached"
    until(lambda: ssh(key, instances["theirs"], refused) == "unreached\n", "the end of a rule")
