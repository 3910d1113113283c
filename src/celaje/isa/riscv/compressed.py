"""C, Zcd and Zcf: 16-bit forms of other instructions (Unprivileged ISA, 26).

Each entry says which instruction it means and where that one's operands are; meaning is not written again. Encodings
that the specification calls hints are legal here and do what their full instruction does, which is nothing; those that
it calls reserved, or gives to custom extensions, are in no entry. An all-zero halfword is illegal by design: it is the
`c.addi4spn` whose immediate is zero.

The instructions that are meant must be in the table before this module is read: integer, float and system come first.
"""

from __future__ import annotations

from collections.abc import Iterable

from celaje.isa.riscv import float as _float  # noqa: F401  # enters what Zcd and Zcf mean
from celaje.isa.riscv import integer as _integer  # noqa: F401
from celaje.isa.riscv import system as _system  # noqa: F401  # ebreak
from celaje.isa.riscv.formats import RISCV
from celaje.isa.table import Field, fixed, place

ZERO, RA, SP = fixed(0), fixed(1), fixed(2)

# Whole register numbers, and the three-bit ones that name x8 to x15 (f8 to f15).
RD, RS2 = place("11:7"), place("6:2")
UPPER, LOWER = place("9:7", plus=8), place("4:2", plus=8)

IMM = place("12>5 6:2", signed=True)
IMM_LUI = place("12>17 6:2>12", signed=True)
IMM_SP = place("12>9 6>4 5>6 4:3>7 2>5", signed=True)
IMM_SPN = place("12:11>4 10:7>6 6>2 5>3")
IMM_J = place("12>11 11>4 10:9>8 8>10 7>6 6>7 5:3>1 2>5", signed=True)
IMM_B = place("12>8 11:10>3 6:5>6 4:3>1 2>5", signed=True)
OFFSET_4, OFFSET_8 = place("12:10>3 6>2 5>6"), place("12:10>3 6:5>6")
STACK_LOAD_4, STACK_LOAD_8 = place("12>5 6:4>2 3:2>6"), place("12>5 6:5>3 4:2>6")
STACK_STORE_4, STACK_STORE_8 = place("12:9>2 8:7>6"), place("12:10>3 9:7>6")


def _short(
    syntax: str,
    encoding: str,
    means: str,
    xlens: tuple[int, ...] = (32, 64),
    unless: Iterable[tuple[str, int]] = (),
    extension: str = "C",
    **operands: Field,
) -> None:
    RISCV.compressed(syntax, encoding, means, operands, extension, xlens=xlens, unless=unless)


# Quadrant 0: loads and stores between the eight registers that compilers like best.
_short("c.addi4spn rd, rs1, imm", "000 xxxxxxxx xxx 00", "addi", unless=[("imm", 0)], rd=LOWER, rs1=SP, imm=IMM_SPN)
_short("c.lw rd, imm(rs1)", "010 xxx xxx xx xxx 00", "lw", rd=LOWER, rs1=UPPER, imm=OFFSET_4)
_short("c.ld rd, imm(rs1)", "011 xxx xxx xx xxx 00", "ld", (64,), rd=LOWER, rs1=UPPER, imm=OFFSET_8)
_short("c.sw rs2, imm(rs1)", "110 xxx xxx xx xxx 00", "sw", rs2=LOWER, rs1=UPPER, imm=OFFSET_4)
_short("c.sd rs2, imm(rs1)", "111 xxx xxx xx xxx 00", "sd", (64,), rs2=LOWER, rs1=UPPER, imm=OFFSET_8)
_short(
    "c.fld frd, imm(rs1)", "001 xxx xxx xx xxx 00", "fld", extension="Zcd", frd=LOWER, rs1=UPPER, imm=OFFSET_8
)
_short(
    "c.flw frd, imm(rs1)", "011 xxx xxx xx xxx 00", "flw", (32,), extension="Zcf", frd=LOWER, rs1=UPPER, imm=OFFSET_4
)
_short(
    "c.fsd frs2, imm(rs1)", "101 xxx xxx xx xxx 00", "fsd", extension="Zcd", frs2=LOWER, rs1=UPPER, imm=OFFSET_8
)
_short(
    "c.fsw frs2, imm(rs1)", "111 xxx xxx xx xxx 00", "fsw", (32,), extension="Zcf", frs2=LOWER, rs1=UPPER, imm=OFFSET_4
)

# Quadrant 1: arithmetic and control transfer.
_short("c.addi rd, imm", "000 x xxxxx xxxxx 01", "addi", rd=RD, rs1=RD, imm=IMM)  # of x0: c.nop
_short("c.jal imm", "001 xxxxxxxxxxx 01", "jal", (32,), rd=RA, imm=IMM_J)
_short("c.addiw rd, imm", "001 x xxxxx xxxxx 01", "addiw", (64,), unless=[("rd", 0)], rd=RD, rs1=RD, imm=IMM)
_short("c.li rd, imm", "010 x xxxxx xxxxx 01", "addi", rd=RD, rs1=ZERO, imm=IMM)
_short("c.addi16sp rs1, imm", "011 x 00010 xxxxx 01", "addi", unless=[("imm", 0)], rd=SP, rs1=SP, imm=IMM_SP)
_short("c.lui rd, upper", "011 x xxxxx xxxxx 01", "lui", unless=[("rd", 2), ("imm", 0)], rd=RD, imm=IMM_LUI)

