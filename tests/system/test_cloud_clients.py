"""Clients that others wrote, unchanged, with real machines: Ansible, libcloud, boto3's waiters. Terraform has a file of
its own, test_terraform.py.

Where a client is not installed (make clients), its test skips and says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celaje import paths
from tests.system.cloud_host import REGION, CloudHost, cloud_host

_HERE = Path(__file__).resolve().parent
_WAIT = {"Delay": 2, "MaxAttempts": 200}


@pytest.fixture
def cloud(built_image: Callable[[str], Path]) -> Iterator[CloudHost]:
    with cloud_host(paths.home(), built_image("debian-mini")) as host:
        host.image(host.client())
        yield host


@pytest.fixture
def environment(cloud: CloudHost, tmp_path: Path) -> dict[str, str]:
    return cloud.client_environment(tmp_path)


class Playbooks:
    """Ansible, as a command."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self._program = Path(sys.executable).with_name("ansible-playbook")
        key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self._variables = {
            "public_key": key.with_suffix(".pub").read_text().strip(),
            "image_name": "debian-mini",
            "ansible_python_interpreter": sys.executable,
        }
        self._environment = environment | {
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
        }

    def run(self, playbook: str, *words: str) -> list[str]:
        """The tasks that have changed something."""
        variables = json.dumps(self._variables)
        command = [self._program, "-c", "local", "-e", variables, *words, _HERE / "ansible" / playbook]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, stdin=subprocess.DEVNULL)
        assert "{" in done.stdout, done.stdout + done.stderr
        told = json.loads(done.stdout[done.stdout.index("{") :])
        tasks = [(task["task"]["name"], task["hosts"]["localhost"]) for play in told["plays"] for task in play["tasks"]]
        changed = [name for name, host in tasks if host.get("changed")]
        failed = [(name, host.get("msg"), host.get("error")) for name, host in tasks if host.get("failed")]
        assert done.returncode == 0, f"{failed}; changed before: {changed}; {done.stderr}"
        return changed


@pytest.mark.clients
def test_an_ansible_playbook_makes_its_world_once_and_takes_it_away(
    cloud: CloudHost, environment: dict[str, str], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    pytest.importorskip("ansible_collections.amazon", reason="Ansible is not installed (make clients)")
    tool("ssh-keygen")
    ansible = Playbooks(environment, tmp_path)
    ec2 = cloud.client()
    made = ansible.run("present.yml")
    for noun in ("VPC", "subnet", "route table", "security group", "instance", "elastic address", "image", "object"):
        assert noun in made
    [reservation] = ec2.describe_instances()["Reservations"]
    [instance] = reservation["Instances"]
    assert (instance["State"]["Name"], instance["KeyName"]) == ("running", "ansible")
    assert {tag["Key"] for tag in instance["Tags"]} == {"Name", "Stage", "Owner"}
    assert [image["State"] for image in ec2.describe_images(Owners=["self"])["Images"]] == ["available"]
    assert ansible.run("present.yml", "--skip-tags", "told") == []
    ansible.run("absent.yml")
    assert ec2.describe_volumes()["Volumes"] == ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert ec2.describe_addresses()["Addresses"] == ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert [vpc["IsDefault"] for vpc in ec2.describe_vpcs()["Vpcs"]] == [True]
    assert cloud.client("s3").list_buckets()["Buckets"] == []


def test_libcloud_and_waiters_follow_an_instance_through_its_life(
    cloud: CloudHost, environment: dict[str, str]
) -> None:
    pytest.importorskip("libcloud", reason="apache-libcloud is not installed (make clients)")
    from libcloud.compute.providers import get_driver
    from libcloud.compute.types import NodeState, Provider

    key, secret = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    about: dict[str, Any] = {"region": REGION, "host": "127.0.0.1", "port": cloud.port, "secure": False}
    driver = get_driver(Provider.EC2)(key, secret, signature_version="4", **about)
    ec2 = cloud.client()
    [image] = driver.list_images(ex_filters={"name": "debian-mini"})
    [size] = [size for size in driver.list_sizes() if size.id == "t3.nano"]
    zone = driver.list_locations()[0]
    node = driver.create_node(name="web", image=image, size=size, location=zone, ex_metadata={"stage": "test"})
    [(running, addresses)] = driver.wait_until_running([node], wait_period=1, timeout=280)
    assert (running.state, addresses) == (NodeState.RUNNING, running.public_ips)
    volume = driver.create_volume(1, "data", location=zone)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume.id], WaiterConfig=_WAIT)
    assert driver.attach_volume(node, volume, "/dev/sdf")
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume.id], WaiterConfig=_WAIT)
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=[node.id], WaiterConfig=_WAIT)
    assert driver.ex_get_console_output(node)["output"]
    assert driver.reboot_node(node)
    snapshot = driver.create_volume_snapshot(volume, "of data")
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot.id], WaiterConfig=_WAIT)
    assert [each.id for each in driver.list_volume_snapshots(volume)] == [snapshot.id]
    assert driver.stop_node(node)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=[node.id], WaiterConfig=_WAIT)
    assert driver.detach_volume(volume)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume.id], WaiterConfig=_WAIT)
    made = driver.create_image(node, "of-web", "of the stopped node")
    ec2.get_waiter("image_available").wait(ImageIds=[made.id], WaiterConfig=_WAIT)
    assert driver.start_node(node)
    ec2.get_waiter("instance_running").wait(InstanceIds=[node.id], WaiterConfig=_WAIT)
    assert driver.destroy_node(node)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[node.id], WaiterConfig=_WAIT)
    assert driver.delete_image(made)
    assert driver.destroy_volume_snapshot(snapshot)
    assert driver.destroy_volume(volume)
    ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume.id], WaiterConfig=_WAIT)
