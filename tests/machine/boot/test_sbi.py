from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.machine.boot.sbi import Sbi
from celaje.machine.console import BufferConsole
from celaje.machine.hart_states import HartState, HartStates, StartRequest
from celaje.machine.processor import ProcessorDescription
from celaje.machine.verdict import Verdict, VerdictKind
from tests.engine.fake import FakeEngine

BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E
RAM = 0x80000000
PROCESSOR = ProcessorDescription(vendor=0x11, architecture=0x22, implementation=0x33)
ALL = (1 << 64) - 1
SUCCESS, FAILED, NOT_SUPPORTED, INVALID_PARAM, DENIED, INVALID_ADDRESS, ALREADY_AVAILABLE = range(0, -7, -1)


class Firmware:
    """An SBI for three harts, of which hart 0 has started."""

    def __init__(self) -> None:
        self.engine = FakeEngine([], [], [])
        self.states = HartStates(3)
        self.states.start(0, StartRequest(RAM, 0))
        self.states.wait_for_start(0)
        self.ram = GuestMemory(RAM, 0x10000)
        self.console = BufferConsole()
        self.verdicts: list[Verdict] = []
        self.sbi = Sbi(self.engine, self.states, self.ram, self.console, self.set_line, self.verdicts.append, PROCESSOR)

    def set_line(self, hart: int, line: int, level: bool) -> None:
        self.engine.scripted[hart].set_line(line, level)
        self.states.wake(hart)

    def call(self, extension: int, function: int, *arguments: int, hart: int = 0) -> tuple[int, int]:
        """(error, value), signed."""
        caller = self.engine.scripted[hart]
        for index in range(6):
            caller.set("x", arguments[index] if index < len(arguments) else 0, 10 + index)
        caller.set("x", function, 16)
        caller.set("x", extension, 17)
        self.sbi.call(caller)
        error = caller.get("x", 10)
        return error - (1 << 64) if error >> 63 else error, caller.get("x", 11)


@pytest.fixture
def firmware() -> Iterator[Firmware]:
    firmware = Firmware()
    yield firmware
    firmware.ram.close()


def test_base_tells_version_and_implementation(firmware: Firmware) -> None:
    assert firmware.call(BASE, 0) == (SUCCESS, 0x02000000)
    assert firmware.call(BASE, 1)[1] > 0xFF
    assert [firmware.call(BASE, function) for function in (4, 5, 6)] == [(0, 0x11), (0, 0x22), (0, 0x33)]


def test_probing_finds_what_is_there(firmware: Firmware) -> None:
    for extension in (BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN):
        error, value = firmware.call(BASE, 3, extension)
        assert (error, value != 0) == (SUCCESS, True)
    for extension in range(9):
        assert firmware.call(BASE, 3, extension) == (SUCCESS, 1)
    for extension in (9, 15, 0x535441, 0x504D55, ALL):
        assert firmware.call(BASE, 3, extension) == (SUCCESS, 0)


@pytest.mark.parametrize(
    ("extension", "function"), [(9, 0), (15, 0), (BASE, 7), (TIME, 1), (RFENCE, 3), (9, ALL)]
)
def test_what_is_not_there_is_not_supported(firmware: Firmware, extension: int, function: int) -> None:
    assert firmware.call(extension, function)[0] == NOT_SUPPORTED


def test_the_timer_is_the_supervisors_own_compare(firmware: Firmware) -> None:
    assert firmware.call(TIME, 0, 0x123456789ABCDEF) == (SUCCESS, 0)
    assert firmware.engine.scripted[0].get("stimecmp") == 0x123456789ABCDEF


@pytest.mark.parametrize(
    ("mask", "base", "targets"),
    [(0b101, 0, [0, 2]), (0b11, 1, [1, 2]), (0, ALL, [0, 1, 2]), (0b1, ALL, [0, 1, 2]), (0, 0, [])],
)
def test_an_ipi_reaches_the_harts_of_the_mask(firmware: Firmware, mask: int, base: int, targets: list[int]) -> None:
    assert firmware.call(IPI, 0, mask, base) == (SUCCESS, 0)
    assert [hart.index for hart in firmware.engine.scripted if hart.lines.get(1)] == targets


