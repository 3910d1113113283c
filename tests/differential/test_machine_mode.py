"""Random settings of the privileged architecture, one instruction in each, on every engine and on QEMU.

`python -m tests.differential.machine_mode --help` replays a seed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial

import pytest

from celaje.engine.evaluate import memory
from celaje.isa.riscv.privilege import LOAD_ACCESS, STORE
from tests.differential.experiments import OUT, RECORD_SIZE, RECORDS, Experiments
from tests.differential.machine_mode import MEMORY, QemuSystem, compared, run_celaje
from tests.differential.peers import ENGINES, engine_names

COUNT, PROGRAMS = 200, 6


@pytest.fixture(scope="module")
def qemu() -> Iterator[QemuSystem]:
    if not QemuSystem.find():
        pytest.skip("qemu-system-riscv64 is not here; it is in Debian's package qemu-system-misc")
    peer = QemuSystem()
    yield peer
    peer.close()


@pytest.mark.parametrize("name", ENGINES)
def test_random_settings_trap_as_they_do_on_qemu(name: str, qemu: QemuSystem) -> None:
    if name not in engine_names(64):
        pytest.skip(f"there is no engine {name}")
    first = secrets.randbelow(1 << 32)
    print(f"seeds from {first}")
    for seed in range(first, first + PROGRAMS):
        found = compared(Experiments(seed, COUNT), partial(run_celaje, name), qemu.run)
        again = f"python -m tests.differential.machine_mode --seed {seed} --engine {name}"
        assert not found, "\n".join([*found[:40], f"again: {again}"])


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "evaluate"])
def test_the_engines_agree_where_qemu_is_no_measure(name: str) -> None:
    if name not in engine_names(64):
        pytest.skip(f"there is no engine {name}")
    first = secrets.randbelow(1 << 32)
    print(f"seeds from {first}")
    for seed in range(first, first + PROGRAMS):
        experiments = Experiments(seed, COUNT, for_qemu=False)
        found = compared(experiments, partial(run_celaje, name), partial(run_celaje, "evaluate"))
        again = f"python -m tests.differential.machine_mode --seed {seed} --engine {name} --against evaluate"
        assert not found, "\n".join([*found[:40], f"again: {again}"])


def test_experiments_reach_every_cause() -> None:
    causes: set[int] = set()
    for seed in range(3):
        end = run_celaje("evaluate", Experiments(seed, COUNT, for_qemu=False).image())
        for index in range(COUNT):
            for place in (32, 36):  # mcause, scause
                at = RECORDS - MEMORY + RECORD_SIZE * index + OUT + 8 * place
                causes.add(int.from_bytes(end[at : at + 8], "little"))
    assert causes >= {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, *(1 << 63 | n for n in (1, 5, 9))}


def test_a_mistake_of_an_engine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = Experiments(5, COUNT, for_qemu=False)
    right = partial(run_celaje, "evaluate")
    assert not compared(experiments, right, right)

    def wrong(image: bytes) -> bytes:
        with monkeypatch.context() as patched:
            patched.setitem(memory.ACCESS_FAULTS, STORE, LOAD_ACCESS)
            return right(image)

    found = compared(experiments, wrong, right)
    assert any(line.startswith("record") for line in found)
    assert any("cause: 0x5, the other 0x7" in line for line in found)
