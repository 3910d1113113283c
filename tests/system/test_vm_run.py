"""How a run ends: the exit status, the line on stderr, the statistics; and what becomes of standard input and disks."""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

LUI_T0_FINISHER = 0x001002B7  # lui t0, 0x100
SW_T1_T0 = 0x0062A023  # sw t1, 0(t0)
SPIN = 0x0000006F  # j .


def program(*instructions: int) -> bytes:
    """A flat binary."""
    return struct.pack(f"<{len(instructions)}I", *instructions)


PASS = program(LUI_T0_FINISHER, 0x00005337, 0x55530313, SW_T1_T0, SPIN)  # li t1, 0x5555
FAIL_7 = program(LUI_T0_FINISHER, 0x00073337, 0x33330313, SW_T1_T0, SPIN)  # li t1, 7 << 16 | 0x3333
RESET = program(LUI_T0_FINISHER, 0x00007337, 0x77730313, SW_T1_T0, SPIN)  # li t1, 0x7777
FOREVER = program(SPIN)
NO_HANDLER = program(0)  # an illegal instruction, with mtvec still at 0, where there is no memory

# Sends every byte that it receives back, and ends with the finisher at a "q".
ECHO = program(
    0x100002B7,  # lui   t0, 0x10000      the UART
    0x0052C303,  # 1: lbu t1, 5(t0)       line status
    0x00137313,  # andi  t1, t1, 1        data ready
    0xFE030CE3,  # beqz  t1, 1b
    0x0002C383,  # lbu   t2, 0(t0)
    0x00728023,  # sb    t2, 0(t0)
    0x07100E13,  # li    t3, 'q'
    0xFFC394E3,  # bne   t2, t3, 1b
    LUI_T0_FINISHER,
    0x00005337,
    0x55530313,
    SW_T1_T0,
    SPIN,
)


# Makes the terminal on standard input its own session's, as a login shell has it, and goes on as what it is given.
FOREGROUND = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


def wait_until_raw(terminal: int) -> None:
    """Return when somebody has switched the terminal's line editing off; fails after a minute."""
    until = time.monotonic() + 60
    while termios.tcgetattr(terminal)[3] & termios.ICANON:
        assert time.monotonic() < until, "the terminal never became raw"
        time.sleep(0.01)


@pytest.fixture(params=["translate", "evaluate"])
def engine(request: pytest.FixtureRequest) -> str:
    """Every engine that runs on any host."""
    name: str = request.param
    return name


def run(
    directory: Path, firmware: bytes, *words: str, keyboard: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`celaje vm run --firmware` as a process of its own. `keyboard` comes through a pipe; None is an empty input."""
    (directory / "firmware").write_bytes(firmware)
    return subprocess.run(
        [sys.executable, "-m", "celaje", "vm", "run", "--firmware", "firmware", "--memory", "16M", *words],
        cwd=directory,
        input=keyboard if keyboard is not None else b"",
        capture_output=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("firmware", "words", "status", "said"),
    [
        (PASS, [], 0, "power"),
        (FAIL_7, [], 1, "7"),
        (NO_HANDLER, [], 3, "died"),
        (FOREVER, ["--timeout", "0.5"], 124, "time limit"),
        (RESET, ["--no-reboot"], 0, "restart"),
        (RESET, ["--timeout", "1"], 124, "time limit"),
    ],
    ids=["power-off", "failure", "death", "time limit", "restart that ends", "restart that does not"],
)
def test_how_a_machine_ends_is_the_exit_status_and_one_line_on_stderr(
    firmware: bytes, words: list[str], status: int, said: str, engine: str, tmp_path: Path
) -> None:
    done = run(tmp_path, firmware, "--engine", engine, *words)
    line = done.stderr.decode()
    assert done.returncode == status, line
    assert line.startswith("celaje: ")
    assert line.count("\n") == 1
    assert said in line
    assert done.stdout == b""


def test_statistics_say_what_was_done(engine: str, tmp_path: Path) -> None:
    done = run(tmp_path, FAIL_7, "--engine", engine, "--stats", "stats.json")
    assert done.returncode == 1
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["verdict"] == {"kind": "fail", "number": 7, "reason": stats["verdict"]["reason"]}
    assert 3 <= stats["instructions"] <= 100
    assert stats["exits"]["mmio_write"] == 1
    assert stats["guest_seconds"] >= 0
    assert stats["python_seconds"] > 0
    assert "tlb_misses" in stats
    assert sorted(path.name for path in tmp_path.iterdir()) == ["firmware", "stats.json"]


def test_what_comes_through_a_pipe_is_typed_and_its_end_is_not_the_machines(engine: str, tmp_path: Path) -> None:
    typed = bytes(range(32, 113)) * 4 + b"\x01x\x03\x04 the escape is a terminal's only "
    done = run(tmp_path, ECHO, "--engine", engine, "--timeout", "60", keyboard=typed + b"q")
    assert done.stdout == (typed + b"q")[: (typed + b"q").index(b"q") + 1]
    assert done.returncode == 0
    waiting = run(tmp_path, ECHO, "--engine", engine, "--timeout", "5", keyboard=b"abc")
    assert (waiting.stdout, waiting.returncode) == (b"abc", 124)


def test_a_machine_writes_no_file_that_was_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    assert run(tmp_path, PASS, "--disk", "disk,readonly").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "firmware"]


def test_ctrl_a_x_at_a_terminal_switches_the_machine_off_and_restores_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "firmware").write_bytes(ECHO)
    master, terminal = pty.openpty()
    try:
        before = termios.tcgetattr(terminal)
        command = [sys.executable, "-m", "celaje", "vm", "run", "--firmware", "firmware", "--memory", "16M"]
        process = subprocess.Popen(
            [sys.executable, "-c", FOREGROUND, *command],
            cwd=tmp_path,
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        # Ctrl-C and Ctrl-D are the guest's; Ctrl-A Ctrl-A is a Ctrl-A.
        wait_until_raw(terminal)
        os.write(master, b"ab\x03\x04\x01\x01")
        seen = b""
        while len(seen) < 5:
            assert select.select([master], [], [], 60)[0], seen
            seen += os.read(master, 100)
        assert seen == b"ab\x03\x04\x01"
        os.write(master, b"\x01x")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert said == b"celaje: left with Ctrl-A x; the machine was switched off\n"
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(terminal)
        os.close(master)
