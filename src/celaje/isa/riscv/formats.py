"""RISC-V's instruction formats: which bits are which operand (Unprivileged ISA, 2.2 and 2.3)."""

from __future__ import annotations

from celaje.isa.table import Table, place

RISCV = Table()

RD, RS1, RS2, RS3 = place("11:7"), place("19:15"), place("24:20"), place("31:27")
RM = place("14:12")
IMM_I = place("31:20", signed=True)
IMM_S = place("31:25>5 11:7>0", signed=True)
IMM_B = place("31>12 7>11 30:25>5 11:8>1", signed=True)
IMM_U = place("31:12>12", signed=True)
IMM_J = place("31>20 19:12>12 20>11 30:21>1", signed=True)

R = {"rd": RD, "rs1": RS1, "rs2": RS2}
I = {"rd": RD, "rs1": RS1, "imm": IMM_I}  # the specification's name
S = {"rs1": RS1, "rs2": RS2, "imm": IMM_S}
B = {"rs1": RS1, "rs2": RS2, "imm": IMM_B}
U = {"rd": RD, "imm": IMM_U}
J = {"rd": RD, "imm": IMM_J}
UNARY = {"rd": RD, "rs1": RS1}
SHIFT = {"rd": RD, "rs1": RS1, "shamt": place("25:20")}
SHIFT_W = {"rd": RD, "rs1": RS1, "shamt": place("24:20")}
CSR = {"rd": RD, "rs1": RS1, "csr": place("31:20")}
CSR_I = {"rd": RD, "uimm": place("19:15"), "csr": place("31:20")}
R4_FLOAT = {"frd": RD, "frs1": RS1, "frs2": RS2, "frs3": RS3, "rm": RM}
R_FLOAT = {"frd": RD, "frs1": RS1, "frs2": RS2}
R_FLOAT_ROUNDED = {"frd": RD, "frs1": RS1, "frs2": RS2, "rm": RM}
FLOAT_UNARY_ROUNDED = {"frd": RD, "frs1": RS1, "rm": RM}
FLOAT_COMPARE = {"rd": RD, "frs1": RS1, "frs2": RS2}
FLOAT_LOAD = {"frd": RD, "rs1": RS1, "imm": IMM_I}
FLOAT_STORE = {"rs1": RS1, "frs2": RS2, "imm": IMM_S}
FLOAT_TO_INTEGER = {"rd": RD, "frs1": RS1, "rm": RM}
FLOAT_FROM_INTEGER = {"frd": RD, "rs1": RS1, "rm": RM}
MOVE_FROM_FLOAT = {"rd": RD, "frs1": RS1}
MOVE_TO_FLOAT = {"frd": RD, "rs1": RS1}
FENCE = {"pred": place("27:24"), "succ": place("23:20")}  # each: I O R W, from bit 3
