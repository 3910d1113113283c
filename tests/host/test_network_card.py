from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.engine.memory import GuestMemory
from celaje.errors import HostError
from celaje.host import network_card
from celaje.host.network_card import (
    NetworkCard,
    attach_request,
    card_of_free_name,
    derived_mac,
    free_name,
    kept_forwards,
)
from celaje.host.network_options import AllowOption, ForwardOption, HostPortOption, NetworkOptions
from celaje.machine.virtio.net import FEATURES
from celaje.network import client, messages, spawn
from tests.machine.virtio.driver import BASE, MEMORY_SIZE, PATIENCE, Driver
from tests.machine.virtio.frames import header, ipv4
from tests.machine_processes import end, wait_until

OUT = BASE + 0x10000
FRAME = header() + ipv4(17, bytes(100))


class FakeNetwork:
    """A process of the network `default`, as far as attaching goes: it says yes and keeps the connections."""

    def __init__(self) -> None:
        self.requests: list[messages.Request] = []
        self.links: list[socket.socket] = []
        self._attached = threading.Semaphore(0)
        self.refusal: messages.Refused | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = spawn.socket_path("default")
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            data = connection.recv(messages.LONGEST_MESSAGE)
            if not data:  # somebody who only looks whether there is a process
                connection.close()
                continue
            request = messages.decoded_request(data)
            self.requests.append(request)
            if isinstance(request, messages.ListInterfaces):
                named = ("mini", "mini-2")
                one = tuple(messages.Interface(name, name, "", "", None, ()) for name in named)
                connection.send(messages.encoded(messages.InterfaceList(interfaces=one, more=False)))
                connection.close()
            elif self.refusal is not None:
                connection.send(messages.encoded(self.refusal))
                connection.close()
            else:
                answer = messages.Attached(
                    address="10.77.0.10", prefix_length=16, router="10.77.0.1", dns="10.77.0.2", mtu=1500,
                    public_address=None,
                )  # fmt: skip
                connection.send(messages.encoded(answer))
                connection.settimeout(PATIENCE)
                self.links.append(connection)
                self._attached.release()

    def wait_for_link(self) -> socket.socket:
        assert self._attached.acquire(timeout=PATIENCE)
        return self.links[-1]

    def die(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for link in self.links:
            link.close()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNetwork]:
    with tempfile.TemporaryDirectory(prefix="celaje-") as directory:  # a socket's path is short
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        monkeypatch.setattr(spawn, "ensure_running", lambda settings: None)
        network = FakeNetwork()
        yield network
        network.die()


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(BASE, MEMORY_SIZE)
    yield memory
    memory.close()


def send(driver: Driver) -> None:
    driver.memory.write(OUT, FRAME)
    driver.request([(OUT, len(FRAME), 0)], 1)


def test_what_a_person_opens_is_asked_of_the_network() -> None:
    options = NetworkOptions(
        forwards=(ForwardOption("tcp", "127.0.0.1", 2222, 8022),),
        host_ports=(HostPortOption("tcp", 8080, 80),),
        allowed=(AllowOption("udp", 5000, 5010),),
        bandwidth=1000,
    )
    request = attach_request("mini", options)
    assert (request.interface, request.host_name, request.mac) == ("mini", "mini", derived_mac("mini"))
    assert request.forwards == (messages.Forward("tcp", "127.0.0.1", 2222, 8022),)
    assert request.host_ports == (messages.HostPort("tcp", 8080, 80),)
    assert request.bandwidth == messages.Bandwidth(1000, 1000)
    assert request.public_address is not None
    assert request.public_address.startswith("127.")
    inward = {(rule.protocol, rule.first_port, rule.last_port) for rule in request.groups[1].rules}
    assert inward == {("tcp", 22, 22), ("icmp", 0, 65535), ("tcp", 8022, 8022), ("udp", 5000, 5010)}


def test_a_public_address_of_a_pool_is_asked_for_with_the_pool() -> None:
    request = attach_request("mini", NetworkOptions(public="198.51.100.5/28"), public_address="127.1.2.3")
    assert (request.public_address, request.network.pool) == ("198.51.100.5", "198.51.100.0/28")


def test_the_mac_address_is_one_cards_and_stays_the_names() -> None:
    assert derived_mac("mini") == derived_mac("mini") != derived_mac("mini-2")
    assert int(derived_mac("mini")[:2], 16) & 3 == 2


def test_a_machine_without_a_name_gets_one_that_is_free(network: FakeNetwork) -> None:
    assert free_name("default", "Mini") == "mini-3"
    assert free_name("default", "_Linux Image_") == "linux-image"
    assert free_name("default", "...") == "machine"


def test_a_name_that_another_machine_has_taken_meanwhile_is_given_up(network: FakeNetwork) -> None:
    network.refusal = messages.Refused(cause="taken", reason="an interface 'mini-3' is attached already")
    asked: list[str] = []

    def request(name: str) -> messages.Attach:
        asked.append(name)
        if len(asked) == 3:
            network.refusal = None
        return attach_request(name, NetworkOptions())

    card = card_of_free_name("default", "mini", request)
    assert asked == ["mini-3"] * 3
    card.close()
    card.device.close()
    network.refusal = messages.Refused(cause="taken", reason="an interface 'mini-3' is attached already")
    with pytest.raises(client.Taken, match="is attached already"):
        card_of_free_name("default", "mini", lambda name: attach_request(name, NetworkOptions()))


