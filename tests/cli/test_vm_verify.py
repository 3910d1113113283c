"""`celaje vm verify`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from celaje.cli.command import main
from celaje.engine.translate.engine import TranslateEngine
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine
from celaje.machine.snapshot.capture import take
from tests.machine.snapshot.test_snapshot import MEMORY, program
from tests.machine.test_pause import ALPHABET, running, wait_until


def test_a_whole_snapshot_passes_and_an_altered_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = MachineConfig(memory=MEMORY, firmware=program(tmp_path / "alphabet", ALPHABET))
    console = BufferConsole()
    machine = Machine(config, TranslateEngine)
    path = tmp_path / "machine.snap"
    with running(machine, console):
        wait_until(lambda: len(console.output) > 10)
        take(machine, path)
    assert main(["vm", "verify", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: a machine of 16 MiB, 1 cpus; every byte is as it was written\n"
    with open(path, "r+b") as file:
        file.seek(0x1000)
        file.write(b"\xff")
    assert main(["vm", "verify", str(path)]) == 2
    error = capsys.readouterr().err
    assert "block 0 of its section memory was altered" in error
    assert "take it again" in error


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vm", "verify", str(tmp_path / "none")]) == 2
    assert "there is no machine snapshot" in capsys.readouterr().err
