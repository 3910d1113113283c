"""100,000 random user-mode instructions on each engine and on QEMU. `python -m tests.differential` replays a seed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from celaje.engine.evaluate import memory
from celaje.isa.riscv.instructions import RISCV
from tests.differential.comparison import explained
from tests.differential.peers import ENGINES, Celaje, Qemu, engine_names
from tests.differential.program import EXTENSIONS, programmable, random_program

INSTRUCTIONS, PROGRAM = 100_000, 2_000


@pytest.fixture(scope="module", params=(64, 32))
def qemu(request: pytest.FixtureRequest) -> Iterator[Qemu]:
    if not Qemu.find(request.param):
        pytest.skip(f"qemu-riscv{request.param} is not here; it is in Debian's package qemu-user")
    peer = Qemu(request.param)
    yield peer
    peer.close()


@pytest.mark.parametrize("name", ENGINES)
def test_random_programs_end_as_they_do_on_qemu(name: str, qemu: Qemu) -> None:
    if name not in engine_names(qemu.xlen):
        pytest.skip(f"the engine {name} has no registers of {qemu.xlen} bits")
    celaje = Celaje(name, qemu.xlen)
    first = secrets.randbelow(1 << 32)
    print(f"seeds from {first}")
    seen = 0
    for seed in range(first, first + INSTRUCTIONS // PROGRAM):
        program = random_program(seed, qemu.xlen, PROGRAM, without=qemu.cannot)
        seen += program.instructions
        explanation = explained(program, celaje.run, qemu.run)
        again = f"python -m tests.differential --seed {seed} --engine {name} --xlen {qemu.xlen}"
        assert not explanation, f"{explanation}\n\nagain: {again}"
    celaje.close()
    assert seen >= INSTRUCTIONS


@pytest.mark.parametrize("xlen", [32, 64])
def test_the_engines_of_celaje_agree_on_what_qemu_cannot_do(xlen: int) -> None:
    """Zicond on an older QEMU, above all: here the evaluator is the other side."""
    others = [name for name in engine_names(xlen) if name != "evaluate"]
    if not others:
        pytest.skip(f"the evaluator is the only engine with registers of {xlen} bits")
    reference = Celaje("evaluate", xlen)
    for name in others:
        other = Celaje(name, xlen)
        for seed in range(3):
            program = random_program(seed, xlen, PROGRAM, ("I", "Zbb", "Zicond"))
            assert not explained(program, other.run, reference.run)
        other.close()
    reference.close()


@pytest.mark.parametrize("xlen", [32, 64])
def test_programs_contain_every_unprivileged_instruction(xlen: int) -> None:
    decode, seen = RISCV.decoder(xlen), set()
    for seed in range(25):
        for item in random_program(seed, xlen, PROGRAM).items:
            code = item.code
            while code:
                decoded = decode(int.from_bytes(code[:4], "little"))
                assert decoded is not None
                seen.add(decoded.instruction.name)
                code = code[decoded.instruction.length :]
    assert {entry.name for _, entry in programmable(xlen, EXTENSIONS, ())} <= seen


def test_a_mistake_of_an_engine_is_found_and_its_instruction_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = Celaje("evaluate", 64), Celaje("evaluate", 64)
    program = random_program(1, 64, 500, ("A",))
    assert not explained(program, wrong.run, right.run)

    def run_wrongly(executable):  # type: ignore[no-untyped-def]  # as Celaje.run
        with monkeypatch.context() as patched:
            patched.setitem(memory.ATOMICS, "max", lambda old, new, width: max(old, new))
            return wrong.run(executable)

    explanation = explained(program, run_wrongly, right.run)
    assert "amomax" in explanation
    assert "differs" in explanation
    right.close()
    wrong.close()