def test_a_card_is_attached_again_when_its_network_has_died(network: FakeNetwork, memory: GuestMemory) -> None:
    card = NetworkCard(attach_request("mini", NetworkOptions()))
    driver = Driver(card.device, memory)
    driver.initialize(FEATURES, 64)
    link = network.wait_for_link()
    send(driver)
    assert link.recv(4096) == FRAME

    network.die()
    again = FakeNetwork()
    other = again.wait_for_link()
    wait_until(lambda: card.device.link_is_up)  # the answer is on its way
    send(driver)
    assert other.recv(4096) == FRAME
    first, second = (one for one in (*network.requests, *again.requests) if isinstance(one, messages.Attach))
    assert second.address == "10.77.0.10", "the address stays"
    assert (second.interface, second.mac) == (first.interface, first.mac)
    card.close()
    driver.mmio.close()
    again.die()


def test_groups_that_change_while_the_network_dies_are_asked_of_the_next_one(
    network: FakeNetwork, memory: GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = NetworkCard(attach_request("mini", NetworkOptions()))
    driver = Driver(card.device, memory)
    driver.initialize(FEATURES, 64)
    network.wait_for_link()
    next_ones: list[FakeNetwork] = []

    def last_words(name: str, request: messages.Update) -> messages.Updated:
        network.die()
        next_ones.append(FakeNetwork())
        time.sleep(0.5)  # for who attaches too early to be found out
        return messages.Updated(cut=0)

    monkeypatch.setattr(client, "update", last_words)
    groups = messages.default_groups("mini", (), (("tcp", 80, 80),))
    card.change_groups(groups)
    (again,) = next_ones
    again.wait_for_link()
    assert [one.groups for one in again.requests if isinstance(one, messages.Attach)] == [groups]
    card.close()
    driver.mmio.close()
    again.die()


def test_a_port_that_the_network_has_chosen_is_asked_for_again(runtime: Path, memory: GuestMemory) -> None:
    """A real process of a network, killed and started again."""
    forwards = (
        ForwardOption("tcp", "127.0.0.1", 0, 22), ForwardOption("udp", "127.0.0.1", 0, 22),
        ForwardOption("tcp", "127.0.0.1", 0, 80),
    )  # fmt: skip
    card = NetworkCard(attach_request("mini", NetworkOptions(network="ports", forwards=forwards)))
    driver = Driver(card.device, memory)
    driver.initialize(FEATURES, 64)

    def ports() -> list[tuple[str, int, int]]:
        return [(one.protocol, one.host_port, one.guest_port) for one in card.attached.ports if one.forward]

    chosen = ports()
    assert len({port for _, port, _ in chosen}) == 3
    before: list[messages.Attached] = []
    for _ in range(2):
        before.append(card.attached)
        end(client.statistics("ports").process)
        wait_until(lambda: card.attached is not before[-1])
        assert ports() == chosen
    card.close()
    driver.mmio.close()


def test_a_chosen_port_that_somebody_else_has_by_now_is_given_up_in_the_end(
    runtime: Path, memory: GuestMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network_card, "LONGEST_PAUSE", network_card.FIRST_PAUSE)
    forward = ForwardOption("tcp", "127.0.0.1", 0, 22)
    card = NetworkCard(attach_request("mini", NetworkOptions(network="taken", forwards=(forward,))))
    driver = Driver(card.device, memory)
    driver.initialize(FEATURES, 64)
    (port,) = (one.host_port for one in card.attached.ports if one.forward)
    before = card.attached
    lock = os.open(spawn.socket_path("taken").with_suffix(".start"), os.O_RDWR)
    with socket.socket() as taker:
        fcntl.flock(lock, fcntl.LOCK_EX)  # nobody starts it meanwhile
        end(client.statistics("taken").process)
        taker.bind(("127.0.0.1", port))
        taker.listen()
        os.close(lock)
        wait_until(lambda: card.attached is not before)
    (other,) = (one.host_port for one in card.attached.ports if one.forward)
    assert other != port
    assert "given up, and others chosen" in caplog.text
    card.close()
    driver.mmio.close()


def test_chosen_ports_are_told_from_those_that_were_asked_for() -> None:
    def forward(port: int, guest: int) -> messages.Forward:
        return messages.Forward("tcp", "127.0.0.1", port, guest)

    def given(port: int, guest: int, forward: bool = True) -> messages.PublicPort:
        return messages.PublicPort("tcp", guest, "127.0.0.1", port, forward=forward)

    wished = (forward(2222, 22), forward(0, 22), forward(0, 80))
    ports = (given(2222, 22), given(40001, 22), given(80, 80, forward=False))
    assert kept_forwards(wished, ports) == (forward(2222, 22), forward(40001, 22), forward(0, 80))


def test_a_network_that_refuses_is_an_error_that_says_why(network: FakeNetwork) -> None:
    network.refusal = messages.Refused(cause="taken", reason="port 2222 is taken; choose another")
    with pytest.raises(HostError, match="port 2222 is taken"):
        NetworkCard(attach_request("mini", NetworkOptions()))
