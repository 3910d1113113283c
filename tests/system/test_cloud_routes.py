"""A VPC of two subnets with real guests, and another host outside: what route tables, gateways, access lists and DHCP
options say, packets do. All of it is in a network namespace of its own, so there is an outside."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celaje import paths
from celaje.network import spawn
from tests.network.namespace import FAR, far_host, in_namespace, ip
from tests.system.cloud_host import CloudHost, cloud_host, ssh, until, until_state

PORT = 8080
POOL = "10.98.0.0/24"  # public addresses, which the far host reaches through this one
IMAGE, KEYGEN = "CELAJE_TEST_IMAGE", "CELAJE_TEST_KEYGEN"
ELSEWHERE = "192.168.99.1"  # what the first guest has beside its own address, and would lead to others
SERVER = f"""#!/bin/sh
mkdir /srv/www
hostname > /srv/www/index.html
httpd -p {PORT} -h /srv/www
[ "$(hostname)" != ip-10-0-1-5 ] || ip address add {ELSEWHERE}/32 dev lo
"""
# Answers everybody with the address that they come from.
ECHO = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("{FAR}", 80), Handler)
print("up", flush=True)
server.serve_forever()
"""
# Asks for what it reads a line at a time, and says whether it came.
ASKER = """
import sys, urllib.request
for line in sys.stdin:
    try:
        print("reached", urllib.request.urlopen(line.strip(), timeout=10).read().decode().strip(), flush=True)
    except OSError:
        print("unreached", flush=True)
"""
OUTSIDE = f"wget -T 5 -qO- http://{FAR}/ || echo unreached"


def test_packets_do_what_route_tables_gateways_and_lists_say(
    built_image: Callable[[str], Path], tool: Callable[[str], str]
) -> None:
    image = built_image("debian-mini")
    in_namespace(scenario, 900.0, **{IMAGE: str(image), KEYGEN: tool("ssh-keygen")})


class Vpc:
    """10.0.0.0/16: `web` in a subnet with a route to an internet gateway, `data` in one without."""

    def __init__(self, cloud: CloudHost, key: Path) -> None:
        self.key = key
        self.ec2 = ec2 = cloud.client()
        ec2.import_key_pair(KeyName="key", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        options = [{"Key": "domain-name", "Values": ["corp.example"]}]
        made = ec2.create_dhcp_options(DhcpConfigurations=options)["DhcpOptions"]["DhcpOptionsId"]
        ec2.associate_dhcp_options(VpcId=self.vpc, DhcpOptionsId=made)
        self.public, self.private = (
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"us-east-1{zone}")[
                "Subnet"
            ]["SubnetId"]
            for number, zone in ((1, "a"), (2, "b"))
        )
        self.gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(VpcId=self.vpc, InternetGatewayId=self.gateway)
        self.table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=self.table, SubnetId=self.public)
        self.route = {"RouteTableId": self.table, "DestinationCidrBlock": "0.0.0.0/0"}
        ec2.create_route(**self.route, GatewayId=self.gateway)
        in_vpc = [{"Name": "vpc-id", "Values": [self.vpc]}]
        [main] = ec2.describe_route_tables(Filters=[*in_vpc, {"Name": "association.main", "Values": ["true"]}])[
            "RouteTables"
        ]
        self.main = main["RouteTableId"]
        self.acl = ec2.describe_network_acls(Filters=in_vpc)["NetworkAcls"][0]["NetworkAclId"]
        [group] = ec2.describe_security_groups(Filters=in_vpc)["SecurityGroups"]
        ec2.authorize_security_group_ingress(
            GroupId=group["GroupId"], IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        )
        image = cloud.image(ec2)
        self.web, self.data = (
            ec2.run_instances(
                ImageId=image,
                InstanceType="t3.nano",
                MinCount=1,
                MaxCount=1,
                KeyName="key",
                UserData=SERVER,
                NetworkInterfaces=[
                    {
                        "DeviceIndex": 0,
                        "SubnetId": subnet,
                        "PrivateIpAddress": address,
                        "AssociatePublicIpAddress": is_public,
                    }
                ],
            )["Instances"][0]["InstanceId"]
            for subnet, address, is_public in ((self.public, "10.0.1.5", True), (self.private, "10.0.2.5", False))
        )
        for instance in (self.web, self.data):
            until_state(ec2, instance, "running")
        [reservation] = ec2.describe_instances(InstanceIds=[self.web])["Reservations"]
        self.address: str = reservation["Instances"][0]["PublicIpAddress"]

    def on(self, instance: str, command: str) -> str:
        return ssh(self.key, instance, command).strip()

    def until_on(self, instance: str, command: str, said: str) -> None:
        """Until a command says so: what changes is told to the network a moment after the answer."""
        until(lambda: self.on(instance, command) == said, f"{said!r} of {command!r}")


