"""Terraform with its AWS provider, unchanged, against a cloud with real machines: terraform/*.tf.

Nothing is fetched. Terraform is taken from PATH; its provider from CELAJE_TERRAFORM_PLUGINS, from where the command's
configuration says, or from where Terraform looks by itself. Where one of them is not there, the test skips and says so.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from celaje import paths
from tests.system.cloud_host import CloudHost, cloud_host

_HERE = Path(__file__).resolve().parent
_PROVIDER = "registry.terraform.io/hashicorp/aws"
_VERSION = "5."  # of main.tf

# What is forgotten and found again by its identifier in AWS, where the provider reads back all that it would set.
_TAKEN_OVER = (
    "aws_vpc.main",
    "aws_nat_gateway.main",
    "aws_security_group.web",
    "aws_ebs_volume.data",
    "aws_eip_association.web",
    "aws_iam_role.web",
    "aws_s3_bucket.main",
    "aws_s3_bucket_policy.main",
)


def _mirrors(environment: Mapping[str, str]) -> Iterator[Path]:
    """Folders in which a provider may lie, the likeliest first."""
    home = Path(environment.get("HOME", "/nonexistent"))
    if said := environment.get("CELAJE_TERRAFORM_PLUGINS"):
        yield Path(said)
    configuration = Path(environment.get("TF_CLI_CONFIG_FILE") or home / ".terraformrc")
    if configuration.is_file():
        for path in re.findall(r'^\s*(?:path|plugin_cache_dir)\s*=\s*"([^"]+)"', configuration.read_text(), re.M):
            yield Path(path).expanduser()
    data = [environment.get("XDG_DATA_HOME") or home / ".local/share"]
    data += (environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    yield home / ".terraform.d/plugins"
    for folder in data:
        yield Path(folder) / "terraform/plugins"


def _mirror(environment: Mapping[str, str]) -> Path | None:
    """The folder that has the provider, unpacked or packed."""
    for folder in _mirrors(environment):
        provider = folder / _PROVIDER
        unpacked, packed = f"{_VERSION}*/*/terraform-provider-aws*", f"terraform-provider-aws_{_VERSION}*.zip"
        if any(provider.glob(unpacked)) or any(provider.glob(packed)):
            return folder
    return None


class Terraform:
    """The command, in a folder with a configuration."""

    def __init__(self, command: str, work: Path, environment: dict[str, str]) -> None:
        self._command = command
        self._work = work
        self._environment = environment

    def run(self, verb: str, *words: str) -> str:
        """What it prints. AssertionError with that where it fails."""
        line = [self._command, verb, *words]
        done = subprocess.run(
            line, cwd=self._work, env=self._environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{' '.join(line[1:])}: {done.stdout[-6000:]}{done.stderr[-6000:]}"
        return done.stdout

    def state(self) -> dict[str, dict[str, Any]]:
        """The attributes of all resources by their addresses."""
        told = json.loads(self.run("show", "-json"))["values"]["root_module"]["resources"]
        return {resource["address"]: resource["values"] for resource in told}

    def plans_nothing(self, *words: str) -> None:
        """A plan that would change something ends with 2."""
        self.run("plan", "-input=false", "-detailed-exitcode", *words)

    def apply(self, *words: str) -> None:
        """Most of its time Terraform waits: so many at once."""
        self.run("apply", "-input=false", "-auto-approve", "-parallelism=30", *words)

    def takes_over(self, address: str, identifier: str, *words: str) -> None:
        """Forgets a resource, and imports it."""
        self.run("state", "rm", address)
        self.run("import", "-input=false", *words, address, identifier)


@pytest.fixture
def mirror(outside_environment: dict[str, str]) -> Path:
    """The folder with Terraform's AWS provider."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    found = _mirror(outside_environment)
    if found is None:
        pytest.skip(
            f"Terraform's AWS provider {_VERSION}x is in none of the folders where Terraform looks; "
            "CELAJE_TERRAFORM_PLUGINS names another one"
        )
    return found


@pytest.fixture
def cloud(mirror: Path, built_image: Callable[[str], Path]) -> Iterator[CloudHost]:
    with cloud_host(paths.home(), built_image("debian-mini")) as host:
        host.image(host.client())
        yield host


@pytest.fixture
def terraform(mirror: Path, cloud: CloudHost, tmp_path: Path, tool: Callable[[str], str]) -> Terraform:
    key = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    configuration = tmp_path / "terraformrc"
    configuration.write_text(
        "disable_checkpoint = true\n"
        f'provider_installation {{ filesystem_mirror {{\n  path = "{mirror}"\n  include = ["{_PROVIDER}"]\n}} }}\n'
    )
    work = tmp_path / "work"
    shutil.copytree(_HERE / "terraform", work)
    command = shutil.which("terraform")
    assert command is not None
    environment = {
        name: value for name, value in cloud.client_environment(tmp_path).items() if not name.startswith("TF_")
    } | {
        "TF_CLI_CONFIG_FILE": str(configuration),
        "TF_CLI_ARGS": "-no-color",
        "TF_IN_AUTOMATION": "1",
        "TF_VAR_image_name": "debian-mini",
        "TF_VAR_public_key": key.with_suffix(".pub").read_text().strip(),
    }
    terraform = Terraform(command, work, environment)
    terraform.run("init", "-input=false")
    return terraform


