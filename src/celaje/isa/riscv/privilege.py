"""Bits and numbers of the privileged architecture (Privileged ISA, 3.1 and 10.1), each said once."""

from __future__ import annotations

# mstatus (3.1.6), FS and SD apart (state.py)
SIE, MIE, SPIE, MPIE, SPP, MPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8, 3 << 11
MPRV, SUM, MXR, TVM, TW, TSR = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22
SPP_BIT, MPP_BIT, FS_BIT, MPRV_BIT, SUM_BIT, MXR_BIT = 8, 11, 13, 17, 18, 19
MSTATUS_WRITABLE = SIE | MIE | SPIE | MPIE | SPP | MPP | MPRV | SUM | MXR | TVM | TW | TSR
SSTATUS = 0x100
SSTATUS_WRITABLE = SIE | SPIE | SPP | SUM | MXR
UXL_64, SXL_64 = 2 << 32, 2 << 34

# exception causes (3.1.15)
FETCH_ACCESS, ILLEGAL, BREAKPOINT = 1, 2, 3
LOAD_MISALIGNED, LOAD_ACCESS, STORE_MISALIGNED, STORE_ACCESS = 4, 5, 6, 7
ECALL_FROM_USER = 8
FETCH_PAGE, LOAD_PAGE, STORE_PAGE = 12, 13, 15
DELEGABLE_EXCEPTIONS = 0xB3FF

# interrupts: the bit in mip and mie, in the order in which they are taken (3.1.9)
SSI, MSI, STI, MTI, SEI, MEI = 1, 3, 5, 7, 9, 11
INTERRUPT_PRIORITY = (MEI, MSI, MTI, SEI, SSI, STI)
INTERRUPTS = sum(1 << number for number in INTERRUPT_PRIORITY)
DELEGABLE_INTERRUPTS = 1 << SSI | 1 << STI | 1 << SEI

# kinds of memory access, as `translate` and `pmp_allows` take them
LOAD, STORE, FETCH = 0, 1, 2

# menvcfg and senvcfg (3.1.18, 10.1.10)
CBIE, CBCFE, CBZE, STCE = 3 << 4, 1 << 6, 1 << 7, 1 << 63
FIOM = 1