@pytest.mark.parametrize(("mask", "base"), [(0b1000, 0), (0b100, 1), (1, 3), (0, 64), (1 << 63, 0), (1, ALL - 1)])
@pytest.mark.parametrize(("extension", "function"), [(IPI, 0), (RFENCE, 0), (RFENCE, 1), (RFENCE, 2)])
def test_a_mask_with_a_hart_that_is_not_there_is_refused(
    firmware: Firmware, mask: int, base: int, extension: int, function: int
) -> None:
    assert firmware.call(extension, function, mask, base)[0] == INVALID_PARAM
    assert not any(hart.lines or hart.translation_flushes for hart in firmware.engine.scripted)


def test_remote_fences_reach_the_harts_of_the_mask(firmware: Firmware) -> None:
    assert firmware.call(RFENCE, 0, 0b011, 0)[0] == SUCCESS
    assert firmware.call(RFENCE, 1, 0b100, 0, 0, 0x1000)[0] == SUCCESS
    assert firmware.call(RFENCE, 2, 0b010, 1, 0x1000, 0x1000, 7)[0] == SUCCESS
    assert [hart.instruction_flushes for hart in firmware.engine.scripted] == [1, 1, 0]
    assert [hart.translation_flushes for hart in firmware.engine.scripted] == [0, 0, 2]


def test_a_hart_is_started_once(firmware: Firmware) -> None:
    assert firmware.call(HSM, 2, 1) == (SUCCESS, HartState.STOPPED)
    assert firmware.call(HSM, 0, 1, RAM + 0x100, 77) == (SUCCESS, 0)
    assert firmware.call(HSM, 2, 1) == (SUCCESS, HartState.START_PENDING)
    assert firmware.states.wait_for_start(1) == StartRequest(RAM + 0x100, 77)
    assert firmware.call(HSM, 2, 1) == (SUCCESS, HartState.STARTED)
    assert firmware.call(HSM, 0, 1, RAM, 0)[0] == ALREADY_AVAILABLE
    assert firmware.call(HSM, 0, 0, RAM, 0)[0] == ALREADY_AVAILABLE


def test_a_start_is_refused_for_a_bad_hart_or_address(firmware: Firmware) -> None:
    assert firmware.call(HSM, 0, 3, RAM, 0)[0] == INVALID_PARAM
    assert firmware.call(HSM, 2, ALL)[0] == INVALID_PARAM
    for address in (0, RAM - 2, RAM + 0x10000, RAM + 1, ALL - 1):
        assert firmware.call(HSM, 0, 1, address, 0)[0] == INVALID_ADDRESS


def test_a_hart_that_stops_can_be_started_again(firmware: Firmware) -> None:
    firmware.call(HSM, 0, 1, RAM, 0)
    firmware.states.wait_for_start(1)
    firmware.call(HSM, 1, hart=1)
    assert firmware.states.state(1) is HartState.STOPPED
    assert firmware.verdicts == []
    assert firmware.call(HSM, 0, 1, RAM, 0)[0] == SUCCESS


def test_when_the_last_hart_stops_the_guest_has_died(firmware: Firmware) -> None:
    firmware.call(HSM, 1)
    assert [verdict.kind for verdict in firmware.verdicts] == [VerdictKind.DIED]


def test_a_retentive_suspend_returns_when_an_interrupt_is_pending(firmware: Firmware) -> None:
    firmware.engine.scripted[0].set("sie", 1 << 9)
    firmware.engine.scripted[0].set("stimecmp", ALL)
    answers: list[tuple[int, int]] = []
    sleeper = threading.Thread(target=lambda: answers.append(firmware.call(HSM, 3, 0)))
    sleeper.start()
    while firmware.states.state(0) is not HartState.SUSPENDED:
        time.sleep(0.001)
    firmware.set_line(0, 5, True)  # not one that it has enabled
    assert firmware.states.state(0) is HartState.SUSPENDED
    firmware.set_line(0, 9, True)
    sleeper.join(30)
    assert answers == [(SUCCESS, 0)]
    assert firmware.states.state(0) is HartState.STARTED


