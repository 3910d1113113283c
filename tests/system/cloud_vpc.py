"""A VPC with real guests and another host outside, for tests of what network actions do to packets: shared by many
checks, each of which changes something, looks from within a guest or from outside, and changes it back.

    far host FAR ── internet gateway ── 10.0.1.0/24: web 10.0.1.5, by a route table of its own
                                        10.0.2.0/24: data 10.0.2.5    both by the main one, which leads
                                        10.0.3.0/24: third 10.0.3.5   nowhere outside
                                        10.0.4.0/24: its second card, 10.0.4.9 and 10.0.4.10
             internet gateway ── a default subnet of a default VPC, both made by their actions: plain

All of it is in a network namespace of its own. Guests are typed to on their consoles, which no rule and no route cuts.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

from tests.network.namespace import FAR
from tests.system import debian_guest
from tests.system.cloud_host import CloudHost, until_state
from tests.system.default_vpc import made_anew
from tests.system.standing_talks import WORDS

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

PORT = 8080
POOL = "10.98.0.0/24"  # public addresses, which the far host reaches through this one
ELSEWHERE = "192.168.99.1"  # what the first guest has beside its own address, and would lead to others
SERVER = f"""#!/bin/sh
mkdir -p /srv/www/cgi-bin
printf '#!/bin/sh\necho Content-type: text/plain\necho\nwhile echo word; do usleep 100000; done\n' > /srv/www{WORDS}
chmod 755 /srv/www{WORDS}
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
# Asks for what it reads a line at a time, with the seconds that it may take, and says whether it came.
ASKER = """
import sys, urllib.request
for line in sys.stdin:
    url, seconds = line.split()
    try:
        print("reached", urllib.request.urlopen(url, timeout=int(seconds)).read().decode().strip(), flush=True)
    except OSError:
        print("unreached", flush=True)
"""
UNREACHED = "unreached"
PATIENCE = 120.0
# How long it takes until somebody is unreached. Who is to be reached at once is asked once, and has time: the host may
# be busy.
SILENCE, ANSWER = 2, 60
WEB, DATA, THIRD = "10.0.1.5", "10.0.2.5", "10.0.3.5"
SECOND_CARD, ITS_OTHER = "10.0.4.9", "10.0.4.10"
NAMES = {WEB: "ip-10-0-1-5", DATA: "ip-10-0-2-5", THIRD: "ip-10-0-3-5"}
ANYWHERE: Any = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def page(address: str, port: int = PORT, seconds: int = SILENCE) -> str:
    """The command that asks a guest's server for its name."""
    return f"wget -T {seconds} -qO- http://{address}:{port}/ 2>/dev/null || echo {UNREACHED}"


def echo(address: str) -> str:
    """The command that asks for an echo."""
    return f"ping -c 1 -W 2 {address} >/dev/null 2>&1 && echo reached || echo {UNREACHED}"


def public_name(address: str) -> str:
    """AWS's name of a public address, which the name server of its VPC knows."""
    return f"ec2-{address.replace('.', '-')}.compute-1.amazonaws.com"


OUTSIDE = page(FAR, 80)


