"""Comparing two executions of a random program, and finding the item where they part."""

from __future__ import annotations

import re
from collections.abc import Callable

from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import FLOAT_REGISTERS, INTEGER_REGISTERS
from tests.differential.elf import Executable
from tests.differential.peers import Diverged
from tests.differential.program import ANCHOR, DATA, FCSR, FLOATS, INTEGERS, Program

Runner = Callable[[Executable], bytes]


def name_of(address: int) -> str:
    """What the eight bytes at `address` of the data hold."""
    if FLOATS <= address < FLOATS + 256:
        return FLOAT_REGISTERS[(address - FLOATS) // 8]
    if INTEGERS <= address < INTEGERS + 256:
        return INTEGER_REGISTERS[(address - INTEGERS) // 8]
    return "fcsr" if address == FCSR else f"memory at anchor{address - ANCHOR:+#x}"


def differences(ours: bytes, theirs: bytes) -> list[str]:
    """One line for each eight bytes in which they differ."""
    if len(ours) != len(theirs):
        return [f"celaje wrote {len(ours)} bytes, qemu {len(theirs)}"]
    return [
        f"{name_of(DATA + i)}: celaje {ours[i : i + 8][::-1].hex()}, qemu {theirs[i : i + 8][::-1].hex()}"
        for i in range(0, len(ours), 8)
        if ours[i : i + 8] != theirs[i : i + 8]
    ]


def _compare(program: Program, count: int | None, ours: Runner, theirs: Runner) -> list[str]:
    executable = program.executable(count)
    results: list[bytes | str] = []
    for run in (ours, theirs):
        try:
            results.append(run(executable))
        except Diverged as error:
            results.append(str(error))
    a, b = results
    if isinstance(a, str) or isinstance(b, str):
        return [f"celaje: {a!s:.200}", f"qemu: {b!s:.200}"]
    return differences(a, b)


def disassembled(program: Program, index: int) -> list[str]:
    """The instructions of one item."""
    decode, code, lines = RISCV.decoder(program.xlen), program.items[index].code, []
    while code:
        word = int.from_bytes(code[:4], "little")
        length = 4 if word & 3 == 3 else 2
        lines.append(str(decode(word) or f"{word:#x}"))
        code = code[length:]
    return lines


def explained(program: Program, ours: Runner, theirs: Runner) -> str:
    """Nothing where both agree, else the first item after which they do not, and what differs then."""
    if not _compare(program, None, ours, theirs):
        return ""
    agree, differ = 0, len(program.items)
    while differ - agree > 1:
        middle = (agree + differ) // 2
        if _compare(program, middle, ours, theirs):
            differ = middle
        else:
            agree = middle
    before = ours(program.executable(agree)) if agree else b""
    lines = [f"seed {program.seed}, {program.xlen} bits, item {agree}:"]
    lines += [f"    {line}" for line in disassembled(program, agree)]
    lines += ["  differs:"] + [f"    {line}" for line in _compare(program, differ, ours, theirs)[:12]]
    if before:
        lines.append("  registers before:")
        words = {"fcsr", *re.findall("[a-z]+[0-9]*", " ".join(lines))}
        for address in range(FCSR, ANCHOR, 8):
            if name_of(address) in words:
                lines.append(f"    {name_of(address)} {before[address - DATA : address - DATA + 8][::-1].hex()}")
    return "\n".join(lines)
