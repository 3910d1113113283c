"""A guest's TCP through its virtio card: bytes to the host, bytes from the host, and one byte to and fro.

The guest is debian-mini's kernel and initrd with a program of ours in it (guest/network.c); its other end is a server
here, on the host's loopback: QEMU's user networking shows it at 10.0.2.2, celaje at the router, where its port is
opened. The server takes the time, with the host's clock, once the guest's first request is there.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import boot, programs
from bench.emulators import CELAJE, ENVIRONMENT, TIMEOUT, Emulator
from celaje.image import cpio
from celaje.image.tree import Tree

BYTES = 64 << 20
EXCHANGES = 2000
# Name -> (the guest's command, its count)
MEASUREMENTS = {
    "TCP to the host": ("send", BYTES),
    "TCP from the host": ("receive", BYTES),
    "TCP ping-pong": ("exchange", EXCHANGES),
}
KINDS = {"send": f"{BYTES >> 20} MiB", "receive": f"{BYTES >> 20} MiB", "exchange": f"{EXCHANGES} times a byte"}
BLOCK = 1 << 18
FLAGS = "-O2 -Wall -Wextra -Werror -march=rv64gc -mabi=lp64d -ffreestanding -fno-stack-protector -nostdlib -static"

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in virtio_mmio virtio_net virtio_rng; do /bin/busybox modprobe $module; done
for card in /sys/class/net/e*; do card=${card##*/}; done
/bin/busybox ip link set lo up
/bin/busybox ip link set $card up
/bin/busybox udhcpc -q -n -i $card -s /bench/lease || echo "no lease"
set -- $bench_work
while [ $# -gt 0 ]; do
    /bench/network $bench_server $bench_port $1 $2
    shift 2
done
/bin/busybox poweroff -f
"""
LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
/bin/busybox ip address add $ip/${mask:-24} dev $interface
/bin/busybox ip route add default via $router
"""


@dataclass(frozen=True)
class Contestant:
    """How one of the two gives its guest a network: `server` is the host's address as the guest sees it."""

    emulator: Emulator
    server: str

    def command(self, files: boot.Files, append: str, port: int) -> list[str]:
        command = self.emulator.kernel(files.kernel, files.initrd, append, boot.MEMORY)
        if self.emulator is CELAJE:
            return [*command, "--network", f"user,host=tcp:{port},network=bench"]
        return [*command, "-netdev", "user,id=bench", "-device", "virtio-net-device,netdev=bench"]


def contestant(emulator: Emulator) -> Contestant:
    return Contestant(emulator, "10.77.0.1" if emulator is CELAJE else "10.0.2.2")


def program() -> Path:
    """The guest's program, built. Raises CalledProcessError."""
    source = programs.HERE / "guest" / "network.c"
    built = programs.HERE / "build" / "network"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        built.parent.mkdir(exist_ok=True)
        subprocess.run([programs.COMPILER, *FLAGS.split(), "-o", built, source], check=True)
    return built


@contextmanager
def guest_files(files: boot.Files) -> Iterator[boot.Files]:
    """The kernel, and the initrd with an archive behind it that has the program and another /init."""
    tree = Tree()
    tree.file("init", INIT.encode(), 0o755)
    tree.file("bench/lease", LEASE.encode(), 0o755)
    tree.file("bench/network", program().read_bytes(), 0o755)
    with tempfile.TemporaryDirectory() as directory:
        initrd = Path(directory) / "initrd"
        before = files.initrd.read_bytes()
        initrd.write_bytes(before + bytes(-len(before) % 4) + cpio.pack(tree))
        yield boot.Files(files.kernel, initrd)


class Server:
    """The other end of the guest's connections: `seconds` has what each kind took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    self._answer(connection)
                except OSError as error:
                    print(f"the guest's connection broke: {error}", flush=True)

    def _answer(self, connection: socket.socket) -> None:
        kind, count = struct.unpack("<cQ", connection.recv(9, socket.MSG_WAITALL))
        buffer = bytearray(BLOCK)
        started = time.perf_counter()
        if kind == b"s":
            left = count
            while left:
                done = connection.recv_into(buffer)
                if not done:
                    return
                left -= done
        elif kind == b"r":
            view = memoryview(buffer)
            for at in range(0, count, BLOCK):
                connection.sendall(view[: count - at])
        else:
            for _ in range(count):
                connection.sendall(connection.recv(1))
        connection.sendall(b"+")
        if kind == b"r":
            connection.recv(1)  # until the guest has read it all and ends
        self.seconds[kind.decode()] = time.perf_counter() - started

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def measured(one: Contestant, files: boot.Files) -> dict[str, float]:
    """Seconds of each of MEASUREMENTS, in one run of a guest. RuntimeError if it did not get through."""
    server = Server()
    work = " ".join(f"{command} {count}" for command, count in MEASUREMENTS.values())
    append = f'{boot.APPEND} bench_server={one.server} bench_port={server.port} "bench_work={work}"'
    command = one.command(files, append, server.port)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT)
    finally:
        server.close()
    if len(server.seconds) != len(MEASUREMENTS):
        said = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-5:]
        raise RuntimeError(f"{command[0]}: the guest's network did not get through: " + " | ".join(said))
    return {name: server.seconds[kind[0]] for name, (kind, _) in MEASUREMENTS.items()}


def pairs(contestants: list[Emulator], files: boot.Files, repeats: int) -> dict[str, list[tuple[float, float | None]]]:
    """For each of MEASUREMENTS: what it took on each, so many times. RuntimeError, CalledProcessError."""
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in MEASUREMENTS}
    with guest_files(files) as extended:
        measured(contestant(contestants[0]), extended)  # what is translated once is translated now
        for _ in range(repeats):
            rounds = [measured(contestant(one), extended) for one in contestants]
            for name in MEASUREMENTS:
                found[name].append((rounds[0][name], rounds[1][name] if len(rounds) > 1 else None))
    return found
