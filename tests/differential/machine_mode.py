"""Random experiments with the privileged architecture on celaje and on qemu-system-riscv64, side by side.

    python -m tests.differential.machine_mode                                     # a new seed
    python -m tests.differential.machine_mode --seed 7 --engine translate         # one again
    python -m tests.differential.machine_mode --engine translate --against evaluate --programs 20 --count 400

QEMU's memory is a file that both sides read, so that nothing has to be printed. Exit status 1 where they differ.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import MmioRead, MmioWrite
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import INTEGER_REGISTERS
from tests.differential.experiments import (
    COMPARED_END,
    CONTROL,
    FINISHER,
    LOGGED,
    MEMORY,
    MEMORY_SIZE,
    OUT,
    RECORD_SIZE,
    RECORDS,
    TABLES,
    Experiments,
)
from tests.differential.peers import ENGINES, Diverged, make_engine

Runner = Callable[[bytes], bytes]
SECONDS = 60
EBREAK = RISCV.instructions["ebreak"].match
PROCESSOR = "rv64,h=off,zba=on,zbb=on,zbs=on,zbc=off,sstc=on,svinval=on"
# FS may be dirty without need (Privileged ISA, 3.1.6.6); QEMU's timer interrupt is pending from the start.
IGNORED = {"mstatus": 3 << 13 | 1 << 63, "mip": 1 << 7}


class QemuSystem:
    """qemu-system-riscv64 with a board whose memory is a file."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="celaje-differential-", dir="/dev/shm")
        self._file = Path(self._directory.name) / "memory"

    @staticmethod
    def find() -> str:
        """Its path, or the empty string."""
        return shutil.which("qemu-system-riscv64") or ""

    def run(self, image: bytes) -> bytes:
        """Memory from MEMORY to COMPARED_END after the program has ended."""
        with self._file.open("wb") as file:
            file.truncate(MEMORY_SIZE)
            file.write(image)
        backend = f"memory-backend-file,id=memory,size={MEMORY_SIZE},mem-path={self._file},share=on"
        command = [self.find(), "-M", "virt,memory-backend=memory", "-object", backend, "-m", f"{MEMORY_SIZE >> 20}M"]
        command += ["-cpu", PROCESSOR, "-bios", "none", "-display", "none", "-serial", "none", "-monitor", "none"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Diverged(f"qemu had not ended after {SECONDS} s") from None
        if done.returncode:
            raise Diverged(f"qemu ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
        with self._file.open("rb") as file:
            return file.read(COMPARED_END - MEMORY)

    def close(self) -> None:
        """Remove the file."""
        self._directory.cleanup()


def run_celaje(name: str, image: bytes) -> bytes:
    """The same on one of our engines, without a board: the finisher's write is all that leaves the hart."""
    engine = make_engine(name, 64)
    memory = GuestMemory(MEMORY, MEMORY_SIZE)
    engine.add_memory(memory)
    memory.write(MEMORY, image)
    hart = engine.harts[0]
    hart.set("pc", MEMORY)
    left = hart.run()
    while isinstance(left, MmioRead | MmioWrite) and left.address != FINISHER:
        hart.fail_access()  # the addresses that experiments take are no device's on QEMU's board
        left = hart.run()
    end = memory.read(MEMORY, COMPARED_END - MEMORY)
    where = hart.get("pc")
    engine.close()
    memory.close()
    if not isinstance(left, MmioWrite) or left.address != FINISHER:
        raise Diverged(f"celaje left with {left} at {where:#x}")
    return end


def _word(memory: bytes, address: int) -> int:
    return int.from_bytes(memory[address - MEMORY : address - MEMORY + 8], "little")


def _is_known(instruction: int, name: str, ours: int, theirs: int) -> bool:
    """Values that QEMU 7.2 shows otherwise: none for ebreak and for a refused sinval.vma; an aligned address where no
    memory is."""
    if name in ("mtval", "stval") and instruction == EBREAK:
        return theirs == 0
    decoded = RISCV.decoder(64)(instruction)
    if decoded is not None and decoded.instruction.extension == "Svinval" and name in ("mtval", "stval"):
        return (ours, theirs) == (instruction, 0)
    return name in ("mtval", "stval") and any(theirs == ours & -size for size in (2, 4, 8))


def _record_differences(index: int, instruction: int, ours: bytes, theirs: bytes) -> list[str]:
    names = {OUT + 8 * i: INTEGER_REGISTERS[i] for i in range(1, 32)}
    names |= {OUT + 8 * (32 + i): name for i, name in enumerate(LOGGED)}
    lines = []
    for offset, name in names.items():
        a, b = (_word(memory, RECORDS + RECORD_SIZE * index + offset) for memory in (ours, theirs))
        ignored = IGNORED.get(name, 0)
        a, b = a & ~ignored, b & ~ignored
        if a != b and not _is_known(instruction, name, a, b):
            lines.append(f"    {name}: {a:#x}, the other {b:#x}")
    return lines


def described(experiments: Experiments, index: int) -> list[str]:
    """The setting of one record."""
    record = experiments.records[index]
    decoded = RISCV.decoder(64)(record.instruction)
    lines = [f"record {index}: {decoded or hex(record.instruction)}; {record.about}"]
    operands = decoded.operands if decoded else {}
    for name, register in operands.items():
        if name.startswith("rs"):
            lines.append(f"    {INTEGER_REGISTERS[register]} = {record.registers[register]:#x}")
    lines.append("    " + " ".join(f"{name}={record.control[name]:#x}" for name in CONTROL if record.control[name]))
    if record.direct:
        lines.append(f"    mstatus |= {record.registers[30]:#x}")
    return lines


def differences(experiments: Experiments, ours: bytes, theirs: bytes) -> list[str]:
    """What differs, each record with its setting."""
    lines: list[str] = []
    for index in range(len(experiments.records)):
        found = _record_differences(index, experiments.records[index].instruction, ours, theirs)
        if found:
            lines += described(experiments, index) + found
    for address in range(TABLES, COMPARED_END, 8):
        a, b = _word(ours, address), _word(theirs, address)
        if a != b:
            lines.append(f"memory at {address:#x}: {a:#x}, the other {b:#x}")
    return lines


def compared(experiments: Experiments, ours: Runner, theirs: Runner) -> list[str]:
    """Both runs and what differs."""
    image = experiments.image()
    try:
        return differences(experiments, ours(image), theirs(image))
    except Diverged as error:
        return [str(error)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.machine_mode", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--programs", type=int)
    parser.add_argument("--count", type=int, default=200, help="experiments in a program")
    parser.add_argument("--engine", choices=ENGINES, default="evaluate")
    parser.add_argument("--against", choices=("qemu", *ENGINES), default="qemu")
    parser.add_argument("--lines", type=int, default=40, help="how much of the differences to show")
    options = parser.parse_args()
    for_qemu = options.against == "qemu"
    if for_qemu and not QemuSystem.find():
        parser.error("qemu-system-riscv64 is not here; it is in Debian's package qemu-system-misc")
    first = options.seed if options.seed is not None else secrets.randbelow(1 << 32)
    programs = options.programs or (10 if options.seed is None else 1)
    qemu, began, wrong = QemuSystem(), time.monotonic(), 0
    theirs = qemu.run if for_qemu else partial(run_celaje, options.against)
    for seed in range(first, first + programs):
        lines = compared(Experiments(seed, options.count, for_qemu), partial(run_celaje, options.engine), theirs)
        if lines:
            wrong += 1
            print(f"seed {seed}:", *lines[: options.lines], sep="\n")
    seconds = time.monotonic() - began
    print(f"seeds from {first}: {programs * options.count} experiments in {seconds:.1f} s, {wrong} programs differ")
    qemu.close()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
