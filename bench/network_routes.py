"""How much of the throughput inside one subnet is left from subnet to subnet, through a NAT gateway, and to another
network by public addresses:
`python -m bench.network_routes [SECONDS] [ROUNDS]`.

Guests are tests/network/guest.py, a process each; what is outside is a server on the host's loopback, by an address of
its own. The ways take turns; medians of the rounds are told, with the processor time that celaje-net spent on
each gigabyte.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized

from bench.network_process import processor_seconds
from celaje.network import client
from celaje.network.messages import Attach, NetworkSettings, Rule, SecurityGroup, Service
from celaje.network.tcp_settings import TcpSettings
from celaje.network.topology import AccessRule, NatGateway, Route, SubnetPlan, Topology
from tests.network.attached_guest import AttachedGuest

SETTINGS = NetworkSettings(name="bench", planned=True, mtu=9001)
OTHER_SETTINGS = NetworkSettings(name="bench-other", planned=True, mtu=9001)
OPEN = (SecurityGroup("open", (Rule("in", "any"), Rule("out", "any"))),)
OUTSIDE, PORT = "203.0.113.5", 5001
PIECE = bytes(1 << 16)
TOPOLOGY = Topology(
    blocks=("10.77.0.0/16",),
    subnets=(SubnetPlan("10.77.1.0/24", "private", "all"), SubnetPlan("10.77.2.0/24", "public", "all")),
    route_tables={
        "private": (
            Route("10.77.0.0/16", "local"),
            Route("0.0.0.0/0", "nat:nat-1"),
            Route("127.64.0.0/10", "internet"),
        ),
        "public": (Route("10.77.0.0/16", "local"), Route("0.0.0.0/0", "internet")),
    },
    access_lists={"all": (AccessRule("in", True), AccessRule("out", True))},
    gateways={"nat-1": NatGateway("10.77.2.0/24", "10.77.2.200", "127.64.0.7")},
)
OTHER, NAT = "to another network by public addresses", "through a NAT gateway"
WAYS = {
    "inside one subnet": "10.77.1.6",
    "from subnet to subnet": "10.77.2.7",
    OTHER: "127.64.0.28",
    NAT: OUTSIDE,
}


def request(address: str, port: int, network: NetworkSettings = SETTINGS) -> Attach:
    """A machine at `address`, for which the host's `port` is outside."""
    number = address.rpartition(".")[2]
    return Attach(
        network=network,
        interface=f"m{number}",
        host_name=f"m{number}",
        mac=f"52:54:00:00:00:0{number}",
        subnet=f"{address.rpartition('.')[0]}.0/24",
        address=address,
        groups=OPEN,
        public_address=f"127.64.0.{20 + int(number)}",
        services=(Service(OUTSIDE, PORT, "127.0.0.1", port),),
    )


def receiver(attach: Attach, count: Synchronized[int], pipe: Connection) -> None:
    """Takes what comes to PORT, until it is told to end."""
    guest = AttachedGuest(attach)
    guest.guest.settings = TcpSettings(mss=SETTINGS.mtu - 40)

    def accepted(stream: object) -> None:
        def take(pieces: list[bytes]) -> None:
            count.value += sum(map(len, pieces))

        stream.take = take  # type: ignore[attr-defined]

    guest.guest.listen(PORT, accepted)
    pipe.send(True)
    while not pipe.poll():
        guest.turn(0.01)
    guest.close()


def sender(attach: Attach, pipe: Connection) -> None:
    """Sends to (address, seconds) that it is told, until it is told to end."""
    guest = AttachedGuest(attach)
    guest.guest.settings = TcpSettings(mss=SETTINGS.mtu - 40)
    pipe.send(True)
    while True:
        if not pipe.poll():
            guest.turn(0.001)
            continue
        address, seconds = pipe.recv()
        if not address:
            break
        stream = guest.guest.connect(int.from_bytes(socket.inet_aton(address), "big"), PORT)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not stream.closed:
            if len(stream.unsent) < 4:
                stream.unsent.extend([memoryview(PIECE)] * 8)
                stream.turn()
            guest.turn(0.01)
        stream.abort()
        guest.turn(0.1)
    guest.close()


def serve(listener: socket.socket, count: Synchronized[int]) -> None:
    """What is outside: takes what comes."""
    buffer = bytearray(1 << 18)
    while True:
        try:
            stream, _ = listener.accept()
            with stream:
                while got := stream.recv_into(buffer):
                    count.value += got
        except ConnectionResetError:
            continue
        except OSError:
            return


def main() -> None:
    """All of WAYS."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    directory = tempfile.mkdtemp(prefix="cn-")
    os.environ.update(XDG_RUNTIME_DIR=directory, CELAJE_HOME=f"{directory}/home", CELAJE_CACHE=f"{directory}/cache")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    for network in (SETTINGS, OTHER_SETTINGS):
        client.set_topology(network.name, TOPOLOGY)
    counts: dict[str, Synchronized[int]] = {way: multiprocessing.Value("q", 0, lock=False) for way in WAYS}
    pipes, guests = [], []
    receivers = {"10.77.1.6": "inside one subnet", "10.77.2.7": "from subnet to subnet", "10.77.2.8": OTHER}
    for address in (*receivers, "10.77.1.5"):
        pipe, far = multiprocessing.Pipe()
        way = receivers.get(address)
        attach = request(address, port, OTHER_SETTINGS if way == OTHER else SETTINGS)
        body, words = (receiver, (attach, counts[way], far)) if way else (sender, (attach, far))
        guests.append(multiprocessing.Process(target=body, args=words))
        guests[-1].start()
        pipe.recv()
        pipes.append(pipe)
    threading.Thread(target=serve, args=(listener, counts[NAT]), daemon=True).start()
    process = client.statistics("bench").process
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    try:
        for _ in range(rounds):
            for way, address in WAYS.items():
                pipes[-1].send((address, seconds))
                time.sleep(seconds * 0.2)
                begun, before, spent = time.monotonic(), counts[way].value, processor_seconds(process)
                time.sleep(seconds * 0.6)
                took, moved = time.monotonic() - begun, counts[way].value - before
                rates[way].append(moved / took / 1e6)
                costs[way].append((processor_seconds(process) - spent) / (moved / 1e9) if moved else float("nan"))
                time.sleep(seconds * 0.4)
        base = statistics.median(rates["inside one subnet"])
        for way in WAYS:
            rate = statistics.median(rates[way])
            print(
                f"{way}: {rate:,.0f} MB/s, {rate / base:.2f} of that inside one subnet, "
                f"{statistics.median(costs[way]):.2f} s of celaje-net's processor time a GB"
            )
    finally:
        for pipe in pipes:
            pipe.send((None, 0.0))
        for guest in guests:
            guest.join(5)
            guest.terminate()
        listener.close()
        for network in (SETTINGS, OTHER_SETTINGS):
            client.stop(network.name)


if __name__ == "__main__":
    main()
