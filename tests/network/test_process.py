"""A network's process: that there is one, that it is found, and that it goes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.errors import HostError, InputError, NotFound
from celaje.network import client, messages, spawn
from celaje.network.messages import NetworkSettings
from celaje.network.process import NetworkProcess
from tests.network.attached_guest import AttachedGuest, attach_request

SETTINGS = NetworkSettings(name="test")

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def process() -> Iterator[int]:
    """A process that runs; its identifier."""
    spawn.ensure_running(SETTINGS)
    yield client.statistics("test").process
    client.stop("test")


def has_ended(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it has gone since the file was opened
        return True


def held_by(process: int) -> list[str]:
    """What its descriptors are; one that it closes meanwhile is none."""
    found = []
    for name in os.listdir(f"/proc/{process}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{process}/fd/{name}"))
    return found


def wait_for_end(process: int) -> None:
    while not has_ended(process):
        time.sleep(0.01)


def test_a_network_that_does_not_run_is_named() -> None:
    with pytest.raises(NotFound, match="the network 'test' does not run .running: none.; start a machine in it"):
        client.statistics("test")
    assert client.interfaces("test") == []
    assert spawn.running() == []
    assert not client.stop("test")


def test_a_network_is_started_and_found_by_its_name(process: int) -> None:
    assert spawn.running() == ["test"]
    assert client.statistics("test").process == process


def test_two_starters_at_once_end_with_one_process() -> None:
    threads = [threading.Thread(target=spawn.ensure_running, args=(SETTINGS,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = client.statistics("test").process
    assert client.statistics("test").process == first
    log = spawn.log_path("test").read_text()
    assert log.count("network test runs") == 1
    client.stop("test")
    wait_for_end(first)


def test_the_process_is_no_child_of_its_starter_and_has_a_session_of_its_own(process: int) -> None:
    with open(f"/proc/{process}/stat") as file:
        _, parent, _, session = file.read().rpartition(")")[2].split()[:4]
    assert int(parent) != os.getpid()
    assert int(session) != os.getsid(0)
    assert not any(name.startswith("pipe:") for name in held_by(process))
    assert os.readlink(f"/proc/{process}/cwd") == "/"


def test_a_process_that_was_killed_is_replaced(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    wait_for_end(process)
    assert spawn.socket_path("test").exists()
    assert spawn.running() == []
    guest = AttachedGuest(attach_request())
    assert client.statistics("test").process != process
    guest.close()


def test_a_process_of_other_code_is_replaced_where_no_machine_is_attached(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn.ensure_running(SETTINGS)
    assert client.statistics("test").process == process
    with monkeypatch.context() as changed:
        changed.setattr(spawn, "build", lambda: "other")
        machine = AttachedGuest(attach_request())  # by a starter of other code
        wait_for_end(process)
        present = client.statistics("test").process
        assert present != process
        spawn.ensure_running(SETTINGS)
        assert client.statistics("test").process == present
    machine.close()


def test_a_process_of_other_code_is_replaced_however_long_it_takes_to_go(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped when it is asked, and goes on when somebody waits for it."""
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(spawn, "build", lambda: "other")
    starter = threading.Thread(target=spawn.ensure_running, args=(SETTINGS,))
    starter.start()
    try:
        starter.join(1.0)
        assert starter.is_alive(), "whoever starts it waits for its answer"
    finally:
        os.kill(process, signal.SIGCONT)
        starter.join()
    wait_for_end(process)
    assert client.statistics("test").process != process


def test_more_callers_than_wait_in_its_queue_are_let_in_one_after_the_other(runtime: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(spawn.socket_path("test")))
        listener.listen(0)
        listener.settimeout(60)
        full = False
        while not full:
            one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            one.setblocking(False)
            full = one.connect_ex(str(spawn.socket_path("test"))) == errno.EAGAIN
        found: list[object] = []
        asking = threading.Thread(target=lambda: found.append(client.interfaces("test")))
        asking.start()
        waiting.close()
        while True:
            with listener.accept()[0] as caller:
                if caller.recv(messages.LONGEST_MESSAGE):
                    caller.send(messages.encoded(messages.InterfaceList(interfaces=(), more=False)))
                    break
        asking.join()
        assert found == [[]]


def test_a_process_that_did_not_sign_its_lock_is_let_be(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "build", lambda: "other")
    for signed in ("", "1 former\n"):
        spawn.lock_path("test").write_text(signed)
        spawn.ensure_running(SETTINGS)
        assert client.statistics("test").process == process


def test_a_machine_keeps_its_address_when_the_process_is_replaced(process: int) -> None:
    first, second = AttachedGuest(attach_request("a", 1)), AttachedGuest(attach_request("b", 2))
    os.kill(process, signal.SIGKILL)
    wait_for_end(process)
    again_second, again_first = AttachedGuest(attach_request("b", 2)), AttachedGuest(attach_request("a", 1))
    assert again_first.attached.address == first.attached.address
    assert again_second.attached.address == second.attached.address
    for guest in (first, second, again_first, again_second):
        guest.close()


def test_stop_ends_the_process_and_removes_its_socket(process: int) -> None:
    assert client.stop("test")
    wait_for_end(process)
    assert not spawn.socket_path("test").exists()


