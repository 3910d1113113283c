"""The disassembler beside GNU objdump, which nobody here wrote: all 16-bit encodings, samples of the 32-bit ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from celaje.isa.riscv.csr import REGISTERS
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.table import ROUNDING_MODES, Decoded

SAMPLES = 40
NUMBERS = {register.name: str(number) for number, register in REGISTERS.items()}
PC_RELATIVE = ("jal", "beq", "bne", "blt", "bge", "bltu", "bgeu", "c.j", "c.jal", "c.beqz", "c.bnez")
# objdump's names for encodings that belong to extensions that celaje lacks, with the name that we give them.
OTHER_NAMES = {"c.slli64": "c.slli", "c.srli64": "c.srli", "c.srai64": "c.srai"}
# Older versions of objdump know these with rounding mode 0 only, which makes no difference to them.
EXACT = ("fcvt.d.s", "fcvt.d.w", "fcvt.d.wu")
RECENT = ("Zicond", "Zicbom", "Zicboz", "Svinval")
# The newest of these that the assembler knows.
EXTENSIONS = [
    "imafdc_zicsr_zifencei_zba_zbb_zbs_zicbom_zicboz_svinval_zicond",
    "imafdc_zicsr_zifencei_zba_zbb_zbs_zicbom_zicboz_svinval",
    "imafdc_zicsr_zifencei_zba_zbb_zbs",
]
XLENS = pytest.mark.parametrize("xlen", [32, 64])


def _tool(name: str) -> str:
    path = shutil.which(f"riscv64-linux-gnu-{name}")
    if path is None:
        pytest.skip(f"riscv64-linux-gnu-{name} is not here; it is in Debian's package binutils-riscv64-linux-gnu")
    return path


def object_file(code: bytes, xlen: int, directory: Path) -> Path:
    """`code` in an ELF file whose attributes say which extensions it may use."""
    (directory / "code").write_bytes(code)
    (directory / "code.s").write_text('.incbin "code"')
    for extensions in EXTENSIONS:
        binary_interface = "ilp32" if xlen == 32 else "lp64"
        command = [_tool("as"), f"-march=rv{xlen}{extensions}", f"-mabi={binary_interface}", "code.s", "-o", "code.o"]
        if subprocess.run(command, cwd=directory, capture_output=True).returncode == 0:
            break
    # Without its symbols nothing says that the code is data.
    subprocess.run([_tool("strip"), "code.o"], cwd=directory, check=True)
    return directory / "code.o"


def objdump(code: bytes, xlen: int, directory: Path) -> dict[int, tuple[str, list[str]]]:
    """Address -> (mnemonic, operands)."""
    command = [_tool("objdump"), "-D", "-z", "-j", ".text", "-M", "no-aliases", str(object_file(code, xlen, directory))]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listing.splitlines():
        match = re.match(r"\s*([0-9a-f]+):\s+[0-9a-f]{4,8}\s+(\S+)(?:\s+([^<#]*))?", line)
        if match:
            operands = [text.strip() for text in (match[3] or "").split(",") if text.strip()]
            found[int(match[1], 16)] = match[2], operands
    return found


def number(text: str, base: int = 0) -> str:
    """Numbers in one spelling, everything else as it is."""
    text = NUMBERS.get(text, text)
    match = re.fullmatch(r"(-?(?:0x)?[0-9a-f]*)(\(\w+\))?", text)
    if match and re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", match[1]):
        return str(int(match[1], 0)) + (match[2] or "")
    return "0" + text if text.startswith("(") else text


def ours(decoded: Decoded, address: int, xlen: int) -> tuple[str, list[str]]:
    """In objdump's terms: a jump shows where it goes."""
    mnemonic, _, rest = str(decoded).partition(" ")
    operands = [number(text.strip()) for text in rest.split(",") if text.strip()]
    if mnemonic in PC_RELATIVE:
        operands[-1] = hex(int(operands[-1]) + address & (1 << xlen) - 1)
    return mnemonic, operands


