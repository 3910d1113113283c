from __future__ import annotations

import pytest

from celaje.machine.console import BufferConsole
from celaje.machine.devices.uart import Uart

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7


class Line:
    def __init__(self) -> None:
        self.level = False

    def __call__(self, level: bool) -> None:
        self.level = level


class Port:
    """A serial port, what hangs on it and its interrupt line."""

    def __init__(self) -> None:
        self.console = BufferConsole()
        self.line = Line()
        self.uart = Uart(self.console, self.line)

    def read(self, register: int) -> int:
        return self.uart.read(register, 1)

    def write(self, register: int, value: int) -> None:
        self.uart.write(register, 1, value)

    def receive(self) -> bytes:
        """Everything that a guest which looks at the line status gets."""
        got = bytearray()
        while self.read(LSR) & 1:
            got.append(self.read(RBR))
        return bytes(got)


@pytest.fixture
def port() -> Port:
    return Port()


def test_what_is_sent_reaches_the_console(port: Port) -> None:
    for byte in b"hello\n":
        assert port.read(LSR) & 0x60 == 0x60
        port.write(THR, byte)
    assert port.console.output == b"hello\n"


def test_a_wide_store_sends_its_lowest_byte(port: Port) -> None:
    port.uart.write(THR, 4, 0x11223341)
    assert port.console.output == b"A"


def test_a_guest_that_polls_gets_its_input(port: Port) -> None:
    port.console.type(b"ab")
    assert port.read(LSR) & 1 == 0
    while not port.read(LSR) & 1:
        pass
    assert port.read(RBR) == ord("a")


def test_a_guest_that_polls_between_sending_gets_its_input(port: Port) -> None:
    port.console.type(b"a")
    for _ in range(10):
        if port.read(LSR) & 1:
            assert port.read(RBR) == ord("a")
            return
        assert port.read(LSR) & 0x20
        port.write(THR, ord("."))
    pytest.fail("the byte never came")


def test_a_guest_that_only_sends_takes_nothing(port: Port) -> None:
    port.console.type(b"a")
    for _ in range(20):
        port.read(LSR)
        port.write(THR, ord("."))
    assert port.console.take(10) == b"a"


def test_a_driver_that_starts_does_not_eat_input(port: Port) -> None:
    """The order in which Linux sets a 16550A up: registers are read to clear them before anybody listens."""
    port.console.type(b"typed early")
    port.write(FCR, 0x01)
    port.write(FCR, 0x07)
    port.write(FCR, 0x00)
    for register in (LSR, RBR, IIR, MSR, LSR, LSR):
        port.read(register)
    port.write(IER, 2)
    port.read(IIR)
    port.write(IER, 0)
    for register in (LSR, RBR, IIR, MSR):
        port.read(register)
    port.write(IER, 0x05)
    port.write(FCR, 0x01)
    port.write(FCR, 0x81)
    assert port.receive() == b"typed early"


def test_what_is_in_the_fifo_when_it_is_cleared_comes_again(port: Port) -> None:
    port.write(FCR, 1)
    port.write(IER, 1)
    port.console.type(bytes(range(40)))
    assert port.read(RBR) == 0
    port.write(FCR, 3)
    assert port.receive() == bytes(range(1, 40))


def test_no_more_than_the_fifo_holds_is_taken_from_the_console(port: Port) -> None:
    port.write(FCR, 1)
    port.write(IER, 1)
    port.console.type(bytes(40))
    assert len(port.console.take(100)) == 24


def test_without_fifos_one_byte_is_taken(port: Port) -> None:
    port.write(IER, 1)
    port.console.type(bytes(40))
    assert len(port.console.take(100)) == 39


def test_a_guest_that_does_not_listen_takes_nothing(port: Port) -> None:
    port.console.type(b"xyz")
    port.read(LSR)
    port.read(RBR)
    port.write(FCR, 7)
    assert port.console.take(100) == b"xyz"


