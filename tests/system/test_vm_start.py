"""A Debian in a process of its own: reached by ssh, with disks that last and come and go, stopped and started again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.disk.volumes import VolumeStore
from celaje.host import inventory, messages
from celaje.host.control import Control
from celaje.host.record import MachineDirectory
from celaje.host.vmm import private_bytes
from celaje.network import client
from tests.machine_processes import Machines, end, wait_until

CELAJE = [sys.executable, "-m", "celaje"]
BOOT_SECONDS = 240.0

FindImage = Callable[[str], Path]
FindTool = Callable[[str], str]


def celaje(*words: str | Path) -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run([*CELAJE, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


class Guest:
    """A machine that answers ssh."""

    def __init__(self, name: str, key: Path) -> None:
        self.name = name
        self._key = key

    def run(self, command: str, user: str = "root") -> str:
        """What a command in the guest prints; it must succeed."""
        done = self._ssh(command, user)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + BOOT_SECONDS
        while (done := self._ssh("true", "root")).returncode:
            assert time.monotonic() < until, f"{done.stderr}\n{celaje('vm', 'console', '--log', self.name)[-2000:]}"
            time.sleep(0.5)

    def _ssh(self, command: str, user: str) -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-i", str(self._key), "-o", "BatchMode=yes", "-F", "none", f"{user}@{self.name}", command]
        return subprocess.run([*CELAJE, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)


@pytest.fixture
def key(tool: FindTool, tmp_path: Path) -> Path:
    """A private key of SSH; the public one is beside it."""
    tool("ssh")
    path = tmp_path / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def wait_for(guest: Guest, command: str) -> str:
    """What `command` prints in the guest as soon as it succeeds."""
    return guest.run(f"for i in $(seq 1200); do {command} 2>/dev/null && exit; sleep 0.1; done; exit 1")


def test_a_started_machine_answers_ssh_and_keeps_its_disks(
    machines: Machines, built_image: FindImage, key: Path, tmp_path: Path
) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_text("#!/bin/sh\necho was here > /root/user-data-ran\n")
    image = built_image("debian-mini").resolve()
    options = ["--ssh-key", key.with_suffix(".pub"), "--user-data", user_data, "--root-size", "1G"]
    said = celaje("vm", "start", "web", image, *options)
    assert "celaje ssh web" in said
    guest = Guest("web", key)
    guest.wait()
    assert guest.run("hostname") == "web\n"
    assert guest.run("id -un", "admin") == "admin\n"
    assert wait_for(guest, "cat /root/user-data-ran") == "was here\n"
    # The root grew to its disk.
    assert wait_for(guest, "[ $(df -m / | awk 'NR==2 {print $2}') -gt 500 ] && echo grown") == "grown\n"

    # A volume comes and goes while the guest runs.
    volume = VolumeStore().create("data", size=64 << 20)
    serial = volume.serial.decode()
    celaje("vm", "attach", "web", "data")
    guest.run("modprobe sd_mod || true")
    disk = wait_for(guest, "grep -l . /sys/block/sd*/size").strip().split("/")[3]
    assert serial in guest.run(f"cat /sys/block/{disk}/device/vpd_pg80 | tail -c 20")
    guest.run(f"printf kept | dd of=/dev/{disk} conv=fsync bs=512 2>/dev/null; echo root > /root/kept; sync")
    celaje("vm", "detach", "web", "data")
    assert wait_for(guest, f"[ ! -e /sys/block/{disk} ] && echo gone") == "gone\n"
    celaje("vm", "attach", "web", "data")

    # Stopped in order, and started again.
    assert celaje("vm", "stop", "web") == "web is off\n"
    seen = inventory.look(MachineDirectory.of("web"))
    assert (seen.state, seen.detail) == ("off", "power-off")
    celaje("vm", "start", "web")
    guest.wait()
    assert guest.run("cat /root/kept") == "root\n"
    disk = wait_for(guest, "grep -l . /sys/block/sd*/size").strip().split("/")[3]
    assert guest.run(f"head -c 4 /dev/{disk}") == "kept"

    # Its network's process dies, and the next one has it again, at the same address.
    (before,) = client.interfaces("default")
    end(client.statistics("default").process)
    guest.wait()
    assert client.interfaces("default") == [before]

    # Paused and resumed, it goes on.
    celaje("vm", "pause", "web")
    celaje("vm", "resume", "web")
    assert guest.run("echo on") == "on\n"
    process = inventory.look(MachineDirectory.of("web")).process
    assert process is not None
    wait_until(lambda: private_bytes(str(process)) < 25_000_000)  # decoded code goes when the guest is idle
    celaje("vm", "rm", "--force", "web")
    assert [volume.name for volume in VolumeStore().list()] == ["data"]


def test_disks_come_and_go_many_times_while_the_guest_runs(
    machines: Machines, built_image: FindImage, key: Path, repetitions: Callable[[int, int], int]
) -> None:
    celaje("vm", "start", "web", built_image("debian-mini").resolve(), "--ssh-key", key.with_suffix(".pub"))
    guest = Guest("web", key)
    guest.wait()
    volumes = [VolumeStore().create(f"v{number}", size=(number + 1) << 20).id for number in range(3)]
    with Control(MachineDirectory.of("web")) as control:
        for _ in range(repetitions(30, 100)):
            for volume in volumes:
                disk = messages.AttachedDisk(source=volume)
                control.ask(messages.AttachDisk(disk=disk), messages.DiskAttached)
            for volume in volumes:
                control.ask(messages.DetachDisk(source=volume), messages.Done)
        assert wait_for(guest, "! ls /sys/block | grep -q sd && echo none") == "none\n"
        for volume in volumes:
            control.ask(messages.AttachDisk(disk=messages.AttachedDisk(source=volume)), messages.DiskAttached)
    found = wait_for(guest, "[ $(ls -d /sys/block/sd* | wc -l) = 3 ] && cat /sys/block/sd*/size")
    assert sorted(map(int, found.split())) == [2048, 4096, 6144]


def test_two_debians_and_a_bare_program_run_at_once_and_one_that_crashes_is_not_noticed(
    machines: Machines, built_image: FindImage, key: Path
) -> None:
    image = built_image("debian-mini").resolve()
    for name in ("one", "two"):
        celaje("vm", "start", name, image, "--ssh-key", key.with_suffix(".pub"), "--memory", "256M")
    bare = machines.started("bare")
    guests = [Guest(name, key) for name in ("one", "two")]
    for guest in guests:
        guest.wait()
    assert "0% packet loss" in guests[0].run("ping -c 2 two")
    end(MachineDirectory.of("two").holder())
    assert inventory.look(MachineDirectory.of("two")).state == "died"
    assert guests[0].run("echo fine") == "fine\n"
    with Control(bare) as control:
        control.ask(messages.OpenConsole(), messages.Done)
        control.send(messages.ConsoleInput(data=b"x"))
        assert control.receive() == messages.ConsoleOutput(data=b"x")
