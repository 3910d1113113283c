"""S3 beside moto's server: large objects put and got, small ones put, by the same client in one run.

    python -m bench.s3 [--repeats 15] [--size 64M] [--small 2000]

The client is a plain socket with requests that were signed beforehand (presigned URLs), so that what is measured is
the servers'. celaje verifies each signature and has each object on the disk before it answers; moto does neither.
Rounds alternate; the best of each counts, since what else the host does falls on some rounds only, and the median
stands beside it; CPU is the server's, in all its threads. Then boto3, as users have it. The disk's own limit for small
objects: how often a second one thread can append 1 KiB to a file and sync it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli import arguments

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCOUNT, SECRET = "111111111111", "a secret of the benchmark"
BUCKET = "bench-bucket"
CONNECTIONS = 8
BOTO_SMALL = 200
PATIENCE = 20.0  # seconds that a server may take for anything


def serve(home: Path) -> None:
    """The application with S3 alone: says its port, and answers until it is killed."""
    from celaje.cloud.aws.action import Caller, Registry
    from celaje.cloud.aws.application import ApiServer, Application, bound
    from celaje.cloud.aws.dispatch import Dispatcher
    from celaje.cloud.aws.gateway import Gateway
    from celaje.cloud.aws.identity import Credential
    from celaje.cloud.s3.actions import s3_actions
    from celaje.cloud.s3.store.object_store import home_store
    from celaje.cloud.settings import Settings
    from celaje.cloud.state.database import Database

    class Keys:
        def credential(self, access_key: str, token: str | None) -> Credential | None:
            return Credential(SECRET, Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, access_key))

        def used(self, access_key: str, service: str, region: str, now: datetime.datetime) -> None:
            pass

        def stand_in(self, access_key: str) -> Caller | None:
            return None

    registry = Registry([s3_actions(home_store(home))])
    database = Database(home / "cloud" / "state.sqlite3")
    listener = bound("127.0.0.1", 0)
    gateway = Gateway(registry, Dispatcher(database, lambda controller: None), Keys(), Settings())
    ApiServer(Application(gateway), [listener]).start()
    print(listener.getsockname()[1], flush=True)
    threading.Event().wait()


class Server:
    """A server's process, its port, and a client for it."""

    def __init__(self, name: str, process: subprocess.Popen[str], port: int) -> None:
        import boto3
        from botocore.config import Config

        self.name = name
        self.process = process
        self.port = port
        self.client: S3Client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=ACCOUNT,
            aws_secret_access_key=SECRET,
            config=Config(signature_version="s3v4"),  # for presigned URLs too, whose default is older
        )
        self.client.create_bucket(Bucket=BUCKET)

    def cpu(self) -> float:
        """Seconds of processor time that the process has had."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def request(self, method: str, key: str, length: int | None = None) -> bytes:
        """A request's head, signed."""
        operation = {"PUT": "put_object", "GET": "get_object"}[method]
        url = self.client.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": key})
        path = url.partition(f":{self.port}")[2]
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        if length is not None:
            head += f"Content-Length: {length}\r\n"
        return (head + "\r\n").encode()

    def connect(self) -> socket.socket:
        """A new connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextmanager
def servers(scratch: Path) -> Iterator[list[Server]]:
    """celaje and moto, ready."""
    own = subprocess.Popen(
        [sys.executable, "-m", "bench.s3", "--serve", str(scratch / "home")], stdout=subprocess.PIPE, text=True
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The peer answers this very URL at any port, and logs each request.
    moto = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert own.stdout is not None
        own_port = int(own.stdout.readline())
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield [Server("celaje", own, own_port), Server("moto", moto, port)]
    finally:
        for process in (own, moto):
            process.kill()
            process.wait()


def answered(connection: socket.socket) -> tuple[bytes, bytes]:
    """An answer's head, and what came of its body with it."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(1 << 16)
        if not piece:
            raise RuntimeError(f"the server closed the connection after {got!r}")
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(f"the server answers {head!r} {rest!r}")
    return head, rest


def put_large(server: Server, request: bytes, body: bytes) -> None:
    """PUT over a connection of its own."""
    with server.connect() as connection:
        connection.sendall(request)
        connection.sendall(body)
        answered(connection)


def get_large(server: Server, request: bytes, size: int, buffer: bytearray) -> None:
    """GET over a connection of its own."""
    with server.connect() as connection:
        connection.sendall(request)
        _, rest = answered(connection)
        left = size - len(rest)
        while left:
            count = connection.recv_into(buffer)
            if not count:
                raise RuntimeError(f"{left} bytes are missing")
            left -= count


