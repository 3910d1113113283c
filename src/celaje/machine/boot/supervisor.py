"""Starting in supervisor mode: what firmware below a kernel would have set up (SBI 2.0, 9.1; Privileged 20240411, 3.1).

There is no firmware in machine mode, so everything that supervisor mode may have is delegated to it: each exception but
its own environment call, which leaves the guest as a hypercall.
"""

from __future__ import annotations

from celaje.engine.protocol import Hart

SUPERVISOR = 1
SUPERVISOR_SOFTWARE = 1  # the interrupt line that sets sip.SSIP
DELEGATED_EXCEPTIONS = 0xB1FF  # misaligned, access faults, illegal, breakpoint, call from U; page faults 12, 13, 15
DELEGATED_INTERRUPTS = 0x222  # software, timer and external of supervisor mode
ALL_COUNTERS = 0xFFFFFFFF
USER_COUNTERS = 7  # cycle, time, instret: kernels leave it as firmware set it, and the C library reads the time
TIMER_COMPARE = 1 << 63  # menvcfg.STCE: stimecmp is the supervisor's
CACHE_BLOCKS = 0xF0  # menvcfg.CBZE, CBCFE, CBIE = invalidate
PMP_EVERYTHING = (1 << 54) - 1
PMP_NAPOT_RWX = 0x1F
NEVER = (1 << 64) - 1
REGISTER_WIDTHS = 0xF << 32  # mstatus.SXL, UXL


def enter_supervisor_mode(hart: Hart, entry: int, argument: int) -> None:
    """Let `hart`, which must not be running, start at `entry` with its number in a0 and `argument` in a1."""
    hart.set("mode", SUPERVISOR)
    hart.set("pc", entry)
    hart.set("x", hart.index, 10)
    hart.set("x", argument, 11)
    hart.set("satp", 0)
    hart.set("mstatus", hart.get("mstatus") & REGISTER_WIDTHS)
    hart.set("mie", 0)
    hart.set("mip", 0)
    hart.set_line(SUPERVISOR_SOFTWARE, False)
    hart.set("stimecmp", NEVER)
    hart.set("medeleg", DELEGATED_EXCEPTIONS)
    hart.set("mideleg", DELEGATED_INTERRUPTS)
    hart.set("mcounteren", ALL_COUNTERS)
    hart.set("scounteren", USER_COUNTERS)
    hart.set("menvcfg", TIMER_COMPARE | CACHE_BLOCKS)
    hart.set("pmpaddr", PMP_EVERYTHING)
    hart.set("pmpcfg", PMP_NAPOT_RWX)
    hart.set("pmp_active", 1)
    hart.set("sbi", 1)
    hart.flush_translations()
    hart.flush_instructions()
