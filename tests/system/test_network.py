"""Guests that talk: to each other, to the host, and through a network's process that dies."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from celaje.network import client, spawn
from tests.system.network_guest import ANSWER_SECONDS, NetworkGuest, network_initrd

ROUTER = "10.77.0.1"
MEBIBYTES = int(os.environ.get("CELAJE_TEST_TRANSFER_MIB", "8"))
"""What one guest sends to the other: 1024 for the gigabyte of a long run."""

Boots = tuple[Path, Path]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network of the test's own, stopped at its end."""
    directory = tempfile.mkdtemp(prefix="celaje-")  # a socket's path is short
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    yield
    for name in spawn.running():
        client.stop(name)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def boots(built_image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Boots:
    """An image, and an initrd that sets up a network."""
    image = built_image("debian-mini")
    return image, network_initrd(image, tmp_path_factory.mktemp("network") / "initrd")


def served(listener: socket.socket, answer: bytes) -> bytes:
    """Take one connection, give `answer`, and return what came until its end."""
    listener.settimeout(ANSWER_SECONDS)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(65536):
            received += more
        return received


def sent(port: int, data: bytes) -> bytes:
    """Connect to a port of the host's loopback, send `data`, and return what comes until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(65536):
            received += more
        return received


def test_two_guests_ping_find_each_other_by_name_and_move_data_unharmed(boots: Boots) -> None:
    with NetworkGuest(*boots) as one, NetworkGuest(*boots, "user", "--cpus", "2") as other:
        assert one.address != other.address
        one.run(f"ping -c 3 {ROUTER}")
        one.run(f"ping -c 3 {other.address}")
        other.run("ping -c 3 -s 1400 kernel")
        assert one.address in other.run("nslookup kernel.celaje.internal")
        one.run("head -c 1048576 /dev/urandom > /mebibyte")
        one.start(f"numbered() {{ for i in $(seq {MEBIBYTES}); do echo $i; cat /mebibyte; done; }}")
        # busybox' nc ends when the other end has no more to say: this one has a standard input that does not end.
        other.start("mkfifo /never; nc -l -p 5000 0<> /never | sha256sum > /sum &")
        one.run(f"while ! numbered | nc {other.address} 5000; do sleep 1; done")
        other.run("wait")
        assert other.run("cat /sum").split()[0] == one.run("numbered | sha256sum").split()[0]


def test_a_port_of_the_host_that_was_opened_is_reached_and_another_is_not(boots: Boots) -> None:
    data = Random(1).randbytes(3_000_000)
    with socket.create_server(("127.0.0.1", 0)) as opened, socket.create_server(("127.0.0.1", 0)) as shut:
        port = opened.getsockname()[1]
        with NetworkGuest(*boots, f"user,host=tcp:{port}") as guest:
            received: list[bytes] = []
            thread = threading.Thread(target=lambda: received.append(served(opened, data)))
            thread.start()
            # What came is sent back as its hash.
            guest.run(f"nc {ROUTER} {port} > /data < /dev/null; sha256sum < /data")
            thread.join()
            assert received == [b""]
            assert guest.run("sha256sum < /data").split()[0] == hashlib.sha256(data).hexdigest()
            for address in (ROUTER, "127.0.0.1", "169.254.169.254"):
                status, _ = guest.status(f"nc -w 3 {address} {shut.getsockname()[1]} < /dev/null")
                assert status != 0, f"the host's port is open at {address}"
        shut.setblocking(False)
        with pytest.raises(BlockingIOError):
            shut.accept()


def test_a_forward_reaches_the_guest_and_what_is_large_arrives_whole(boots: Boots) -> None:
    data = Random(2).randbytes(3_000_000)
    with NetworkGuest(*boots, "user,forward=tcp:0:5000") as guest:
        (interface,) = client.interfaces("default")
        (port,) = (one.host_port for one in interface.ports if one.forward)
        guest.start("nc -l -p 5000 -e sha256sum &")
        guest.run("while ! netstat -lnt | grep -q :5000; do usleep 50000; done")
        assert sent(port, data).split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_network_whose_process_was_killed_comes_back_with_the_same_addresses(boots: Boots) -> None:
    with NetworkGuest(*boots) as guest:
        guest.run(f"ping -c 1 {ROUTER}")
        process = client.statistics("default").process
        os.kill(process, signal.SIGKILL)
        guest.run(f"while ! ping -c 1 -W 1 {ROUTER}; do sleep 1; done")
        assert client.statistics("default").process != process
        (interface,) = client.interfaces("default")
        assert interface.address == guest.address


def test_a_guest_without_a_network_has_no_card(boots: Boots) -> None:
    image, initrd = boots
    guest = NetworkGuest(image, initrd, "none")
    try:
        guest.console.wait_for("guest is ready", ANSWER_SECONDS)
        guest.run("true")
        assert guest.run("ls /sys/class/net") == "lo"
    finally:
        guest.console.__exit__()
    assert spawn.running() == []
