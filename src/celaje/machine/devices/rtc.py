"""The goldfish real-time clock: nanoseconds since 1970 in UTC, and one alarm.

    0x00  TIME_LOW         reading gives the low half and latches the high half for the next read of TIME_HIGH;
                           writing sets the clock, with what TIME_HIGH was given before
    0x04  TIME_HIGH
    0x08  ALARM_LOW        writing arms the alarm, with what ALARM_HIGH was given before
    0x0c  ALARM_HIGH
    0x10  IRQ_ENABLED      bit 0
    0x14  CLEAR_ALARM      a write disarms
    0x18  ALARM_STATUS     1 while armed
    0x1c  CLEAR_INTERRUPT  a write takes the interrupt back

The alarm is a thread that sleeps until its time; there is none while no alarm is armed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from celaje.machine.bus import AccessRefused, SavedState

TIME_LOW = 0x00
TIME_HIGH = 0x04
ALARM_LOW = 0x08
ALARM_HIGH = 0x0C
IRQ_ENABLED = 0x10
CLEAR_ALARM = 0x14
ALARM_STATUS = 0x18
CLEAR_INTERRUPT = 0x1C

MASK64 = (1 << 64) - 1
LONGEST_SLEEP = 3600.0  # seconds: the host's clock may be set meanwhile, and a guest may ask for the year 2554


class Rtc:
    """`set_interrupt` drives its line; `now` is the host's clock in nanoseconds since 1970."""

    size = 0x1000

    def __init__(self, set_interrupt: Callable[[bool], None], now: Callable[[], int] = time.time_ns) -> None:
        self._set_interrupt = set_interrupt
        self._now = now
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._clear()

    def _clear(self) -> None:
        self._offset = 0  # the guest's clock minus the host's
        self._latched_high = 0
        self._written_high = 0
        self._alarm = 0
        self._alarm_high = 0
        self._armed = False
        self._enabled = False
        self._pending = False

    def _time(self) -> int:
        return (self._now() + self._offset) & MASK64

    def read(self, offset: int, size: int) -> int:
        if size == 8 and offset & 7 == 0:  # both halves of the time at once
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        if size != 4 or offset & 3:
            raise AccessRefused
        with self._lock:
            if offset == TIME_LOW:
                now = self._time()
                self._latched_high = now >> 32
                return now & 0xFFFFFFFF
            if offset == TIME_HIGH:
                return self._latched_high
            if offset == ALARM_LOW:
                return self._alarm & 0xFFFFFFFF
            if offset == ALARM_HIGH:
                return self._alarm >> 32
            if offset == IRQ_ENABLED:
                return int(self._enabled)
            if offset == ALARM_STATUS:
                return int(self._armed)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if size != 4 or offset & 3:
            raise AccessRefused
        with self._lock:
            if offset == TIME_LOW:
                self._offset = (self._written_high << 32 | value) - self._now()
                self._sleep()
            elif offset == TIME_HIGH:
                self._written_high = value
            elif offset == ALARM_LOW:
                self._alarm = self._alarm_high << 32 | value
                self._armed = True
                self._sleep()
            elif offset == ALARM_HIGH:
                self._alarm_high = value
            elif offset == IRQ_ENABLED:
                self._enabled = bool(value & 1)
                self._drive()
            elif offset == CLEAR_ALARM:
                self._armed = False
                self._sleep()
            elif offset == CLEAR_INTERRUPT:
                self._pending = False
                self._drive()

    def _drive(self) -> None:
        self._set_interrupt(self._pending and self._enabled)

    def _sleep(self) -> None:
        """Let the alarm go off if its time has come, else see to it that somebody wakes then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._armed:
            return
        left = (self._alarm - self._time()) / 1e9
        if left <= 0:
            self._armed = False
            self._pending = True
            self._drive()
            return
        self._timer = threading.Timer(min(left, LONGEST_SLEEP), self._wake)
        self._timer.daemon = True
        self._timer.name = "rtc alarm"
        self._timer.start()

    def _wake(self) -> None:
        with self._lock:
            # A timer that was cancelled too late must not start another.
            if threading.current_thread() is self._timer:
                self._sleep()

    def reset(self) -> None:
        with self._lock:
            self._clear()
            self._sleep()
            self._drive()

    def close(self) -> None:
        """No thread is left behind."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()

    def save(self) -> SavedState:
        with self._lock:
            return {
                "offset": self._offset,
                "latched_high": self._latched_high,
                "written_high": self._written_high,
                "alarm": self._alarm,
                "alarm_high": self._alarm_high,
                "armed": int(self._armed),
                "enabled": int(self._enabled),
                "pending": int(self._pending),
            }

    def restore(self, state: SavedState) -> None:
        fields: dict[str, int] = {}
        for name in self.save():
            value = state[name]
            if not isinstance(value, int):
                raise ValueError(f"the clock's {name} must be a number, not {value!r}")
            fields[name] = value
        with self._lock:
            self._offset = fields["offset"]
            self._latched_high = fields["latched_high"]
            self._written_high = fields["written_high"]
            self._alarm = fields["alarm"]
            self._alarm_high = fields["alarm_high"]
            self._armed = bool(fields["armed"])
            self._enabled = bool(fields["enabled"])
            self._pending = bool(fields["pending"])
            self._drive()
            self._sleep()
