"""Guests for the tests of networks: debian-mini's kernel and busybox, with a start of their own that asks DHCP.

A guest's console is a shell that does not echo, so that what a command printed is all that there is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from celaje.image import cpio
from celaje.image.tree import Tree
from demo.console import Console

BOOT_SECONDS = 240.0
ANSWER_SECONDS = 240.0

_INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -echo
modprobe -a virtio_mmio virtio_net virtio_rng
ip link set lo up
ip link set eth0 up
udhcpc -q -n -t 30 -i eth0 -s /lease
export PS1=
echo "guest is ready"
exec sh
"""
_LEASE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev $interface
ip route add default via $router
mkdir -p /etc
echo "search $domain" > /etc/resolv.conf
for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
"""


def network_initrd(image: Path, path: Path) -> Path:
    """Write an initrd like the image's to `path`, but with a start that sets up the network and stays in a shell."""
    tree = Tree()
    tree.file("init", _INIT.encode(), 0o755)
    tree.file("lease", _LEASE.encode(), 0o755)
    before = (image / "initrd").read_bytes()
    path.write_bytes(before + bytes(-len(before) % 4) + cpio.pack(tree))
    return path


class NetworkGuest:
    """A machine of `celaje vm run` in the network of the test. `address` is the one that DHCP gave it."""

    def __init__(self, image: Path, initrd: Path, network: str = "user", *words: str) -> None:
        boots = ["--kernel", str(image / "kernel"), "--initrd", str(initrd), "--append", "console=ttyS0 quiet"]
        command = [sys.executable, "-m", "celaje", "vm", "run", *boots, "--memory", "256M", "--network", network]
        self.console = Console([*command, "--timeout", "900", *words], stderr=subprocess.DEVNULL)

    def __enter__(self) -> NetworkGuest:
        try:
            self.console.wait_for("guest is ready", BOOT_SECONDS)
            found = re.search(r"inet (10\.77\.[0-9.]+)/16", self.run("ip -4 address show eth0"))
            assert found is not None, "DHCP gave no address"
            self.address = found[1]
        except BaseException:
            self.console.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.console.__exit__()

    def start(self, command: str) -> None:
        """Type a command and go on."""
        self.console.type(command)

    def status(self, command: str) -> tuple[int, str]:
        """The exit status of a command, and what it printed."""
        self.console.type(f"{command}; echo end of it $?.")
        printed = self.console.wait_for("end of it ", ANSWER_SECONDS)
        return int(self.console.wait_for(".", ANSWER_SECONDS)), printed.replace("\r", "").strip()

    def run(self, command: str) -> str:
        """What a command printed, which must end with status 0."""
        status, printed = self.status(command)
        assert status == 0, f"{command} ended with status {status}: {printed}"
        return printed
