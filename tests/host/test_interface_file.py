"""A machine's interface as a document: written first, then told; the same again after whatever was killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from celaje.errors import HostError, InputError, NotFound, UsageError
from celaje.host import control, inventory, starting
from celaje.host import messages as host_messages
from celaje.host.interface_file import (
    FILE,
    applied,
    differing,
    read_interface,
    update_interface,
    write_interface,
)
from celaje.host.network_card import NetworkCard
from celaje.host.record import MachineDirectory
from celaje.network import client, messages
from celaje.network.fingerprint import fingerprint
from celaje.network.messages import Attach, NetworkSettings, SecurityGroup
from tests.machine_processes import Machines, wait_until
from tests.network.attached_guest import AttachedGuest

VPC = NetworkSettings(name="vpc-0123456789abcdef0", blocks=("172.31.0.0/16",), domain="ec2.internal")
NAME = "i-0123456789abcdef0"
INTERFACE = Attach(
    network=VPC,
    interface=NAME,
    host_name="ip-172-31-0-5",
    mac="02:00:00:00:00:05",
    subnet="172.31.0.0/20",
    address="172.31.0.5",
    groups=(SecurityGroup("sg-1"),),
    public_address="127.64.0.5",
    metadata=messages.MetadataFacts(instance_id=NAME, host_name="ip-172-31-0-5", user_data=b"\0\xff"),
)


@pytest.fixture
def directory(tmp_path: Path) -> MachineDirectory:
    path = tmp_path / NAME
    path.mkdir()
    return MachineDirectory(path)


@pytest.fixture
def attached(runtime: Path) -> Iterator[AttachedGuest]:
    found = AttachedGuest(INTERFACE)
    yield found
    found.close()
    client.stop(VPC.name)


def changed(**more: object) -> Attach:
    return msgspec.structs.replace(INTERFACE, **more)


def now() -> messages.Interface:
    [one] = client.interfaces(VPC.name)
    return one


def test_a_document_is_read_as_it_was_written_and_is_its_owners(directory: MachineDirectory) -> None:
    assert read_interface(directory) is None
    write_interface(directory, INTERFACE)
    assert read_interface(directory) == INTERFACE
    path = directory.path / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    inode = path.stat().st_ino
    write_interface(directory, INTERFACE)
    assert path.stat().st_ino == inode, "nothing has changed"
    assert [one.name for one in directory.path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "is no machine's interface: malformed"),
        (b'{"version": 99, "message": "attach"}', "has version 99"),
        (b'{"version": 1, "message": "stop"}', "is no machine's interface but a message Stop"),
    ],
)
def test_what_is_no_document_is_refused_by_name(directory: MachineDirectory, content: bytes, why: str) -> None:
    (directory.path / FILE).write_bytes(content)
    with pytest.raises(InputError, match=why):
        read_interface(directory)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"interface": "other"}, "a machine's first interface has its name"),
        ({"address": "172.31.16.5"}, "is none of the subnet 172.31.0.0/20"),
        ({"address": "172.31.0.3"}, "is none of the subnet"),
        ({"address": None}, "has no address; say one, or no subnet"),
        ({"subnet": "172.31.0.1/20"}, "is no subnet"),
        ({"mac": "02:00"}, "is no MAC address"),
        ({"public_address": "localhost"}, "'localhost' is no IPv4 address"),
        ({"services": (messages.Service("169.254.169.250", 4566, "here", 4566),)}, "'here' is no IPv4 address"),
        ({"groups": (SecurityGroup("g", (messages.Rule("in", "tcp", "x"),)),)}, "'x' is no IPv4 network"),
        ({"network": NetworkSettings(name="n", blocks=())}, "has no block of addresses"),
    ],
)
def test_what_no_network_would_take_is_not_written(
    directory: MachineDirectory, more: dict[str, object], why: str
) -> None:
    write_interface(directory, INTERFACE)
    with pytest.raises(InputError, match=why):
        write_interface(directory, changed(**more))
    assert read_interface(directory) == INTERFACE


def test_a_machine_that_is_not_there_has_no_interface(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=f"there is no machine '{NAME}'"):
        write_interface(MachineDirectory(tmp_path / NAME), INTERFACE)


def test_where_nobody_runs_a_change_is_written_and_that_is_all(directory: MachineDirectory, runtime: Path) -> None:
    assert update_interface(directory, INTERFACE) == 0
    assert update_interface(directory, changed(address="172.31.0.6")) == 0
    assert read_interface(directory) == changed(address="172.31.0.6")


def test_a_network_that_runs_has_what_the_document_says(directory: MachineDirectory, attached: AttachedGuest) -> None:
    write_interface(directory, INTERFACE)
    for public in ("127.64.0.6", None, "127.64.0.7"):
        update_interface(directory, changed(public_address=public))
        assert now().public_address == public
    found = client.fingerprints(VPC.name)
    assert found is not None
    assert found.interfaces == {NAME: fingerprint(changed(public_address="127.64.0.7"))}


def test_what_was_written_and_never_told_is_found_and_told(
    directory: MachineDirectory, attached: AttachedGuest
) -> None:
    wanted = changed(public_address=None)
    write_interface(directory, wanted)  # and then the controller was killed
    assert differing(VPC.name, [wanted]) == [wanted]
    applied(wanted)
    assert differing(VPC.name, [wanted]) == []
    assert now().public_address is None
    assert differing("nowhere", [wanted]) == []
    assert differing(VPC.name, [changed(interface="another")]) == [], "it attaches with its document"


def test_a_change_that_cannot_be_is_refused_and_told_again_with_the_next(
    directory: MachineDirectory, attached: AttachedGuest
) -> None:
    taken = messages.Forward("tcp", "192.0.2.1", 0, 22)  # no address of this host's
    with pytest.raises(HostError, match="cannot forward"):
        update_interface(directory, changed(forwards=(taken,), public_address="127.64.0.8"))
    assert now().public_address == INTERFACE.public_address, "all or nothing"
    update_interface(directory, changed(public_address="127.64.0.8"))
    assert now().public_address == "127.64.0.8"


def test_a_card_follows_its_document_until_that_stands_still(runtime: Path) -> None:
    """Whoever writes it while a card attaches, or tells what it has read, may have told the network already."""
    versions = [changed(public_address=address) for address in ("127.64.0.6", "127.64.0.7")]
    read = iter([*versions, versions[-1]])
    card = NetworkCard(INTERFACE, lambda: next(read))
    assert now().public_address == "127.64.0.7"
    card.close()
    card.device.close()
    client.stop(VPC.name)


CONTROLLER = """
import itertools, sys
from pathlib import Path
import msgspec
from celaje.host.interface_file import read_interface, update_interface
from celaje.host.record import MachineDirectory

