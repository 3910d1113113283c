"""Clients that others wrote, unchanged, with real machines: Ansible, libcloud, Terraform, boto3's waiters.

Where a client is not installed (make clients), its test skips and says so.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
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
    """What every client of AWS reads: where to, and who asks."""
    profile = configparser.RawConfigParser()
    profile.read(cloud.directory / "credentials")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{cloud.port}",
        "AWS_ACCESS_KEY_ID": profile["root"]["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": profile["root"]["aws_secret_access_key"],
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "HOME": str(tmp_path),
    }


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


@pytest.fixture
def terraform() -> tuple[str, Path]:
    """The command, and the folder that has its AWS provider: nothing is fetched."""
    command = shutil.which("terraform")
    if command is None:
        pytest.skip("terraform is not installed")
    plugins = Path(os.environ.get("TF_PLUGIN_DIRECTORY", Path.home() / ".terraform.d" / "plugins"))
    if not list(plugins.glob("**/terraform-provider-aws*")):
        pytest.skip(f"Terraform's AWS provider is not in {plugins} (TF_PLUGIN_DIRECTORY names another folder)")
    return command, plugins


def test_terraform_applies_plans_nothing_more_and_destroys(
    terraform: tuple[str, Path],
    cloud: CloudHost,
    environment: dict[str, str],
    tmp_path: Path,
    tool: Callable[[str], str],
) -> None:
    command, plugins = terraform
    key = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    work = tmp_path / "work"
    shutil.copytree(_HERE / "terraform", work)
    variables = {"TF_VAR_public_key": key.with_suffix(".pub").read_text().strip(), "TF_VAR_image_name": "debian-mini"}
    about = environment | variables | {"TF_IN_AUTOMATION": "1", "TF_CLI_CONFIG_FILE": os.devnull}

    def run(verb: str, *words: str) -> None:
        line = [command, verb, "-no-color", "-input=false", *words]
        done = subprocess.run(line, cwd=work, env=about, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    run("init", f"-plugin-dir={plugins}")
    try:
        run("apply", "-auto-approve")
        run("plan", "-detailed-exitcode")  # 2: there would be changes
    finally:
        run("destroy", "-auto-approve")
    ec2 = cloud.client()
    assert [vpc["IsDefault"] for vpc in ec2.describe_vpcs()["Vpcs"]] == [True]
    assert ec2.describe_volumes()["Volumes"] == ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