def put_small(server: Server, requests: list[bytes]) -> None:
    """PUT all over a few connections, each with one request under way; a server that closes them gets new ones."""
    waiting = iter(requests)
    left = len(requests)
    with selectors.DefaultSelector() as selector:

        def send(connection: socket.socket, request: bytes | None) -> None:
            if request is None:
                connection.close()
                return
            selector.register(connection, selectors.EVENT_READ, connection)
            connection.sendall(request)

        for _ in range(CONNECTIONS):
            send(server.connect(), next(waiting))
        while left:
            ready = selector.select(timeout=PATIENCE)
            if not ready:
                raise RuntimeError(f"{server.name} has not answered {left} requests for {PATIENCE:g} s")
            for key, _ in ready:
                connection: socket.socket = key.data
                selector.unregister(connection)
                head, _ = answered(connection)
                left -= 1
                if b"connection: close" in head.lower():
                    connection.close()
                    connection = server.connect()
                send(connection, next(waiting, None))


def disk_limit(scratch: Path, seconds: float = 1.0) -> float:
    """Appends of 1 KiB a second, each synced."""
    fd = os.open(scratch / "limit", os.O_CREAT | os.O_WRONLY)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        os.write(fd, bytes(1024))
        os.fdatasync(fd)
        count += 1
    os.close(fd)
    return count / (time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds of one server: the best round, the median, and the median of the server's CPU time."""

    best: float
    median: float
    cpu: float


def rounds(both: list[Server], repeats: int, work: Callable[[Server], int]) -> list[Result]:
    """What each server takes for one of the things that `work` does (it says how many), in alternating rounds."""
    found: list[list[tuple[float, float]]] = [[] for _ in both]
    for server in both:
        work(server)
    for _ in range(repeats):
        for results, server in zip(found, both, strict=True):
            cpu, began = server.cpu(), time.perf_counter()
            count = work(server)
            results.append(((time.perf_counter() - began) / count, (server.cpu() - cpu) / count))
    return [
        Result(
            min(wall for wall, _ in each),
            statistics.median(wall for wall, _ in each),
            statistics.median(cpu for _, cpu in each),
        )
        for each in found
    ]


def show(name: str, results: list[Result], unit: Callable[[float], str]) -> None:
    """One line."""
    own, other = results
    sides = (
        f"{side} {unit(each.best)} (median {unit(each.median)}, CPU {each.cpu * 1e3:.1f} ms)"
        for side, each in (("celaje", own), ("moto", other))
    )
    print(f"{name:24} {', '.join(sides)}: {other.best / own.best:.2f}, {other.median / own.median:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--size", type=arguments.size, default=64 << 20)
    parser.add_argument("--small", type=int, default=2000, help="objects of 1 KiB in a round")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    size: int = chosen.size
    body, buffer = os.urandom(size), bytearray(1 << 20)
    large: dict[tuple[str, str], bytes] = {}  # requests, signed: making a link takes the client a millisecond
    print(datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"))

    def milliseconds(seconds: float) -> str:
        return f"{seconds * 1e3:6.1f} ms"

    def rate(seconds: float) -> str:
        return f"{1 / seconds:5.0f}/s"

    def put(server: Server) -> int:
        put_large(server, large[server.name, "PUT"], body)
        return 1

    def put_two(server: Server) -> int:
        """Two at once: each body's MD5 takes a CPU of its own, from its first byte to its last."""
        other = threading.Thread(target=put_large, args=(server, large[server.name, "PUT, other"], body))
        other.start()
        put_large(server, large[server.name, "PUT"], body)
        other.join()
        return 2

    def get(server: Server) -> int:
        get_large(server, large[server.name, "GET"], size, buffer)
        return 1

    def put_by_boto(server: Server) -> int:
        server.client.put_object(Bucket=BUCKET, Key="large", Body=body)
        return 1

    def get_by_boto(server: Server) -> int:
        server.client.get_object(Bucket=BUCKET, Key="large")["Body"].read()
        return 1

    def put_small_by_boto(server: Server) -> int:
        for each in range(BOTO_SMALL):
            server.client.put_object(Bucket=BUCKET, Key=f"boto/{each}", Body=bytes(1024))
        return BOTO_SMALL

    with tempfile.TemporaryDirectory() as directory, servers(Path(directory)) as both:
        for server in both:
            large[server.name, "PUT"] = server.request("PUT", "large", size)
            large[server.name, "PUT, other"] = server.request("PUT", "other", size)
            large[server.name, "GET"] = server.request("GET", "large")
        works = {"PUT": put, "PUT, 2 at once": put_two, "GET": get}
        works |= {"PUT, boto3": put_by_boto, "GET, boto3": get_by_boto}
        for name, work in works.items():
            show(name, rounds(both, chosen.repeats, work), milliseconds)
        # moto is given fewer: it would take a minute.
        counts = {"celaje": chosen.small, "moto": max(CONNECTIONS, chosen.small // 5)}
        small = {
            server.name: [
                server.request("PUT", f"small/{each}", 1024) + bytes(1024) for each in range(counts[server.name])
            ]
            for server in both
        }

        def put_all_small(server: Server) -> int:
            put_small(server, small[server.name])
            return len(small[server.name])

        show(f"1 KiB, {CONNECTIONS} at once", rounds(both, 3, put_all_small), rate)
        show("1 KiB, boto3", rounds(both, 1, put_small_by_boto), rate)
        print(f"the disk syncs {disk_limit(Path(directory)):.0f} appends of 1 KiB a second")


if __name__ == "__main__":
    main()
