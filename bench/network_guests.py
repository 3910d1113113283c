"""What is left of the throughput inside one subnet where packets are routed or translated, between emulated guests:

    python -m bench.network_guests [--repeats 5]

Instances of a cloud in a network namespace of its own, three in one VPC of two subnets and one in another VPC, with a
program that sends and takes (guest/linux/stream.c). Beyond a pair of devices is another namespace with a server: the
far side, reached by the sender through an internet gateway or a NAT gateway, as the route that it then has says. Ways
take turns; the ratios are of neighbours in time. Times are of the sender's clock, from when a quarter is sent until the
other end says that it has all: TCP has found out by then how fast it may be.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import boot, programs
from bench.disk import TICKS_PER_SECOND, linux_program
from bench.network_process import processor_seconds
from celaje import paths
from celaje.network import client
from tests.network.namespace import FAR, far_host, ip
from tests.system.cloud_host import CloudHost, cloud_host, ssh, until, until_state

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

POOL = "10.98.0.0/24"  # public addresses
PORT = 5001
BYTES = 96 << 20
WARM_UP = 64 << 20
ROUNDS = 2  # for each repeat: single transfers between emulated guests scatter by a factor of three
SUBNET, ROUTED, OTHER = "inside one subnet", "from subnet to subnet", "to another VPC by public addresses"
GATEWAY, NAT = "out by an internet gateway", "out by a NAT gateway"
WAYS = (SUBNET, ROUTED, OTHER, GATEWAY, NAT)
SENDER, NEIGHBOUR, BEYOND, STRANGER = "10.0.1.5", "10.0.1.6", "10.0.2.7", "10.1.1.8"
RESULT = re.compile(r"^RESULT stream (\d+) (\d+)", re.M)
IMAGE = "debian-mini"
PROGRAM = "/srv/stream"
INSIDE = "CELAJE_BENCH_INSIDE"  # in the environment: the directory of the image

# The far side, as stream.c's `serve`.
SERVER = f"""
import socket
listener = socket.create_server(("{FAR}", {PORT}))
print("up", flush=True)
buffer = bytearray(1 << 20)
while True:
    connection, _ = listener.accept()
    with connection:
        left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little")
        while left and (got := connection.recv_into(buffer)):
            left -= got
        connection.sendall(b"+")
