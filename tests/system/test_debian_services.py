"""What Debian's images do beside their console: address, SSH, keys, user data, growth, the power button.

The images are built before the tests (see .ci/run). Machines are started by the command, in processes of their own.
"""

from __future__ import annotations

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
from celaje.network import client, messages, spawn
from tests.machine_processes import end

BOOT_SECONDS = 240.0
FULL_BOOT_SECONDS = 900.0
STOP_SECONDS = 120.0
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


@pytest.fixture
def host(outside_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: openssh-client)")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    runtime = Path(tempfile.mkdtemp(prefix="celaje-", dir="/tmp"))
    # Sockets have short names, and what the test starts is found by them in the end.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    found = Host({**os.environ, "HOME": outside_environment["HOME"]}, key)
    try:
        yield found
        for name in found.started:
            found.celaje("vm", "rm", "--force", name)
    finally:
        for network in spawn.running():
            client.requested(network, messages.Stop())
        end(starting.template_process())
        shutil.rmtree(runtime, ignore_errors=True)


def test_debian_mini_is_a_machine_on_a_network(built_image: FindImage, host: Host, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(SCRIPT)
    words = ["--ssh-key", f"{host.key}.pub", "--user-data", tmp_path / "script", "--root-size", "1G"]
    host.start("first", built_image("debian-mini").resolve(), "--network", "user", "--memory", "128M", *words)
    name, address, *_ = host.said("admin@first", "hostname; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'")
    assert name == "first"
    assert address.startswith("inet 10.77.")
    assert host.said("admin@first", "id -un; sudo -n id -un") == ["admin", "root"]
    assert host.said("root@first", "id -un; touch /root/mark; sync") == ["root"]
    (blocks,) = host.said("root@first", "df -m / | awk 'NR == 2 { print $2 }'")
    assert int(blocks) > 900
    assert host.said("root@first", "grep -l ended /var/log/user-data.log && cat /root/ran") == [
        "/var/log/user-data.log",
        "ran as root",
    ]
    assert host.said("root@first", "nslookup first | grep -c 10.77.")[0] >= "1"
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
    host.celaje("image", "create", "mine", "--volume", volume)
    host.start("two", "mine", "--network", "user", "--ssh-key", f"{host.key}.pub")
    assert host.said("root@two", "hostname; cat /root/mine") == ["two", "mine"]
    assert host.said("root@two", "md5sum < /etc/dropbear/dropbear_ed25519_host_key") != keys


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_debian_13_is_set_up_by_cloud_init(built_image: FindImage, host: Host, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("#cloud-config\nwrite_files:\n- path: /etc/mark\n  content: written\n")
    words = ["--ssh-key", f"{host.key}.pub", "--user-data", tmp_path / "config", "--root-size", "3G", "--memory", "1G"]
    host.start("full", built_image("debian-13").resolve(), "--network", "user", "--cpus", "2", *words)
    assert host.said("admin@full", "sudo -n id -un", FULL_BOOT_SECONDS) == ["root"]
    status = host.said("admin@full", "cloud-init status --wait --long", FULL_BOOT_SECONDS)
    assert "status: done" in status
    assert any("DataSourceEc2" in line for line in status)
    assert host.said("admin@full", "hostname; cat /etc/mark") == ["full", "written"]
    (blocks,) = host.said("admin@full", "df --output=size -m / | tail -n 1")
    assert int(blocks) > 2700
    assert host.said("admin@full", "systemctl --failed --no-legend --plain") == []
    host.celaje("vm", "stop", "full")