def scenario() -> None:
    """See the test."""
    with tempfile.TemporaryDirectory() as directory, far_host(POOL) as far:
        ip("route", "add", "local", POOL, "dev", "lo")
        server = far(ECHO)
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        key = Path(directory) / "key"
        subprocess.run([os.environ[KEYGEN], "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with cloud_host(paths.home(), Path(os.environ[IMAGE]), public_pool=POOL) as cloud:
            vpc = Vpc(cloud, key)
            subnets_are_routed_and_lists_hold(vpc)
            a_guest_without_the_check_is_a_way_for_others(vpc)
            names_come_by_dhcp(vpc)
            only_gateways_lead_out(vpc, far(ASKER))
            no_process_waits_for_machines(vpc)


def subnets_are_routed_and_lists_hold(vpc: Vpc) -> None:
    """From subnet to subnet, and not where a list denies it: at once, and until it no longer does."""
    asked = f"wget -T 5 -qO- http://10.0.2.5:{PORT}/ || echo unreached"
    vpc.until_on(vpc.web, asked, "ip-10-0-2-5")
    denied: dict[str, Any] = {"NetworkAclId": vpc.acl, "RuleNumber": 50, "Egress": False}
    vpc.ec2.create_network_acl_entry(
        **denied, Protocol="6", RuleAction="deny", CidrBlock="10.0.1.0/24", PortRange={"From": PORT, "To": PORT}
    )
    vpc.until_on(vpc.web, asked, "unreached")
    back = f"wget -T 5 -qO- http://10.0.1.5:{PORT}/ || echo unreached"
    vpc.until_on(vpc.data, back, "ip-10-0-1-5")
    vpc.ec2.delete_network_acl_entry(**denied)
    vpc.until_on(vpc.web, asked, "ip-10-0-2-5")


def a_guest_without_the_check_is_a_way_for_others(vpc: Vpc) -> None:
    """A route to an interface leads there once its source/destination check is off, and back again."""
    ec2 = vpc.ec2
    [reservation] = ec2.describe_instances(InstanceIds=[vpc.web])["Reservations"]
    interface = reservation["Instances"][0]["NetworkInterfaces"][0]["NetworkInterfaceId"]
    route = {"RouteTableId": vpc.main, "DestinationCidrBlock": "192.168.99.0/24"}
    ec2.create_route(**route, NetworkInterfaceId=interface)
    asked = f"wget -T 5 -qO- http://{ELSEWHERE}:{PORT}/ || echo unreached"
    assert vpc.on(vpc.data, asked) == "unreached"
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": False})
    vpc.until_on(vpc.data, asked, "ip-10-0-1-5")
    ec2.delete_route(**route)
    vpc.until_on(vpc.data, asked, "unreached")


def names_come_by_dhcp(vpc: Vpc) -> None:
    """The VPC's options are what its guests were told."""
    assert "search corp.example" in vpc.on(vpc.web, "cat /etc/resolv.conf").splitlines()


def no_process_waits_for_machines(vpc: Vpc) -> None:
    """The network's process ends with its last instance."""
    assert vpc.vpc in spawn.running()
    vpc.ec2.terminate_instances(InstanceIds=[vpc.web, vpc.data])
    until(lambda: vpc.vpc not in spawn.running(), "the end of the network's process")


def only_gateways_lead_out(vpc: Vpc, asker: subprocess.Popen[str]) -> None:
    """`web` by the internet gateway, `data` by a NAT gateway and in its name, and nobody in by that."""
    ec2 = vpc.ec2

    def asks(url: str) -> str:
        assert asker.stdin is not None
        assert asker.stdout is not None
        asker.stdin.write(url + "\n")
        asker.stdin.flush()
        return asker.stdout.readline().strip()

    vpc.until_on(vpc.web, OUTSIDE, vpc.address)
    assert asks(f"http://{vpc.address}:{PORT}/") == "reached ip-10-0-1-5"
    assert vpc.on(vpc.data, OUTSIDE) == "unreached"
    made = ec2.allocate_address()
    gateway = ec2.create_nat_gateway(SubnetId=vpc.public, AllocationId=made["AllocationId"])["NatGateway"]
    ec2.get_waiter("nat_gateway_available").wait(
        NatGatewayIds=[gateway["NatGatewayId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    through = {"RouteTableId": vpc.main, "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.create_route(**through, NatGatewayId=gateway["NatGatewayId"])
    vpc.until_on(vpc.data, OUTSIDE, made["PublicIp"])
    assert asks(f"http://{made['PublicIp']}:{PORT}/") == "unreached"
    ec2.delete_nat_gateway(NatGatewayId=gateway["NatGatewayId"])
    vpc.until_on(vpc.data, OUTSIDE, "unreached")
    until(lambda: "NetworkInterfaceId" not in ec2.describe_addresses()["Addresses"][0], "the gateway's address")
    ec2.delete_route(**through)
    ec2.create_route(**through, GatewayId=vpc.gateway)
    ec2.associate_address(AllocationId=made["AllocationId"], InstanceId=vpc.data)
    public = f"wget -T 5 -qO- http://{made['PublicIp']}:{PORT}/ || echo unreached"
    vpc.until_on(vpc.web, public, "ip-10-0-2-5")  # by the gateway, which turns it
    ec2.delete_route(**vpc.route)
    vpc.until_on(vpc.web, OUTSIDE, "unreached")
    assert asks(f"http://{vpc.address}:{PORT}/") == "unreached"
