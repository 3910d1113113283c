"""A thousand interfaces of one network's process, as a large VPC has them: they attach, change together and go."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.network import client, messages
from celaje.network.fingerprint import fingerprint
from celaje.network.messages import Attach, NetworkSettings, Rule, SecurityGroup
from tests.network.attached_guest import AttachedGuest, until

COUNT = 1_000
GROUPS_OF_ONE = 5
RULES = 60  # of a group
MOST_BYTES = 150_000  # of memory an interface
VPC = NetworkSettings(name="vpc-large", blocks=("172.31.0.0/16",), domain="ec2.internal")
SSH = Rule("in", "tcp", first_port=22, last_port=22)
PING = Rule("in", "icmp")

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT * 3:
        pytest.skip(f"this process may have {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def groups(*of_all: Rule) -> list[SecurityGroup]:
    """Fifty groups of sixty rules; every interface is in the first, whose other rules are `of_all`."""
    made = []
    for number in range(50):
        rules = [Rule("in", "tcp", f"10.{number}.{at}.0/24", 1_000 + at, 1_010 + at) for at in range(RULES - 2)]
        rules += [Rule("out", "any"), Rule("in", "tcp", f"group:sg-{number}", 5_432, 5_432)]
        made.append(SecurityGroup(f"sg-{number}", (*rules, *of_all) if not number else tuple(rules)))
    return made


def interface(number: int) -> Attach:
    address = f"172.31.{number // 200}.{number % 200 + 10}"
    names = ["sg-0", *(f"sg-{(number + at) % 49 + 1}" for at in range(GROUPS_OF_ONE - 1))]
    return Attach(
        network=VPC,
        interface=f"i-{number:017x}",
        host_name="ip-" + address.replace(".", "-"),
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        subnet="172.31.0.0/20",
        address=address,
        groups=tuple(map(SecurityGroup, names)),
        public_address=f"127.64.{number // 200}.{number % 200 + 1}",
        bandwidth=messages.Bandwidth(100_000_000, 100_000_000),
        metadata=messages.MetadataFacts(f"i-{number:017x}", "web", extra={"placement/region": "us-east-1"}),
    )


def resident_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def test_a_thousand_interfaces_attach_change_together_and_go() -> None:
    client.set_groups(VPC.name, groups(SSH, PING))
    wanted = [interface(number) for number in range(COUNT)]
    first = AttachedGuest(wanted[0])
    process = client.statistics(VPC.name).process
    before = resident_bytes(process)
    others = [client.attach(one) for one in wanted[1:-1]]
    last = AttachedGuest(wanted[-1])
    assert (resident_bytes(process) - before) // COUNT < MOST_BYTES

    found = client.fingerprints(VPC.name)
    assert found is not None
    assert found.interfaces == {one.interface: fingerprint(one) for one in wanted}
    listed = client.interfaces(VPC.name)
    assert len(listed) == COUNT
    assert all([port.guest_port for port in one.ports] == [22] for one in listed)

    assert len(client.statistics(VPC.name).interfaces) == len(client.heard(VPC.name)) == COUNT

    first.guest.gateway_mac, last.guest.gateway_mac = last.guest.mac, first.guest.mac
    last.guest.listen(22)
    stream = first.guest.connect(last.guest.address, 22)
    until(lambda: stream.established, first, last)
    assert client.set_groups(VPC.name, groups(PING)) == 1, "the connection, of whatever group's thousand members"
    assert all(not one.ports for one in client.interfaces(VPC.name))

    for attachment in others:
        attachment.link.close()
    first.close()
    last.close()
    while client.interfaces(VPC.name):
        pass
    tables = client.statistics(VPC.name).tables
    assert {name: size for name, size in tables.items() if size and name != "watched descriptors"} == {}
    assert tables["watched descriptors"] < 16
