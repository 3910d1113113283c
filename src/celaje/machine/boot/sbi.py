"""The Supervisor Binary Interface 2.0, for kernels that are started in supervisor mode.

A call arrives as a hypercall exit: extension in a7, function in a6, arguments from a0 on; the answer is an error in a0
and a value in a1. Here are base, TIME, IPI, RFENCE, HSM, SRST and DBCN, and the legacy calls, by which teaching kernels
print and power off; everything else answers "not supported". Each function is one method in a table at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from celaje.engine.memory import GuestMemory, OutOfGuestMemory
from celaje.engine.protocol import Engine, Hart
from celaje.machine.boot.supervisor import enter_supervisor_mode
from celaje.machine.console import Console
from celaje.machine.hart_states import HartStates, StartRequest
from celaje.machine.processor import ProcessorDescription
from celaje.machine.verdict import Verdict, VerdictKind

SPECIFICATION = 2 << 24  # 2.0
IMPLEMENTATION = 0xCE1A7E  # our own choice: none of the registered numbers
IMPLEMENTATION_VERSION = 1
XLEN = 64
ALL = (1 << XLEN) - 1
SUPERVISOR_SOFTWARE = 1  # the interrupt line that sets sip.SSIP
TICKS_PER_SECOND = 10_000_000
LONGEST_TRANSFER = 1 << 16  # console bytes in one call; the caller comes again for the rest

# Translation, as far as an argument's address needs it (Privileged ISA, 10.1.11 and 10.4).
PAGE_TABLE_LEVELS = {0: 0, 8: 3, 9: 4, 10: 5}
PAGE_NUMBER = (1 << 44) - 1
PTE_VALID, PTE_LEAF = 0x1, 0xE

BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E


class Error(IntEnum):
    """Table 1 of the specification."""

    SUCCESS = 0
    FAILED = -1
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    DENIED = -4
    INVALID_ADDRESS = -5
    ALREADY_AVAILABLE = -6


Answer = tuple[Error, int]
OK: Answer = (Error.SUCCESS, 0)


class Sbi:
    """Serves the calls of `engine`'s harts."""

    def __init__(
        self,
        engine: Engine,
        states: HartStates,
        memory: GuestMemory,
        console: Console,
        set_line: Callable[[int, int, bool], None],
        end: Callable[[Verdict], None],
        processor: ProcessorDescription,
    ) -> None:
        self._processor = processor
        self._engine = engine
        self._harts: Sequence[Hart] = engine.harts
        self._states = states
        self._memory = memory
        self._console = console
        self._set_line = set_line
        self._end = end

    def call(self, hart: Hart) -> None:
        """Serve the call that `hart` just made. Comes back for a hart that is stopped now, too: see its state."""
        extension, function = hart.get("x", 17), hart.get("x", 16)
        arguments = [hart.get("x", 10 + index) for index in range(5)]
        legacy = self._LEGACY.get(extension)
        if legacy is not None:
            result = legacy(self, hart, arguments)
            if result is not None:
                hart.set("x", result & ALL, 10)
            return
        serve = self._FUNCTIONS.get((extension, function))
        answer = (Error.NOT_SUPPORTED, 0) if serve is None else serve(self, hart, arguments)
        if answer is not None:
            error, value = answer
            hart.set("x", error & ALL, 10)
            hart.set("x", value & ALL, 11)

    # Base (chapter 4).

    def _specification(self, hart: Hart, arguments: list[int]) -> Answer:
        return Error.SUCCESS, SPECIFICATION

    def _implementation(self, hart: Hart, arguments: list[int]) -> Answer:
        return Error.SUCCESS, IMPLEMENTATION

    def _implementation_version(self, hart: Hart, arguments: list[int]) -> Answer:
        return Error.SUCCESS, IMPLEMENTATION_VERSION

    def _probe(self, hart: Hart, arguments: list[int]) -> Answer:
        known = arguments[0] in self._LEGACY or any(extension == arguments[0] for extension, _ in self._FUNCTIONS)
        return Error.SUCCESS, int(known)

    def _vendor(self, hart: Hart, arguments: list[int]) -> Answer:
        return Error.SUCCESS, self._processor.vendor

    def _architecture(self, hart: Hart, arguments: list[int]) -> Answer:
        return Error.SUCCESS, self._processor.architecture

    def _machine_implementation(self, hart: Hart, arguments: list[int]) -> Answer:
        return Error.SUCCESS, self._processor.implementation

    # TIME, IPI, RFENCE (chapters 6 to 8).

    def _set_timer(self, hart: Hart, arguments: list[int]) -> Answer:
        hart.set("stimecmp", arguments[0])
        return OK

    def _targets(self, mask: int, base: int) -> list[int] | None:
        """The harts that a mask means (chapter 3.2), None where one of them is not there."""
        count = len(self._harts)
        if base == ALL:
            return list(range(count))
        targets = [base + bit for bit in range(XLEN) if mask >> bit & 1]
        return None if base >= count or any(target >= count for target in targets) else targets

    def _send_ipi(self, hart: Hart, arguments: list[int]) -> Answer:
        targets = self._targets(arguments[0], arguments[1])
        if targets is None:
            return Error.INVALID_PARAM, 0
        for target in targets:
            self._set_line(target, SUPERVISOR_SOFTWARE, True)
        return OK

    def _remote_fence_i(self, hart: Hart, arguments: list[int]) -> Answer:
        targets = self._targets(arguments[0], arguments[1])
        if targets is None:
            return Error.INVALID_PARAM, 0
        for target in targets:
            self._harts[target].flush_instructions()
        return OK

    def _remote_sfence_vma(self, hart: Hart, arguments: list[int]) -> Answer:
        # Address range and address space only say how little would do.
        targets = self._targets(arguments[0], arguments[1])
        if targets is None:
            return Error.INVALID_PARAM, 0
        for target in targets:
            self._harts[target].flush_translations()
        return OK

    # Hart state management (chapter 9).

    def _is_start_address(self, address: int) -> bool:
        return address % 2 == 0 and self._memory.contains(address, 2)

    def _hart_start(self, hart: Hart, arguments: list[int]) -> Answer:
        target, address, opaque, *_ = arguments
        if target >= len(self._harts):
            return Error.INVALID_PARAM, 0
        if not self._is_start_address(address):
            return Error.INVALID_ADDRESS, 0
        if not self._states.start(target, StartRequest(address, opaque)):
            return Error.ALREADY_AVAILABLE, 0
        return OK

    def _hart_stop(self, hart: Hart, arguments: list[int]) -> Answer | None:
        if self._states.stop(hart.index):
            self._end(Verdict(VerdictKind.DIED, reason="its last running hart stopped itself"))
        return None

    def _hart_status(self, hart: Hart, arguments: list[int]) -> Answer:
        if arguments[0] >= len(self._harts):
            return Error.INVALID_PARAM, 0
        return Error.SUCCESS, self._states.state(arguments[0])

    def _hart_suspend(self, hart: Hart, arguments: list[int]) -> Answer | None:
        kind, address, opaque = arguments[0] & 0xFFFFFFFF, arguments[1], arguments[2]
        if kind & 0x7FFFFFFF:
            # Bit 31 says whether registers are lost; of the rest, what is below 0x10000000 is reserved.
            return (Error.NOT_SUPPORTED if kind & 0x70000000 else Error.INVALID_PARAM), 0
        loses_registers = kind >> 31
        if loses_registers and not self._is_start_address(address):
            return Error.INVALID_ADDRESS, 0
        self._sleep(hart)
        if not loses_registers:
            return OK
        enter_supervisor_mode(hart, address, opaque)
        return None

    def _sleep(self, hart: Hart) -> None:
        """Until one of the interrupts that `hart` has enabled is pending, as wfi does; or harts are held, since a call
        in the middle of which a hart waits is no state that can be saved."""
        self._states.suspend(hart.index)
        enabled = hart.get("sie")
        while True:
            self._states.expect_wake(hart.index)
            if self._states.held:
                break
            left = max(0, hart.get("stimecmp") - self._engine.time()) / TICKS_PER_SECOND
            if hart.get("sip") & enabled or not self._states.wait_for_wake(hart.index, min(left, 3600.0)):
                break
        self._states.resume(hart.index)

    # System reset (chapter 10).

    def _system_reset(self, hart: Hart, arguments: list[int]) -> Answer | None:
        kind, reason = arguments[0] & 0xFFFFFFFF, arguments[1] & 0xFFFFFFFF
        if 2 < kind < 0xF0000000 or 1 < reason < 0xE0000000:
            return Error.INVALID_PARAM, 0
        if kind > 2 or reason > 1:
            return Error.NOT_SUPPORTED, 0  # a vendor's or an implementation's own
        if kind:
            self._end(Verdict(VerdictKind.REBOOT))
        elif reason:
            self._end(Verdict(VerdictKind.DIED, reason="it switched itself off because of a system failure"))
        else:
            self._end(Verdict(VerdictKind.POWER_OFF))
        return None

    # Debug console (chapter 12).

    def _console_write(self, hart: Hart, arguments: list[int]) -> Answer:
        length, address, high, *_ = arguments
        if high or not self._memory.contains(address, length):
            return Error.INVALID_PARAM, 0
        data = self._memory.read(address, min(length, LONGEST_TRANSFER)) if self._console.has_room else b""
        for byte in data:
            self._console.put(byte)
        return Error.SUCCESS, len(data)

    def _console_read(self, hart: Hart, arguments: list[int]) -> Answer:
        length, address, high, *_ = arguments
        if high or not self._memory.contains(address, length):
            return Error.INVALID_PARAM, 0
        data = self._console.take(min(length, LONGEST_TRANSFER))
        self._memory.write(address, data)
        return Error.SUCCESS, len(data)

    def _console_write_byte(self, hart: Hart, arguments: list[int]) -> Answer:
        self._console.put(arguments[0] & 0xFF)
        return OK

    # Legacy calls (chapter 5): the extension alone says which, and the result is in a0 alone.

    def _legacy_set_timer(self, hart: Hart, arguments: list[int]) -> int:
        return self._set_timer(hart, arguments)[0]

    def _legacy_put(self, hart: Hart, arguments: list[int]) -> int:
        return self._console_write_byte(hart, arguments)[0]

    def _legacy_get(self, hart: Hart, arguments: list[int]) -> int:
        data = self._console.take(1)
        return data[0] if data else -1

    def _legacy_clear_ipi(self, hart: Hart, arguments: list[int]) -> int:
        pending = hart.get("sip")
        hart.set("sip", pending & ~(1 << SUPERVISOR_SOFTWARE))
        return pending >> SUPERVISOR_SOFTWARE & 1

    def _legacy_send_ipi(self, hart: Hart, arguments: list[int]) -> int:
        return self._for_mask(self._send_ipi, hart, arguments)

    def _legacy_fence_i(self, hart: Hart, arguments: list[int]) -> int:
        return self._for_mask(self._remote_fence_i, hart, arguments)

    def _legacy_sfence_vma(self, hart: Hart, arguments: list[int]) -> int:
        return self._for_mask(self._remote_sfence_vma, hart, arguments)

    def _legacy_shutdown(self, hart: Hart, arguments: list[int]) -> None:
        self._end(Verdict(VerdictKind.POWER_OFF))

    def _for_mask(self, serve: Callable[[Hart, list[int]], Answer], hart: Hart, arguments: list[int]) -> int:
        """For the harts whose bits are set in the word at virtual address arguments[0]; for all where that is 0."""
        if arguments[0] == 0:
            return serve(hart, [0, ALL])[0]
        try:
            mask = self._memory.read(self._physical(hart, arguments[0]), XLEN // 8)
        except OutOfGuestMemory:
            return Error.INVALID_ADDRESS
        return serve(hart, [int.from_bytes(mask, "little"), 0])[0]

    def _physical(self, hart: Hart, address: int) -> int:
        """Where a virtual address of the hart's is. OutOfGuestMemory where nothing is mapped."""
        satp = hart.get("satp")
        levels = PAGE_TABLE_LEVELS[satp >> 60]
        table = satp & PAGE_NUMBER
        for level in reversed(range(levels)):
            shift = 12 + 9 * level
            index = address >> shift & 0x1FF
            entry = int.from_bytes(self._memory.read((table << 12) + 8 * index, 8), "little")
            table = entry >> 10 & PAGE_NUMBER
            if entry & PTE_VALID and entry & PTE_LEAF:
                return table << 12 | address & (1 << shift) - 1
            if not entry & PTE_VALID:
                break
        if levels:
            raise OutOfGuestMemory(f"nothing is mapped at {address:#x}")
        return address

    _FUNCTIONS: dict[tuple[int, int], Callable[[Sbi, Hart, list[int]], Answer | None]] = {  # noqa: RUF012  a constant
        (BASE, 0): _specification,
        (BASE, 1): _implementation,
        (BASE, 2): _implementation_version,
        (BASE, 3): _probe,
        (BASE, 4): _vendor,
        (BASE, 5): _architecture,
        (BASE, 6): _machine_implementation,
        (TIME, 0): _set_timer,
        (IPI, 0): _send_ipi,
        (RFENCE, 0): _remote_fence_i,
        (RFENCE, 1): _remote_sfence_vma,
        (RFENCE, 2): _remote_sfence_vma,
        (HSM, 0): _hart_start,
        (HSM, 1): _hart_stop,
        (HSM, 2): _hart_status,
        (HSM, 3): _hart_suspend,
        (SRST, 0): _system_reset,
        (DBCN, 0): _console_write,
        (DBCN, 1): _console_read,
        (DBCN, 2): _console_write_byte,
    }
    _LEGACY: dict[int, Callable[[Sbi, Hart, list[int]], int | None]] = {  # noqa: RUF012  a constant
        0: _legacy_set_timer,
        1: _legacy_put,
        2: _legacy_get,
        3: _legacy_clear_ipi,
        4: _legacy_send_ipi,
        5: _legacy_fence_i,
        6: _legacy_sfence_vma,
        7: _legacy_sfence_vma,
        8: _legacy_shutdown,
    }
