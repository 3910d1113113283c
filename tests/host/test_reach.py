"""A connection from the host to a guest that does not answer yet, or never does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.errors import HostError, NotFound, UsageError
from celaje.host import reach
from celaje.network import client
from celaje.network.messages import NetworkSettings
from tests.network.attached_guest import AttachedGuest, attach_request


@pytest.fixture
def guest(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AttachedGuest]:
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    found = AttachedGuest(attach_request())
    yield found
    found.close()
    client.stop("test")


def test_a_guest_that_says_nothing_yet_is_waited_for(guest: AttachedGuest) -> None:
    connections = []
    caller = threading.Thread(target=lambda: connections.append(reach.connect("web", 22)))
    caller.start()
    while not client.statistics("test").tables["TCP connections"]:
        pass  # it has knocked, and nobody has heard it
    heard: list[object] = []
    guest.guest.listen(22, heard.append)
    guest.until(lambda: connections)
    caller.join()
    connections[0].close()
    guest.until(lambda: heard)


def test_a_guest_that_never_answers_is_named_and_nothing_of_the_attempts_is_left(guest: AttachedGuest) -> None:
    with pytest.raises(HostError, match="web has not answered on tcp port 22 for [1-9][0-9]* s"):
        reach.connect("web", 22, patience=0)
    while client.statistics("test").tables["TCP connections"]:
        pass


def test_a_guest_that_is_up_and_has_no_such_server_refuses_at_once(guest: AttachedGuest) -> None:
    failures: list[Exception] = []

    def call() -> None:
        try:
            reach.connect(guest.attached.address, 22)
        except HostError as error:
            failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    guest.until(lambda: failures)
    caller.join()
    assert "'web' does not answer on tcp port 22; is a server running there?" in str(failures[0])


def test_an_address_that_nobody_has_is_not_waited_for(guest: AttachedGuest) -> None:
    with pytest.raises(NotFound, match=r"no running machine is called 10\.77\.9\.9"):
        reach.connect("10.77.9.9", 22)


def test_networks_with_the_same_addresses_are_told_apart_by_name(guest: AttachedGuest) -> None:
    same = {"network": NetworkSettings(name="other"), "address": guest.attached.address}
    twin = AttachedGuest(attach_request("twin", host_name="web", **same))
    try:
        for reached in (reach.connect, lambda host, port: reach.machine_of(host)):
            with pytest.raises(UsageError, match=r"may be any of twin \(network other\), web \(network test\); say"):
                reached(guest.attached.address, 22)
        connections: list[socket.socket] = []
        caller = threading.Thread(target=lambda: connections.append(reach.connect("twin", 22)))
        caller.start()
        twin.guest.listen(22)
        twin.until(lambda: connections)
        caller.join()
        connections[0].close()
    finally:
        twin.close()
        client.stop("other")
