"""Disks, from inside a guest: sequential and random access past the guest's page cache, on both buses.

The guest is debian-mini's kernel with its initrd and a second archive behind it, whose /bench/init loads the drivers
and starts a program of ours once the guest has come to rest: loading the drivers sets off the kernel's self-tests of
its cryptography (some hundred million instructions of RSA and Diffie-Hellman in the background), which whoever boots
faster would otherwise have in its first workload. Disks are raw files in the host's page cache, as QEMU's defaults
(cache=writeback, aio=threads) have them.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import boot
from bench.emulators import Emulator, run
from bench.programs import COMPILER, HERE, LINUX_FLAGS
from celaje.image import cpio
from celaje.image.tree import Tree

TICKS_PER_SECOND = 10_000_000
RESULT = re.compile(r"^RESULT (\S+) \d+ (\d+) (\d+)\s*$", re.M)
MEMORY = "512M"
MEBIBYTES = 256
OPERATIONS = 6000
BUSES = {"virtio-blk": ("virtio", "/dev/vda"), "virtio-scsi": ("scsi", "/dev/sda")}
KINDS = {
    "sequential-write": "1 MiB, O_DIRECT",
    "sequential-read": "1 MiB, O_DIRECT",
    "random-read": "4 KiB, O_DIRECT",
    "random-write": "4 KiB, O_DIRECT",
    "random-read-of-4": "4 KiB, 4 threads",
    "random-write-of-4": "4 KiB, 4 threads",
}
APPEND = "console=ttyS0 quiet rdinit=/bench/init"
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for pass in 1 2 3; do
    cat /sys/bus/*/devices/*/modalias 2>/dev/null | sort -u | xargs modprobe -a -b -q 2>/dev/null
done
tries=0
until [ -b "$celaje_device" ] || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    usleep 50000
done
# a tick is a hundredth of a second: three times in a row nine tenths of a quarter of a second idle
quiet=0 tries=0 before=0
until [ "$quiet" -ge 3 ] || [ "$tries" -ge 100 ]; do
    usleep 250000
    read -r name user nice system idle rest < /proc/stat
    if [ $((idle - before)) -ge 22 ]; then quiet=$((quiet + 1)); else quiet=0; fi
    tries=$((tries + 1)) before=$idle
done
/bench/disk "$celaje_device" "$celaje_mebibytes" "$celaje_operations" $celaje_workload
poweroff -f
"""


@dataclass(frozen=True)
class Guest:
    """What is booted: a kernel, and an initrd with the program in it."""

    kernel: Path
    initrd: Path


def linux_program(name: str) -> Path:
    """A program for a Linux guest, built if it is missing or older than any source. Raises CalledProcessError."""
    built, sources = HERE / "build" / f"linux-{name}", HERE / "guest" / "linux"
    if not built.exists() or any(built.stat().st_mtime < source.stat().st_mtime for source in sources.iterdir()):
        built.parent.mkdir(exist_ok=True)
        subprocess.run([COMPILER, *LINUX_FLAGS, "-o", built, sources / "linux.c", sources / f"{name}.c"], check=True)
    return built


@contextmanager
def guest(kernel: Path, initrd: Path, programs: list[str], init: str) -> Iterator[Guest]:
    """A guest that starts with the script `init`; `programs` are below /bench."""
    tree = Tree()
    tree.file("bench/init", init.encode(), 0o755)
    for name in programs:
        tree.file(f"bench/{name}", linux_program(name).read_bytes(), 0o755)
    with tempfile.NamedTemporaryFile(suffix=".initrd") as file:
        archive = initrd.read_bytes()
        file.write(archive + bytes(-len(archive) % 512) + cpio.pack(tree))
        file.flush()
        yield Guest(kernel, Path(file.name))


@contextmanager
def raw_file(directory: Path | None = None) -> Iterator[Path]:
    """A file of MEBIBYTES whose blocks are allocated and in the page cache."""
    with tempfile.NamedTemporaryFile(suffix=".raw", dir=directory) as file:
        for _ in range(MEBIBYTES):
            file.write(bytes(1 << 20))
        file.flush()
        yield Path(file.name)


def once(emulator: Emulator, guest: Guest, bus: str, disk: Path) -> dict[str, tuple[float, int]]:
    """All workloads once, on a disk of bus `bus` (a key of BUSES): name -> (seconds, checksum of what was moved)."""
    way, device = BUSES[bus]
    settings = f"celaje_device={device} celaje_mebibytes={MEBIBYTES} celaje_operations={OPERATIONS}"
    words = emulator.kernel(guest.kernel, guest.initrd, f"{APPEND} {settings}", MEMORY)
    output = run([*words, *emulator.disk(disk, way)]).output
    found = {name: (int(ticks) / TICKS_PER_SECOND, int(checksum)) for name, ticks, checksum in RESULT.findall(output)}
    if found.keys() != KINDS.keys():
        raise RuntimeError(f"{emulator.name} on {bus} has results for {sorted(found)} only: {output[-300:]}")
    return found


def pairs(
    contestants: list[Emulator], files: boot.Files, bus: str, repeats: int
) -> dict[str, list[tuple[float, float | None]]]:
    """Workload -> pairs of (celaje's seconds, QEMU's). RuntimeError when the two do not read the same."""
    measured: dict[str, list[tuple[float, float | None]]] = {}
    with guest(files.kernel, files.initrd, ["disk"], INIT) as booted, raw_file() as file:
        for _ in range(repeats):
            rounds = [once(contestant, booted, bus, file) for contestant in contestants]
            for other in rounds[1:]:
                if {name: one[1] for name, one in other.items()} != {name: one[1] for name, one in rounds[0].items()}:
                    raise RuntimeError(f"celaje and QEMU read different bytes: {rounds[0]} against {other}")
            for name, (seconds, _) in rounds[0].items():
                measured.setdefault(name, []).append((seconds, rounds[1][name][0] if len(rounds) > 1 else None))
    return measured
