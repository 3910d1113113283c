"""The riscv-tests that a person brings, as their Makefile builds them (rv64ui-p-add, rv64si-p-csr, rv64ua-v-lrsc, …).

CELAJE_RISCV_TESTS names the directory with the built programs: they are not celaje's, so they are not in its tree. A
name's second part is the environment: p on physical memory, v in virtual memory under a small kernel, pm on several
harts at once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = "CELAJE_RISCV_TESTS"
NAME = re.compile(r"(?P<suite>rv64\w+)-(?P<environment>p|pm|v)-\w+")
MISSING = {
    "rv64uzbc": "Zbc",
    "rv64uzbkb": "Zbkb",
    "rv64uzbkx": "Zbkx",
    "rv64uzfh": "Zfh",
    "rv64up": "P",
}
HARTS = {"p": 1, "v": 1, "pm": 4}
ONE_HART = {"rv64mi-pm-mcsr"}  # wants mhartid to be 0, which of several harts only one can say


def _programs() -> list[Path]:
    directory = Path(os.environ.get(SETTING, os.devnull))
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(path for path in found if NAME.fullmatch(path.name))


@pytest.mark.parametrize("program", _programs() or [None], ids=lambda path: path.name if path else "none")
def test_a_program_of_riscv_tests_passes(program: Path | None) -> None:
    if program is None:
        if SETTING in os.environ:
            pytest.fail(f"{os.environ[SETTING]} has no program that is called like rv64ui-p-add")
        pytest.skip(f"no riscv-tests: {SETTING} names no directory of built programs")
    match = NAME.fullmatch(program.name)
    assert match is not None
    if match["suite"] in MISSING:
        pytest.skip(f"{program.name}: celaje has no {MISSING[match['suite']]}")
    harts = "1" if program.name in ONE_HART else str(HARTS[match["environment"]])
    command = [sys.executable, "-m", "celaje", "vm", "run", "--firmware", str(program), "--memory", "64M"]
    done = subprocess.run(
        [*command, "--cpus", harts, "--timeout", "120"], stdin=subprocess.DEVNULL, capture_output=True, timeout=180
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"the guest passed" in done.stderr