class Vpc:
    """The VPC. `asker` and `talker` are programs on the far host: ASKER and standing_talks.TALKER."""

    def __init__(self, cloud: CloudHost, asker: subprocess.Popen[str], talker: subprocess.Popen[str]) -> None:
        self._asker = asker
        self.talker = talker
        self.ec2: EC2Client = cloud.client()
        ec2 = self.ec2
        self.default_subnet = made_anew(ec2, "us-east-1a")
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.dhcp_options(domain="corp.example")
        self.public, self.private, self.further, self.fourth = (
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone="us-east-1a")["Subnet"][
                "SubnetId"
            ]
            for number in (1, 2, 3, 4)
        )
        ec2.modify_subnet_attribute(SubnetId=self.public, MapPublicIpOnLaunch={"Value": True})
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
        self.group = group["GroupId"]
        for one in ec2.describe_security_groups()["SecurityGroups"]:
            ec2.authorize_security_group_ingress(GroupId=one["GroupId"], IpPermissions=[ANYWHERE])
        image = cloud.image(ec2)
        cards: Any = [
            {"DeviceIndex": 0, "SubnetId": self.further, "PrivateIpAddress": THIRD},
            {
                "DeviceIndex": 1,
                "SubnetId": self.fourth,
                "PrivateIpAddresses": [
                    {"PrivateIpAddress": SECOND_CARD, "Primary": True},
                    {"PrivateIpAddress": ITS_OTHER, "Primary": False},
                ],
            },
        ]
        places: tuple[Any, ...] = (
            {"SubnetId": self.public, "PrivateIpAddress": WEB},
            {"SubnetId": self.private, "PrivateIpAddress": DATA},
            {"NetworkInterfaces": cards},
            {"Placement": {"AvailabilityZone": "us-east-1a"}},
        )
        self.web, self.data, self.third, self.plain = (
            str(
                ec2.run_instances(
                    ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1, UserData=SERVER, **place
                )["Instances"][0]["InstanceId"]
            )
            for place in places
        )
        self._guests: dict[str, debian_guest.Guest] = {}
        for instance in (self.web, self.data, self.third, self.plain):
            until_state(ec2, instance, "running")
            self._guests[instance] = debian_guest.up(instance)

    def close(self) -> None:
        """Leave the consoles."""
        for guest in self._guests.values():
            guest.close()

    # What is there.

    def described(self, instance: str) -> Any:
        [reservation] = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return reservation["Instances"][0]

    @property
    def address(self) -> str:
        """The public address of `web`."""
        return str(self.described(self.web)["PublicIpAddress"])

    def interface(self, instance: str) -> str:
        """The identifier of its first interface."""
        return str(self.described(instance)["NetworkInterfaces"][0]["NetworkInterfaceId"])

    def dhcp_options(self, **words: str) -> str:
        """The VPC has these from now on: `domain`, `ntp`, `names`; their identifier."""
        keys = {"domain": "domain-name", "ntp": "ntp-servers", "names": "domain-name-servers"}
        options: Any = [{"Key": keys[name], "Values": [value]} for name, value in words.items()]
        made = str(self.ec2.create_dhcp_options(DhcpConfigurations=options)["DhcpOptions"]["DhcpOptionsId"])
        self.ec2.associate_dhcp_options(VpcId=self.vpc, DhcpOptionsId=made)
        return made

    # What reaches whom.

    def on(self, instance: str, command: str) -> str:
        """What a command of root's prints on an instance."""
        return self._guests[instance].status(command)[1]

    def reaches(self, instance: str, address: str, port: int = PORT) -> str:
        """What an instance hears from a server, which it must reach now."""
        return self.on(instance, page(address, port, ANSWER))

    def until_on(self, instance: str, command: str, said: str) -> None:
        """Until a command says so: what changes is told to the network a moment after the answer."""
        ends, seconds = time.monotonic() + PATIENCE, SILENCE
        while (heard := self.on(instance, command.replace(f"-T {SILENCE} ", f"-T {seconds} "))) != said:
            assert time.monotonic() < ends, f"{command!r} says {heard!r}, and not {said!r}"
            if heard == UNREACHED:  # a guest on a busy host needs its time
                seconds = min(2 * seconds, ANSWER)
            time.sleep(0.05)

    def asks(self, address: str, seconds: int = 2 * SILENCE) -> str:
        """What the far host hears from a guest's server at this address."""
        assert self._asker.stdin is not None
        assert self._asker.stdout is not None
        self._asker.stdin.write(f"http://{address}:{PORT}/ {seconds}\n")
        self._asker.stdin.flush()
        return self._asker.stdout.readline().strip().removeprefix("reached ")

    def until_asks(self, address: str, said: str) -> None:
        """Until the far host hears this."""
        ends, seconds = time.monotonic() + PATIENCE, 2 * SILENCE
        while (heard := self.asks(address, seconds)) != said:
            assert time.monotonic() < ends, f"the far host hears {heard!r} at {address}, and not {said!r}"
            if heard == UNREACHED:
                seconds = min(2 * seconds, ANSWER)
