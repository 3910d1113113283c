"""What a SCSI host device keeps of each of its disks: which commands wait, which one is in hand."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from celaje.machine.offers import Experience
from celaje.machine.virtio import scsi_command as scsi
from celaje.machine.virtio.device import Doorbell
from celaje.machine.virtio.queue import Chain, Queue
from celaje.machine.virtio.scsi_command import Overrun
from celaje.machine.virtio.scsi_disk import Outcome, ScsiDisk, perform_absent


@dataclass(slots=True, eq=False)
class Request:
    """A command and where it came from. `length`: bytes in whichever of the data buffers there are."""

    queue: Queue
    chain: Chain
    lun: bytes
    tag: bytes
    cdb: bytes
    response: list[memoryview]
    length: int

    def is_write_of(self, most: int, disk: ScsiDisk) -> bool:
        """Whether it does no more than to put up to `most` bytes into the host's page cache."""
        cdb = self.cdb
        durable = cdb[0] != scsi.WRITE_6 and cdb[1] & scsi.FLAG_FUA
        return cdb[0] in scsi.WRITES and self.length <= most and not durable and disk.writes_at_once(cdb)

    def perform(self, disk: ScsiDisk | None) -> Outcome | None:
        """Do it; None if its buffers are too short. `disk`: None where the target has no such unit."""
        chain = self.chain
        try:
            if disk is None:
                return perform_absent(self.cdb, chain.writable)
            return disk.perform(self.cdb, chain.readable, chain.writable)
        except Overrun:
            return None


@dataclass(slots=True, eq=False)
class Task:
    """A task management function that waits for the command in hand."""

    queue: Queue
    chain: Chain
    response: memoryview


@dataclass(slots=True, eq=False)
class Unit:
    """A disk and its commands: those that wait, the one in hand, the functions to answer when that is done."""

    target: int
    disk: ScsiDisk
    waiting: deque[Request] = field(default_factory=deque)
    current: Request | None = None
    tasks: list[Task] = field(default_factory=list)
    doorbell: Doorbell = field(default_factory=Doorbell)
    experience: Experience = field(default_factory=Experience)
    """Of offers to harts."""
    leaving: bool = False
    flushed: bool = False
    """Flushed since it is leaving."""
    ended: bool = False

    @property
    def idle(self) -> bool:
        """Whether no command is waiting or in hand."""
        return self.current is None and not self.waiting
