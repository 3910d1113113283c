"""A cloud with a real guest, from the first request to the last; and with its processes killed in between."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje import paths
from celaje.cli import command
from celaje.cloud.reconcile.cpu_shares import INSTANCES, own_group
from celaje.disk.volumes import VolumeStore
from celaje.host import record
from celaje.host.record import MachineDirectory
from celaje.network import spawn
from tests.system.cloud_host import CloudHost, cloud_host, kill, ssh, ssh_command, state, until, until_state
from tests.system.instance_role import role_acts_from_within_as_its_policies_say


@pytest.fixture
def cloud(tmp_path: Path, built_image: Callable[[str], Path]) -> Iterator[CloudHost]:
    with cloud_host(paths.home(), built_image("debian-mini")) as host:
        yield host


@pytest.fixture
def key(tmp_path: Path, tool: Callable[[str], str]) -> Path:
    path = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def opened_to_ssh(cloud: CloudHost, key: Path) -> dict[str, object]:
    """What a launch needs so that ssh reaches it."""
    ec2 = cloud.client()
    ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
    [group] = ec2.describe_security_groups()["SecurityGroups"]
    ec2.authorize_security_group_ingress(
        GroupId=group["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
    )
    return {"ImageId": cloud.image(ec2), "InstanceType": "t3.nano", "KeyName": "mine", "MinCount": 1, "MaxCount": 1}


def group_of(instance: str) -> Path | None:
    """The control group that an instance's machine is in, which holds it to two CPUs; None where there can be none."""
    own = own_group()
    if own is None or own.version == 2:  # which the daemon may be unable to use: tests' own processes are in it
        return None
    group = own.path / INSTANCES / instance
    assert str(MachineDirectory.of(instance).holder()) in (group / "cgroup.procs").read_text().split()
    assert int((group / "cpu.cfs_quota_us").read_text()) == 2 * int((group / "cpu.cfs_period_us").read_text())
    return group


def typed(capsys: pytest.CaptureFixture[str], *words: str, fails: int = 0) -> str:
    """What is said after these words were typed after `celaje`."""
    status = command.main(list(words))
    said = capsys.readouterr()
    assert status == fails, said
    return said.out + said.err


