"""What Debian's images do beside their console: address, SSH, keys, user data, growth, the power button.

The images are built before the tests (see .ci/run). Machines are started by the command, in processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from celaje.host import starting
from celaje.network import client, spawn
from tests.machine_processes import end

SOURCE = Path(__file__).resolve().parents[2] / "src"
BOOT_SECONDS = 240.0
SCRIPT = b"#!/bin/sh\necho ran as $(id -un) >> /root/ran\ncat /proc/uptime\n"

FindImage = Callable[[str], Path]


@dataclass
class Host:
    """The command, with a home and sockets of its own."""

    environment: dict[str, str]
    key: Path
    started: list[str] = field(default_factory=list)

    def celaje(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celaje", *map(str, words)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def start(self, name: str, *words: str | Path) -> None:
        if name not in self.started:
            self.started.append(name)
        self.celaje("vm", "start", name, *words)

    def ssh(self, target: str, command: str) -> subprocess.CompletedProcess[str]:
        """What `command` prints on a machine, once it answers."""
        options = ["-q", "-i", self.key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
        return self.celaje("ssh", *options, "-o", "UserKnownHostsFile=/dev/null", target, command, check=False)

    def said(self, target: str, command: str, seconds: float = BOOT_SECONDS) -> list[str]:
        """The lines that `command` prints, as soon as the machine's SSH answers and it succeeds."""
        until = time.monotonic() + seconds
        while (done := self.ssh(target, command)).returncode != 0:
            assert time.monotonic() < until, done.stdout + done.stderr
            time.sleep(1)
        return done.stdout.splitlines()


@contextlib.contextmanager
def hosted(home: str, directory: Path) -> Iterator[Host]:
    """The command with what it keeps in `directory`, but its cache in `home`. What it starts ends with it."""
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: openssh-client)")
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    runtime = Path(tempfile.mkdtemp(prefix="celaje-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as setting:
        # Sockets have short names, and what the test starts is found by them in the end.
        setting.setenv("XDG_RUNTIME_DIR", str(runtime))
        setting.setenv("CELAJE_HOME", str(directory / "home"))
        setting.setenv("PYTHONPATH", str(SOURCE))
        found = Host({**os.environ, "HOME": home}, key)
        try:
            yield found
            for name in found.started:
                found.celaje("vm", "rm", "--force", name)
        finally:
            for network in spawn.running():
                client.stop(network)
            end(starting.template_process())
            shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def host(outside_environment: dict[str, str], tmp_path: Path) -> Iterator[Host]:
    with hosted(outside_environment["HOME"], tmp_path) as found:
        yield found


def test_debian_mini_is_a_machine_on_a_network(built_image: FindImage, host: Host, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(SCRIPT)
    words = ["--ssh-key", f"{host.key}.pub", "--user-data", tmp_path / "script", "--root-size", "1G"]
    host.start("first", built_image("debian-mini").resolve(), "--network", "user", "--memory", "128M", *words)
    name, address, *_ = host.said("admin@first", "hostname; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'")
    assert name == "first"
    assert address.startswith("inet 10.77.")
    assert host.said("admin@first", "id -un; sudo -n id -un") == ["admin", "root"]
    assert host.said("root@first", "id -un; touch /root/mark; sync") == ["root"]
    # SSH is there before the root file system has grown.
    host.said("root@first", "df -m / | awk 'NR == 2 && $2 > 900 { grown = 1 } END { exit !grown }'")
    assert host.said("root@first", "grep -l ended /var/log/user-data.log && cat /root/ran") == [
        "/var/log/user-data.log",
        "ran as root",
    ]
    assert host.said("root@first", "nslookup first | grep -c 10.77.")[0] >= "1"
    # What firmware says of the machine, to software that knows clouds by it.
    product, tag, uuid = host.said(
        "root@first", "cd /sys/class/dmi/id; cat product_name board_asset_tag product_uuid"
    )
    assert product == "virt"
    assert host.said("root@first", "wget -qO- http://169.254.169.254/latest/meta-data/instance-id; echo") == [tag]
    assert uuid.startswith("ec2")
    keys = host.said("root@first", "md5sum /etc/dropbear/*_host_key")
    host.celaje("vm", "stop", "first")  # the power button

    host.start("first")
    assert host.said("root@first", "ls /root/mark; cat /root/ran") == ["/root/mark", "ran as root"]
    assert host.said("root@first", "md5sum /etc/dropbear/*_host_key") == keys
    disks = host.said("root@first", "ls /dev/disk/by-id")
    assert any(name.endswith("-part1") for name in disks)
    assert host.ssh("nobody@first", "true").returncode != 0


def test_an_image_of_a_machines_disk_is_another_machine(built_image: FindImage, host: Host) -> None:
    host.start("one", built_image("debian-mini").resolve(), "--network", "user", "--ssh-key", f"{host.key}.pub")
    keys = host.said("root@one", "md5sum < /etc/dropbear/dropbear_ed25519_host_key; echo mine > /root/mine")
    host.celaje("vm", "stop", "one")
    (volume,) = [path.name for path in Path(host.environment["CELAJE_HOME"]).glob("volumes/*") if path.is_dir()]
    host.celaje("vm", "image", "create", "mine", "--volume", volume)
    host.start("two", "mine", "--network", "user", "--ssh-key", f"{host.key}.pub")
    assert host.said("root@two", "hostname; cat /root/mine") == ["two", "mine"]
    assert host.said("root@two", "md5sum < /etc/dropbear/dropbear_ed25519_host_key") != keys
