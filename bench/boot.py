"""The boot to userland: Debian's kernel and a busybox initrd, as `celaje image build debian-mini` makes them.

Its /init prints a line as its first deed, and powers off at once where the command line says `celaje.poweroff`.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.emulators import CELAJE, ENVIRONMENT, TIMEOUT, Emulator, overhead
from celaje import paths

USERLAND = "celaje: userland"
MEMORY = "512M"
APPEND = "console=ttyS0 quiet"
IDLE_SECONDS = 10
IMAGE = "debian-mini"


@dataclass(frozen=True)
class Files:
    """What is booted."""

    kernel: Path
    initrd: Path


def image_directory() -> Path:
    """Where `celaje image build` keeps debian-mini."""
    return paths.home() / "images" / IMAGE


def files(kernel: Path | None, initrd: Path | None) -> Files | str:
    """What to boot: the image's where nothing else is given; or the reason why there is nothing."""
    kernel = kernel or image_directory() / "kernel"
    initrd = initrd or image_directory() / "initrd"
    for path in (kernel, initrd):
        if not path.exists():
            return f"{path} is not there; `celaje image build {IMAGE}` makes a kernel and an initrd"
    return Files(kernel, initrd)


def _start(emulator: Emulator, files: Files, append: str) -> subprocess.Popen[bytes]:
    command = emulator.kernel(files.kernel, files.initrd, append, MEMORY)
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdin=null, stdout=pipe, stderr=pipe, env=ENVIRONMENT)


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
    process = _start(emulator, files, f"{APPEND} celaje.poweroff")
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
    process = _start(CELAJE, files, APPEND)
    sample: list[int] = []
    try:
        _wait_for_userland(process, sample)
        time.sleep(IDLE_SECONDS)
        return {"boot_overhead_bytes": max(sample), "idle_overhead_bytes": overhead(process.pid)}
    finally:
        process.kill()
        process.communicate()