@pytest.mark.clients
def test_terraform_applies_changes_takes_over_and_destroys_a_world(cloud: CloudHost, terraform: Terraform) -> None:
    ec2, elsewhere = cloud.client(), cloud.client(region="eu-west-1")
    terraform.apply()
    terraform.plans_nothing()
    made = terraform.state()
    _is_as_it_was_written(cloud, made)

    second = "-var-file=second.tfvars"
    terraform.apply(second)
    terraform.plans_nothing(second)
    changed = terraform.state()
    _is_as_it_was_changed(cloud, changed)
    # Users, and what hangs on them, are known by their names, of which one was changed; lists by what they are.
    kept = {each for each in changed if not each.startswith(("data.", "aws_iam_", "aws_s3_bucket_acl."))}
    assert {each: changed[each].get("id") for each in kept} == {each: made[each].get("id") for each in kept}

    terraform.apply("-refresh-only", second)
    for address in _TAKEN_OVER:
        terraform.takes_over(address, changed[address]["id"], second)
    terraform.plans_nothing(second)

    # At AWS too, the provider asks for a detached attachment until it has not found it twenty times, which takes
    # 150 seconds. Forgotten, it ends with its instance, before its interface is asked about.
    terraform.run("state", "rm", "aws_network_interface_attachment.second")
    terraform.apply("-destroy", "-target=aws_instance.web")
    terraform.apply("-destroy")
    _nothing_is_left(cloud)
    assert elsewhere.describe_images(Owners=["self"])["Images"] == []
    assert elsewhere.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    ended = {each["State"]["Name"] for one in ec2.describe_instances()["Reservations"] for each in one["Instances"]}
    assert ended == {"terminated"}


def _instance(cloud: CloudHost, identifier: str) -> dict[str, Any]:
    [reservation] = cloud.client().describe_instances(InstanceIds=[identifier])["Reservations"]
    instance: dict[str, Any] = reservation["Instances"][0]
    return instance


def _is_as_it_was_written(cloud: CloudHost, made: Mapping[str, dict[str, Any]]) -> None:
    ec2, s3 = cloud.client(), cloud.client("s3")
    web = _instance(cloud, made["aws_instance.web"]["id"])
    assert (web["State"]["Name"], web["InstanceType"]) == ("running", "t3.nano")
    assert web["PublicIpAddress"] == made["aws_eip.web"]["public_ip"]
    assert {each["DeviceName"] for each in web["BlockDeviceMappings"]} == {"/dev/sda1", "/dev/sdf"}
    assert len(web["NetworkInterfaces"]) == 2
    assert {"Key": "Project", "Value": "celaje"} in web["Tags"]
    worker = _instance(cloud, made["aws_instance.worker"]["id"])
    assert worker["State"]["Name"] == "running"
    assert {each["DeviceName"] for each in worker["BlockDeviceMappings"]} == {"/dev/sda1", "/dev/sdb"}
    [table] = ec2.describe_route_tables(RouteTableIds=[made["aws_route_table.private"]["id"]])["RouteTables"]
    assert made["aws_nat_gateway.main"]["id"] in {route.get("NatGatewayId") for route in table["Routes"]}
    bucket = made["aws_s3_bucket.main"]["id"]
    assert s3.get_object(Bucket=bucket, Key="some/key.txt")["Body"].read() == b"written by Terraform, first\n"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) == 2
    assert len(ec2.describe_images(Owners=["self"])["Images"]) == 2


def _is_as_it_was_changed(cloud: CloudHost, changed: Mapping[str, dict[str, Any]]) -> None:
    ec2, s3 = cloud.client(), cloud.client("s3")
    web = _instance(cloud, changed["aws_instance.web"]["id"])
    assert (web["State"]["Name"], web["InstanceType"]) == ("running", "t3.micro")
    assert len(web["SecurityGroups"]) == 2
    assert {"Key": "Stage", "Value": "second"} in web["Tags"]
    said = ec2.describe_instance_attribute(InstanceId=web["InstanceId"], Attribute="userData")["UserData"]["Value"]
    assert said == "IyEvYmluL3NoCjogY2hhbmdlZAo="
    [volume] = ec2.describe_volumes(VolumeIds=[changed["aws_ebs_volume.data"]["id"]])["Volumes"]
    assert (volume["Size"], volume["State"]) == (2, "in-use")
    assert changed["aws_launch_template.worker"]["default_version"] == 2
    bucket = changed["aws_s3_bucket.main"]["id"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Suspended"
    assert s3.get_object(Bucket=bucket, Key="some/key.txt")["Body"].read() == b"written by Terraform, second\n"


def _nothing_is_left(cloud: CloudHost) -> None:
    ec2, iam = cloud.client(), cloud.client("iam")
    assert [vpc["IsDefault"] for vpc in ec2.describe_vpcs()["Vpcs"]] == [True]
    assert ec2.describe_volumes()["Volumes"] == ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert ec2.describe_key_pairs()["KeyPairs"] == ec2.describe_launch_templates()["LaunchTemplates"] == []
    assert cloud.client("s3").list_buckets()["Buckets"] == []
    assert iam.list_roles()["Roles"] == iam.list_users()["Users"] == iam.list_groups()["Groups"] == []
    assert iam.list_instance_profiles()["InstanceProfiles"] == []
    assert iam.list_policies(Scope="Local")["Policies"] == []
