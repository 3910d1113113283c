"""The host's unit against exact rational arithmetic: values and flags, in every rounding mode that hosts have."""

from __future__ import annotations

import ctypes
import io
import random
from collections.abc import Callable

import pytest
from elftools.elf.elffile import ELFFile
from llvmlite import binding

from celaje.engine.translate import host_float
from celaje.engine.translate.reading import LlvmModule, Reading, result_type
from celaje.isa.semantics import Routine, Value
from tests.isa import rational

MODES = range(host_float.HOST_MODES)
CASES = 150
SEED = 20261123
BITS = ctypes.c_uint64

Run = Callable[..., tuple[int, int]]


class Probe(Reading):
    """Renders functions `void name(ptr %in, ptr %out)` over arrays of 64-bit words; flags gather in @fflags."""

    def accrue(self, flags: Value | int) -> None:
        value = flags.zext(8) if isinstance(flags, Value) else self.constant(flags, 8)
        before = self.emit(8, "load i8, ptr @fflags")
        self.line(f"store i8 {(before | value).text}, ptr @fflags")

    def accrued(self) -> Value:
        value = self.emit(8, "load i8, ptr @fflags")
        self.line("store i8 0, ptr @fflags")
        return value

    def give(self, *results: Value | int) -> None:
        kind, whole = self.kind, "poison"
        for index, (width, result) in enumerate(zip(self.results, results, strict=True)):
            value = result if isinstance(result, Value) else self.constant(result, width)
            assert value.width == width
            whole = self.emit(-1, f"insertvalue {kind} {whole}, i{width} {value.text}, {index}").text
        self.end(f"ret {kind} {whole}")

    def input(self, index: int, width: int = 64) -> Value:
        place = self.emit(-1, f"getelementptr i64, ptr %in, i64 {index}").text
        return self.emit(64, f"load i64, ptr {place}").trunc(width)

    def output(self, index: int, value: Value) -> None:
        place = self.emit(-1, f"getelementptr i64, ptr %out, i64 {index}").text
        self.line(f"store i64 {value.zext(64).text}, ptr {place}")


# The instruction-level primitives are no part of what is rendered here.
Probe.__abstractmethods__ = frozenset()


def rendered_routine(module: LlvmModule, routine: Routine) -> str:
    probe = Probe(module)
    object.__setattr__(probe, "results", routine.results)
    object.__setattr__(probe, "kind", result_type(routine.results))
    routine.function(probe, *(Value(probe, width, f"%a{i}") for i, width in enumerate(routine.parameters)))
    parameters = ", ".join(["ptr %st", *(f"i{width} %a{i}" for i, width in enumerate(routine.parameters))])
    head = f"define internal fastcc {result_type(routine.results)} @{routine.name}({parameters}) noinline {{"
    if not probe._ended:
        probe.end("unreachable")
    return "\n".join([head, "entry:", *probe.locals, *probe.lines, "}"])


class Program:
    """A module in the making, and then its functions."""

    def __init__(self) -> None:
        self.module = LlvmModule()
        self.names: list[str] = []

    def function(self, name: str, body: Callable[[Probe], None]) -> None:
        probe = Probe(self.module)
        body(probe)
        probe.end("ret void")
        head = f"define void @{name}(ptr %in, ptr %out, ptr %st) {host_float.FUNCTION_ATTRIBUTES} {{"
        self.module.functions.append("\n".join([head, "entry:", *probe.locals, *probe.lines, "}"]))
        self.names.append(name)

    def parsed(self) -> binding.ModuleRef:
        self.module.render_routines(rendered_routine)
        weights = '!0 = !{!"branch_weights", i32 2000, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 2000}'
        parsed = binding.parse_assembly(f"@fflags = internal global i8 0\n{self.module.text()}\n{weights}\n")
        parsed.verify()
        return parsed

    def compiled(self) -> Compiled:
        return Compiled(self.parsed(), self.names)


def optimised(module: binding.ModuleRef, machine: binding.TargetMachine) -> None:
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


