"""The controller of networks: files that VPCs' networks go by, and what becomes of NAT gateways once they do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from celaje.cloud.reconcile.networks import Documents, NetworksController
from celaje.cloud.reconcile.topologies import vpc_topology
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.networks import NetworkInterface, Vpc
from celaje.network import client, spawn
from celaje.network.group_file import group_file, read_groups
from celaje.network.topology import Topology, read_topology, topology_file
from tests.cloud.belongings import instance_with
from tests.cloud.served import ServedCloud
from tests.network.attached_guest import AttachedGuest


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ServedCloud]:
    made = ServedCloud(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ec2(cloud: ServedCloud) -> Any:
    return cloud.root.client("ec2")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory of the test's own for networks' sockets; what runs in it is stopped."""
    short = tempfile.mkdtemp(prefix="cn-")  # a socket's path has 108 bytes
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    yield
    for name in spawn.running():
        client.stop(name)
    while Path(short).exists():  # a process that ends takes its socket away itself, perhaps just now
        with suppress(FileNotFoundError):
            shutil.rmtree(short)


def controller(cloud: ServedCloud, directory: Path) -> NetworksController:
    return NetworksController(cloud.database, Documents(cloud.settings, directory))


def wanted(cloud: ServedCloud, vpc: str) -> Topology:
    with cloud.database.read() as session:
        return vpc_topology(session, session.get_one(Vpc, vpc))


def test_a_vpc_with_an_instance_has_its_files_which_follow_it_and_go_with_it(
    cloud: ServedCloud, ec2: Any, tmp_path: Path
) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    reconciles = controller(cloud, tmp_path)
    reconciles.step()
    assert read_topology(vpc) is None  # nobody is there to go by it
    instance = instance_with(cloud, interface)
    reconciles.step()
    assert read_topology(vpc) == wanted(cloud, vpc)
    assert len(read_groups(vpc)) == 1
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.2.0/24")
    gateway = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
    controller(cloud, tmp_path).step()  # another one, after the first was killed
    told = read_topology(vpc)
    assert told == wanted(cloud, vpc)
    assert told is not None
    assert (len(told.subnets), list(told.gateways)) == (2, [gateway])
    assert ec2.describe_nat_gateways()["NatGateways"][0]["State"] == "available"
    ec2.delete_nat_gateway(NatGatewayId=gateway)
    reconciles.step()
    assert ec2.describe_nat_gateways()["NatGateways"][0]["State"] == "deleted"
    with cloud.database.write() as session:
        session.delete(session.get_one(Instance, instance))
        session.delete(session.get_one(NetworkInterface, interface))
    for one in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=one["SubnetId"])
    ec2.delete_vpc(VpcId=vpc)
    reconciles.step()
    assert not topology_file(vpc).exists()
    assert not group_file(vpc).exists()


def test_a_gateway_waits_for_a_network_that_cannot_be_told(
    cloud: ServedCloud, ec2: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [subnet] = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1a"]}])["Subnets"]
    interface = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    instance_with(cloud, interface)
    ec2.create_nat_gateway(SubnetId=subnet["SubnetId"], ConnectivityType="private")
    file = topology_file(subnet["VpcId"])
    file.mkdir(parents=True)  # nothing can be written in its place
    reconciles = controller(cloud, tmp_path)
    reconciles.step()
    assert "is not as it is to be" in caplog.text
    assert ec2.describe_nat_gateways()["NatGateways"][0]["State"] == "pending"
    file.rmdir()
    controller(cloud, tmp_path).step()
    assert ec2.describe_nat_gateways()["NatGateways"][0]["State"] == "available"


@pytest.mark.usefixtures("runtime")
def test_networks_end_with_their_last_instance_or_with_the_cloud_but_not_under_a_machine(
    cloud: ServedCloud, ec2: Any, tmp_path: Path
) -> None:
    subnet = ec2.describe_subnets()["Subnets"][0]
    vpc = subnet["VpcId"]
    interface = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    instance = instance_with(cloud, interface)
    reconciles = controller(cloud, tmp_path)
    reconciles.step()
    with cloud.database.read() as session:
        documents = Documents(cloud.settings, tmp_path).of(session, [session.get_one(Instance, instance)])
    [document] = documents[instance].values()
    machine = AttachedGuest(document)
    reconciles.end_unused()
    assert vpc in spawn.running()
    with cloud.database.write() as session:
        session.delete(session.get_one(Instance, instance))
    reconciles.step()
    assert vpc in spawn.running()  # its machine is still there
    machine.close()
    while client.interfaces(vpc):
        pass
    reconciles.step()
    assert vpc not in spawn.running()
    spawn.ensure_running(document.network)
    reconciles.end_unused()
    assert vpc not in spawn.running()
