"""What a machine does when it was booted, and when it goes on from a snapshot: the same."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje.disk.volumes import VolumeStore
from celaje.host import inventory
from celaje.host.record import MachineDirectory
from celaje.network import client
from tests.machine_processes import end, wait_until
from tests.system.debian_guest import ANSWER_SECONDS, Guest, booted, celaje, interface, place, remove, restored, ssh, up

ROUTER = "10.77.0.1"
MARK = b"SSH-2.0-"


@pytest.fixture(scope="module")
def opened() -> Iterator[socket.socket]:
    """A listener on the host's loopback that machines may reach."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(ANSWER_SECONDS)
        yield listener


@pytest.fixture(scope="module", params=["booted", "restored"])
def guest(
    request: pytest.FixtureRequest,
    built_image: Callable[[str], Path],
    frozen: dict[str, Path],
    home: Path,
    key: Path,
    opened: socket.socket,
) -> Iterator[Guest]:
    network = f"user,host=tcp:{opened.getsockname()[1]},forward=tcp:0:22,allow=tcp:7000"
    if request.param == "booted":
        words = ["--ssh-key", key.with_suffix(".pub"), "--network", network]
        found = booted("one", built_image("debian-mini"), *words)
    else:
        found = restored("one", frozen["one"], network)
    yield found
    remove(found)


def greeting(connection: socket.socket) -> bytes:
    with connection:
        connection.settimeout(ANSWER_SECONDS)
        return connection.recv(64)


def test_ssh_runs_commands_as_root_and_as_admin_beside_a_running_server(guest: Guest, key: Path) -> None:
    assert ssh("one", key, "id -un; echo said >&2; exit 7").returncode == 7
    for user in ("root", "admin"):
        done = ssh("one", key, "id -un; hostname", user)
        assert done.stdout == f"{user}\none\n", done.stderr
    done = ssh("one", key, "sudo id -un; id -u", "admin")
    assert done.stdout == "root\n1000\n", done.stderr
    assert guest.run("pidof dropbear")
    assert ssh("one", key, "true", "nobody").returncode == 255


def test_a_server_of_the_guest_is_reached_by_forward_public_address_proxy_and_tunnel(guest: Guest, key: Path) -> None:
    ports = interface("one").ports
    (forward,) = (port for port in ports if port.forward)
    assert greeting(socket.create_connection((forward.host_address, forward.host_port))).startswith(MARK)
    (public,) = (port for port in ports if not port.forward and port.guest_port == 22)
    assert public.host_address.startswith("127.")
    assert public.host_port == 22 or public.reason
    assert greeting(socket.create_connection((public.host_address, public.host_port))).startswith(MARK)
    for host in ("one", "one.celaje", interface("one").address, public.host_address):
        proxy = subprocess.Popen(
            [sys.executable, "-m", "celaje", "proxy", host, "22"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with proxy:
            assert proxy.stdout is not None
            assert os.read(proxy.stdout.fileno(), 64).startswith(MARK)
            assert proxy.stdin is not None
            proxy.stdin.close()
            end(proxy.pid)
    # What ssh forwards itself goes through the same connection.
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    tunnel = threading.Thread(target=ssh, args=("one", key, "sleep 5", "root", "-L", f"{port}:localhost:22"))
    tunnel.start()
    said = b""
    while tunnel.is_alive() and not said:
        with contextlib.suppress(OSError):
            said = greeting(socket.create_connection(("127.0.0.1", port)))
    tunnel.join()
    assert said.startswith(MARK)


def test_the_guest_reaches_the_host_where_it_may(guest: Guest, opened: socket.socket) -> None:
    received: list[bytes] = []

    def take() -> None:
        connection, _ = opened.accept()
        received.append(greeting(connection))

    taker = threading.Thread(target=take)
    taker.start()
    guest.run(f"echo hello | nc -w 60 {ROUTER} {opened.getsockname()[1]}")
    taker.join()
    assert received == [b"hello\n"]
    assert "instance-id" in guest.run("wget -q -O - http://169.254.169.254/latest/meta-data/")


def test_the_date_is_right(guest: Guest) -> None:
    until = time.monotonic() + ANSWER_SECONDS
    while True:
        before = int(time.time())
        said = int(guest.run("date +%s"))
        if before <= said <= time.time():
            return
        # A restored guest's date is set a moment after it goes on, at the next full second exactly.
        assert time.monotonic() < until, f"the guest's date is {said}, the host's is {before}"
        time.sleep(0.1)


def test_random_numbers_are_another_machines(guest: Guest, frozen: dict[str, Path]) -> None:
    other = restored("another", frozen["one"], "user,network=another")
    # The driver of virtio-rng reads ahead; what it has in memory was frozen with it.
    told = "cat /proc/sys/kernel/random/uuid; dd if=/dev/hwrng bs=16 count=64 2>/dev/null | tail -c 16 | od -An -tx1"
    try:
        one, another = guest.run(told).split("\n"), other.run(told).split("\n")
        assert one[0] != another[0]
        assert one[1] != another[1]
        assert len(one[1].split()) == 16
        assert "virtual machine fork" in other.run("dmesg")
    finally:
        remove(other)
        client.stop("another")


def test_disks_come_and_go_and_keep_what_was_written(guest: Guest, repetitions: Callable[[int, int], int]) -> None:
    store = VolumeStore()
    for number in range(repetitions(10, 100)):
        volume = store.create("data", size=8 << 20)
        disk = f"/dev/disk/by-id/scsi-{volume.serial.decode()}"
        celaje("vm", "attach", "one", "data")
        guest.wait(f"[ -b {disk} ]")
        guest.run(f"echo written {number} | dd of={disk} conv=fsync bs=512 count=1 2>/dev/null")
        celaje("vm", "detach", "one", "data")
        guest.wait(f"[ ! -e {disk} ]")
        with contextlib.closing(store.open("data")) as opened:
            content = bytearray(512)
            opened.readinto([memoryview(content)], 0)
        assert content.startswith(f"written {number}\n".encode())
        store.remove("data")
    assert guest.run("ls /sys/block | grep -c ^sd || true") == "0"


def test_what_was_written_to_the_root_is_there_after_the_power_button_and_a_start(guest: Guest) -> None:
    guest.run("echo kept > /root/kept; sync")
    celaje("vm", "stop", "one")
    seen = inventory.look(MachineDirectory.of("one"))
    assert (seen.state, seen.detail) == ("off", "power-off")
    guest.close()
    celaje("vm", "start", "one")
    again = up("one", tail=0)
    assert again.run("cat /root/kept") == "kept"
    assert again.run("dmesg | grep -i -c 'recovery' || true") == "0"  # the file system was left in order
    again.close()


def test_a_guest_is_waited_for_by_ssh_from_its_start_on(
    built_image: Callable[[str], Path], key: Path, tmp_path: Path
) -> None:
    with place(tmp_path / "home", built_image("debian-mini")):
        celaje("vm", "start", "early", built_image("debian-mini"), "--ssh-key", key.with_suffix(".pub"))
        done = ssh("early", key, "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        process = inventory.look(MachineDirectory.of("early")).process
        assert process is not None
        wait_until(lambda: client.statistics("default").tables["TCP connections"] == 0)
