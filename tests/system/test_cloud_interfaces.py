"""Network interfaces of instances, in real guests: attached live, with several addresses, and detached again."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celaje import paths
from celaje.network import client
from tests.machine_processes import end
from tests.system.cloud_host import CloudHost, cloud_host, ssh, until, until_state
from tests.system.default_vpc import made_anew

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


MACS = "http://169.254.169.254/latest/meta-data/network/interfaces/macs/"


@pytest.fixture
def cloud(tmp_path: Path, built_image: Callable[[str], Path]) -> Iterator[CloudHost]:
    with cloud_host(paths.home(), built_image("debian-mini")) as host:
        yield host


@pytest.fixture
def key(tmp_path: Path, tool: Callable[[str], str]) -> Path:
    path = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


class Guests:
    """Two instances in a default subnet that clients have made, whose group admits everything among them, and SSH."""

    def __init__(self, cloud: CloudHost, key: Path) -> None:
        self.ec2: EC2Client = cloud.client()
        self.subnet = made_anew(self.ec2, "us-east-1a")
        self._key = key
        self.ec2.import_key_pair(KeyName="key", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
        [group] = self.ec2.describe_security_groups()["SecurityGroups"]
        self.ec2.authorize_security_group_ingress(
            GroupId=group["GroupId"], IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        )
        [found] = self.ec2.describe_subnets(SubnetIds=[self.subnet])["Subnets"]
        self.network = str(found["CidrBlock"]).rpartition(".")[0]
        answer = self.ec2.run_instances(
            ImageId=cloud.image(self.ec2),
            InstanceType="t3.small",
            MinCount=2,
            MaxCount=2,
            KeyName="key",
            Placement={"AvailabilityZone": "us-east-1a"},
        )
        self.first, self.second = (str(one["InstanceId"]) for one in answer["Instances"])
        assert [one["SubnetId"] for one in answer["Instances"]] == [self.subnet] * 2
        for instance in (self.first, self.second):
            until_state(self.ec2, instance, "running")
            ssh(key, instance, "true")

    def described(self, instance: str) -> Any:
        [reservation] = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return reservation["Instances"][0]

    def run(self, instance: str, command: str) -> str | None:
        """What root is told by it; None if it fails."""
        said = ssh(self._key, instance, f"sudo sh -c {shlex.quote(command)} && echo + || echo -")
        return said.removesuffix("+\n") if said.endswith("+\n") else None

    def until_run(self, instance: str, command: str) -> str:
        """What root is told by it once it succeeds."""
        asked = f"sudo sh -c {shlex.quote(command)}"
        return ssh(self._key, instance, f"for i in $(seq 600); do {asked} && exit; sleep 0.2; done; exit 1")

    def answers_by(self, instance: str, card: str, address: str) -> None:
        """What leaves the guest from this address does so by this card: from another one it is dropped, as in EC2."""
        self.until_run(
            instance,
            f"ip rule add from {address} table 100; ip route replace {self.network}.0/20 dev {card} table 100",
        )

    def interface(self, identifier: str) -> Any:
        [found] = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[identifier])["NetworkInterfaces"]
        return found


@pytest.fixture
def guests(cloud: CloudHost, key: Path) -> Guests:
    return Guests(cloud, key)


def test_an_interface_comes_and_goes_in_a_guest_that_runs(cloud: CloudHost, guests: Guests) -> None:
    ec2, first, second = guests.ec2, guests.first, guests.second
    made = ec2.create_network_interface(
        SubnetId=guests.subnet, PrivateIpAddress=f"{guests.network}.200", Description="second"
    )["NetworkInterface"]
    interface, mac = made["NetworkInterfaceId"], made["MacAddress"]
    attachment = ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=first, DeviceIndex=1)
    until(lambda: guests.interface(interface)["Attachment"]["Status"] == "attached", "the attachment")

    # The guest has it, with its MAC and the address that DHCP gives there, and reaches the other guest through it.
    guests.until_run(first, f"ip -o link show eth1 | grep -q {mac} && ip -o -4 address show eth1 | grep -q .200/")
    peer = guests.described(second)["PrivateIpAddress"]
    guests.until_run(first, f"ping -c 1 -W 2 -I eth1 {peer}")
    guests.answers_by(first, "eth1", f"{guests.network}.200")
    guests.until_run(second, f"ping -c 1 -W 2 {guests.network}.200")
    assert f"{mac}/" in guests.until_run(first, f"wget -q -O - {MACS}")

    # An address more, which the guest has to take itself, and one without which it answers nobody.
    ec2.assign_private_ip_addresses(NetworkInterfaceId=interface, PrivateIpAddresses=[f"{guests.network}.201"])
    guests.until_run(first, f"ip address add {guests.network}.201/32 dev eth1")
    guests.answers_by(first, "eth1", f"{guests.network}.201")
    guests.until_run(second, f"ping -c 1 -W 2 {guests.network}.201")
    elastic = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(
        AllocationId=elastic["AllocationId"],
        NetworkInterfaceId=interface,
        PrivateIpAddress=f"{guests.network}.201",
    )

    # It is there again when the network's process has died, and when the daemon has.
    network = guests.described(first)["VpcId"]
    end(client.statistics(network).process)
    guests.until_run(second, f"ping -c 1 -W 2 {guests.network}.201")
    cloud.kill()
    cloud.up(cloud.port)
    guests.ec2 = ec2 = cloud.client()
    guests.until_run(second, f"ping -c 1 -W 2 {guests.network}.200")

    # From an address that is nobody's the guest may send when the check is off.
    guests.until_run(first, "ip address add 10.9.9.9/32 dev eth1")
    guests.until_run(second, f"ip route add 10.9.9.9/32 via {guests.network}.1 dev eth0")
    assert guests.run(first, f"ping -c 1 -W 2 -I 10.9.9.9 {peer}") is None
    heard = "cat /proc/net/snmp | grep ^Icmp: | tail -n 1 | cut -d ' ' -f 10"  # echo requests that came
    before = int(guests.until_run(second, heard))
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": False})
    guests.answers_by(first, "eth1", "10.9.9.9")

    def came() -> bool:
        guests.run(first, f"ping -c 1 -W 1 -I 10.9.9.9 {peer}")
        return int(guests.until_run(second, heard)) > before

    until(came, "an echo request from a foreign address")

    ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
    until(lambda: guests.interface(interface)["Status"] == "available", "the detachment")
    guests.until_run(first, "! ip link show eth1 2>/dev/null")
    assert guests.run(second, f"ping -c 1 -W 2 {guests.network}.200") is None
    ec2.delete_network_interface(NetworkInterfaceId=interface)


def test_an_instance_starts_with_the_interfaces_that_it_has(guests: Guests) -> None:
    ec2, first = guests.ec2, guests.first
    its_own = guests.described(first)["PrivateIpAddress"]
    assert guests.until_run(guests.second, f"ping -c 1 -W 5 {its_own}")
    ec2.stop_instances(InstanceIds=[first])
    until_state(ec2, first, "stopped")
    assert guests.run(guests.second, f"ping -c 1 -W 2 {its_own}") is None
    assert "PublicIpAddress" not in guests.described(first)
    made = ec2.create_network_interface(SubnetId=guests.subnet)["NetworkInterface"]
    interface, address = made["NetworkInterfaceId"], made["PrivateIpAddress"]
    attachment = ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=first, DeviceIndex=1)
    until(lambda: guests.interface(interface)["Attachment"]["Status"] == "attached", "the attachment")
    ec2.start_instances(InstanceIds=[first])
    until_state(ec2, first, "running")
    guests.until_run(first, f"ip -o -4 address show eth1 | grep -q {address}/")
    assert guests.until_run(guests.second, f"ping -c 1 -W 5 {its_own}")
    assert guests.until_run(first, "ip -4 route get 172.31.0.1 | grep 'dev eth0'")  # whichever lease came first
    guests.answers_by(first, "eth1", address)
    assert guests.until_run(guests.second, f"ping -c 1 -W 5 {address}")
    ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
    guests.until_run(first, "! ip link show eth1 2>/dev/null")
