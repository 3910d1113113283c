"""The whole table. Modules enter their instructions as they are imported; short forms come last."""

# ruff: noqa: F401, I001  # the order is the order of decoding
from celaje.isa.riscv import integer
from celaje.isa.riscv import multiply
from celaje.isa.riscv import atomic
from celaje.isa.riscv import float
from celaje.isa.riscv import bitmanip
from celaje.isa.riscv import conditional
from celaje.isa.riscv import cache_block
from celaje.isa.riscv import system
from celaje.isa.riscv import compressed
from celaje.isa.riscv.formats import RISCV

__all__ = ["RISCV"]
