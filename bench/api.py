"""The API beside moto's server: ten common calls by the same client in one run.

    python -m bench.api [--repeats 5] [--calls 100]

The client is a plain socket with requests that were signed beforehand, one at a time; a server that closes its
connections gets new ones. celaje verifies each signature and reads its database; moto does neither. Rounds alternate,
the best of each counts, since what else the host does falls on some rounds only; CPU is the server's, in all its
threads.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

PATIENCE = 30.0  # seconds that a server may take for anything
VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15", "iam": "2010-05-08"}
CALLS = {
    "GetCallerIdentity": "sts",
    "DescribeRegions": "ec2",
    "DescribeAvailabilityZones": "ec2",
    "DescribeVpcs": "ec2",
    "DescribeSubnets": "ec2",
    "DescribeSecurityGroups": "ec2",
    "DescribeInstances": "ec2",
    "DescribeVolumes": "ec2",
    "DescribeKeyPairs": "ec2",
    "ListRoles": "iam",
}


def serve(directory: Path) -> None:
    """The API of a new cloud, without its controllers: says port, key and secret, and answers until it is killed."""
    from sqlalchemy import select

    from celaje.cloud.daemon import Daemon
    from celaje.cloud.settings import Settings
    from celaje.cloud.state.accounts import AccessKey
    from celaje.cloud.state.database import Database

    daemon = Daemon(directory, Settings(port=0))
    with Database(directory / "state.sqlite3").read() as session:
        key = session.scalars(select(AccessKey)).first()
    assert key is not None
    print(daemon.settings.port, key.id, key.secret, flush=True)
    threading.Event().wait()


class Server:
    """A server's process, its port, and who signs."""

    def __init__(self, name: str, process: subprocess.Popen[str], port: int, key: str, secret: str) -> None:
        self.name = name
        self.process = process
        self.port = port
        self._credentials = Credentials(key, secret)

    def cpu(self) -> float:
        """Seconds of processor time that the process has had."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signed(self, action: str, service: str) -> bytes:
        """A whole request."""
        body = f"Action={action}&Version={VERSIONS[service]}".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": f"127.0.0.1:{self.port}"}
        request = AWSRequest("POST", f"http://127.0.0.1:{self.port}/", headers, body)
        SigV4Auth(self._credentials, service, "us-east-1").add_auth(request)
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        return f"POST / HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def call(self, request: bytes, count: int) -> float:
        """Seconds for `count` answers."""
        connection: socket.socket | None = None
        begun = time.perf_counter()
        for _ in range(count):
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
            connection.sendall(request)
            if not _answered(connection):
                connection.close()
                connection = None
        took = time.perf_counter() - begun
        if connection is not None:
            connection.close()
        return took


def _answered(connection: socket.socket) -> bool:
    """Take a whole answer; whether the connection stays. RuntimeError if it is none of 200."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(1 << 16)
        if not piece:
            raise RuntimeError(f"the server closed the connection after {got!r}")
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b" 200 " not in lines[0]:
        raise RuntimeError(f"the server answers {head!r} {rest!r}")
    stated = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
    left = stated[0] - len(rest)
    while left > 0:
        left -= len(connection.recv(1 << 16))
    return lines[0].startswith(b"http/1.1") and b"connection: close" not in lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--calls", type=int, default=100, metavar="N")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), options.repeats, options.calls)
    return 0


def measure(scratch: Path, repeats: int, calls: int) -> None:
    """Print a table."""
    environment = {**os.environ, "CELAJE_HOME": str(scratch / "home")}
    own = subprocess.Popen(
        [sys.executable, "-m", "bench.api", "--serve", str(scratch / "home" / "cloud")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    moto = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert own.stdout is not None
        own_port, key, secret = own.stdout.readline().split()
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        servers = [Server("celaje", own, int(own_port), key, secret), Server("moto", moto, port, "test", "test")]
        print(f"{'':28}{'requests a second':>24}{'':8}{'ms of CPU a request':>24}")
        print(f"{'':28}{'celaje':>8}{'moto':>8}{'ratio':>8}{'':8}{'celaje':>8}{'moto':>8}{'ratio':>8}")
        totals = [0.0, 0.0]
        for action, service in CALLS.items():
            best = [float("inf")] * 2
            least = [float("inf")] * 2
            requests = [server.signed(action, service) for server in servers]
            for server, request in zip(servers, requests, strict=True):
                server.call(request, 3)
            for _ in range(repeats):
                for at, server in enumerate(servers):
                    before = server.cpu()
                    best[at] = min(best[at], server.call(requests[at], calls) / calls)
                    least[at] = min(least[at], (server.cpu() - before) / calls * 1000)
            totals = [total + each for total, each in zip(totals, best, strict=True)]
            print(
                f"{action:28}{1 / best[0]:8.0f}{1 / best[1]:8.0f}{best[1] / best[0]:8.1f}{'':8}"
                f"{least[0]:8.2f}{least[1]:8.2f}{least[1] / max(least[0], 0.01):8.1f}",
                flush=True,
            )
        mean = [len(CALLS) / total for total in totals]
        print(f"{'mean of the times':28}{mean[0]:8.0f}{mean[1]:8.0f}{mean[0] / mean[1]:8.1f}")
    finally:
        for process in (own, moto):
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
