"""How celaje and QEMU are started for a measurement, and what is read from them while they run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 600
# An installed celaje has its bytecode beside it; where the environment forbids to write it, compiling would be timed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
GUEST_MEMORY = re.compile(r"memfd:celaje-guest-memory")


@dataclass(frozen=True)
class Emulator:
    """One of the two contestants. `firmware` and `kernel` give the command line for each way to start, `disk` the words
    to add for a raw file on bus `virtio` or `scsi`."""

    name: str
    firmware: Callable[[Path, str], list[str]]
    kernel: Callable[[Path, Path, str, str], list[str]]
    disk: Callable[[Path, str], list[str]]


def _celaje(*arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).with_name("celaje")), "vm", "run", *map(str, arguments)]


def _qemu(*arguments: str | Path) -> list[str]:
    fixed = ["-M", "virt", "-accel", "tcg", "-smp", "1", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
    return ["qemu-system-riscv64", *fixed, *map(str, arguments)]


def _qemu_disk(file: Path, bus: str) -> list[str]:
    drive = ["-drive", f"file={file},format=raw,if=none,id=disk"]
    if bus == "virtio":
        return [*drive, "-device", "virtio-blk-device,drive=disk"]
    return [*drive, "-device", "virtio-scsi-device", "-device", "scsi-hd,drive=disk"]


CELAJE = Emulator(
    "celaje",
    lambda elf, memory: _celaje("--firmware", elf, "--memory", memory),
    lambda kernel, initrd, append, memory: _celaje(
        "--kernel", kernel, "--initrd", initrd, "--append", append, "--memory", memory, "--no-reboot"
    ),
    lambda file, bus: ["--disk", f"{file},bus={bus}"],
)
QEMU = Emulator(
    "qemu",
    lambda elf, memory: _qemu("-bios", "none", "-kernel", elf, "-m", memory),
    lambda kernel, initrd, append, memory: _qemu(
        "-kernel", kernel, "-initrd", initrd, "-append", append, "-m", memory
    ),
    _qemu_disk,
)


def qemu_version() -> str | None:
    """QEMU's own version line, or None where it is not installed."""
    if not shutil.which("qemu-system-riscv64"):
        return None
    shown = subprocess.run(["qemu-system-riscv64", "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()[0]


@dataclass(frozen=True)
class Finished:
    """A run that came to its end: what it printed and how long the whole process took, in seconds."""

    output: str
    seconds: float


def run(command: list[str]) -> Finished:
    """Run to the end. Raises RuntimeError with the last lines of what was said when the exit status is not 0."""
    started = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT)
    seconds = time.monotonic() - started
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        said = (output + done.stderr.decode(errors="replace")).strip().splitlines()[-3:]
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}: " + " | ".join(said))
    return Finished(output, seconds)


def overhead(pid: int) -> int:
    """Bytes of memory that process `pid` holds beyond its guest's memory (resident, shared pages counted in part)."""
    total, counted = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            counted = not GUEST_MEMORY.search(line)
        elif counted and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total