def test_a_non_retentive_suspend_resumes_at_its_address(firmware: Firmware) -> None:
    hart = firmware.engine.scripted[0]
    hart.set("sie", 1 << 9)
    hart.set("satp", 5)
    firmware.set_line(0, 9, True)
    firmware.call(HSM, 3, 0x80000000, RAM + 0x200, 99)
    assert [hart.get("pc"), hart.get("x", 10), hart.get("x", 11), hart.get("satp")] == [RAM + 0x200, 0, 99, 0]


@pytest.mark.parametrize(
    ("kind", "address", "error"),
    [
        (1, RAM, INVALID_PARAM),
        (0x0FFFFFFF, RAM, INVALID_PARAM),
        (0x10000000, RAM, NOT_SUPPORTED),
        (0x7FFFFFFF, RAM, NOT_SUPPORTED),
        (0x80000001, RAM, INVALID_PARAM),
        (0x90000000, RAM, NOT_SUPPORTED),
        (0x80000000, 0, INVALID_ADDRESS),
    ],
)
def test_other_ways_to_suspend_are_refused(firmware: Firmware, kind: int, address: int, error: int) -> None:
    assert firmware.call(HSM, 3, kind, address, 0)[0] == error


@pytest.mark.parametrize(
    ("kind", "reason", "verdict"),
    [
        (0, 0, VerdictKind.POWER_OFF),
        (0, 1, VerdictKind.DIED),
        (1, 0, VerdictKind.REBOOT),
        (2, 1, VerdictKind.REBOOT),
    ],
)
def test_a_system_reset_ends_the_machine(firmware: Firmware, kind: int, reason: int, verdict: VerdictKind) -> None:
    firmware.call(SRST, 0, kind, reason)
    assert [ended.kind for ended in firmware.verdicts] == [verdict]


@pytest.mark.parametrize(
    ("kind", "reason", "error"),
    [
        (3, 0, INVALID_PARAM),
        (0, 2, INVALID_PARAM),
        (0xEFFFFFFF, 0, INVALID_PARAM),
        (0xF0000000, 0, NOT_SUPPORTED),
        (0, 0xE0000000, NOT_SUPPORTED),
    ],
)
def test_other_resets_are_refused(firmware: Firmware, kind: int, reason: int, error: int) -> None:
    assert firmware.call(SRST, 0, kind, reason)[0] == error
    assert firmware.verdicts == []


def test_the_debug_console_writes_from_memory(firmware: Firmware) -> None:
    firmware.ram.write(RAM + 0x100, b"early console\n")
    assert firmware.call(DBCN, 0, 14, RAM + 0x100, 0) == (SUCCESS, 14)
    assert firmware.call(DBCN, 2, 0x141) == (SUCCESS, 0)
    assert firmware.console.output == b"early console\nA"


def test_the_debug_console_reads_what_there_is(firmware: Firmware) -> None:
    assert firmware.call(DBCN, 1, 16, RAM, 0) == (SUCCESS, 0)
    firmware.console.type(b"typed")
    assert firmware.call(DBCN, 1, 3, RAM, 0) == (SUCCESS, 3)
    assert firmware.ram.read(RAM, 4) == b"typ\0"


@pytest.mark.parametrize("function", [0, 1])
@pytest.mark.parametrize(
    ("length", "low", "high"), [(1, RAM - 1, 0), (2, RAM + 0xFFFF, 0), (ALL, RAM, 0), (1, RAM, 1), (1, 0, 0)]
)
def test_the_debug_console_stays_inside_memory(
    firmware: Firmware, function: int, length: int, low: int, high: int
) -> None:
    assert firmware.call(DBCN, function, length, low, high)[0] == INVALID_PARAM
    assert firmware.console.output == b""