for _name, _select in (("srli", "00"), ("srai", "01")):
    # On RV32 the sixth bit of an amount belongs to custom extensions.
    _short(
        f"c.{_name} rd, shamt", f"100 0 {_select} xxx xxxxx 01", _name, (32,), rd=UPPER, rs1=UPPER, shamt=place("6:2")
    )
    _short(
        f"c.{_name} rd, shamt",
        f"100 x {_select} xxx xxxxx 01",
        f"{_name}/64",
        (64,),
        rd=UPPER,
        rs1=UPPER,
        shamt=place("12>5 6:2"),
    )
_short("c.andi rd, imm", "100 x 10 xxx xxxxx 01", "andi", rd=UPPER, rs1=UPPER, imm=IMM)
for _name, _select in (("sub", "00"), ("xor", "01"), ("or", "10"), ("and", "11")):
    _short(f"c.{_name} rd, rs2", f"100 0 11 xxx {_select} xxx 01", _name, rd=UPPER, rs1=UPPER, rs2=LOWER)
for _name, _select in (("subw", "00"), ("addw", "01")):
    _short(f"c.{_name} rd, rs2", f"100 1 11 xxx {_select} xxx 01", _name, (64,), rd=UPPER, rs1=UPPER, rs2=LOWER)
_short("c.j imm", "101 xxxxxxxxxxx 01", "jal", rd=ZERO, imm=IMM_J)
_short("c.beqz rs1, imm", "110 xxx xxx xxxxx 01", "beq", rs1=UPPER, rs2=ZERO, imm=IMM_B)
_short("c.bnez rs1, imm", "111 xxx xxx xxxxx 01", "bne", rs1=UPPER, rs2=ZERO, imm=IMM_B)

# Quadrant 2: the stack, and whole register numbers.
_short("c.slli rd, shamt", "000 0 xxxxx xxxxx 10", "slli", (32,), rd=RD, rs1=RD, shamt=place("6:2"))
_short("c.slli rd, shamt", "000 x xxxxx xxxxx 10", "slli/64", (64,), rd=RD, rs1=RD, shamt=place("12>5 6:2"))
_short("c.lwsp rd, imm(rs1)", "010 x xxxxx xxxxx 10", "lw", unless=[("rd", 0)], rd=RD, rs1=SP, imm=STACK_LOAD_4)
_short("c.ldsp rd, imm(rs1)", "011 x xxxxx xxxxx 10", "ld", (64,), unless=[("rd", 0)], rd=RD, rs1=SP, imm=STACK_LOAD_8)
_short("c.fldsp frd, imm(rs1)", "001 x xxxxx xxxxx 10", "fld", extension="Zcd", frd=RD, rs1=SP, imm=STACK_LOAD_8)
_short(
    "c.flwsp frd, imm(rs1)", "011 x xxxxx xxxxx 10", "flw", (32,), extension="Zcf", frd=RD, rs1=SP, imm=STACK_LOAD_4
)
_short("c.jr rs1", "100 0 xxxxx 00000 10", "jalr", unless=[("rs1", 0)], rd=ZERO, rs1=RD, imm=ZERO)
_short("c.mv rd, rs2", "100 0 xxxxx xxxxx 10", "add", unless=[("rs2", 0)], rd=RD, rs1=ZERO, rs2=RS2)
_short("c.ebreak", "100 1 00000 00000 10", "ebreak")
_short("c.jalr rs1", "100 1 xxxxx 00000 10", "jalr", unless=[("rs1", 0)], rd=RA, rs1=RD, imm=ZERO)
_short("c.add rd, rs2", "100 1 xxxxx xxxxx 10", "add", unless=[("rs2", 0)], rd=RD, rs1=RD, rs2=RS2)
_short("c.swsp rs2, imm(rs1)", "110 xxxxxx xxxxx 10", "sw", rs2=RS2, rs1=SP, imm=STACK_STORE_4)
_short("c.sdsp rs2, imm(rs1)", "111 xxxxxx xxxxx 10", "sd", (64,), rs2=RS2, rs1=SP, imm=STACK_STORE_8)
_short("c.fsdsp frs2, imm(rs1)", "101 xxxxxx xxxxx 10", "fsd", extension="Zcd", frs2=RS2, rs1=SP, imm=STACK_STORE_8)
_short(
    "c.fswsp frs2, imm(rs1)", "111 xxxxxx xxxxx 10", "fsw", (32,), extension="Zcf", frs2=RS2, rs1=SP, imm=STACK_STORE_4
)
