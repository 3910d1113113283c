"""What goes between machines, and between them and the host: whole, as the rules say, and leaving no trace."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje.cli.command import main
from celaje.host import reach
from celaje.network import client
from celaje.network.messages import Bandwidth, Rule, SecurityGroup, Update, default_groups
from tests.machine_processes import wait_until
from tests.system.debian_guest import ANSWER_SECONDS, Guest, interface, remove, restored

ROUTER = "10.77.0.1"
SOURCE = Path(__file__).resolve().parents[1] / "guest" / "traffic.c"
FLAGS = "-O2 -march=rv64gc -mabi=lp64d -ffreestanding -fno-stack-protector -nostdlib -static".split()
CONNECTIONS = 1000  # of each of three kinds

Pair = tuple[Guest, Guest]
Repetitions = Callable[[int, int], int]


class _Echo(socketserver.BaseRequestHandler):
    """Answers a byte with itself, and closes."""

    def handle(self) -> None:
        self.request.sendall(self.request.recv(1))


class _Echoes(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """A port of the host's loopback where an `_Echo` answers."""
    with _Echoes(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[int]:
    """A port of the host's where guests get the program `traffic`."""
    directory = tmp_path_factory.mktemp("programs")
    compiler = tool("riscv64-linux-gnu-gcc")
    subprocess.run([compiler, *FLAGS, "-o", directory / "traffic", SOURCE], check=True, timeout=60)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(directory))  # type: ignore[arg-type]  # the server's own

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def pair(home: Path, frozen: dict[str, Path], echo: int, programs: int) -> Iterator[Pair]:
    """Two machines of one network, with the program `traffic`."""
    network = f"user,host=tcp:{echo},host=tcp:{programs},allow=tcp:7000-7001,forward=tcp:0:7000"
    guests = tuple(restored(name, frozen[name], network) for name in ("one", "two"))
    for guest in guests:
        guest.run("mkfifo /tmp/never")
        guest.fetch(f"http://{ROUTER}:{programs}/traffic", "/tmp/traffic")
    yield guests  # type: ignore[misc]  # they are two
    for guest in guests:
        remove(guest)


def tables() -> dict[str, int]:
    """What the network's process holds: its tables, those of its interfaces, and its open files."""
    found = client.statistics("default")
    held = {"files": len(os.listdir(f"/proc/{found.process}/fd")), **found.tables}
    for name, counters in found.interfaces.items():
        for table in ("tracked flows", "TCP connections", "UDP flows", "waiting messages"):
            held[f"{table} of {name}"] = counters[table]
    return held


def return_to(before: dict[str, int]) -> None:
    """Until the network holds no more than it did; what does not go is named."""
    until = time.monotonic() + 120
    while left := {name: count for name, count in tables().items() if count > before[name]}:
        assert time.monotonic() < until, f"these are left: {left}; there were {before}"
        time.sleep(0.1)


def test_machines_find_each_other_by_name_and_what_goes_between_them_arrives_whole(
    pair: Pair, repetitions: Repetitions
) -> None:
    one, two = pair
    mebibytes = repetitions(16, 1024)
    for guest in pair:
        guest.patience = ANSWER_SECONDS + mebibytes  # the sum alone takes a guest a minute for the gigabyte
    for guest, other in (pair, pair[::-1]):
        assert " 0% packet loss" in guest.run(f"ping -c 2 {other.name}")
        address = interface(other.name).address
        assert address in guest.run(f"nslookup {other.name}.celaje.internal")
        assert f"name = {other.name}.celaje.internal" in guest.run(f"nslookup {address}")
    one.run("dd if=/dev/urandom of=/dev/shm/mebibyte bs=64k count=16 2>/dev/null")
    one.run(f"numbered() {{ for i in $(seq {mebibytes}); do echo $i; cat /dev/shm/mebibyte; done; }}")
    two.run("nc -l -p 5000 0<>/tmp/never | sha256sum > /tmp/sum &")
    two.wait("netstat -lnt | grep -q :5000")
    one.run("numbered | nc two 5000")
    two.run("wait")
    assert two.run("cat /tmp/sum") == one.run("numbered | sha256sum")
    for guest in pair:
        guest.patience = ANSWER_SECONDS


def test_rules_admit_and_refuse_as_written_and_cut_what_they_no_more_admit(pair: Pair) -> None:
    one, two = pair
    for port in (5001, 5002, 5003):
        two.run(f"nc -l -p {port} 0<>/tmp/never > /tmp/came.{port} &")
        two.wait(f"netstat -lnt | grep -q :{port}")
    one.run("{ i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done | nc two 5001; } & echo $! > /tmp/counting")
    two.wait("[ $(wc -l < /tmp/came.5001) -gt 10 ]")

    def dropped() -> int:
        counters = client.statistics("default").interfaces
        return sum(counters[name].get("dropped, firewall", 0) for name in ("one", "two"))

    # From here on `two` is in no group with `one`, and admits ICMP from anybody and a port from `one`.
    only = (
        Rule("out", "any"),
        Rule("in", "icmp"),
        Rule("in", "tcp", f"{interface('one').address}/32", 5002, 5002),
        Rule("in", "tcp", "10.77.99.0/24", 5003, 5003),
    )
    before = dropped()
    updated = client.update("default", Update(interface="two", groups=(SecurityGroup("of-two", only),)))
    assert updated.cut >= 1
    wait_until(lambda: dropped() > before)
    came = two.run("wc -l < /tmp/came.5001")
    before = dropped()
    wait_until(lambda: dropped() > before + 1)
    assert two.run("wc -l < /tmp/came.5001") == came
    assert " 0% packet loss" in one.run("ping -c 1 two")
    assert one.status("echo no | nc -w 3 two 5003")[0] != 0
    one.run("echo yes | nc -w 60 two 5002")
    two.wait("grep -q yes /tmp/came.5002")
    assert two.run("cat /tmp/came.5003") == ""

    # The rule comes back while both still try: the connection goes on, and nothing of it is missing.
    client.update("default", Update(interface="two", groups=default_groups("two")))
    two.wait(f"[ $(wc -l < /tmp/came.5001) -gt {int(came) + 10} ]")
    two.run("head -n -1 /tmp/came.5001 | awk '$1 != NR {exit 1}'")
    one.run("kill $(pidof nc)")
    one.run("wait")
    one.run("echo end | nc two 5003")


