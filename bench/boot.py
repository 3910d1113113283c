"""The boot to userland: Debian's kernel and a busybox initrd, with an init of the benchmark's own laid over it.

Linux unpacks every archive that an initrd holds, one after the other: two small scripts are appended, and `rdinit=`
picks one of them.
"""

from __future__ import annotations

import gzip
import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.emulators import CELAJE, TIMEOUT, Emulator, overhead

USERLAND = "USERLAND"
MEMORY = "512M"
APPEND = "console=ttyS0 quiet"
IDLE_SECONDS = 10
IMAGE = "debian-mini"

SCRIPTS = {
    "bench-boot": f"#!/bin/busybox sh\necho {USERLAND}\nexec /bin/busybox poweroff -f\n",
    "bench-idle": f"#!/bin/busybox sh\necho {USERLAND}\nexec /bin/busybox sleep 600\n",
}


@dataclass(frozen=True)
class Files:
    """What is booted."""

    kernel: Path
    initrd: Path


def _archive(files: dict[str, str]) -> bytes:
    """A cpio archive ("newc": eight hexadecimal digits a field) of executable files in the root directory."""
    archive = b""
    for number, (name, text) in enumerate([*files.items(), ("TRAILER!!!", "")], start=1):
        mode = 0o100755 if text else 0
        size = len(text.encode())
        fields = (number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name) + 1, 0)
        entry = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += entry + b"\0" * (-len(entry) % 4)
        archive += text.encode() + b"\0" * (-size % 4)
    return archive


def image_directory() -> Path:
    """Where `celaje image build` keeps debian-mini."""
    home = os.environ.get("CELAJE_HOME") or Path.home() / ".local/share/celaje"
    return Path(home) / "images" / IMAGE


def files(kernel: Path | None, initrd: Path | None) -> Files | str:
    """The kernel, and the initrd with the benchmark's scripts; or the reason why there are none."""
    kernel = kernel or image_directory() / "kernel"
    initrd = initrd or image_directory() / "initrd"
    for path in (kernel, initrd):
        if not path.exists():
            return f"{path} is not there; `celaje image build {IMAGE}` makes a kernel and an initrd"
    built = Path(__file__).resolve().parent / "build" / "initrd"
    built.parent.mkdir(exist_ok=True)
    plain = initrd.read_bytes()
    built.write_bytes(plain + b"\0" * (-len(plain) % 4) + gzip.compress(_archive(SCRIPTS)))
    return Files(kernel, built)


def _start(emulator: Emulator, files: Files, init: str) -> subprocess.Popen[bytes]:
    command = emulator.kernel(files.kernel, files.initrd, f"{APPEND} rdinit=/{init}", MEMORY)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _wait_for_userland(process: subprocess.Popen[bytes], sample: list[int] | None = None) -> None:
    """Return when the line has come; `sample` collects the process's memory overhead meanwhile."""
    assert process.stdout is not None
    seen, until = b"", time.monotonic() + TIMEOUT
    while USERLAND.encode() not in seen:
        ready, _, _ = select.select([process.stdout], [], [], 0.1 if sample is not None else 60)
        if sample is not None:
            sample.append(overhead(process.pid))
        if ready:
            more = os.read(process.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError("the machine ended before userland: " + repr(seen[-300:]))
            seen += more
        if time.monotonic() > until:
            raise RuntimeError("no userland within the time limit: " + repr(seen[-300:]))


def first_line(emulator: Emulator, files: Files) -> float:
    """Seconds from the start of the process to the first line of userland."""
    started = time.monotonic()
    process = _start(emulator, files, "bench-boot")
    try:
        _wait_for_userland(process)
        seconds = time.monotonic() - started
        process.communicate(timeout=60)
        return seconds
    finally:
        process.kill()
        process.communicate()


def memory(files: Files) -> dict[str, float]:
    """celaje's memory beyond the guest's own, in bytes: the most while booting, and after ten seconds idle."""
    process = _start(CELAJE, files, "bench-idle")
    sample: list[int] = []
    try:
        _wait_for_userland(process, sample)
        time.sleep(IDLE_SECONDS)
        return {"boot_overhead_bytes": max(sample), "idle_overhead_bytes": overhead(process.pid)}
    finally:
        process.kill()
        process.communicate()