# ---- legacy calls


def test_legacy_calls_print_and_read(firmware: Firmware) -> None:
    firmware.console.type(b"q")
    assert firmware.call(1, 7, ord("h"))[0] == 0
    assert firmware.call(1, 0, ord("i"))[0] == 0
    assert bytes(firmware.console.output) == b"hi"
    assert firmware.call(2, 0)[0] == ord("q")
    assert firmware.call(2, 0)[0] == -1


def test_a_legacy_call_answers_in_the_first_register_alone(firmware: Firmware) -> None:
    assert firmware.call(1, 0, ord("h"), 0x1234) == (0, 0x1234)


def test_the_legacy_timer_is_the_supervisors_own_compare(firmware: Firmware) -> None:
    assert firmware.call(0, 0, 0x1234)[0] == 0
    assert firmware.engine.scripted[0].get("stimecmp") == 0x1234


def test_a_legacy_ipi_is_cleared_by_its_own_call(firmware: Firmware) -> None:
    firmware.engine.scripted[0].set("sip", 0x222)
    assert firmware.call(3, 0)[0] == 1
    assert firmware.engine.scripted[0].get("sip") == 0x220
    assert firmware.call(3, 0)[0] == 0


def test_legacy_calls_without_a_mask_are_for_all_harts(firmware: Firmware) -> None:
    assert firmware.call(4, 0, 0)[0] == 0
    assert [hart.index for hart in firmware.engine.scripted if hart.lines.get(1)] == [0, 1, 2]


def test_a_legacy_mask_is_read_from_memory(firmware: Firmware) -> None:
    firmware.ram.write(RAM + 0x100, (0b110).to_bytes(8, "little"))
    for extension in (4, 5, 6, 7):
        assert firmware.call(extension, 0, RAM + 0x100)[0] == 0
    assert [hart.index for hart in firmware.engine.scripted if hart.lines.get(1)] == [1, 2]
    assert [hart.instruction_flushes for hart in firmware.engine.scripted] == [0, 1, 1]
    assert [hart.translation_flushes for hart in firmware.engine.scripted] == [0, 2, 2]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_legacy_mask_has_a_virtual_address(firmware: Firmware, level: int) -> None:
    table, virtual = RAM + 0x1000, 0x4000_5568
    for step in (2, 1, 0):
        leaf = step == level
        target = RAM if leaf and level else RAM + 0x6000 if leaf else table + 0x1000
        entry = target >> 2 | (0xF if leaf else 1)
        firmware.ram.write(table + 8 * (virtual >> 12 + 9 * step & 0x1FF), entry.to_bytes(8, "little"))
        if leaf:
            break
        table = target
    firmware.ram.write(RAM + (0x5568 if level else 0x6568), (0b100).to_bytes(8, "little"))
    assert firmware.call(4, 0, virtual)[0] == INVALID_ADDRESS
    firmware.engine.scripted[0].set("satp", 8 << 60 | (RAM + 0x1000) >> 12)
    assert firmware.call(4, 0, virtual)[0] == SUCCESS
    assert [hart.index for hart in firmware.engine.scripted if hart.lines.get(1)] == [2]


@pytest.mark.parametrize("address", [8, RAM - 4, RAM + 0x10000, ALL])
def test_a_legacy_mask_outside_memory_is_refused(firmware: Firmware, address: int) -> None:
    assert firmware.call(4, 0, address)[0] == INVALID_ADDRESS
    firmware.engine.scripted[0].set("satp", 8 << 60 | RAM >> 12)
    assert firmware.call(4, 0, address)[0] == INVALID_ADDRESS


def test_the_legacy_shutdown_powers_off(firmware: Firmware) -> None:
    firmware.call(8, 0)
    assert [verdict.kind for verdict in firmware.verdicts] == [VerdictKind.POWER_OFF]
