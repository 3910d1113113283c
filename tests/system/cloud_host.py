"""A cloud for tests: the daemon as a process, in the test's own CELAJE_HOME, with an image that was built before.

Everything is asked by boto3 over HTTP. What the test leaves running is ended with it: the daemon, machines, networks.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import msgspec
import pytest
from botocore.config import Config

from celaje.cloud.daemon import DATABASE
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database
from celaje.host import reach, record
from celaje.host.control import wait_until_off
from celaje.host.record import MachineDirectory
from celaje.network import spawn
from tests.machine_processes import alive, end, end_servers

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

SECONDS = 600.0  # a busy host boots guests slowly
REGION = "us-east-1"


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> Any:
    """The condition's first answer that is true."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} has not come within {seconds:.0f} s"
        time.sleep(0.05)
    return found


class CloudHost:
    """A cloud in `home`. `image` is the directory of an image of the host, which is its public image. Until its end
    this process has a runtime directory of the cloud's own: what others run in theirs is not a test's to end."""

    def __init__(self, home: Path, image: Path | None, **settings: Any) -> None:
        self._runtime = tempfile.mkdtemp(prefix="celaje-", dir="/tmp")  # a socket's path is short
        self._setting = pytest.MonkeyPatch()
        self._setting.setenv("XDG_RUNTIME_DIR", self._runtime)
        self.home = home
        self.directory = home / "cloud"
        self.directory.mkdir(parents=True)
        if image is not None:
            (home / "images").mkdir()
            (home / "images" / image.name).symlink_to(image)
        decided = Settings(images=(image.name,) if image else (), port=0, **settings)
        (self.directory / "settings.json").write_bytes(msgspec.json.encode(decided))
        self.process: subprocess.Popen[bytes] | None = None

    # The daemon.

    def up(self, port: int = 0) -> None:
        """Start the daemon; returns when it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celaje.cloud.daemon", "--port", str(port)], stdin=subprocess.DEVNULL
        )
        until(self._answers, "the daemon's answer")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the daemon has ended"
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return bool(json.loads((self.directory / "daemon.json").read_text())["process"] == self.process.pid)
        return False

    @property
    def port(self) -> int:
        return int(json.loads((self.directory / "daemon.json").read_text())["port"])

    def down(self) -> int:
        """End it in order; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        """As the kernel would for want of memory."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(SECONDS)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """Its database, beside the daemon."""
        database = Database(self.directory / DATABASE)
        try:
            yield database
        finally:
            database.close()

    # Clients.

    def client(self, service: str = "ec2", region: str = REGION) -> Any:
        """boto3's, with the root account's keys."""
        profile = configparser.RawConfigParser()
        profile.read(self.directory / "credentials")
        return boto3.client(
            service,  # type: ignore[call-overload]  # whichever the test names
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=profile["root"]["aws_access_key_id"],
            aws_secret_access_key=profile["root"]["aws_secret_access_key"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    def client_environment(self, home: Path) -> dict[str, str]:
        """What every client of AWS reads: where to, and who asks. `home` is where it keeps its own things."""
        profile = configparser.RawConfigParser()
        profile.read(self.directory / "credentials")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": profile["root"]["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": profile["root"]["aws_secret_access_key"],
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "HOME": str(home),
        }

    def networks(self) -> list[str]:
        """Its networks that run."""
        vpcs = {
            vpc["VpcId"] for region in Settings().regions for vpc in self.client(region=region).describe_vpcs()["Vpcs"]
        }
        return [network for network in spawn.running() if network in vpcs]

    def image(self, ec2: EC2Client) -> str:
        """The image's id, once it is available."""

        def found() -> str | None:
            images = ec2.describe_images(Filters=[{"Name": "state", "Values": ["available"]}])["Images"]
            return images[0]["ImageId"] if images else None

        return str(until(found, "the image"))

    def end(self) -> None:
        """Nothing that this cloud has started is left."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for name in record.names():
            directory = MachineDirectory.of(name)
            end(directory.holder())
            assert wait_until_off(directory, SECONDS)
        end_servers()
        self._setting.undo()
        shutil.rmtree(self._runtime, ignore_errors=True)


@contextlib.contextmanager
def cloud_host(home: Path, image: Path, **settings: Any) -> Iterator[CloudHost]:
    """A cloud that is up, and gone afterwards."""
    host = CloudHost(home, image, **settings)
    try:
        host.up()
        yield host
    finally:
        host.end()


def state(ec2: EC2Client, instance: str) -> str:
    """An instance's."""
    [reservation] = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return str(reservation["Instances"][0]["State"]["Name"])


def until_state(ec2: EC2Client, instance: str, wanted: str) -> None:
    """Wait for it."""
    until(lambda: state(ec2, instance) == wanted, f"{instance} {wanted}")


def ssh_command(key: Path, instance: str) -> list[str]:
    """How an instance is logged in on; a command of its own may follow."""
    given = reach.ssh_target(reach.reachable(instance)).options()
    given |= {"IdentitiesOnly": "yes", "BatchMode": "yes", "ConnectTimeout": "60"}
    words = [word for option, value in given.items() for word in ("-o", f"{option}={value}")]
    return ["ssh", "-i", str(key), *words, f"{reach.USER}@{instance}"]


def ssh(key: Path, instance: str, command: str) -> str:
    """What a command on an instance prints; its server is waited for."""
    line = [*ssh_command(key, instance), command]
    ends = time.monotonic() + SECONDS
    while True:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 255:  # ssh's own: not reached
            assert done.returncode == 0, done.stderr
            return done.stdout
        assert time.monotonic() < ends, done.stderr
        time.sleep(0.5)


def kill(process: int) -> None:
    """SIGKILL, and wait until it has gone, perhaps by itself just before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    until(lambda: not alive(process), f"the end of process {process}")
