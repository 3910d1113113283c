"""How fast a network's process moves TCP between a guest and the host: `python -m bench.network_process [SECONDS]`.

The guest is tests/network/guest.py in a process of its own, so it costs about as much as what is measured; besides the
rate, the processor time that celaje-net spent on each gigabyte is told. The host's side is a loopback socket.
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

from celaje.network import client, messages
from celaje.network.messages import Attach, Forward, HostPort, NetworkSettings
from tests.network.attached_guest import AttachedGuest
from tests.network.guest import ROUTER

PIECE = bytes(1 << 16)
PING_PONGS = 3_000


def processor_seconds(process: int) -> float:
    """User and system time of a process so far."""
    with open(f"/proc/{process}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def request(port: int) -> Attach:
    """The guest reaches `port` of the host as its router's; the host reaches the guest's port 5001."""
    return Attach(
        network=NetworkSettings(name="bench"),
        interface="bench",
        host_name="bench",
        mac="52:54:00:00:00:01",
        groups=messages.default_groups("bench", (Forward("tcp", "127.0.0.1", 0, 5001),)),
        forwards=(Forward("tcp", "127.0.0.1", 0, 5001),),
        host_ports=(HostPort("tcp", port),),
    )


def guest_process(attach: Attach, pipe: Connection) -> None:
    """Does what it is told by name until it is told to end."""
    guest = AttachedGuest(attach)
    pipe.send(guest.attached.ports[0].host_port)

    def accept_discarding(stream: object) -> None:
        stream.take = lambda pieces: None  # type: ignore[attr-defined]

    guest.guest.listen(5001, accept_discarding)
    while True:
        if not pipe.poll():
            guest.turn(0.0005)
            continue
        what, seconds = pipe.recv()
        if what == "end":
            break
        if what == "send":
            stream = guest.guest.connect(ROUTER, attach.host_ports[0].host_port)
            ends = time.monotonic() + seconds
            while time.monotonic() < ends and not stream.closed:
                if len(stream.unsent) < 4:
                    stream.unsent.extend([memoryview(PIECE)] * 8)
                    stream.turn()
                guest.turn(0.01)
            stream.abort()
            guest.turn(0.1)
        elif what == "ping-pong":
            stream = guest.guest.connect(ROUTER, attach.host_ports[0].host_port)
            while not stream.established:
                guest.turn(0.01)
            times = []
            for _ in range(PING_PONGS):
                stream.received.clear()
                start = time.perf_counter()
                stream.write(b"x")
                while not stream.received:
                    guest.turn(0.1)
                times.append(time.perf_counter() - start)
            stream.abort()
            guest.turn(0.1)
            pipe.send((statistics.median(times), sorted(times)[len(times) * 99 // 100]))
    guest.close()


def measured(what: str, process: int, count: list[int], begin: threading.Event, seconds: float) -> None:
    """Prints the rate at which `count` grows, over the middle of `seconds`."""
    begin.wait()
    time.sleep(seconds * 0.2)
    start, bytes_before, processor_before = time.monotonic(), count[0], processor_seconds(process)
    time.sleep(seconds * 0.6)
    took, moved = time.monotonic() - start, count[0] - bytes_before
    processor = processor_seconds(process) - processor_before
    each = processor / (moved / 1e9) if moved else float("nan")
    print(f"{what}: {moved / took / 1e6:,.0f} MB/s, {each:.2f} s of celaje-net's processor time a GB")


def main() -> None:
    """All three measurements."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    directory = tempfile.mkdtemp(prefix="cn-")
    os.environ.update(XDG_RUNTIME_DIR=directory, CELAJE_HOME=f"{directory}/home", CELAJE_CACHE=f"{directory}/cache")
    listener = socket.create_server(("127.0.0.1", 0))
    pipe, far = multiprocessing.Pipe()
    guest = multiprocessing.Process(target=guest_process, args=(request(listener.getsockname()[1]), far))
    guest.start()
    forwarded = pipe.recv()
    process = client.statistics("bench").process
    print(f"celaje-net is process {process}", flush=True)
    try:
        count, begin = [0], threading.Event()
        pipe.send(("send", seconds))
        stream, _ = listener.accept()

        def receive() -> None:
            buffer = bytearray(1 << 18)
            begin.set()
            try:
                while got := stream.recv_into(buffer):
                    count[0] += got
            except ConnectionResetError:
                pass

        receiver = threading.Thread(target=receive)
        receiver.start()
        measured("guest to host", process, count, begin, seconds)
        receiver.join()
        stream.close()

        count, begin = [0], threading.Event()
        sending = socket.create_connection(("127.0.0.1", forwarded))
        ends = time.monotonic() + seconds

        def send() -> None:
            begin.set()
            while time.monotonic() < ends:
                count[0] += sending.send(PIECE)

        sender = threading.Thread(target=send)
        sender.start()
        measured("host to guest", process, count, begin, seconds)
        sender.join()
        sending.close()

        pipe.send(("ping-pong", 0.0))
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = processor_seconds(process)
        for _ in range(PING_PONGS):
            stream.send(stream.recv(16))
        median, slow = pipe.recv()
        each = (processor_seconds(process) - before) / PING_PONGS
        print(
            f"ping-pong: {median * 1e6:,.0f} µs median, {slow * 1e6:,.0f} µs at 99 %, "
            f"{each * 1e6:,.0f} µs of celaje-net's processor time"
        )
        stream.close()
        pipe.send(("end", 0.0))
        guest.join()
        counted = client.statistics("bench")
        print("left behind:", {name: size for name, size in counted.tables.items() if size}, counted.counters)
    finally:
        guest.terminate()
        client.stop("bench")


if __name__ == "__main__":
    main()