directory = MachineDirectory(Path(sys.argv[1]))
print(flush=True)
for number in itertools.count(int(sys.argv[2])):
    address = f"127.64.{number >> 8 & 255}.{number & 255}"
    wanted = msgspec.structs.replace(read_interface(directory), public_address=address)
    update_interface(directory, wanted)
    print(number, flush=True)
"""


def test_a_controller_may_be_killed_at_any_moment(
    directory: MachineDirectory, attached: AttachedGuest, repetitions: Callable[[int, int], int]
) -> None:
    write_interface(directory, INTERFACE)
    told = 0
    for seed in range(repetitions(4, 100)):
        words = [sys.executable, "-c", CONTROLLER, str(directory.path), str(told + 1)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as controller:
            assert controller.stdout is not None
            controller.stdout.readline()
            time.sleep(Random(seed).random() / 20)
            controller.kill()
            said = controller.stdout.read().split()
        told = max([told, *map(int, said)])
        written = read_interface(directory)
        assert written is not None, "what was there is never lost"
        _, _, third, fourth = str(written.public_address or INTERFACE.public_address).split(".")
        number = int(third) << 8 | int(fourth)
        assert number >= told or not told, "what was acknowledged is written"
        told = max(told, number)
        applied(written)
        assert differing(VPC.name, [written]) == []
        assert now().public_address == written.public_address
    update_interface(directory, changed(public_address=None))
    assert [one.name for one in directory.path.iterdir()] == [FILE], "nothing is left of those that were killed"


# With a machine.


def address_of(directory: MachineDirectory) -> str | None:
    described = inventory.look(directory).description
    return described.network.address if described is not None and described.network is not None else None


def test_a_machine_attaches_as_its_document_says_now_and_after_its_network_was_killed(
    machines: Machines, tmp_path: Path
) -> None:
    directory = machines.made("one")
    first = changed(interface="one")
    write_interface(directory, first)
    starting.start(directory)
    assert address_of(directory) == "172.31.0.5"
    assert now().public_address == "127.64.0.5"
    with pytest.raises(InputError, match="the address of one cannot change from 172.31.0.5 to 172.31.0.6 while"):
        update_interface(directory, msgspec.structs.replace(first, address="172.31.0.6"))
    moved = msgspec.structs.replace(first, public_address="127.64.0.9")
    update_interface(directory, moved)
    described = inventory.look(directory).description
    assert described is not None
    assert described.network is not None
    assert described.network.public_address == now().public_address == "127.64.0.9"

    with pytest.raises(UsageError, match="one is a machine of a cloud, whose place in its network a snapshot does not"):
        control.ask("one", host_messages.Snapshot(path=str(tmp_path / "snapshot")), host_messages.SnapshotTaken)
    with pytest.raises(UsageError, match="what one admits is not its own affair but that of the cloud"):
        control.ask("one", host_messages.SetAllowed(allowed=()), host_messages.RulesChanged)

    killed = client.statistics(VPC.name).process
    os.kill(killed, signal.SIGKILL)
    write_interface(directory, last := msgspec.structs.replace(moved, public_address=None))
    wait_until(lambda: client.interfaces(VPC.name))
    wait_until(lambda: not differing(VPC.name, [last]))
    assert now().public_address is None
    assert client.statistics(VPC.name).process != killed
