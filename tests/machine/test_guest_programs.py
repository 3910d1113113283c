"""Whole machines with an engine that executes: small guest programs use devices and firmware calls together."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.engine.evaluate.engine import EvaluateEngine
from celaje.engine.translate.engine import TranslateEngine
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import EngineFactory, Machine
from celaje.machine.verdict import VerdictKind

GUESTS = Path(__file__).parent / "guest"
MEMORY = 4 << 20


@pytest.fixture
def build(tool: Callable[[str], str], tmp_path: Path) -> Callable[[str], Path]:
    def build(name: str) -> Path:
        program = tmp_path / name
        options = [
            "-nostdlib",
            "-static",
            "-no-pie",
            "-march=rv64imac_zicsr_zicbom",
            "-mabi=lp64",
            "-Wl,--build-id=none",
        ]
        sources = ["-T", str(GUESTS / "link.ld"), str(GUESTS / f"{name}.S")]
        subprocess.run([tool("riscv64-linux-gnu-gcc"), *options, "-o", str(program), *sources], check=True, timeout=60)
        return program

    return build


def test_a_kernel_uses_the_sbi(build: Callable[[str], Path]) -> None:
    console = BufferConsole()
    config = MachineConfig(memory=MEMORY, cpus=2, kernel=build("supervisor"), timeout=60)
    with Machine(config, EvaluateEngine) as machine:
        verdict = machine.run(console)
    assert bytes(console.output) == b"hello\nipi\ntimer\n"
    assert verdict.kind is VerdictKind.POWER_OFF


def test_a_bare_metal_program_echoes_by_interrupt_and_passes(build: Callable[[str], Path]) -> None:
    console = BufferConsole()
    typist = threading.Timer(0.3, console.type, (b" and a line that is longer than the FIFO q",))
    console.type(b"typed before it starts")
    typist.start()
    config = MachineConfig(memory=MEMORY, cpus=2, firmware=build("echo"), timeout=60)
    with Machine(config, EvaluateEngine) as machine:
        verdict = machine.run(console)
    assert bytes(console.output) == b"typed before it starts and a line that is longer than the FIFO "
    assert verdict.kind is VerdictKind.PASS


@pytest.mark.parametrize("engine", [EvaluateEngine, TranslateEngine])
def test_a_program_without_a_linker_script_gives_its_verdict_by_an_atomic(
    engine: EngineFactory, tool: Callable[[str], str], tmp_path: Path
) -> None:
    program = tmp_path / "verdict"
    options = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-Ttext=0x80000000", "-o", str(program)]
    subprocess.run([tool("riscv64-linux-gnu-gcc"), *options, str(GUESTS / "verdict.S")], check=True, timeout=60)
    with Machine(MachineConfig(memory=MEMORY, firmware=program, timeout=60), engine) as machine:
        verdict = machine.run(BufferConsole())
    assert (verdict.kind, verdict.number) == (VerdictKind.FAIL, 5)
