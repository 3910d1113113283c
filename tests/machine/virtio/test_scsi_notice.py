"""Targets that say only that they are there, beside the disks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.errors import InputError
from celaje.machine.virtio.scsi_notice import FIRST
from tests.machine.virtio.driver import WRITE
from tests.machine.virtio.memory_disk import MemoryDisk
from tests.machine.virtio.scsi_adapter import (
    BAD_TARGET,
    CHECK_CONDITION,
    DATA,
    GOOD,
    OK,
    OVERRUN,
    SECTORS,
    TEST_UNIT_READY,
    Adapter,
    lun,
    read,
)

INQUIRY = bytes([0x12, 0, 0, 0, 96, 0])
REPORT_LUNS = bytes([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0])


@pytest.fixture
def adapter(memory: GuestMemory) -> Iterator[Adapter]:
    adapter = Adapter(memory, MemoryDisk(SECTORS))
    adapter.start()
    yield adapter
    adapter.mmio.close()


def test_the_guest_is_told_when_one_comes_and_when_it_goes(adapter: Adapter) -> None:
    adapter.scsi.set_notice(FIRST, True)
    adapter.scsi.set_notice(FIRST, True)
    adapter.scsi.set_notice(FIRST, False)
    assert adapter.events(2) == [(1, FIRST, 1), (1, FIRST, 2)]
    assert adapter.do(TEST_UNIT_READY, target=FIRST) == (BAD_TARGET, GOOD)


def test_it_is_a_processor_with_one_unit_and_nothing_else(adapter: Adapter) -> None:
    adapter.scsi.set_notice(FIRST + 2, True)
    where = {"target": FIRST + 2}
    assert adapter.do(INQUIRY, [(DATA, 96, WRITE)], **where) == (OK, GOOD)
    data = adapter.memory.read(DATA, 36)
    assert (data[0], data[8:16], data[16:32]) == (3, b"CELAJE  ", b"DEVICE SLOT     ")
    assert adapter.do(REPORT_LUNS, [(DATA, 64, WRITE)], **where) == (OK, GOOD)
    assert adapter.memory.read(DATA, 16) == bytes([0, 0, 0, 8, *bytes(12)])
    assert adapter.do(TEST_UNIT_READY, **where) == (OK, GOOD)
    assert adapter.do(read(0), [(DATA, 512, WRITE)], **where) == (OK, CHECK_CONDITION)
    assert adapter.do(bytes([0x12, 1, 0x80, 0, 96, 0]), [(DATA, 96, WRITE)], **where) == (OK, CHECK_CONDITION)
    assert adapter.send(INQUIRY, [(DATA, 96, WRITE)], lun(FIRST + 2, unit=1))[:2] == (OK, GOOD)
    assert adapter.memory.read(DATA, 1) == b"\x7f"


def test_buffers_that_are_too_short_are_an_overrun(adapter: Adapter) -> None:
    adapter.scsi.set_notice(FIRST, True)
    assert adapter.do(INQUIRY, [(DATA, 8, WRITE)], target=FIRST)[0] in (OVERRUN, OK)


def test_disks_and_notices_have_different_targets(adapter: Adapter) -> None:
    with pytest.raises(InputError, match="a disk at target 0"):
        adapter.scsi.set_notice(0, True)
    adapter.scsi.set_notice(1, True)
    assert adapter.scsi.attach(MemoryDisk(SECTORS)) == 2
