"""The host's unit against exact rational arithmetic: values and flags, in every rounding mode that hosts have."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable

import pytest
from llvmlite import binding

from celaje.engine.translate import host_float
from celaje.isa.semantics import Value
from tests.engine.translate.probe import Probe, Program, guarded, missing_symbols, optimised, program, relocations
from tests.isa import rational

MODES = range(host_float.HOST_MODES)
CASES = 150
SEED = 20261123
BITS = ctypes.c_uint64


class Compiled:
    """Functions at -O2, for this host."""

    def __init__(self, program: Program) -> None:
        module = program.parsed()
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=2, jit=True
        )
        optimised(module, machine)
        self.binary = machine.emit_object(module)
        self._engine = binding.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self._functions = {name: kind(self._engine.get_function_address(name)) for name in program.names}
        self._in, self._out, self._state = (BITS * 4)(), (BITS * 4)(), BITS()

    def __call__(self, name: str, *inputs: int) -> tuple[int, int]:
        self._in[: len(inputs)] = list(inputs)
        self._functions[name](self._in, self._out, ctypes.byref(self._state))
        return self._out[0], self._out[1]


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled(program(host_float.this_host()))


def differences(run: Callable[..., tuple[int, int]], operation: str, width: int, operands: int) -> list[str]:
    found = []
    random_ = random.Random(f"{SEED} {operation} {width}")
    for case in rational.cases(random_, operation, width, operands, CASES):
        for mode in MODES:
            got, expected = run(*case, mode), rational.expected(operation, width, case, mode)
            if got != expected:
                shown = ", ".join(hex(bits) for bits in case)
                found.append(f"{operation}({shown}) in mode {mode}: {got} instead of {expected}")
    return found


@pytest.mark.parametrize(("operation", "width", "operands"), rational.OPERATIONS)
def test_the_host_computes_what_exact_arithmetic_does(
    compiled: Compiled, operation: str, width: int, operands: int
) -> None:
    def run(*inputs: int) -> tuple[int, int]:
        return compiled(f"{operation}_of_{width}", *inputs)

    assert differences(run, operation, width, operands) == []


STATIC = [
    entry for entry in rational.OPERATIONS if any(host_float.needs_no_mode(entry[0], entry[1], mode) for mode in MODES)
]


@pytest.mark.parametrize(("operation", "width", "operands"), STATIC)
@pytest.mark.parametrize("host_mode", MODES)
def test_what_needs_no_mode_is_the_same_in_every_mode_of_the_host(
    compiled: Compiled, operation: str, width: int, operands: int, host_mode: int
) -> None:
    def run(*inputs: int) -> tuple[int, int]:
        return compiled(f"{operation}_of_{width}_in_{inputs[-1]}", *inputs[:-1], host_mode)

    assert differences(run, operation, width, operands) == []


def test_a_host_without_fused_arithmetic_or_rounding_leaves_them_to_software() -> None:
    here = host_float.this_host()
    made = Compiled(program(host_float.Host(here.architecture, fuses=False, rounds=False)))
    assert missing_symbols(made.binary) == set()
    for operation, width, operands in rational.OPERATIONS:
        if operation == "fused" or operation.startswith(("to_signed", "to_unsigned")):

            def run(*inputs: int, name: str = f"{operation}_of_{width}") -> tuple[int, int]:
                return made(name, *inputs)

            assert differences(run, operation, width, operands) == []


def test_no_library_is_called(compiled: Compiled) -> None:
    assert missing_symbols(compiled.binary) == set()


def test_the_code_needs_no_relocation() -> None:
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=2, reloc="pic"
    )
    module = program(host_float.this_host()).parsed()
    optimised(module, machine)
    assert relocations(machine.emit_object(module)) == 0


# ---- what -O2 must not do


def constant(probe: Probe, number: float) -> Value:
    return probe.constant(int.from_bytes(ctypes.c_double(number), "little"), 64)


def test_constant_operands_are_not_folded() -> None:
    host = host_float.this_host()
    made = Program()
    for name, (a, b) in {"third": (1.0, 3.0), "by_zero": (1.0, 0.0), "invalid": (0.0, 0.0)}.items():

        def body(probe: Probe, a: float = a, b: float = b) -> None:
            operands = (constant(probe, a), constant(probe, b))
            guarded(probe, probe.input(0, 3), lambda: host_float.render(probe, "divide", operands, None, host), host)

        made.function(name, body)
    compiled = Compiled(made)
    third = 0x3FD5555555555555
    assert [compiled("third", mode) for mode in MODES] == [(third + (mode == rational.RUP), 1) for mode in MODES]
    assert {compiled("by_zero", mode) for mode in MODES} == {(rational.INFINITY[64], rational.DZ)}
    assert {compiled("invalid", mode) for mode in MODES} == {(rational.CANONICAL_NAN[64], rational.NV)}


def test_the_same_division_is_done_again_after_the_rounding_mode_changed() -> None:
    host = host_float.this_host()
    made = Program()

    def body(probe: Probe) -> None:
        a, b = probe.input(0), probe.input(1)
        saved = host_float.save_host(probe)
        host_float.load_guest_rounding(probe, rational.RDN)
        down = host_float.render(probe, "divide", (a, b), None, host)
        with host_float.host_set_to(probe, rational.RUP):
            up = host_float.render(probe, "divide", (a, b), None, host)
        again = host_float.render(probe, "divide", (a, b), None, host)
        probe.output(0, up - down)
        probe.output(1, again - down)
        host_float.restore_host(probe, saved)

    made.function("thirds", body)
    assert Compiled(made)("thirds", 0x3FF0000000000000, 0x4008000000000000) == (1, 0)


def test_flags_read_before_an_operation_are_not_those_after_it() -> None:
    host = host_float.this_host()
    made = Program()

    def body(probe: Probe) -> None:
        a, b = probe.input(0), probe.input(1)
        saved = host_float.save_host(probe)
        host_float.clear_host_flags(probe)
        before = host_float.host_flags(probe)
        host_float.render(probe, "divide", (a, b), None, host)  # its result is not used, its flags are
        after = host_float.host_flags(probe)
        host_float.clear_host_flags(probe)
        cleared = host_float.host_flags(probe)
        probe.output(0, before | (cleared << 5))
        probe.output(1, after)
        host_float.restore_host(probe, saved)

    made.function("flags", body)
    assert Compiled(made)("flags", 0x3FF0000000000000, 0x4008000000000000) == (0, rational.NX)


def test_operations_of_a_branch_not_taken_raise_nothing() -> None:
    host = host_float.this_host()
    made = Program()

    def body(probe: Probe) -> None:
        def compute() -> Value:
            result = probe.variable(probe.input(0))
            with probe.when(probe.input(1).ne(0)):
                result.set(host_float.render(probe, "divide", (probe.input(0), probe.input(1)), None, host))
            return result.get()

        guarded(probe, 0, compute, host)

    made.function("guard", body)
    assert Compiled(made)("guard", 0x3FF0000000000000, 0) == (0x3FF0000000000000, 0)


# ---- the control register


def test_every_mode_is_read_back_and_the_host_is_left_as_it_was() -> None:
    made = Program()

    def modes(probe: Probe) -> None:
        saved = host_float.save_host(probe)
        host_float.load_guest_rounding(probe, probe.input(0, 3))
        probe.output(0, host_float.host_rounding(probe))
        host_float.restore_host(probe, saved)
        probe.output(1, (host_float.save_host(probe) ^ saved).ne(0))

    made.function("modes", modes)
    for mode in MODES:

        def static(probe: Probe, mode: int = mode) -> None:
            saved = host_float.save_host(probe)
            host_float.load_guest_rounding(probe, mode)
            probe.output(0, host_float.host_rounding(probe))
            host_float.restore_host(probe, saved)
            probe.output(1, (host_float.save_host(probe) ^ saved).ne(0))

        made.function(f"mode_{mode}", static)
    compiled = Compiled(made)
    assert [compiled("modes", mode) for mode in MODES] == [(mode, 0) for mode in MODES]
    assert [compiled(f"mode_{mode}") for mode in MODES] == [(mode, 0) for mode in MODES]


def test_subnormal_numbers_are_neither_flushed_nor_taken_for_zeros() -> None:
    host = host_float.this_host()
    made = Program()

    def body(probe: Probe) -> None:
        operands = (probe.input(0), probe.input(1))
        guarded(probe, 0, lambda: host_float.render(probe, "subtract", operands, None, host), host)

    made.function("difference", body)
    assert Compiled(made)("difference", 3, 2) == (1, 0)
