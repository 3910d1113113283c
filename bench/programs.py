"""The guest programs of the benchmark: bare-metal ELF files, built by Debian's cross compiler into bench/build."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILER = "riscv64-linux-gnu-gcc"
FLAGS = (
    "-O2 -Wall -Wextra -Werror -march=rv64gc -mabi=lp64d -mcmodel=medany -ffreestanding -fno-math-errno "
    "-fno-stack-protector -fno-pie -no-pie -fno-tree-loop-distribute-patterns -nostdlib -static "
    "-Wl,--build-id=none,--no-warn-rwx-segments"
).split()
# The same without a C library, for a Linux guest.
LINUX_FLAGS = (
    "-O2 -Wall -Wextra -Werror -march=rv64gc -mabi=lp64d -ffreestanding -fno-stack-protector -fno-pie -no-pie "
    "-fno-tree-loop-distribute-patterns -nostdlib -static -Wl,--build-id=none"
).split()

# Program -> what it stands for. A program prints one RESULT line for each of its measurements.
PROGRAMS = {
    "sieve": "integer",
    "mix": "integer",
    "divide": "integer",
    "recursion": "calls",
    "memory": "memory",
    "nbody": "floating point",
    "mandelbrot": "floating point",
}
NOTHING = "nothing"


def compiler_missing() -> str | None:
    """Why the programs cannot be built, or None."""
    if shutil.which(COMPILER):
        return None
    return f"{COMPILER} is not installed (Debian: gcc-riscv64-linux-gnu)"


def build(name: str, built: Path, *flags: str) -> None:
    """Compile program `name` into the ELF file `built`. Raises CalledProcessError."""
    guest = HERE / "guest"
    files = [guest / "start.S", guest / "report.c", guest / f"{name}.c"]
    subprocess.run([COMPILER, *FLAGS, *flags, "-T", guest / "link.ld", "-o", built, *files], check=True)


def program(name: str) -> Path:
    """The ELF file of program `name`, built if it is missing or older than any source. Raises CalledProcessError."""
    built = HERE / "build" / f"{name}.elf"
    sources = list((HERE / "guest").iterdir())
    if not built.exists() or any(built.stat().st_mtime < source.stat().st_mtime for source in sources):
        built.parent.mkdir(exist_ok=True)
        build(name, built)
    return built
