"""Who executes a program: QEMU's user mode, or an engine of celaje's with a flat hart. Both give what it wrote."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import Engine, Fault, Hart, SystemCall
from tests.differential.elf import Executable
from tests.differential.program import A0, A1, A2, A7, CODE, EXIT_CALL, MEMORY_END, WRITE_CALL, bits, constant

SECONDS = 60
ENGINES = {
    "evaluate": "celaje.engine.evaluate.engine:EvaluateEngine",
    "translate": "celaje.engine.translate.engine:TranslateEngine",
}
EXIT = constant(A7, EXIT_CALL) + bits("ecall")
TRIVIAL = bits("addi", rd=A0, rs1=0, imm=0) + EXIT
# A name that this QEMU does not know ends it; the first of these that it accepts is used.
PROPERTIES = ("zba=on,zbb=on,zbs=on,zicond=on", "zba=on,zbb=on,zbs=on,x-zicond=on", "zba=on,zbb=on,zbs=on", "")


@dataclass(frozen=True)
class Probe:
    """Instructions that some version of QEMU lacks or gets wrong: code after which a0 must be `expected`."""

    names: tuple[str, ...]
    xlens: tuple[int, ...]
    code: bytes
    expected: int


PROBES = (
    Probe(  # since QEMU 8.0
        ("czero.eqz", "czero.nez"),
        (32, 64),
        bits("addi", rd=A0, rs1=0, imm=7) + bits("czero.eqz", rd=A0, rs1=A0, rs2=A0),
        7,
    ),
    Probe(  # QEMU 7.2 counts the zeros of all 64 bits
        ("ctzw",),
        (64,),
        bits("addi", rd=A0, rs1=0, imm=1) + bits("slli/64", rd=A0, rs1=A0, shamt=48) + bits("ctzw", rd=A0, rs1=A0),
        32,
    ),
)


class Diverged(Exception):
    """A program did not get to its end."""


def engine_names(xlen: int) -> list[str]:
    """Those that exist, for this register width."""
    return [
        name
        for name, place in ENGINES.items()
        if importlib.util.find_spec(place.partition(":")[0]) and (xlen == 64 or name == "evaluate")
    ]


def make_engine(name: str, xlen: int) -> Engine:
    """An engine of one hart."""
    module, _, kind = ENGINES[name].partition(":")
    maker = getattr(importlib.import_module(module), kind)
    engine: Engine = maker(hart_count=1) if xlen == 64 else maker(hart_count=1, xlen=xlen)
    return engine


class Celaje:
    """Programs on one engine, each on a hart as it was at the beginning."""

    def __init__(self, name: str, xlen: int) -> None:
        self.engine = make_engine(name, xlen)
        self.memory = GuestMemory(0, MEMORY_END)
        self.engine.add_memory(self.memory)
        self.hart: Hart = self.engine.harts[0]
        self._initial = self.hart.save()

    def run(self, executable: Executable) -> bytes:
        """What the program wrote."""
        self.memory.write(executable.base, executable.image)
        self.hart.restore(self._initial)
        self.hart.flush_instructions()
        for field, value in (("flat", 1), ("mode", 0), ("fs", 1), ("pc", executable.entry)):
            self.hart.set(field, value)
        written = b""
        while True:
            left = self.hart.run()
            if not isinstance(left, SystemCall):
                where = self.hart.get("pc")
                raise Diverged(f"{left} at {where:#x}" if isinstance(left, Fault) else str(left))
            call = self.hart.get("x", A7)
            if call == EXIT_CALL:
                return written
            if call != WRITE_CALL:
                raise Diverged(f"system call {call}")
            written += self.memory.read(self.hart.get("x", A1), self.hart.get("x", A2))

    def close(self) -> None:
        """Give everything back."""
        self.engine.close()
        self.memory.close()


class Qemu:
    """QEMU's user mode for one register width."""

    def __init__(self, xlen: int) -> None:
        self.xlen = xlen
        self._directory = tempfile.TemporaryDirectory(prefix="celaje-differential-")
        self._file = Path(self._directory.name) / "program"
        self.command = self.find(xlen)
        self.properties = next(p for p in PROPERTIES if self._accepts(p))
        self.cannot = frozenset(
            name for probe in PROBES if xlen in probe.xlens and not self._passes(probe) for name in probe.names
        )

    @staticmethod
    def find(xlen: int) -> str:
        """Its path, or the empty string."""
        return shutil.which(f"qemu-riscv{xlen}") or shutil.which(f"qemu-riscv{xlen}-static") or ""

    def _start(self, properties: str, program: bytes) -> subprocess.CompletedProcess[bytes]:
        self._file.write_bytes(program)
        self._file.chmod(0o700)
        processor = ",".join(part for part in (f"rv{self.xlen}", properties) if part)
        return subprocess.run([self.command, "-cpu", processor, str(self._file)], capture_output=True, timeout=SECONDS)

    def _status(self, properties: str, code: bytes) -> int:
        return self._start(properties, Executable(CODE, code.ljust(4096, b"\0"), CODE).to_bytes(self.xlen)).returncode

    def _accepts(self, properties: str) -> bool:
        return self._status(properties, TRIVIAL) == 0

    def _passes(self, probe: Probe) -> bool:
        return self._status(self.properties, probe.code + EXIT) == probe.expected

    def run(self, executable: Executable) -> bytes:
        """What the program wrote."""
        done = self._start(self.properties, executable.to_bytes(self.xlen))
        if done.returncode:
            raise Diverged(f"qemu ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def close(self) -> None:
        """Remove the program's file."""
        self._directory.cleanup()