"""


def missing() -> str | None:
    """Why this cannot be measured here; None if it can."""
    if (why := programs.compiler_missing()) is not None:
        return why
    if not boot.image_directory().exists():
        return f"the image {IMAGE} is not there; `celaje image build {IMAGE}` makes it"
    for tool, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: {package})"
    tried = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    return f"this host allows no network namespace: {tried.stderr.strip()}" if tried.returncode else None


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]


def measures(repeats: int) -> dict[str, float]:
    """Figures by the names of report.MEASURES. RuntimeError if the guests did not get through."""
    image = boot.image_directory()
    with tempfile.TemporaryDirectory(prefix="cn-") as place:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        made = {"CELAJE_HOME": f"{place}/home", "XDG_RUNTIME_DIR": place, INSIDE: str(image)}
        command = [*_unshare(), sys.executable, "-m", "bench.network_guests", "--repeats", str(repeats)]
        done = subprocess.run(command, env=kept | made, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the guests of bench.network_guests ended with status {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _user_data() -> str:
    """A script that has the program, and leaves it taking what comes."""
    program = base64.b64encode(linux_program("stream").read_bytes()).decode()
    return (
        f"#!/bin/sh\nbase64 -d > {PROGRAM} <<END\n{program}\nEND\n"
        f"chmod +x {PROGRAM}\n{PROGRAM} serve {PORT} </dev/null >/dev/null 2>&1 &\n"
    )


class Vpcs:
    """10.0.0.0/16 with two subnets and three instances, and 10.1.0.0/16 with one. The sender and that one have public
    addresses."""

    def __init__(self, cloud: CloudHost, key: Path) -> None:
        self._key = key
        self.ec2: EC2Client = cloud.client()
        ec2 = self.ec2
        ec2.import_key_pair(KeyName="key", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
        self.identifier, gateway, own, (near, other) = self._vpc("10.0.0.0/16", "10.0.1.0/24", "10.0.2.0/24")
        _, _, _, (beyond,) = self._vpc("10.1.0.0/16", "10.1.1.0/24")
        address = ec2.allocate_address()["AllocationId"]
        nat = ec2.create_nat_gateway(SubnetId=other, AllocationId=address)["NatGateway"]["NatGatewayId"]
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat], WaiterConfig={"Delay": 1})
        self._routes: dict[str, dict[str, Any]] = {
            OTHER: {"RouteTableId": own, "GatewayId": gateway},
            GATEWAY: {"RouteTableId": own, "GatewayId": gateway},
            NAT: {"RouteTableId": own, "NatGatewayId": nat},
        }
        image = cloud.image(ec2)
        self.instances = {
            address: self._launched(image, subnet, address)
            for subnet, address in ((near, SENDER), (near, NEIGHBOUR), (other, BEYOND), (beyond, STRANGER))
        }
        for instance in self.instances.values():
            until_state(ec2, instance, "running")
        [reservation] = ec2.describe_instances(InstanceIds=[self.instances[STRANGER]])["Reservations"]
        public = reservation["Instances"][0]["PublicIpAddress"]
        self._ends = {SUBNET: NEIGHBOUR, ROUTED: BEYOND, OTHER: public, GATEWAY: FAR, NAT: FAR}

    def _vpc(self, block: str, *subnets: str) -> tuple[str, str, str, list[str]]:
        """A VPC whose subnets lead out by an internet gateway, and admit everything: identifiers of it, the gateway,
        the first subnet's route table, and the subnets."""
        ec2 = self.ec2
        vpc = ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway)
        made, tables = [], []
        for one in subnets:
            made.append(ec2.create_subnet(VpcId=vpc, CidrBlock=one)["Subnet"]["SubnetId"])
            tables.append(ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"])
            ec2.associate_route_table(RouteTableId=tables[-1], SubnetId=made[-1])
            ec2.create_route(RouteTableId=tables[-1], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        [group] = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
        ec2.authorize_security_group_ingress(
            GroupId=group["GroupId"], IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        )
        return vpc, gateway, tables[0], made

    def _launched(self, image: str, subnet: str, address: str) -> str:
        card: Any = {"DeviceIndex": 0, "SubnetId": subnet, "PrivateIpAddress": address}
        answer = self.ec2.run_instances(
            ImageId=image,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            KeyName="key",
            UserData=_user_data(),
            NetworkInterfaces=[card | {"AssociatePublicIpAddress": address in (SENDER, STRANGER)}],
        )
        return answer["Instances"][0]["InstanceId"]

    def on(self, instance: str, command: str) -> str:
        return ssh(self._key, instance, command)

    def take(self, way: str) -> None:
        """The sender's route outward is this one, and the network goes by it."""
        if way not in self._routes:
            return
        self.ec2.replace_route(DestinationCidrBlock="0.0.0.0/0", **self._routes[way])
        time.sleep(1)

    def sent(self, way: str, count: int) -> float:
        """Bytes a second. The other end may still be about to listen."""
        said = f"for try in $(seq 200); do {PROGRAM} send {self._ends[way]} {PORT} {count} && exit; sleep 0.3; done"
        found = RESULT.search(said := self.on(self.instances[SENDER], said))
        if found is None:
            raise RuntimeError(f"{way}: {said[-500:]}")
        return int(found[1]) * TICKS_PER_SECOND / int(found[2])


def inside(repeats: int) -> dict[str, float]:
    """In the namespace: all of WAYS in turns."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    ip("link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as directory, far_host(POOL) as far:
        ip("route", "add", "local", POOL, "dev", "lo")
        server = far(SERVER)
        assert server.stdout is not None
        server.stdout.readline()
        key = Path(directory) / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with cloud_host(paths.home(), Path(os.environ[INSIDE]), public_pool=POOL) as cloud:
            vpc = Vpcs(cloud, key)
            process = until(lambda: client.statistics(vpc.identifier).process, "the network")
            for way in WAYS:
                vpc.take(way)
                vpc.sent(way, WARM_UP)
            for number in range(ROUNDS * repeats):
                for way in WAYS if number % 2 == 0 else WAYS[::-1]:
                    vpc.take(way)
                    before = processor_seconds(process)
                    rates[way].append(vpc.sent(way, BYTES))
                    costs[way].append((processor_seconds(process) - before) / (BYTES / 1e9))
                now = ", ".join(f"{way} {rates[way][-1] / 1e6:,.0f}" for way in WAYS)
                print(f"{number + 1}: MB/s {now}", file=sys.stderr, flush=True)
    for way in WAYS:
        print(
            f"{way}: {statistics.median(rates[way]) / 1e6:,.0f} MB/s, {_ratio(rates, way, SUBNET):.2f} of that inside "
            f"one subnet, {statistics.median(costs[way]):.2f} s of celaje-net's processor time a GB",
            file=sys.stderr,
        )
    return {
        "subnet_bytes_per_second": statistics.median(rates[SUBNET]),
        "routed_over_subnet": _ratio(rates, ROUTED, SUBNET),
        "other_vpc_over_subnet": _ratio(rates, OTHER, SUBNET),
        "nat_over_subnet": _ratio(rates, NAT, SUBNET),
        "nat_over_gateway": _ratio(rates, NAT, GATEWAY),
    }


def _ratio(rates: dict[str, list[float]], way: str, base: str) -> float:
    return statistics.median(one / other for one, other in zip(rates[way], rates[base], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    if INSIDE in os.environ:
        print(json.dumps(inside(chosen.repeats)))
        return
    if (why := missing()) is not None:
        sys.exit(why)
    for name, value in measures(chosen.repeats).items():
        print(f"{name:30} {value:16.3f}")


if __name__ == "__main__":
    main()