def theirs(shown: tuple[str, list[str]]) -> tuple[str, list[str]]:
    mnemonic = OTHER_NAMES.get(shown[0], shown[0])
    operands = [number(text) for text in shown[1]]
    if mnemonic in PC_RELATIVE:
        operands[-1] = hex(int(shown[1][-1], 16))
    return mnemonic, operands


@XLENS
def test_every_16_bit_encoding_reads_as_objdump_reads_it(xlen: int, tmp_path: Path) -> None:
    halfwords = [halfword for halfword in range(1 << 16) if halfword & 3 != 3]
    listing = objdump(b"".join(halfword.to_bytes(2, "little") for halfword in halfwords), xlen, tmp_path)
    decode = RISCV.decoder(xlen)
    for index, halfword in enumerate(halfwords):
        shown, decoded = listing[2 * index], decode(halfword)
        if decoded is None:
            # objdump shows what is reserved: the sixth bit of an amount at 32 bits, c.addi16sp without a number.
            reserved = shown[0] in ("c.slli", "c.srli", "c.srai") and xlen == 32 and halfword >> 12 & 1
            assert reserved or halfword == 0x6101 or shown[0] in (".2byte", "c.unimp", ".short", ".insn"), shown
            continue
        mnemonic, operands = ours(decoded, 2 * index, xlen)
        expected = theirs(shown)
        if shown[0].endswith("64"):  # a shift by nothing
            operands = operands[:1]
        assert (mnemonic, operands) == expected, hex(halfword)


@XLENS
def test_each_32_bit_instruction_reads_as_objdump_reads_it(xlen: int, tmp_path: Path) -> None:
    random, decode, words = Random(20), RISCV.decoder(xlen), []
    for entry in RISCV.of(xlen):
        if entry.length == 4:
            for _ in range(SAMPLES):
                bits = entry.match | random.getrandbits(32) & ~entry.mask
                if "rm" in entry.operands and entry.operands["rm"].extract(bits) not in ROUNDING_MODES:
                    continue
                if entry.extension == "A":
                    bits &= ~(3 << 25)  # aq and rl are no operands of ours
                if entry.name in EXACT:
                    bits &= ~0x7000
                if entry.extension == "Zifencei" or entry.name == "fence":
                    bits &= 0x0FF0707F if entry.name == "fence" else 0x707F  # the other bits are for later versions
                words.append(bits)
    listing = objdump(b"".join(word.to_bytes(4, "little") for word in words), xlen, tmp_path)
    for index, word in enumerate(words):
        decoded = decode(word)
        assert decoded is not None
        mnemonic, operands = ours(decoded, 4 * index, xlen)
        expected = theirs(listing[4 * index])
        if decoded.instruction.extension in RECENT and expected[0] == ".4byte":
            continue
        if len(expected[1]) == len(operands) - 1 and operands[-1] in ROUNDING_MODES.values():
            operands.pop()  # objdump leaves the mode out where the result is always exact
        if "csr" in decoded.operands and not expected[1][1].isdigit():
            continue  # a register that celaje lacks, by its name
        if mnemonic == "fence":
            operands = expected[1]
        assert (mnemonic, operands) == expected, hex(word)


def test_operands_are_shown_as_an_assembler_takes_them() -> None:
    decode = RISCV.decoder(64)
    shown = {
        0x00A58533: "add a0, a1, a0",
        0xFE010113: "addi sp, sp, -32",
        0x00813083: "ld ra, 8(sp)",
        0x123450B7: "lui ra, 74565",
        0xFFFFF0B7: "lui ra, 1048575",
        0x02B57553: "fadd.d fa0, fa0, fa1, dyn",
        0x30529073: "csrrw zero, 773, t0",
    }
    assert {bits: str(decode(bits)) for bits in shown} == shown
