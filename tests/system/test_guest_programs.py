"""The benchmark's guest programs, cut short, compute on celaje what they compute on QEMU."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import programs

SHORT = {"sieve": 1, "mix": 40, "divide": 2000, "recursion": 18, "memory": 1, "nbody": 300, "mandelbrot": 24}
RESULT = re.compile(rb"^RESULT (\S+) (\d+) \d+ (\d+)\r?$", re.M)


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_a_program_computes_the_same_as_on_qemu(name: str, tool: Callable[[str], str], tmp_path: Path) -> None:
    tool(programs.COMPILER)
    qemu = tool("qemu-system-riscv64")
    built = tmp_path / f"{name}.elf"
    programs.build(name, built, f"-DITERATIONS={SHORT[name]}")
    ours = [sys.executable, "-m", "celaje", "vm", "run", "--firmware", str(built), "--memory", "256M"]
    theirs = [qemu, "-M", "virt", "-bios", "none", "-m", "256M", "-nographic", "-kernel", str(built)]
    found = []
    for command in (ours, theirs):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(RESULT.findall(done.stdout))
    assert found[0] == found[1]
    assert found[0]