class Compiled:
    """Functions at -O2, for this host."""

    def __init__(self, module: binding.ModuleRef, names: list[str]) -> None:
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
        self._functions = {name: kind(self._engine.get_function_address(name)) for name in names}
        self._in, self._out = (BITS * 4)(), (BITS * 4)()

    def __call__(self, name: str, *inputs: int) -> tuple[int, int]:
        self._in[: len(inputs)] = list(inputs)
        self._functions[name](self._in, self._out, None)
        return self._out[0], self._out[1]


def guarded(probe: Probe, rounding: Value | int, compute: Callable[[], Value], host: host_float.Host) -> None:
    """Compute with the host set and cleared, put value and flags out, and leave the host as it was."""
    saved = host_float.save_host(probe, host)
    host_float.clear_host_flags(probe, host)
    host_float.load_guest_rounding(probe, rounding, host)
    probe.output(0, compute())
    probe.output(1, host_float.host_flags(probe, host) | probe.accrued())
    host_float.restore_host(probe, saved, host)


def body_of(
    operation: str, width: int, operands: int, host: host_float.Host, static: int | None = None
) -> Callable[[Probe], None]:
    """Operands from the input, then the mode that the host is set to."""

    def body(probe: Probe) -> None:
        values = tuple(probe.input(i, width) for i in range(operands))
        mode = probe.input(operands, 3)
        guarded(probe, mode, lambda: host_float.render(probe, operation, values, static, host), host)

    return body


def program(host: host_float.Host) -> Program:
    made = Program()
    for operation, width, operands in rational.OPERATIONS:
        made.function(f"{operation}_of_{width}", body_of(operation, width, operands, host))
        for mode in MODES:
            if host_float.needs_no_mode(operation, width, mode):
                body = body_of(operation, width, operands, host, mode)
                made.function(f"{operation}_of_{width}_in_{mode}", body)
    return made


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return program(host_float.this_host()).compiled()


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
    made = program(host_float.Host(here.architecture, fuses=False, rounds=False)).compiled()
    for operation, width, operands in rational.OPERATIONS:
        if operation == "fused" or operation.startswith(("to_signed", "to_unsigned")):

            def run(*inputs: int, name: str = f"{operation}_of_{width}") -> tuple[int, int]:
                return made(name, *inputs)

            assert differences(run, operation, width, operands) == []


def missing_symbols(binary: bytes) -> set[str]:
    """What an object file wants of others."""
    table = ELFFile(io.BytesIO(binary)).get_section_by_name(".symtab")
    return {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"} - {""}


def test_no_library_is_called(compiled: Compiled) -> None:
    assert missing_symbols(compiled.binary) == set()


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
    compiled = made.compiled()
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
    assert made.compiled()("thirds", 0x3FF0000000000000, 0x4008000000000000) == (1, 0)


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
    assert made.compiled()("flags", 0x3FF0000000000000, 0x4008000000000000) == (0, rational.NX)


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
    assert made.compiled()("guard", 0x3FF0000000000000, 0) == (0x3FF0000000000000, 0)


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
    compiled = made.compiled()
    assert [compiled("modes", mode) for mode in MODES] == [(mode, 0) for mode in MODES]
    assert [compiled(f"mode_{mode}") for mode in MODES] == [(mode, 0) for mode in MODES]


def test_subnormal_numbers_are_neither_flushed_nor_taken_for_zeros() -> None:
    host = host_float.this_host()
    made = Program()

    def body(probe: Probe) -> None:
        operands = (probe.input(0), probe.input(1))
        guarded(probe, 0, lambda: host_float.render(probe, "subtract", operands, None, host), host)

    made.function("difference", body)
    assert made.compiled()("difference", 3, 2) == (1, 0)


# ---- the other architecture


def test_the_text_for_arm_compiles_without_a_library() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple("aarch64-linux-gnu")
    except RuntimeError:
        pytest.skip("this llvmlite has no code generator for aarch64")
    host = host_float.Host("aarch64", fuses=True, rounds=True)
    module = program(host).parsed()
    machine = target.create_target_machine(opt=2)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    optimised(module, machine)
    assert missing_symbols(machine.emit_object(module)) == set()
    instructions = machine.emit_assembly(module).lower()
    assert {name for name in ("fmadd", "frinti", "fpsr", "fpcr") if name not in instructions} == set()
