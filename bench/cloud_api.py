"""The cloud's API beside moto's server: ten common calls, and DescribeInstances over a thousand instances.

    python -m bench.cloud_api [--repeats 5]

The client is a plain socket that is kept alive, with requests that were signed beforehand by botocore, one at a time,
so that what is measured is the servers'. celaje is the daemon that `celaje up` starts, controllers and all: it verifies
each signature, and has each write on the disk before it answers; moto does neither. Rounds alternate, medians count.
CPU is the server's, in all its threads.

celaje's thousand instances are rows that were written to its database, in the state `stopped`, with interface, security
group, volume and tags each: what RunInstances and StopInstances would have left, without a host as large as that.
moto's are what its RunInstances makes, which starts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.emulators import ENVIRONMENT

if TYPE_CHECKING:
    from botocore.client import BaseClient

THOUSAND = 1000
TOGETHER = 50  # instances in a reservation
FEW = 3  # instances where there are few
NEAR, FAR = "us-east-1", "eu-west-1"  # with a few instances, and with a thousand
PATIENCE = 60.0
IMAGE = "debian-mini"
COUNTS = {"celaje": 400, "moto": 60}  # requests in a round of one call
LARGE_COUNTS = {"celaje": 4, "moto": 2}

Shape = dict[str, Any]


@dataclass
class Server:
    """A server, how to ask it, and the identifiers of what is in it."""

    name: str
    process: int
    port: int
    key: str
    secret: str
    found: dict[str, str] = field(default_factory=dict)

    def client(self, service: str, region: str = NEAR) -> BaseClient:
        """botocore's, which asks once."""
        import boto3
        from botocore.config import Config

        client: BaseClient = boto3.client(  # type: ignore[call-overload]  # the service's name is a variable
            service,
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE * 5),
        )
        return client

    def ask(self, service: str, method: str, region: str = NEAR, **request: object) -> Shape:
        """The answer to one request."""
        answer: Shape = getattr(self.client(service, region), method)(**request)
        return answer

    def cpu(self) -> float:
        """Seconds of processor time that the process has had."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Signed(Exception):
    """Carries a request that was signed, instead of its being sent."""

    def __init__(self, request: object) -> None:
        super().__init__("not sent")
        self.request: Any = request


def signed(server: Server, service: str, method: str, region: str = NEAR, **request: object) -> bytes:
    """A request as it goes over the wire."""
    client = server.client(service, region)

    def keep(request: object, **others: object) -> None:
        raise _Signed(request)

    client.meta.events.register("before-send", keep)
    try:
        getattr(client, method)(**request)
    except _Signed as caught:
        sent = caught.request
    body = sent.body if isinstance(sent.body, bytes) else str(sent.body or "").encode()
    lines = [f"{sent.method} / HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
    for name, value in sent.headers.items():
        if name.lower() not in ("host", "content-length", "connection"):
            lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Wire:
    """A connection that is kept as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> bytes:
        """The body of the answer, which must be a success."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        got = bytearray()
        while (at := got.find(b"\r\n\r\n")) < 0:
            self._receive(got)
        head = bytes(got[:at]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        del got[: at + 4]
        while len(got) < length:
            self._receive(got)
        if b"connection: close" in head:
            self.close()
        if head.split(b" ", 2)[1] != b"200":
            raise RuntimeError(f"the server answers {head!r} {bytes(got[:500])!r}")
        return bytes(got)

    def _receive(self, into: bytearray) -> None:
        assert self._socket is not None
        piece = self._socket.recv(1 << 18)
        if not piece:
            raise RuntimeError("the server closed the connection in the middle of an answer")
        into += piece

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


# Name -> the service, boto3's method, and the request, made of what is in the server.
CALLS: dict[str, tuple[str, str, Callable[[dict[str, str]], dict[str, object]]]] = {
    "DescribeInstances": ("ec2", "describe_instances", lambda there: {}),
    "DescribeInstanceStatus": ("ec2", "describe_instance_status", lambda there: {"IncludeAllInstances": True}),
    "DescribeImages": ("ec2", "describe_images", lambda there: {"ImageIds": [there["image"]]}),
    "DescribeVolumes": ("ec2", "describe_volumes", lambda there: {}),
    "DescribeSecurityGroups": ("ec2", "describe_security_groups", lambda there: {}),
    "DescribeSubnets": ("ec2", "describe_subnets", lambda there: {}),
    "DescribeVpcs": ("ec2", "describe_vpcs", lambda there: {}),
    "DescribeKeyPairs": ("ec2", "describe_key_pairs", lambda there: {}),
    "CreateTags": (
        "ec2",
        "create_tags",
        lambda there: {"Resources": [there["instance"]], "Tags": [{"Key": "stage", "Value": there["value"]}]},
    ),
    "GetCallerIdentity": ("sts", "get_caller_identity", lambda there: {}),
}


# What requests take turns with: a tag that is what it was is nothing to write.
VALUES = ("test", "production")


@dataclass(frozen=True)
class Rate:
    """Requests a second (medians), their quotient (median over pairs), and the servers' CPU milliseconds a request."""

    own: float
    other: float
    quotient: float
    own_cpu: float
    other_cpu: float


