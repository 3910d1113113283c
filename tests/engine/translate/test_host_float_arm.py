"""What is rendered for an aarch64 host, run by qemu-aarch64 and held against exact arithmetic."""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from llvmlite import binding

from celaje.engine.translate import host_float
from tests.engine.translate.probe import MODES, Program, missing_symbols, optimised, program, relocations
from tests.isa import rational

ARM = host_float.Host("aarch64", fuses=True, rounds=True)
CASES = 100
SEED = 20261123
BASE = 0x400000
CALL_SYSTEM, CODE = 128, 160  # offsets in the file, which is mapped at BASE as it is
RECORD = struct.Struct("<5Q")  # a function's number and its inputs
ANSWER = struct.Struct("<2Q")

# x8, x0, x1, x2 = x0, x1, x2, x3; svc 0; ret
SYSTEM_CALL = struct.pack("<6I", 0xAA0003E8, 0xAA0103E0, 0xAA0203E1, 0xAA0303E2, 0xD4000001, 0xD65F03C0)
READ, WRITE, EXIT = 63, 64, 94

# Answers records from stdin until there are no more.
LOOP = f"""
define void @_start() noreturn "no-jump-tables"="true" {{
  %record = alloca [5 x i64]
  %out = alloca [4 x i64]
  %st = alloca i64
  %in = getelementptr i64, ptr %record, i64 1
  store i64 0, ptr %st
  %system = inttoptr i64 {BASE + CALL_SYSTEM} to ptr
  br label %next
next:
  %got = call i64 %system(i64 {READ}, i64 0, ptr %record, i64 {RECORD.size})
  %more = icmp eq i64 %got, {RECORD.size}
  br i1 %more, label %choose, label %exit
choose:
  %number = load i64, ptr %record
  switch i64 %number, label %exit [ CHOICES ]
BODIES
answer:
  call i64 %system(i64 {WRITE}, i64 1, ptr %out, i64 {ANSWER.size})
  br label %next
exit:
  call i64 %system(i64 {EXIT}, i64 0, ptr null, i64 0)
  unreachable
}}
"""


@pytest.fixture(scope="module")
def machine() -> binding.TargetMachine:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple("aarch64-linux-gnu")
    except RuntimeError:
        pytest.skip("this llvmlite has no code generator for aarch64")
    return target.create_target_machine(opt=2)


def compiled(made: Program, machine: binding.TargetMachine) -> binding.ModuleRef:
    module = made.parsed()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    optimised(module, machine)
    return module


def executable(made: Program, machine: binding.TargetMachine) -> bytes:
    """A static program around the functions. They need no linker, as code that is to be cached must not."""
    made.module.functions = [text.replace("define void", "define internal void") for text in made.module.functions]
    calls = [f"do{i}:\n  call void @{name}(ptr %in, ptr %out, ptr %st)\n" for i, name in enumerate(made.names)]
    loop = LOOP.replace("CHOICES", " ".join(f"i64 {i}, label %do{i}" for i in range(len(calls))))
    made.module.functions.append(loop.replace("BODIES", "  br label %answer\n".join([*calls, ""])))
    binary = machine.emit_object(compiled(made, machine))
    assert relocations(binary) == 0
    elf = ELFFile(io.BytesIO(binary))
    (start,) = elf.get_section_by_name(".symtab").get_symbol_by_name("_start")
    code = elf.get_section_by_name(".text").data()
    entry, size = BASE + CODE + start["st_value"], CODE + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    return (header.ljust(CALL_SYSTEM, b"\0") + SYSTEM_CALL).ljust(CODE, b"\0") + code


def test_the_text_for_arm_needs_no_library(machine: binding.TargetMachine) -> None:
    module = compiled(program(ARM), machine)
    assert missing_symbols(machine.emit_object(module)) == set()
    instructions = machine.emit_assembly(module).lower()
    assert {name for name in ("fmadd", "frinti", "fpsr", "fpcr") if name not in instructions} == set()


def test_an_arm_host_computes_what_exact_arithmetic_does(machine: binding.TargetMachine, tmp_path: Path) -> None:
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("qemu-aarch64 is not installed (Debian's package qemu-user)")
    made = program(ARM)
    path = tmp_path / "arithmetic"
    path.write_bytes(executable(made, machine))
    path.chmod(0o755)
    asked = []
    for operation, width, operands in rational.OPERATIONS:
        number = made.names.index(f"{operation}_of_{width}")
        random_ = random.Random(f"{SEED} {operation} {width}")
        for case in rational.cases(random_, operation, width, operands, CASES):
            asked += [(number, operation, width, case, mode) for mode in MODES]
    records = b"".join(
        RECORD.pack(number, *(*case, mode, 0, 0, 0)[:4]) for number, _operation, _width, case, mode in asked
    )
    questions = tmp_path / "questions"
    questions.write_bytes(records)  # a file, since a pipe may give part of a record
    with questions.open("rb") as source:
        answer = subprocess.run([qemu, path], stdin=source, capture_output=True, check=True).stdout
    found = []
    for (_number, operation, width, case, mode), got in zip(asked, ANSWER.iter_unpack(answer), strict=True):
        expected = rational.expected(operation, width, case, mode)
        if got != expected:
            shown = ", ".join(hex(bits) for bits in case)
            found.append(f"{operation}({shown}) of {width} in mode {mode}: {got} instead of {expected}")
    assert found == []
