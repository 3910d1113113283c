"""Debians in different subnets of one network, whose interfaces are documents as a cloud writes them."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from celaje.host import disks, record, starting
from celaje.host.configuration import resolved
from celaje.host.interface_file import update_interface, write_interface
from celaje.host.machine_options import MachineOptions
from celaje.network import client, messages
from celaje.network.messages import Attach, NetworkSettings, Rule, SecurityGroup
from tests.system.debian_guest import Guest, place, up

VPC = NetworkSettings(name="vpc-0123456789abcdef0", blocks=("172.31.0.0/16",), domain="ec2.internal", mtu=9001)
OTHER_VPC = msgspec.structs.replace(VPC, name="vpc-0fedcba9876543210")
SSH = Rule("in", "tcp", first_port=22, last_port=22)
OUT = Rule("out", "any")
AMONG = Rule("in", "any", "group:sg-web")
WEB = (SSH, OUT, AMONG)
META = "http://169.254.169.254/latest"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], Path]) -> Path:
    tool("ssh")
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def home(tmp_path: Path, built_image: Callable[[str], Path]) -> Iterator[Path]:
    with place(tmp_path / "home", built_image("debian-mini").resolve()) as made:
        yield made


def interface(number: int, subnet: str, address: str, key: Path, network: NetworkSettings = VPC) -> Attach:
    name = f"i-{number:017x}"
    host_name = "ip-" + address.replace(".", "-")
    return Attach(
        network=network,
        interface=name,
        host_name=host_name,
        mac=f"02:00:00:00:00:{number:02x}",
        subnet=subnet,
        address=address,
        groups=(SecurityGroup("sg-web"),),
        public_address=f"127.64.0.{number + 9}",
        public_name=f"ec2-127-64-0-{number + 9}.compute-1.amazonaws.com",
        metadata=messages.MetadataFacts(
            name,
            host_name,
            public_keys={"key": key.with_suffix(".pub").read_text()},
            extra={"placement/region": "us-east-1"},
            tokens_required=False,
        ),
    )


def started(image: Path, wanted: Attach) -> record.MachineDirectory:
    """A machine without a network of its options', and with a document."""
    options = MachineOptions(image=str(image), memory=192 << 20, network=None)
    boot = resolved(options)
    new = record.new_record(wanted.interface, options, dataclasses.replace(boot, disk=None, disk_sha256=None))
    directory = record.create(msgspec.structs.replace(new, root=disks.root_volume(wanted.interface, boot, None)))
    write_interface(directory, wanted)
    starting.start(directory)
    return directory


def hears(guest: Guest, host: str, seconds: int = 5) -> bool:
    return guest.status(f"ping -c 1 -W {seconds} {host}")[0] == 0


def test_machines_of_two_subnets_are_a_vpc(home: Path, key: Path, built_image: Callable[[str], Path]) -> None:
    image = built_image("debian-mini").resolve()
    client.set_groups(VPC.name, [SecurityGroup("sg-web", WEB)])
    one = interface(1, "172.31.0.0/20", "172.31.0.5", key)
    two = interface(2, "172.31.16.0/20", "172.31.16.6", key)
    stranger = interface(3, "172.31.16.0/20", "172.31.16.6", key, OTHER_VPC)
    directories = [started(image, wanted) for wanted in (one, two, stranger)]
    a, b = up(one.interface), up(two.interface)

    # What DHCP told.
    assert "172.31.16.6/20" in b.run("ip -4 address show")
    assert "default via 172.31.16.1" in b.run("ip route show")
    assert "mtu 9001" in b.run("ip link show")
    assert "ec2.internal" in b.run("cat /etc/resolv.conf")
    assert b.run("hostname") == "ip-172-31-16-6"

    # Another network is another world, be its addresses the same.
    c = up(stranger.interface)
    assert not hears(c, "172.31.0.5")
    assert not hears(c, one.interface)

    # Routed, by name and by address, with a hop less.
    assert "ttl=63" in a.run("ping -c 1 -W 60 ip-172-31-16-6.ec2.internal")
    assert "172.31.0.5" in b.run("nslookup ip-172-31-0-5")
    assert "ip-172-31-16-6.ec2.internal" in a.run("nslookup 172.31.16.6")
    assert not hears(a, "172.31.16.7")
    assert "172.31.16.6" in a.run(f"nslookup {two.public_name}")

    # Metadata, with and without a token.
    assert a.run(f"wget -q -O - {META}/meta-data/placement/region") == "us-east-1"
    told = msgspec.structs.replace(one.metadata, tokens_required=True)
    one = msgspec.structs.replace(one, metadata=told)
    update_interface(directories[0], one)
    assert a.status(f"wget -q -O - {META}/meta-data/placement/region")[0] != 0

    # From the host, by public and private address and by name; networks with the same addresses are told apart.
    for name, says in (("127.64.0.10", "0-5"), ("172.31.0.5", "0-5"), (two.interface, "16-6")):
        done = proxied(name, key)
        assert (done.returncode, done.stdout.strip()) == (0, f"ip-172-31-{says}"), done.stderr
    done = proxied("172.31.16.6", key)
    assert done.returncode != 0
    assert f"{two.interface} (network {VPC.name}), {stranger.interface} (network {OTHER_VPC.name})" in done.stderr

    # The network's process is killed, and meanwhile one interface is to have another public address.
    os.kill(client.statistics(VPC.name).process, signal.SIGKILL)
    update_interface(directories[1], msgspec.structs.replace(two, public_address="127.64.0.99"))
    b.wait("ping -c 1 -W 1 ip-172-31-0-5")
    assert proxied("127.64.0.99", key).returncode == 0

    # Rules change for all members at once, and flows that are no longer admitted end.
    assert hears(a, "172.31.16.6", 60)
    client.set_groups(VPC.name, [SecurityGroup("sg-web", (SSH, OUT))])
    assert not hears(a, "172.31.16.6")


def proxied(name: str, key: Path) -> subprocess.CompletedProcess[str]:
    """`hostname` of the guest that `celaje proxy NAME 22` reaches."""
    command = f"{shlex.quote(sys.executable)} -m celaje proxy {name} 22"
    words = ["ssh", "-i", str(key), "-F", "none", "-o", "BatchMode=yes", "-o", f"ProxyCommand={command}"]
    words += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", f"root@{name}", "hostname"]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
