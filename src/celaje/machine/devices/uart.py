"""The serial port: a National Semiconductor 16550A (data sheet PC16550D, June 1995), one register a byte.

    offset  read                 write                DLAB = 1 (bit 7 of LCR)
    0       RBR received byte    THR byte to send     DLL divisor, low
    1       IER                  IER                  DLM divisor, high
    2       IIR what interrupts  FCR FIFO control
    3       LCR                  LCR
    4       MCR                  MCR
    5       LSR line status
    6       MSR modem status
    7       SCR                  SCR

    IER  3 modem status | 2 line status | 1 transmitter empty | 0 data received
    IIR  7:6 FIFOs on | 3:0: 1 none, 6 line status, 4 data, C data below the trigger, 2 transmitter empty, 0 modem
    FCR  7:6 trigger level 1, 4, 8, 14 | 2 clear transmitter | 1 clear receiver | 0 FIFOs on
    MCR  4 loopback | 3 OUT2 | 2 OUT1 | 1 RTS | 0 DTR
    LSR  6 all sent | 5 transmitter empty | 4 break | 3 framing | 2 parity | 1 overrun | 0 data ready
    MSR  7 DCD | 6 RI | 5 DSR | 4 CTS | 3:0 which of them changed

What is sent is gone at once, so the transmitter is empty unless the console's buffer is full. The line at the
receiver's side is one with perfect flow control: a byte is taken from the console only when the guest listens (it
has enabled the receive interrupt, or reads LSR again and again), and one that is in the FIFO when the guest
clears it counts as not yet sent. Input that is typed while a kernel boots is therefore never lost.

The transmitter's interrupt is gone when IIR is read or a byte is sent, as the data sheet has it. Teaching systems
never read IIR: it would interrupt them without end. (They live on boards whose interrupt controller sees edges.) For a
guest that has not read IIR yet, the interrupt line is therefore let go once LSR has said that the transmitter is empty.

Since nothing more is under way when the FIFO holds less than its trigger level, the receive timeout (four
characters' time) is over at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from celaje.machine.bus import SavedState
from celaje.machine.console import Console

IER_RECEIVE, IER_TRANSMIT, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_LINE, IIR_DATA, IIR_TIMEOUT, IIR_TRANSMIT, IIR_MODEM = 0x1, 0x6, 0x4, 0xC, 0x2, 0x0
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1, 2
LCR_DLAB = 0x80
MCR_LOOPBACK = 0x10
LSR_DATA, LSR_OVERRUN, LSR_EMPTY, LSR_ERRORS = 0x01, 0x02, 0x60, 0x1E
MSR_CONNECTED = 0xB0  # carrier, data set ready, clear to send
MSR_RING = 0x40

FIFO_BYTES = 16
TRIGGER_LEVELS = (1, 4, 8, 14)
# Reads of LSR, more than there were bytes to send and with no other register between, that say "I wait for a byte".
# Linux's driver comes to two while it starts, and then reads a byte that it throws away.
LISTENING_POLLS = 4


class Uart:
    """`console` is what hangs on the line; `set_interrupt` drives the interrupt line."""

    size = 0x100

    def __init__(self, console: Console, set_interrupt: Callable[[bool], None]) -> None:
        self._console = console
        self._set_interrupt = set_interrupt
        self._lock = threading.Lock()
        self._driven = False
        self._clear()
        console.listen(self._console_changed, self._console_changed)

    def _clear(self) -> None:
        self._ier = 0
        self._fcr = 0
        self._lcr = 0
        self._mcr = 0
        self._scratch = 0
        self._divisor = 1
        self._received: deque[int] = deque()
        self._overrun = False
        self._modem_changes = 0
        self._transmitter_idle = True  # the event behind the transmitter's interrupt, gone once it is read from IIR
        self._transmitter_noticed = False  # LSR has told of that event: it holds the interrupt line no longer
        self._reads_iir = False
        self._polls = 0
        self._plain = True

    # The fast paths: a kernel's boot writes up to 100,000 bytes, each a read of LSR and a write of THR.

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            if self._polls:
                self._polls -= 1
            if self._plain:
                self._console.put(value & 0xFF)
                return
        else:
            self._polls = 0
        with self._lock:
            if offset < len(self._WRITERS):
                self._WRITERS[offset](self, value & 0xFF)
                self._update()

    def read(self, offset: int, size: int) -> int:
        if offset == 5 and not self._overrun and not self._driven:
            if self._received:
                return LSR_DATA | LSR_EMPTY if self._console.has_room else LSR_DATA
            if self._console.has_room:
                self._polls += 1
                if self._polls < LISTENING_POLLS:
                    return LSR_EMPTY
        with self._lock:
            if offset == 5:
                return self._read_lsr()
            self._polls = 0
            value = self._READERS[offset](self) if offset < len(self._READERS) else 0
            self._update()
            return value

    def _console_changed(self) -> None:
        """There is input, or there is room for output again. From any thread."""
        with self._lock:
            self._update()

    # State to interrupt line.

    def _update(self) -> None:
        listening = self._ier & IER_RECEIVE or self._polls >= LISTENING_POLLS
        if listening and not self._mcr & MCR_LOOPBACK:
            room = (FIFO_BYTES if self._fcr & FCR_ENABLE else 1) - len(self._received)
            if room > 0:
                self._received.extend(self._console.take(room))
        cause = self._cause()
        level = cause != IIR_NONE
        if cause == IIR_TRANSMIT and self._transmitter_noticed:
            level = bool(self._ier & IER_MODEM and self._modem_changes)
        if level != self._driven:
            self._driven = level
            self._set_interrupt(level)
        self._plain = not (self._lcr & LCR_DLAB or self._mcr & MCR_LOOPBACK or self._ier & IER_TRANSMIT)

    def _cause(self) -> int:
        """What interrupts, the most urgent first (data sheet, table IV)."""
        if self._ier & IER_LINE and self._overrun:
            return IIR_LINE
        if self._ier & IER_RECEIVE and self._received:
            if self._fcr & FCR_ENABLE and len(self._received) < TRIGGER_LEVELS[self._fcr >> 6]:
                return IIR_TIMEOUT
            return IIR_DATA
        if self._ier & IER_TRANSMIT and self._transmitter_idle and self._console.has_room:
            return IIR_TRANSMIT
        if self._ier & IER_MODEM and self._modem_changes:
            return IIR_MODEM
        return IIR_NONE

    # Registers, called under the lock.

    def _read_rbr(self) -> int:
        if self._lcr & LCR_DLAB:
            return self._divisor & 0xFF
        return self._received.popleft() if self._received else 0

    def _read_ier(self) -> int:
        return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier

    def _read_iir(self) -> int:
        self._reads_iir = True
        cause = self._cause()
        if cause == IIR_TRANSMIT:
            self._transmitter_idle = False
        return cause | (0xC0 if self._fcr & FCR_ENABLE else 0)

    def _read_lcr(self) -> int:
        return self._lcr

    def _read_mcr(self) -> int:
        return self._mcr

    def _read_lsr(self) -> int:
        value = LSR_OVERRUN if self._overrun else 0
        self._overrun = False
        if not self._reads_iir and self._cause() == IIR_TRANSMIT:
            self._transmitter_noticed = True
        self._update()
        value |= LSR_DATA if self._received else 0
        return value | (LSR_EMPTY if self._console.has_room else 0)

    def _read_msr(self) -> int:
        changes, self._modem_changes = self._modem_changes, 0
        return self._modem_lines() | changes

    def _read_scratch(self) -> int:
        return self._scratch

    def _write_thr(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor = self._divisor & 0xFF00 | value
            return
        self._transmitter_idle, self._transmitter_noticed = True, False
        if not self._mcr & MCR_LOOPBACK:
            self._console.put(value)
        elif len(self._received) < (FIFO_BYTES if self._fcr & FCR_ENABLE else 1):
            self._received.append(value)
        else:
            self._overrun = True

    def _write_ier(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._divisor = self._divisor & 0xFF | value << 8
            return
        if value & ~self._ier & IER_TRANSMIT:
            self._transmitter_idle, self._transmitter_noticed = True, False
        self._ier = value & 0x0F

    def _write_fcr(self, value: int) -> None:
        # Turning the FIFOs on or off clears them too; without bit 0 the other bits do nothing (data sheet, 8.5).
        if (value ^ self._fcr) & FCR_ENABLE or value & (FCR_ENABLE | FCR_CLEAR_RECEIVER) == 3:
            self._give_back()
        self._fcr = value & 0xC1 if value & FCR_ENABLE else 0

    def _write_lcr(self, value: int) -> None:
        self._lcr = value

    def _write_mcr(self, value: int) -> None:
        before = self._modem_lines()
        if (value ^ self._mcr) & MCR_LOOPBACK:
            # The line is cut or joined: what is in the FIFO belongs to the side it came from.
            self._give_back()
        self._mcr = value & 0x1F
        changed = before ^ self._modem_lines()
        # Bit 2 tells of the ring indicator's end only.
        self._modem_changes |= changed >> 4 & 0xB | (before & changed & MSR_RING) >> 4

    def _write_nothing(self, value: int) -> None:
        pass

    def _write_scratch(self, value: int) -> None:
        self._scratch = value

    def _modem_lines(self) -> int:
        if not self._mcr & MCR_LOOPBACK:
            return MSR_CONNECTED
        # Loopback joins DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        dtr, rts, outs = self._mcr & 1, self._mcr >> 1 & 1, self._mcr >> 2 & 3
        return outs << 6 | dtr << 5 | rts << 4

    _READERS = (_read_rbr, _read_ier, _read_iir, _read_lcr, _read_mcr, _read_lsr, _read_msr, _read_scratch)
    _WRITERS = (
        _write_thr,
        _write_ier,
        _write_fcr,
        _write_lcr,
        _write_mcr,
        _write_nothing,
        _write_nothing,
        _write_scratch,
    )

    def reset(self) -> None:
        with self._lock:
            self._give_back()
            self._clear()
            self._update()

    def close(self) -> None:
        """Whoever has the console next gets what the guest did not read."""
        with self._lock:
            self._ier = 0
            self._polls = 0
            self._give_back()

    def _give_back(self) -> None:
        """Empty the FIFO. What came from outside comes again; what was looped back is gone."""
        if not self._mcr & MCR_LOOPBACK:
            self._console.give_back(bytes(self._received))
        self._received.clear()

    def save(self) -> SavedState:
        with self._lock:
            return {
                "ier": self._ier,
                "fcr": self._fcr,
                "lcr": self._lcr,
                "mcr": self._mcr,
                "scratch": self._scratch,
                "divisor": self._divisor,
                "received": bytes(self._received),
                "overrun": int(self._overrun),
                "modem_changes": self._modem_changes,
                "transmitter_idle": int(self._transmitter_idle),
                "transmitter_noticed": int(self._transmitter_noticed),
                "reads_iir": int(self._reads_iir),
            }

    def restore(self, state: SavedState) -> None:
        numbers: dict[str, int] = {}
        received = b""
        for name, now in self.save().items():
            value = state[name]
            if isinstance(value, bytes) and isinstance(now, bytes):
                received = value
            elif isinstance(value, int) and isinstance(now, int):
                numbers[name] = value
            else:
                raise ValueError(f"the serial port's {name} must be like {now!r}, not {value!r}")
        with self._lock:
            self._ier = numbers["ier"] & 0x0F
            self._fcr = numbers["fcr"] & 0xC1
            self._lcr = numbers["lcr"] & 0xFF
            self._mcr = numbers["mcr"] & 0x1F
            self._scratch = numbers["scratch"] & 0xFF
            self._divisor = numbers["divisor"] & 0xFFFF
            self._received = deque(received[:FIFO_BYTES])
            self._overrun = bool(numbers["overrun"])
            self._modem_changes = numbers["modem_changes"] & 0xF
            self._transmitter_idle = bool(numbers["transmitter_idle"])
            self._transmitter_noticed = bool(numbers["transmitter_noticed"])
            self._reads_iir = bool(numbers["reads_iir"])
            self._polls = 0
            self._update()