def test_input_interrupts_until_it_is_read(port: Port) -> None:
    port.write(IER, 1)
    assert not port.line.level
    port.console.type(b"a")
    assert port.line.level
    assert port.read(IIR) == 0x04
    assert port.line.level
    assert port.read(RBR) == ord("a")
    assert not port.line.level
    assert port.read(IIR) == 0x01


@pytest.mark.parametrize(("setting", "level"), [(0, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_below_the_trigger_level_the_cause_is_the_timeout(port: Port, setting: int, level: int) -> None:
    port.write(FCR, setting | 1)
    port.write(IER, 1)
    port.console.type(bytes(level))
    assert port.read(IIR) == 0xC4
    port.read(RBR)
    assert port.read(IIR) == (0xCC if level > 1 else 0xC1)
    assert port.line.level == (level > 1)


def test_the_transmitter_interrupts_when_it_is_enabled_and_when_it_becomes_empty(port: Port) -> None:
    port.write(IER, 2)
    assert port.line.level
    assert port.read(IIR) == 0x02
    assert not port.line.level
    assert port.read(IIR) == 0x01
    port.write(THR, ord("x"))
    assert port.line.level
    assert port.read(IIR) == 0x02
    assert port.console.output == b"x"


def test_enabling_the_transmitters_interrupt_again_raises_it_again(port: Port) -> None:
    port.write(IER, 2)
    port.read(IIR)
    port.write(IER, 2)
    assert not port.line.level
    port.write(IER, 0)
    port.write(IER, 2)
    assert port.line.level


def test_reading_another_cause_leaves_the_transmitters_interrupt(port: Port) -> None:
    port.write(IER, 3)
    port.console.type(b"a")
    assert port.read(IIR) == 0x04
    port.read(RBR)
    assert port.read(IIR) == 0x02


def test_a_guest_that_never_reads_the_identification_is_interrupted_once_for_each_byte(port: Port) -> None:
    port.write(IER, 3)
    for _ in range(3):
        assert port.line.level
        assert port.read(LSR) == 0x60
        assert not port.line.level
        port.write(THR, 0x41)
    port.console.type(b"x")
    assert port.receive() == b"x"
    assert not port.line.level


def test_a_guest_that_has_read_the_identification_is_interrupted_until_it_does_so_again(port: Port) -> None:
    port.write(IER, 2)
    assert port.read(IIR) & 0x0F == 2
    port.write(THR, 0x41)
    port.read(LSR)
    assert port.line.level
    assert port.read(IIR) & 0x0F == 2
    assert not port.line.level


def test_identification_tells_a_16550a(port: Port) -> None:
    assert port.read(IIR) >> 6 == 0
    port.write(FCR, 1)
    assert port.read(IIR) >> 6 == 3
    port.write(LCR, 0x80)
    port.write(FCR, 0x21)  # a 16750 would show 64 bytes
    assert port.read(IIR) & 0x20 == 0
    port.write(LCR, 0)
    port.write(IER, 0xFF)
    assert port.read(IER) == 0x0F
    port.write(MCR, 0xFF)
    assert port.read(MCR) == 0x1F


def test_the_divisor_hides_behind_the_latch_bit(port: Port) -> None:
    port.write(LCR, 0x83)
    port.write(DLL, 0x34)
    port.write(DLM, 0x12)
    assert (port.read(DLL), port.read(DLM), port.read(LCR)) == (0x34, 0x12, 0x83)
    port.write(LCR, 0x03)
    assert port.read(IER) == 0
    port.write(THR, ord("q"))
    assert port.console.output == b"q"


def test_the_scratch_register_keeps_a_byte(port: Port) -> None:
    port.write(SCR, 0xA5)
    assert port.read(SCR) == 0xA5


def test_loopback_joins_the_transmitter_to_the_receiver(port: Port) -> None:
    port.write(FCR, 1)
    port.write(MCR, 0x10)
    for byte in b"echo":
        port.write(THR, byte)
    assert port.console.output == b""
    assert port.receive() == b"echo"


def test_loopback_overruns_after_sixteen_bytes(port: Port) -> None:
    port.write(FCR, 1)
    port.write(IER, 4)
    port.write(MCR, 0x10)
    for byte in range(17):
        port.write(THR, byte)
    assert port.line.level
    assert port.read(IIR) == 0xC6
    assert port.read(LSR) & 0x02
    assert port.read(LSR) & 0x02 == 0
    assert not port.line.level
    assert port.receive() == bytes(range(16))


@pytest.mark.parametrize(("outputs", "inputs"), [(0x1, 0x20), (0x2, 0x10), (0x4, 0x40), (0x8, 0x80), (0xA, 0x90)])
def test_loopback_joins_the_modem_lines(port: Port, outputs: int, inputs: int) -> None:
    port.write(MCR, 0x10 | outputs)
    assert port.read(MSR) & 0xF0 == inputs


def test_changes_of_modem_lines_interrupt_once(port: Port) -> None:
    port.write(MCR, 0x10)
    port.read(MSR)
    port.write(IER, 8)
    port.write(MCR, 0x13)
    assert port.line.level
    assert port.read(IIR) == 0x00
    assert port.read(MSR) == 0x33
    assert not port.line.level
    assert port.read(MSR) == 0x30


def test_the_ring_indicator_tells_of_its_end_only(port: Port) -> None:
    port.write(MCR, 0x10)
    port.read(MSR)
    port.write(MCR, 0x14)
    assert port.read(MSR) == 0x40
    port.write(MCR, 0x10)
    assert port.read(MSR) == 0x04


def test_loopback_does_not_touch_the_consoles_input(port: Port) -> None:
    port.write(FCR, 1)
    port.write(IER, 1)
    port.console.type(b"out")
    port.write(MCR, 0x10)
    assert port.receive() == b""
    port.write(THR, ord("l"))
    port.write(MCR, 0)
    assert port.receive() == b"out"


def test_outside_loopback_the_line_is_connected(port: Port) -> None:
    assert port.read(MSR) == 0xB0


def test_registers_beyond_the_eighth_are_not_there(port: Port) -> None:
    port.write(8, 0xFF)
    port.write(0xFF, 0xFF)
    assert port.read(8) == port.read(0xFF) == 0


def test_input_that_the_guest_left_unread_survives_a_reset(port: Port) -> None:
    port.write(FCR, 1)
    port.write(IER, 1)
    port.console.type(b"keep me")
    port.read(RBR)
    port.uart.reset()
    assert not port.line.level
    assert (port.read(IER), port.read(IIR)) == (0, 1)
    assert port.console.take(100) == b"eep me"


def test_a_restored_port_goes_on_where_it_was_saved(port: Port) -> None:
    port.write(LCR, 0x80)
    port.write(DLL, 9)
    port.write(LCR, 0x13)
    port.write(FCR, 0x41)
    port.write(IER, 3)
    port.write(SCR, 0x77)
    port.read(IIR)
    port.console.type(b"abcdef")
    other = Port()
    other.uart.restore(port.uart.save())
    assert other.uart.save() == port.uart.save()
    assert other.line.level
    assert other.read(IIR) == 0xC4
    assert other.receive() == b"abcdef"


def test_a_state_of_another_kind_is_refused(port: Port) -> None:
    state = port.uart.save()
    state["received"] = 3
    with pytest.raises(ValueError, match="received"):
        port.uart.restore(state)


class FullConsole(BufferConsole):
    """A console whose reader has stopped reading."""

    has_room = False


def test_a_full_console_shows_as_a_busy_transmitter() -> None:
    line = Line()
    console = FullConsole()
    uart = Uart(console, line)
    assert uart.read(LSR, 1) & 0x60 == 0
    uart.write(IER, 1, 2)
    assert not line.level
    uart.write(THR, 1, ord("x"))
    assert console.output == b"x"