def test_a_limit_of_bandwidth_holds(pair: Pair) -> None:
    one, two = pair
    rate, size = 500_000, 1_000_000
    client.update("default", Update(interface="two", bandwidth=Bandwidth(to_guest=rate)))
    two.run("nc -l -p 5004 0<>/tmp/never | wc -c > /tmp/came.5004 &")
    two.wait("netstat -lnt | grep -q :5004")
    began = time.monotonic()
    one.run(f"head -c {size} /dev/zero | nc two 5004")
    two.run("wait")
    took = time.monotonic() - began
    client.update("default", Update(interface="two", bandwidth=Bandwidth()))
    assert int(two.run("cat /tmp/came.5004")) == size
    # No host is too slow for this: what waits in the queue, 200 ms of it, is all that may come at once.
    assert took >= size / rate - 0.5


def test_only_ports_of_the_host_that_were_opened_are_reached(pair: Pair, echo: int) -> None:
    one, _ = pair
    one.run(f"/tmp/traffic connect {ROUTER} {echo} 1")
    with socket.create_server(("127.0.0.1", 0)) as shut, socket.create_server(("0.0.0.0", 0)) as everywhere:
        for listener in (shut, everywhere):
            port = listener.getsockname()[1]
            for address in (ROUTER, "127.0.0.1", "169.254.169.254", "169.254.169.250", "10.77.0.2"):
                assert one.status(f"nc -w 2 {address} {port} </dev/null")[0] != 0, f"{address}:{port} is open"
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_thousands_of_short_connections_leave_nothing_behind(pair: Pair, echo: int, repetitions: Repetitions) -> None:
    one, two = pair
    count = CONNECTIONS * repetitions(1, 20)
    one.run("/tmp/traffic serve 7000 & echo $! > /tmp/serving")
    one.wait("netstat -lnt | grep -q :7000")
    forward = next(port for port in interface("one").ports if port.forward)
    public = next(port for port in interface("one").ports if not port.forward and port.guest_port == 7000)
    return_to({**tables(), "TCP connections": 0, "UDP flows": 0})
    before = tables()

    def connect() -> None:
        for number in range(count):
            if number % 20 == 0:
                connection = reach.connect("one", 7000)
            else:
                port = (forward, public)[number % 2]
                connection = socket.create_connection((port.host_address, port.host_port), ANSWER_SECONDS)
            with connection:
                connection.sendall(b"y")
                assert connection.recv(2) == b"y"
                assert connection.recv(1) == b""

    failures: list[BaseException] = []

    def caught() -> None:
        try:
            connect()
        except BaseException as error:
            failures.append(error)

    caller = threading.Thread(target=caught)
    caller.start()
    two.run(f"/tmp/traffic connect {ROUTER} {echo} {count}")
    two.run(f"/tmp/traffic connect {interface('one').address} 7000 {count}")
    caller.join()
    assert not failures
    return_to(before)
    one.run("kill $(cat /tmp/serving)")


def test_a_connection_to_a_guest_that_goes_away_ends_on_the_host(home: Path, frozen: dict[str, Path]) -> None:
    guest = restored("three", frozen["one"], "user,network=three,allow=tcp:7000")
    guest.run("mkfifo /tmp/never; nc -l -p 7000 0<>/tmp/never > /tmp/came &")
    guest.wait("netstat -lnt | grep -q :7000")
    connection = reach.connect("three", 7000)
    connection.sendall(b"hello\n")
    guest.wait("grep -q hello /tmp/came")
    assert client.statistics("three").tables["TCP connections"] == 1
    remove(guest)
    connection.settimeout(ANSWER_SECONDS)
    with contextlib.suppress(ConnectionError):
        assert connection.recv(1) == b""
    connection.close()
    client.stop("three")


def test_an_address_that_another_machine_has_is_refused(
    pair: Pair, frozen: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vm", "restore", "one-more", str(frozen["one"])]) != 0
    said = capsys.readouterr().err
    assert "celaje: " in said
    assert interface("one").mac in said or interface("one").address in said
    assert main(["vm", "console", "--log", "one-more"]) != 0  # nothing of it is left


def test_a_machine_that_goes_on_from_a_snapshot_reaches_the_host_at_once_however_often(
    home: Path, frozen: dict[str, Path], programs: int, repetitions: Repetitions
) -> None:
    # Each time it comes with the same address, port and sequence numbers as the last that was.
    for _ in range(repetitions(5, 100)):
        guest = restored("four", frozen["one"], f"user,network=four,host=tcp:{programs}")
        guest.run(f"wget -q -O /dev/null http://{ROUTER}:{programs}/traffic")
        remove(guest)
    client.stop("four")
