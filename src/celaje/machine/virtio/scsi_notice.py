"""A target that says only that it is there: how a guest hears of devices that SCSI knows nothing of.

A kernel without hot-plug of its own for a bus (virtio-mmio has none) tells nobody when a device comes there. Of SCSI
targets that come and go it does, with the events that udev and mdev act on. So for each device in one of the board's
slots (slot.py) the SCSI host has a target of the type "processor", FIRST and the slot's number, without storage and
without a driver. Guests that do not know what it is for leave it alone.
"""

from __future__ import annotations

from celaje.machine.virtio import scsi_command as scsi
from celaje.machine.virtio.block_backend import Buffers
from celaje.machine.virtio.scsi_command import word16, word32
from celaje.machine.virtio.scsi_disk import Outcome, reply
from celaje.machine.virtio.scsi_pages import notice_inquiry

FIRST = 50
"""The target of slot 0; celaje's images know it."""
LUNS = bytes([0, 0, 0, 8, *bytes(4), *bytes(8)])


def perform_notice(cdb: bytes, data_in: Buffers) -> Outcome:
    """What such a target answers to a command. Overrun where the buffers are too short."""
    if cdb[0] == scsi.INQUIRY and not cdb[1] and not cdb[2]:
        return Outcome(scsi.GOOD, b"", reply(data_in, notice_inquiry(), word16(cdb, 3)))
    if cdb[0] == scsi.REPORT_LUNS:
        return Outcome(scsi.GOOD, b"", reply(data_in, LUNS, word32(cdb, 6)))
    if cdb[0] == scsi.TEST_UNIT_READY:
        return Outcome(scsi.GOOD, b"", 0)
    if cdb[0] == scsi.REQUEST_SENSE and not cdb[1]:
        return Outcome(scsi.GOOD, b"", reply(data_in, scsi.NO_SENSE.data, cdb[4]))
    return Outcome(scsi.CHECK_CONDITION, scsi.INVALID_OPCODE.data, 0)