def _round(server: Server, requests: list[bytes], count: int) -> tuple[float, float]:
    """(seconds, CPU seconds) a request, of those that take turns."""
    wire = Wire(server.port)
    wire.ask(requests[-1])
    cpu, began = server.cpu(), time.perf_counter()
    for number in range(count):
        wire.ask(requests[number % len(requests)])
    seconds = time.perf_counter() - began
    wire.close()
    return seconds / count, (server.cpu() - cpu) / count


def rate(
    both: list[Server], call: str, repeats: int, region: str = NEAR, counts: dict[str, int] = COUNTS
) -> Rate:
    """One call in alternating rounds, signed anew in each, since a signature is good for minutes."""
    service, method, request = CALLS[call]
    rounds: list[list[tuple[float, float]]] = [[], []]
    for number in range(repeats):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for index in order:
            server = both[index]
            ready = [
                signed(server, service, method, region, **request(server.found | {"value": value})) for value in VALUES
            ]
            rounds[index].append(_round(server, ready, counts[server.name]))
    own, other = rounds
    return Rate(
        own=1 / statistics.median(wall for wall, _ in own),
        other=1 / statistics.median(wall for wall, _ in other),
        quotient=statistics.median(peer[0] / ours[0] for ours, peer in zip(own, other, strict=True)),
        own_cpu=statistics.fmean(cpu for _, cpu in own) * 1e3,
        other_cpu=statistics.fmean(cpu for _, cpu in other) * 1e3,
    )


# The servers.


@contextlib.contextmanager
def home(images: tuple[str, ...] = (IMAGE,)) -> Iterator[tuple[Path, dict[str, str]]]:
    """A CELAJE_HOME for the block, with this host's images and settings of its own, and the environment to use it."""
    from celaje import paths

    with tempfile.TemporaryDirectory(prefix="celaje-bench-") as name:
        root = Path(name)
        (root / "home" / "cloud").mkdir(parents=True, mode=0o700)
        (root / "run").mkdir(mode=0o700)
        there = paths.home() / "images"
        (root / "home" / "images").mkdir(mode=0o700)
        for each in there.iterdir() if there.exists() else ():
            if each.is_symlink() and each.name in images:  # the directory itself has a longer name
                (root / "home" / "images" / each.readlink().name).symlink_to(each.resolve())
                (root / "home" / "images" / each.name).symlink_to(each.readlink())
        port = free_port()
        settings = {"port": port, "images": list(images)}
        (root / "home" / "cloud" / "settings.json").write_bytes(msgspec.json.encode(settings))
        kept = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("AWS_")}
        yield root / "home", kept | {"CELAJE_HOME": str(root / "home"), "XDG_RUNTIME_DIR": str(root / "run")}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def celaje(environment: dict[str, str], *words: str) -> str:
    """What a `celaje` command prints. RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "celaje", *words], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"celaje {' '.join(words)} ended with status {done.returncode}")
    return done.stdout


def daemon(place: Path) -> Server:
    """The daemon that runs in the CELAJE_HOME `place`."""
    import configparser

    told = msgspec.json.decode((place / "cloud" / "daemon.json").read_bytes(), type=dict[str, Any])
    keys = configparser.RawConfigParser()
    keys.read(place / "cloud" / "credentials")
    root = keys["root"]
    return Server(
        "celaje", told["process"], told["port"], root["aws_access_key_id"], root["aws_secret_access_key"]
    )


@contextlib.contextmanager
def both_servers() -> Iterator[list[Server]]:
    """celaje and moto, each with the same in it."""
    with home() as (place, environment), contextlib.ExitStack() as stack:
        celaje(environment, "up", "--detach")
        stack.callback(celaje, environment, "down")
        own = daemon(place)
        own.found["image"] = awaited_image(own)
        celaje(environment, "down")
        fill(place, own.found["image"])
        celaje(environment, "up", "--detach")
        own.process = daemon(place).process
        port = free_port()
        log = stack.enter_context(open(place.parent / "moto.log", "wb"))
        # It writes a line for each request; the terminal shall not pay for that.
        moto = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log, env=environment
        )
        stack.callback(moto.wait)
        stack.callback(moto.kill)
        _await_port(port)
        peer = Server("moto", moto.pid, port, "testing", "testing")
        peer.found["image"] = peer.ask("ec2", "describe_images")["Images"][0]["ImageId"]
        for region, count in ((NEAR, FEW), (FAR, THOUSAND)):
            for at in range(0, count, TOGETHER):
                many = min(TOGETHER, count - at)
                tags = [{"Key": "Name", "Value": "web"}, {"Key": "stage", "Value": "test"}]
                peer.ask(
                    "ec2",
                    "run_instances",
                    region,
                    ImageId=peer.found["image"],
                    InstanceType="t3.nano",
                    MinCount=many,
                    MaxCount=many,
                    TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
                )
        for server in (own, peer):
            reservations = server.ask("ec2", "describe_instances")["Reservations"]
            server.found["instance"] = reservations[0]["Instances"][0]["InstanceId"]
            server.ask("ec2", "create_key_pair", KeyName="bench")
        yield [own, peer]


def _await_port(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def awaited_image(server: Server) -> str:
    """The image's identifier, once it is available."""
    until = time.monotonic() + 10 * PATIENCE
    while True:
        found = server.ask("ec2", "describe_images", Filters=[{"Name": "name", "Values": [IMAGE]}])["Images"]
        if found and found[0]["State"] == "available":
            return str(found[0]["ImageId"])
        if time.monotonic() > until:
            raise RuntimeError(f"{IMAGE} is not available: {found}")
        time.sleep(0.2)


