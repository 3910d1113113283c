"""Small programs of floating-point text, for tests: rendered as the product renders, but each a function of its own."""

from __future__ import annotations

import io
from collections.abc import Callable

from elftools.elf.elffile import ELFFile
from llvmlite import binding

from celaje.engine.translate import host_float
from celaje.engine.translate.reading import LlvmModule, Reading, result_type
from celaje.isa.semantics import Routine, Value
from tests.isa import rational

MODES = range(host_float.HOST_MODES)


class Probe(Reading):
    """Renders `void name(ptr %in, ptr %out, ptr %st)` over arrays of 64-bit words; flags gather where %st points."""

    def accrue(self, flags: Value | int) -> None:
        value = flags.zext(8) if isinstance(flags, Value) else self.constant(flags, 8)
        before = self.emit(8, "load i8, ptr %st")
        self.line(f"store i8 {(before | value).text}, ptr %st")

    def accrued(self) -> Value:
        value = self.emit(8, "load i8, ptr %st")
        self.line("store i8 0, ptr %st")
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
    return "\n".join([head, *probe.body(), "}"])


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
        self.module.functions.append("\n".join([head, *probe.body(), "}"]))
        self.names.append(name)

    def parsed(self) -> binding.ModuleRef:
        self.module.render_routines(rendered_routine)
        weights = '!0 = !{!"branch_weights", i32 2000, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 2000}'
        parsed = binding.parse_assembly(f"{self.module.text()}\n{weights}\n")
        parsed.verify()
        return parsed


def optimised(module: binding.ModuleRef, machine: binding.TargetMachine) -> None:
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


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


def missing_symbols(binary: bytes) -> set[str]:
    """What an object file wants of others."""
    table = ELFFile(io.BytesIO(binary)).get_section_by_name(".symtab")
    return {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"} - {""}


def relocations(binary: bytes) -> int:
    """How many places of the code have to be filled in by a linker."""
    section = ELFFile(io.BytesIO(binary)).get_section_by_name(".rela.text")
    return 0 if section is None else section.num_relocations()
