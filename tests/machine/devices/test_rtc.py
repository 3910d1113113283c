from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from celaje.machine.bus import AccessRefused
from celaje.machine.devices.rtc import Rtc


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_123_456_789


class Line:
    """The interrupt line."""

    def __init__(self) -> None:
        self.level = False
        self.risen = threading.Event()

    def __call__(self, level: bool) -> None:
        self.level = level
        if level:
            self.risen.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def rtc(clock: Clock, line: Line) -> Iterator[Rtc]:
    rtc = Rtc(line, lambda: clock.now)
    yield rtc
    rtc.close()


def read_time(rtc: Rtc) -> int:
    low = rtc.read(0, 4)
    return rtc.read(4, 4) << 32 | low


def set_alarm(rtc: Rtc, when: int) -> None:
    rtc.write(0x0C, 4, when >> 32)
    rtc.write(0x08, 4, when & 0xFFFFFFFF)


def test_the_time_is_the_hosts(rtc: Rtc, clock: Clock) -> None:
    assert read_time(rtc) == clock.now


def test_the_high_half_belongs_to_the_low_half_read_before(rtc: Rtc, clock: Clock) -> None:
    clock.now = 0x1_FFFF_FFFF
    assert rtc.read(0, 4) == 0xFFFFFFFF
    clock.now += 1
    assert rtc.read(4, 4) == 1


def test_both_halves_may_be_read_at_once(rtc: Rtc, clock: Clock) -> None:
    clock.now = 0x1234_5678_9ABC_DEF0
    assert rtc.read(0, 8) == clock.now
    with pytest.raises(AccessRefused):
        rtc.write(0, 8, 0)


def test_the_guest_can_set_its_time(rtc: Rtc, clock: Clock) -> None:
    rtc.write(4, 4, 5)
    rtc.write(0, 4, 7)
    assert read_time(rtc) == 5 << 32 | 7
    clock.now += 1000
    assert read_time(rtc) == (5 << 32 | 7) + 1000


def test_an_alarm_in_the_past_goes_off_at_once(rtc: Rtc, clock: Clock, line: Line) -> None:
    rtc.write(0x10, 4, 1)
    set_alarm(rtc, clock.now - 1)
    assert line.level
    assert rtc.read(0x18, 4) == 0
    rtc.write(0x1C, 4, 1)
    assert not line.level


def test_an_alarm_goes_off_when_its_time_comes(line: Line) -> None:
    rtc = Rtc(line)
    rtc.write(0x10, 4, 1)
    set_alarm(rtc, time.time_ns() + 20_000_000)
    assert line.risen.wait(30)
    assert rtc.read(0x18, 4) == 0
    rtc.close()


def test_an_alarm_without_its_interrupt_enabled_waits_for_that(rtc: Rtc, clock: Clock, line: Line) -> None:
    set_alarm(rtc, clock.now)
    assert not line.level
    rtc.write(0x10, 4, 1)
    assert line.level


def test_a_cleared_alarm_does_not_go_off(rtc: Rtc, clock: Clock, line: Line) -> None:
    rtc.write(0x10, 4, 1)
    set_alarm(rtc, clock.now + 10**18)
    assert rtc.read(0x18, 4) == 1
    rtc.write(0x14, 4, 0)
    assert rtc.read(0x18, 4) == 0
    clock.now += 2 * 10**18
    rtc.write(4, 4, 0)  # what looks at the alarm again
    rtc.write(0, 4, 0)
    assert not line.level


def test_setting_the_clock_past_the_alarm_sets_it_off(rtc: Rtc, clock: Clock, line: Line) -> None:
    rtc.write(0x10, 4, 1)
    set_alarm(rtc, clock.now + 10**18)
    later = clock.now + 2 * 10**18
    rtc.write(4, 4, later >> 32)
    rtc.write(0, 4, later & 0xFFFFFFFF)
    assert line.level


def test_an_alarm_at_the_end_of_time_is_no_trouble(rtc: Rtc, line: Line) -> None:
    set_alarm(rtc, (1 << 64) - 1)
    assert rtc.read(0x18, 4) == 1
    assert (rtc.read(0x08, 4), rtc.read(0x0C, 4)) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert not line.level


def test_closing_leaves_no_thread(rtc: Rtc, clock: Clock) -> None:
    before = set(threading.enumerate())  # some may be alarms of other tests, on their way out
    set_alarm(rtc, clock.now + 10**15)
    assert len(set(threading.enumerate()) - before) == 1
    rtc.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(("offset", "size"), [(4, 8), (0, 1), (2, 4)])
def test_only_whole_registers_are_accessed(rtc: Rtc, offset: int, size: int) -> None:
    with pytest.raises(AccessRefused):
        rtc.read(offset, size)
    with pytest.raises(AccessRefused):
        rtc.write(offset, size, 0)


def test_a_restored_clock_goes_on_where_it_was_saved(rtc: Rtc, clock: Clock, line: Line) -> None:
    rtc.write(4, 4, 5)
    rtc.write(0, 4, 7)
    rtc.write(0x10, 4, 1)
    set_alarm(rtc, 5 << 32 | 1000)
    other_line = Line()
    other = Rtc(other_line, lambda: clock.now)
    other.restore(rtc.save())
    assert read_time(other) == 5 << 32 | 7
    assert other.read(0x18, 4) == 1
    clock.now += 5000
    other.write(0x10, 4, 1)
    other.restore(other.save())
    assert other_line.level
    other.close()