def fill(place: Path, image: str) -> None:
    """Write stopped instances into the database of a cloud that is down: few in one region, a thousand in the other."""
    import importlib
    import pkgutil

    from sqlalchemy import select

    from celaje.cloud import state
    from celaje.cloud.ec2 import network_interfaces, security_groups
    from celaje.cloud.ec2.instance_types import TYPES
    from celaje.cloud.iam.accounts import root_account
    from celaje.cloud.state.database import Database
    from celaje.cloud.state.identifiers import new_id
    from celaje.cloud.state.instances import STOPPED, Instance, MetadataOptions
    from celaje.cloud.state.networks import Subnet
    from celaje.cloud.state.tags import set_tags
    from celaje.cloud.state.volumes import Volume, VolumeAttachment

    for module in pkgutil.iter_modules(state.__path__, f"{state.__name__}."):
        importlib.import_module(module.name)
    database = Database(place / "cloud" / "state.sqlite3")
    now = datetime.datetime.now(datetime.UTC)
    kind = TYPES["t3.nano"]
    with database.write() as session:
        account = root_account(session).id
        for region, count in ((NEAR, FEW), (FAR, THOUSAND)):
            subnet = session.scalars(select(Subnet).where(Subnet.account == account, Subnet.region == region)).first()
            assert subnet is not None
            group = security_groups.default_group(session, subnet.vpc).id
            owned = {"account": account, "region": region, "created": now}
            for number in range(count):
                if number % TOGETHER == 0:
                    reservation = new_id("r")
                interface = network_interfaces.allocate(
                    session, account=account, region=region, subnet=subnet, groups=[group], now=now
                )
                instance = Instance(
                    **owned,
                    id=new_id("i"),
                    reservation=reservation,
                    launch_index=number % TOGETHER,
                    image=image,
                    architecture="arm64",
                    instance_type=kind.name,
                    zone=subnet.zone,
                    vpc=subnet.vpc,
                    subnet=subnet.id,
                    interface=interface.id,
                    root_device="/dev/sda1",
                    launched=now,
                    wanted=STOPPED,
                    memory=kind.memory_mib,
                    vcpus=kind.vcpus,
                    metadata_options=MetadataOptions(),
                )
                instance.enter(STOPPED, now)
                network_interfaces.attach(interface, instance.id, 0, True, now)
                interface.attachment_state = "attached"
                volume = Volume(
                    **owned, id=new_id("vol"), zone=subnet.zone, size=8, kind="gp3", state="in-use", made=True
                )
                session.add_all([instance, volume])
                session.add(
                    VolumeAttachment(
                        volume=volume.id,
                        instance=instance.id,
                        account=account,
                        region=region,
                        device="/dev/sda1",
                        is_root=True,
                        delete_on_termination=True,
                        state="attached",
                        since=now,
                    )
                )
                set_tags(session, instance.id, "instance", account, region, {"Name": "web", "stage": "test"})
    database.close()


def measures(repeats: int, show: Callable[[str, Rate], None]) -> dict[str, float]:
    """Quotients by the names of report.MEASURES; `show` is told each as it is there."""
    found: list[Rate] = []
    with both_servers() as both:
        for call in CALLS:
            found.append(rate(both, call, repeats))
            show(call, found[-1])
        large = rate(both, "DescribeInstances", repeats, FAR, LARGE_COUNTS)
        show(f"DescribeInstances of {THOUSAND}", large)
        answers = [len(each.ask("ec2", "describe_instances", FAR)["Reservations"]) for each in both]
        if len(set(answers)) != 1:
            raise RuntimeError(f"celaje and moto do not show the same: {answers} reservations")
    return {
        "api_rate_over_moto": statistics.fmean(one.own for one in found) / statistics.fmean(one.other for one in found),
        "api_least_rate_over_moto": min(one.quotient for one in found),
        "api_mean_quotient_over_moto": statistics.fmean(one.quotient for one in found),
        "api_thousand_over_moto": large.quotient,
        "api_requests_per_second": statistics.fmean(one.own for one in found),
        "api_thousand_seconds": 1 / large.own,
    }


def show(name: str, one: Rate) -> None:
    """One line."""
    print(
        f"{name:26} celaje {one.own:7.1f}/s (CPU {one.own_cpu:7.2f} ms)   moto {one.other:6.1f}/s "
        f"(CPU {one.other_cpu:7.2f} ms)   {one.quotient:6.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    print(datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"), "load", os.getloadavg())
    for name, value in measures(parser.parse_args().repeats, show).items():
        print(f"{name:30} {value:10.3f}")


if __name__ == "__main__":
    main()