def test_an_instance_from_launch_to_termination(
    cloud: CloudHost, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ec2 = cloud.client()
    request = opened_to_ssh(cloud, key)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}]}]
    answer = ec2.run_instances(
        **request,
        TagSpecifications=tags,
        MetadataOptions={"InstanceMetadataTags": "enabled"},
        UserData="#!/bin/sh\necho told > /tmp/told\n",
    )
    instance = answer["Instances"][0]["InstanceId"]
    until_state(ec2, instance, "running")
    about = "http://169.254.169.254/latest"
    facts = ssh(
        key,
        instance,
        # A guest answers SSH without waiting for what its user data does.
        f"until grep -s . /tmp/told; do sleep 0.2; done; wget -qO- {about}/meta-data/tags/instance/Name; echo; "
        f"wget -qO- {about}/meta-data/instance-id; echo; wget -qO- {about}/dynamic/instance-identity/document",
    )
    assert facts.splitlines()[:3] == ["told", "web", instance]
    assert '"region": "us-east-1"' in facts

    def checked() -> bool:
        [told] = ec2.describe_instance_status(InstanceIds=[instance])["InstanceStatuses"]
        return bool(told["InstanceStatus"]["Status"] == told["SystemStatus"]["Status"] == "ok")

    until(checked, "the status checks")
    assert ec2.get_console_output(InstanceId=instance)["Output"]
    group = group_of(instance)
    role_acts_from_within_as_its_policies_say(cloud, key, instance)
    ssh(key, instance, "echo kept > kept; sync")
    assert typed(capsys, "console", "web").strip()
    assert typed(capsys, "image", "create", "web", "copy", "--no-reboot").startswith("copy is the image ami-")
    [copy] = [one for one in json.loads(typed(capsys, "image", "ls", "--json")) if one["Name"] == "copy"]
    assert (copy["State"], copy["Public"]) == ("available", False)
    assert typed(capsys, "image", "rm", "copy") == "copy is deregistered\n"
    assert typed(capsys, "stop", "web") == "web is stopped\n"
    assert state(ec2, instance) == "stopped"
    assert "is stopped; start it: celaje start web" in typed(capsys, "ssh", "web", fails=2)
    assert MachineDirectory.of(instance).holder() is None
    assert group is None or not group.exists()
    assert ec2.get_console_output(InstanceId=instance)["Output"]
    assert typed(capsys, "start", "web") == "web is running\n"
    assert state(ec2, instance) == "running"
    assert ssh(key, instance, "cat kept") == "kept\n"
    # The connection may end before it is told that the command has.
    subprocess.run([*ssh_command(key, instance), "sudo poweroff"], capture_output=True, check=False)
    until_state(ec2, instance, "stopped")
    [reservation] = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    assert reservation["Instances"][0]["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert typed(capsys, "terminate", instance) == f"{instance} is terminated\n"
    assert "there is no instance 'web'" in typed(capsys, "terminate", "web", fails=2)
    until(lambda: not ec2.describe_volumes()["Volumes"], "the end of its volume")
    assert record.names() == []
    assert VolumeStore().names() == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert cloud.down() == 0


def test_instances_run_on_while_the_daemon_is_away_and_are_adopted(cloud: CloudHost, key: Path) -> None:
    ec2 = cloud.client()
    request = opened_to_ssh(cloud, key)
    first, second = (ec2.run_instances(**request)["Instances"][0]["InstanceId"] for _ in range(2))
    for instance in (first, second):
        until_state(ec2, instance, "running")
    boots = ssh(key, first, "cat /proc/sys/kernel/random/boot_id")
    process = MachineDirectory.of(first).holder()
    cloud.kill()
    assert ssh(key, first, "cat /proc/sys/kernel/random/boot_id") == boots
    other = MachineDirectory.of(second).holder()
    assert other is not None
    kill(other)  # while nobody looks
    cloud.up()
    ec2 = cloud.client()
    assert state(ec2, first) == "running"
    assert MachineDirectory.of(first).holder() == process
    until(lambda: MachineDirectory.of(second).holder() not in (None, other), "the second's recovery")
    ssh(key, second, "true")
    assert ssh(key, first, "cat /proc/sys/kernel/random/boot_id") == boots


def test_what_was_acknowledged_is_done_whatever_is_killed(cloud: CloudHost, key: Path) -> None:
    ec2 = cloud.client()
    request = opened_to_ssh(cloud, key)
    instance = ec2.run_instances(**request)["Instances"][0]["InstanceId"]
    cloud.kill()  # at once: nothing of it has been made, or half of it
    cloud.up()
    ec2 = cloud.client()
    until_state(ec2, instance, "running")
    ssh(key, instance, "true")
    [network] = cloud.networks()
    with_pid = int((spawn.lock_path(network)).read_text().split()[0])
    kill(with_pid)
    ssh(key, instance, "true")  # its machine has started another one, and has the same place in it
    ec2.terminate_instances(InstanceIds=[instance])
    cloud.kill()
    cloud.up()
    ec2 = cloud.client()
    until_state(ec2, instance, "terminated")
    assert record.names() == []
    until(lambda: VolumeStore().names() == [], "the end of its volume")


def test_a_second_daemon_of_one_home_is_refused(cloud: CloudHost, capfd: pytest.CaptureFixture[str]) -> None:
    second = CloudHost.__new__(CloudHost)
    second.__dict__ |= {**cloud.__dict__, "process": None}
    with pytest.raises(AssertionError, match="the daemon has ended"):
        second.up()
    assert "runs in" in capfd.readouterr().err
    assert cloud.client().describe_regions()["Regions"]