def test_sigterm_ends_the_process_too(process: int) -> None:
    os.kill(process, signal.SIGTERM)
    wait_for_end(process)
    assert not spawn.socket_path("test").exists()


def test_a_machine_sees_the_end_of_its_link_when_the_process_stops(process: int) -> None:
    guest = AttachedGuest(attach_request())
    client.stop("test")
    guest.until(lambda: guest.gone)
    guest.close()


def test_who_is_attached_is_listed_with_address_and_name(process: int) -> None:
    guests = [AttachedGuest(attach_request(f"m{number}", number)) for number in range(1, 131)]
    listed = client.interfaces("test")
    assert [one.interface for one in listed] == [f"m{number}" for number in range(1, 131)]
    assert [one.address for one in listed] == [one.attached.address for one in guests]
    for guest in guests:
        guest.close()
    guests[0].close()
    while client.interfaces("test"):
        pass
    assert client.statistics("test").tables["interfaces"] == 0


def test_a_name_that_is_attached_already_is_refused(process: int) -> None:
    guest = AttachedGuest(attach_request())
    with pytest.raises(HostError, match="an interface 'web' is attached to the network 'test' already"):
        client.attach(attach_request(number=2))
    guest.close()


def test_other_settings_of_a_running_network_are_refused(process: int) -> None:
    other = NetworkSettings(name="test", blocks=("10.78.0.0/16",))
    machine = AttachedGuest(attach_request())
    with pytest.raises(InputError, match=r"runs as 10.77.0.0/16, domain celaje.internal, MTU 1500 and cannot be 10.78"):
        client.attach(attach_request("other", 2, network=other))
    assert client.statistics("test").process == process
    machine.close()


def test_a_running_network_takes_further_blocks_and_no_other_difference(process: int) -> None:
    machine = AttachedGuest(attach_request())
    wider = NetworkSettings(name="test", blocks=("10.77.0.0/16", "10.90.0.0/16"))
    there = {"subnet": "10.90.3.0/24", "address": "10.90.3.9"}
    with pytest.raises(InputError, match=r"the subnet 10.90.3.0/24 is in no block of the network, which has"):
        client.attach(attach_request("b", 2, **there))
    other = AttachedGuest(attach_request("b", 2, network=wider, **there))
    assert (other.attached.prefix_length, other.attached.router, other.attached.dns) == (24, "10.90.3.1", "10.77.0.2")
    third = AttachedGuest(attach_request("c", 3))  # of the blocks that it knows
    overlapping = NetworkSettings(name="test", blocks=("10.77.0.0/16", "10.90.128.0/17"))
    with pytest.raises(InputError, match=r"10.90.128.0/17 overlaps 10.90.0.0/16, which is the network's already"):
        client.attach(attach_request("d", 4, network=overlapping))
    for different in (NetworkSettings("test", mtu=9001), NetworkSettings("test", domain="ec2.internal")):
        with pytest.raises(HostError, match="and cannot be"):
            client.attach(attach_request("d", 4, network=different))
    assert client.statistics("test").process == process
    for one in (machine, other, third):
        one.close()


def test_a_network_where_nobody_is_attached_becomes_another_one(process: int) -> None:
    machine = AttachedGuest(attach_request(network=NetworkSettings(name="test", blocks=("10.78.0.0/16",))))
    assert machine.attached.router == "10.78.0.1"
    wait_for_end(process)
    machine.close()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"mac": "52:54"}, "'52:54' is no MAC address"),
        ({"address": "10.77.0"}, "'10.77.0' is no IPv4 address"),
        ({"address": "192.0.2.1"}, "192.0.2.1"),
        ({"groups": (messages.SecurityGroup("g", (messages.Rule("in", "tcp", "anywhere"),)),)}, "is no IPv4 network"),
        ({"groups": (messages.SecurityGroup("g", (messages.Rule("in", "tcp", "10.0.0.0/8", 5, 3),)),)}, "5-3"),
        ({"host_ports": (messages.HostPort("tcp", 80, host_address="localhost"),)}, "'localhost' is no IPv4"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_in_an_attachment_is_named(process: int, more: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        client.attach(attach_request(**more))
    assert reason in str(refused.value)
    assert client.interfaces("test") == []


def test_a_message_that_is_none_is_answered_by_a_refusal(process: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(spawn.socket_path("test")))
        connection.send(b"hello")
        answer = messages.decoded_answer(connection.recv(100_000))
    assert isinstance(answer, messages.Refused)
    assert answer.cause == "malformed"


def test_a_process_that_cannot_start_says_why() -> None:
    with pytest.raises(HostError, match="did not start; .* ends with: .*prefix of 8"):
        spawn.ensure_running(NetworkSettings(name="test", blocks=("10.77.0.0/30",)))


def test_a_name_that_no_socket_can_have_is_refused() -> None:
    with pytest.raises(InputError, match="choose another"):
        spawn.ensure_running(NetworkSettings(name="../up"))


def test_a_network_where_nobody_is_attached_ends() -> None:
    NetworkProcess(SETTINGS, spawn.socket_path("test"), idle_seconds=0.05).run()


def test_who_has_heard_of_the_end_finds_no_socket_any_more() -> None:
    path = spawn.socket_path("test")
    thread = threading.Thread(target=NetworkProcess(SETTINGS, path).run)
    thread.start()
    assert client.stop("test")
    assert not path.exists()
    thread.join()
