"""A hart's saved state from outside is input like any other: checked before a hart takes it.

What is checked is what the tables' semantics rely on without asking again: which fields there are and how wide, and
values that no instruction can bring about.
"""

from __future__ import annotations

from collections.abc import Mapping

from celaje.isa.riscv.state import FIELDS, MACHINE, PMP_ENTRIES, SUPERVISOR, USER

SCHEMES = (0, 8, 9, 10)  # satp.MODE at 64 bits: bare, Sv39, Sv48, Sv57


def checked(state: Mapping[str, list[int]], xlen: int) -> dict[str, list[int]]:
    """The same state with what is derived computed anew. ValueError names what is missing, unknown or impossible."""
    wrong = sorted(set(FIELDS) ^ set(state))
    if wrong:
        raise ValueError(f"the saved state of a hart has fields missing or unknown: {', '.join(wrong)}")
    for name, values in state.items():
        field = FIELDS[name]
        if len(values) != field.count or not all(0 <= value < 1 << field.width for value in values):
            raise ValueError(f"the saved field {name} must be {field.count} values of {field.width} bits")
    taken = {name: list(values) for name, values in state.items()}
    possible = {
        "mode": (USER, SUPERVISOR, MACHINE),
        "fs": range(4),
        "frm": range(8),
        "fflags": range(32),
        "flat": range(2),
        "sbi": range(2),
    }
    for name, allowed in possible.items():
        if taken[name][0] not in allowed:
            raise ValueError(f"the saved field {name} cannot be {taken[name][0]}")
    if taken["x"][0]:
        raise ValueError("the saved register x0 is not zero")
    if xlen == 64 and taken["satp"][0] >> 60 not in SCHEMES:
        raise ValueError(f"the saved satp asks for translation scheme {taken['satp'][0] >> 60}, which there is not")
    active = [index for index in range(PMP_ENTRIES) if taken["pmpcfg"][index] & 0x18]
    taken["pmp_active"] = [max(active, default=-1) + 1]
    return taken
