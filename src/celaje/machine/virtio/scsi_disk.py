"""A disk as a SCSI target sees it: one logical unit, a direct access block device (SPC-4, SBC-3, SAM-5).

It knows nothing of virtio: a command descriptor block and buffers come in, a status, sense data and a count go out.
Blocks have 512 bytes, eight of them lie in one physical block. What a backend cannot do on the spot it may wait for, so
commands are performed on a thread that may wait; `at_once` says which need no thread.

Refusals are CHECK CONDITION with sense data (4.5 of SPC-4; the codes are in `scsi_command`):

    unknown command            ILLEGAL REQUEST  invalid command operation code, field pointer to byte 0
    a field we cannot do       ILLEGAL REQUEST  invalid field in CDB (or in parameter list), field pointer to it
    blocks beyond the end      ILLEGAL REQUEST  logical block address out of range
    a change of a read-only    DATA PROTECT     write protected
    the host's disk is full    DATA PROTECT     space allocation failed write protect: ENOSPC in a Linux guest
    the host cannot read       MEDIUM ERROR     unrecovered read error
    the host cannot write      MEDIUM ERROR     write error
    anything else of the host  HARDWARE ERROR   internal target failure
    something happened before  UNIT ATTENTION   power on, reset, capacity data has changed, reported LUNs have changed

A unit attention (SAM-5, 5.14) meets the first command after it, except INQUIRY and REPORT LUNS; REQUEST SENSE takes it.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from celaje.machine.virtio import scsi_command as scsi
from celaje.machine.virtio.block_backend import (
    SECTOR_SIZE,
    BlockBackend,
    Buffers,
    failed_request,
    kind_of,
    section,
    total,
)
from celaje.machine.virtio.framing import scatter
from celaje.machine.virtio.scsi_command import Overrun, Refused, Sense, block_range, invalid_field, word16, word32
from celaje.machine.virtio.scsi_pages import (
    MAX_RANGE_BLOCKS,
    MAX_UNMAP_RANGES,
    Identity,
    inquiry,
    mode_pages,
    vital_product_data,
)

log = logging.getLogger(__name__)

PHYSICAL_BLOCK_EXPONENT = 3
CHUNK = 1 << 20
MAX_ATTENTIONS = 8
UNMAP_HEADER = 8
UNMAP_DESCRIPTOR = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: SCSI status, sense data (empty with GOOD), bytes that went either way."""

    status: int
    sense: bytes
    transferred: int


@dataclass(frozen=True, slots=True)
class Command:
    """One operation: what does it, and which bits of its CDB it looks at (SPC-4, 6.35.3), the code's byte first."""

    perform: Callable[[ScsiDisk, bytes, Buffers, Buffers], int]
    usage: bytes
    waits: bool = False
    """Whether it may wait for the backend."""


class ScsiDisk:
    """The logical unit with the contents of `backend`. Calls come one at a time, but for `attend`."""

    def __init__(self, backend: BlockBackend) -> None:
        self.backend = backend
        self.capacity = backend.size // SECTOR_SIZE
        """Blocks that the driver has been told of, or will be."""
        self.attentions: deque[Sense] = deque(maxlen=MAX_ATTENTIONS)
        self._identity = Identity(backend.serial, backend.read_only)
        self._reported: set[object] = set()
        self.attend(scsi.POWER_ON)

    def attend(self, sense: Sense) -> None:
        """Establish a unit attention. From any thread."""
        if sense not in self.attentions:
            self.attentions.append(sense)

    def look_at_size(self) -> bool:
        """Take over the backend's size where it has changed; whether it has."""
        blocks = self.backend.size // SECTOR_SIZE
        if blocks == self.capacity:
            return False
        self.capacity = blocks
        self.attend(scsi.CAPACITY_CHANGED)
        return True

    def at_once(self, cdb: bytes) -> bool:
        """Whether the command touches no backend."""
        command = COMMANDS.get(cdb[0])
        return command is None or not command.waits

    def read_at_once(self, cdb: bytes, data_in: Buffers) -> bool:
        """Perform a read whose data the backend has at hand: True. False leaves it to `perform`."""
        lba, blocks = block_range(cdb)
        length = blocks * SECTOR_SIZE
        if self.attentions or cdb[0] & 0x1F != scsi.READ_6 or lba + blocks > self.capacity or total(data_in) != length:
            return False
        if cdb[0] != scsi.READ_6 and cdb[1] & scsi.FLAG_PROTECT:
            return False
        try:
            return not blocks or self.backend.readinto_at_once(data_in, lba * SECTOR_SIZE)
        except OSError:
            return False  # the thread tries once more, and reports it

    def writes_at_once(self, cdb: bytes) -> bool:
        """Whether a command of WRITES waits for the host at most."""
        lba, blocks = block_range(cdb)
        return self.backend.writes_at_once(lba * SECTOR_SIZE, blocks * SECTOR_SIZE)

    def perform(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> Outcome:
        """Do what `cdb` (16 bytes or more) asks. Raises Overrun where it moves more than the buffers hold."""
        code = cdb[0]
        try:
            if self.attentions and code not in UNATTENDED:
                raise Refused(self.attentions.popleft())
            command = COMMANDS.get(code)
            if code in scsi.SERVICE_ACTIONS:
                command = SERVICE_ACTIONS.get((code, cdb[1] & scsi.SERVICE_ACTION))
                if command is None:
                    raise Refused(invalid_field(1))
            if command is None:
                raise Refused(scsi.INVALID_OPCODE)
            return Outcome(scsi.GOOD, b"", command.perform(self, cdb, data_out, data_in))
        except Refused as refusal:
            return Outcome(scsi.CHECK_CONDITION, refusal.sense.data, 0)
        except Overrun:
            raise
        except Exception as error:  # the host's, or a mistake of ours: unanswered, the guest would wait for ever
            self._report(error)
            return Outcome(scsi.CHECK_CONDITION, _sense_of(error, code).data, 0)

    def _report(self, error: Exception) -> None:
        """Tell the log, once for each kind: the guest decides how often its requests fail."""
        if (kind := kind_of(error)) not in self._reported:
            self._reported.add(kind)
            log.warning("%s", failed_request(self.backend, error))

    # --- blocks (SBC-3, 5) ---

    def _checked_range(self, cdb: bytes) -> tuple[int, int]:
        """(LBA, blocks) of a command, all of them on the disk."""
        if cdb[0] >> 5 and cdb[1] & scsi.FLAG_PROTECT:
            raise Refused(invalid_field(1))  # no protection information here
        lba, blocks = block_range(cdb)
        if lba + blocks > self.capacity:
            raise Refused(scsi.LBA_OUT_OF_RANGE)
        return lba, blocks

    def _writable(self) -> None:
        if self.backend.read_only:
            raise Refused(scsi.WRITE_PROTECTED)

    def _read(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        lba, blocks = self._checked_range(cdb)
        length = blocks * SECTOR_SIZE
        if length:
            self.backend.readinto(_exactly(data_in, length), lba * SECTOR_SIZE)
        return length

    def _write(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        lba, blocks = self._checked_range(cdb)
        self._writable()
        length = blocks * SECTOR_SIZE
        if length:
            self.backend.write(_exactly(data_out, length), lba * SECTOR_SIZE)
        if cdb[0] != scsi.WRITE_6 and cdb[1] & scsi.FLAG_FUA:
            self.backend.flush()
        return length

    def _verify(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """The medium is the host's, which checks it in its own way; only the range is looked at (BYTCHK 0)."""
        if cdb[1] & 0x06:
            raise Refused(invalid_field(1))
        self._checked_range(cdb)
        return 0

    def _synchronize_cache(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """Whatever the range, all is flushed."""
        lba, blocks = block_range(cdb)
        if lba + blocks > self.capacity:
            raise Refused(scsi.LBA_OUT_OF_RANGE)
        if not self.backend.read_only:
            self.backend.flush()
        return 0

    def _write_same(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """One block of data over the whole range; UNMAP allows a hole where that block is all zero (5.46)."""
        if cdb[1] & scsi.FLAG_ANCHOR:
            raise Refused(invalid_field(1))
        lba, blocks = self._checked_range(cdb)
        if not 0 < blocks <= MAX_RANGE_BLOCKS:
            raise Refused(invalid_field(10 if cdb[0] == scsi.WRITE_SAME_16 else 7))
        self._writable()
        without = cdb[0] == scsi.WRITE_SAME_16 and cdb[1] & scsi.FLAG_NO_DATA_OUT
        block = bytes(SECTOR_SIZE) if without else b"".join(_exactly(data_out, SECTOR_SIZE))
        offset, length = lba * SECTOR_SIZE, blocks * SECTOR_SIZE
        if any(block):
            piece = memoryview(block * (min(length, CHUNK) // SECTOR_SIZE))
            for at in range(0, length, CHUNK):
                self.backend.write([piece[: length - at]], offset + at)
        else:
            self.backend.write_zeroes(offset, length, bool(cdb[1] & scsi.FLAG_UNMAP))
        return 0 if without else SECTOR_SIZE

    def _unmap(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """The ranges of a parameter list may read as anything from now on (5.28).

        | length - 2 16 | length of descriptors 16 | 0 32 |, then for each range | lba 64 | blocks 32 | 0 32 |
        """
        if cdb[1] & 0x01:  # ANCHOR
            raise Refused(invalid_field(1))
        self._writable()
        length = word16(cdb, 7)
        if not length:
            return 0
        if length < UNMAP_HEADER:
            raise Refused(scsi.PARAMETER_LENGTH)
        if length > UNMAP_HEADER + MAX_UNMAP_RANGES * UNMAP_DESCRIPTOR:
            raise Refused(invalid_field(7))
        data = b"".join(_exactly(data_out, length))
        # What is cut off at the end counts for nothing, as 5.28.2 says of both lengths.
        count = min(word16(data, 2), length - UNMAP_HEADER) // UNMAP_DESCRIPTOR
        ranges = []
        for at in range(UNMAP_HEADER, UNMAP_HEADER + count * UNMAP_DESCRIPTOR, UNMAP_DESCRIPTOR):
            lba, blocks = int.from_bytes(data[at : at + 8], "big"), word32(data, at + 8)
            if lba + blocks > self.capacity:
                raise Refused(scsi.LBA_OUT_OF_RANGE)
            if blocks > MAX_RANGE_BLOCKS:
                raise Refused(scsi.invalid_parameter(at + 8))
            ranges.append((lba, blocks))
        for lba, blocks in ranges:
            if blocks:
                self.backend.discard(lba * SECTOR_SIZE, blocks * SECTOR_SIZE)
        return length

    def _read_capacity_10(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """| last LBA, all ones if that does not say it 32 | block length 32 | (5.16)"""
        last = min(self.capacity - 1, 0xFFFF_FFFF)
        return reply(data_in, last.to_bytes(4, "big") + SECTOR_SIZE.to_bytes(4, "big"), 8)

    def _read_capacity_16(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """| last LBA 64 | block length 32 | 0 | physical block exponent | LBPME, LBPRZ, alignment | (5.17)

        LBPME says that UNMAP and its like are taken; LBPRZ, that what is unmapped reads as zeros, is not promised.
        """
        managed = 0 if self.backend.read_only else 0x80
        answer = (self.capacity - 1).to_bytes(8, "big") + SECTOR_SIZE.to_bytes(4, "big")
        answer += bytes([0, PHYSICAL_BLOCK_EXPONENT, managed, 0])
        return reply(data_in, answer.ljust(32, b"\0"), word32(cdb, 10))

    # --- every device (SPC-4, 6) ---

    def _test_unit_ready(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        return 0

    def _start_stop(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """There is nothing that spins, and nothing to eject; what is written is durable then (SBC-3, 5.25)."""
        if cdb[4] & 0xF2:  # power conditions, load and eject
            raise Refused(invalid_field(4))
        if not cdb[4] & 0x05 and not self.backend.read_only:
            self.backend.flush()
        return 0

    def _inquiry(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        if cdb[1] & 0x01:
            page = vital_product_data(self._identity, cdb[2])
            if page is None:
                raise Refused(invalid_field(2))
            return reply(data_in, page, word16(cdb, 3))
        if cdb[2] or cdb[1] & 0x02:
            raise Refused(invalid_field(2 if cdb[2] else 1))
        return reply(data_in, inquiry(), word16(cdb, 3))

    def _request_sense(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        if cdb[1] & 0x01:  # descriptor format
            raise Refused(invalid_field(1))
        sense = self.attentions.popleft() if self.attentions else scsi.NO_SENSE
        return reply(data_in, sense.data, cdb[4])

    def _report_luns(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """| bytes of the list 32 | 0 32 | LUN 64 ... |: this target has the one (6.33)."""
        if cdb[2] > 2:
            raise Refused(invalid_field(2))
        luns = b"" if cdb[2] == 1 else bytes(8)  # 1: well-known ones, of which there are none
        return reply(data_in, len(luns).to_bytes(4, "big") + bytes(4) + luns, word32(cdb, 6))

    def _mode_sense(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """A header, a block descriptor unless DBD is set, then pages (6.11, 6.12, 7.5.5).

        | length | medium 0 | WP, DPOFUA | length of descriptor |                             MODE SENSE (6)
        | length 16 | medium 0 | WP, DPOFUA | LONGLBA | 0 | length of descriptor 16 |         MODE SENSE (10)
        """
        control, page = cdb[2] >> 6, cdb[2] & 0x3F
        if control == 3:
            raise Refused(scsi.SAVING_NOT_SUPPORTED)
        pages = mode_pages(page, cdb[3], changeable=control == 1, cached=not self.backend.read_only)
        if pages is None:
            raise Refused(invalid_field(2))
        specific = (0x80 if self.backend.read_only else 0) | 0x10
        descriptor = b""
        if not cdb[1] & 0x08:
            blocks = min(self.capacity, 0xFFFF_FFFF)
            descriptor = blocks.to_bytes(4, "big") + SECTOR_SIZE.to_bytes(4, "big")
        body = descriptor + pages
        if cdb[0] == scsi.MODE_SENSE_6:
            return reply(data_in, bytes([len(body) + 3, 0, specific, len(descriptor)]) + body, cdb[4])
        header = (len(body) + 6).to_bytes(2, "big") + bytes([0, specific, 0, 0, 0, len(descriptor)])
        return reply(data_in, header + body, word16(cdb, 7))

    def _report_opcodes(self, cdb: bytes, data_out: Buffers, data_in: Buffers) -> int:
        """All commands, or whether one is supported and which bits of its CDB are looked at (6.35).

        all  | bytes 32 |, then | code | 0 | service action 16 | 0 | SERVACTV | CDB length 16 | for each
        one  | 0 | support: 1 none, 3 as the standard says | CDB length 16 | usage ... |
        """
        allocation, option = word32(cdb, 6), cdb[2] & 0x07
        if cdb[2] & 0x80 or option > 3:  # timeouts are not known
            raise Refused(invalid_field(2))
        if option == 0:
            every = [(code, 0, 0, command) for code, command in COMMANDS.items() if code not in scsi.SERVICE_ACTIONS]
            every += [(code, action, 1, command) for (code, action), command in SERVICE_ACTIONS.items()]
            entries = b"".join(
                bytes([code, 0, 0, action, 0, has_action, 0, len(command.usage)])
                for code, action, has_action, command in every
            )
            return reply(data_in, len(entries).to_bytes(4, "big") + entries, allocation)
        code, action = cdb[3], word16(cdb, 4)
        has_actions = code in scsi.SERVICE_ACTIONS
        if (option == 1 and has_actions) or (option == 2 and not has_actions):
            raise Refused(invalid_field(2))
        command = SERVICE_ACTIONS.get((code, action)) if has_actions else COMMANDS.get(code)
        if command is None or (not has_actions and action):
            return reply(data_in, bytes([0, 1, 0, 0]), allocation)
        return reply(data_in, bytes([0, 3, 0, len(command.usage)]) + command.usage, allocation)


def perform_absent(cdb: bytes, data_in: Buffers) -> Outcome:
    """What a target answers for a logical unit that it does not have (SPC-4, 6.6.2; SAM-5, 5.11)."""
    if cdb[0] == scsi.INQUIRY and not cdb[1] and not cdb[2]:
        return Outcome(scsi.GOOD, b"", reply(data_in, inquiry(present=False), word16(cdb, 3)))
    if cdb[0] == scsi.REQUEST_SENSE and not cdb[1]:
        return Outcome(scsi.GOOD, b"", reply(data_in, scsi.LUN_NOT_SUPPORTED.data, cdb[4]))
    return Outcome(scsi.CHECK_CONDITION, scsi.LUN_NOT_SUPPORTED.data, 0)


def _sense_of(error: Exception, code: int) -> Sense:
    if not isinstance(error, OSError):
        return scsi.INTERNAL_FAILURE
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return scsi.NO_SPACE
    if error.errno == errno.EIO:
        return scsi.UNRECOVERED_READ if code & 0x1F == scsi.READ_6 else scsi.WRITE_ERROR
    return scsi.INTERNAL_FAILURE


def _exactly(buffers: Buffers, length: int) -> Buffers:
    """The first `length` bytes of `buffers`. Overrun if there are not so many."""
    have = total(buffers)
    if have < length:
        raise Overrun(f"a command moves {length} bytes, its buffers hold {have}")
    return buffers if have == length else section(buffers, 0, length)


def reply(data_in: Buffers, answer: bytes, allocation: int) -> int:
    """Put `answer` into the buffers, as much of it as the CDB's allocation length admits. Returns how much."""
    answer = answer[:allocation]
    if not answer:
        return 0
    scatter(_exactly(data_in, len(answer)), answer)
    return len(answer)


_D = ScsiDisk
_hex = bytes.fromhex
UNATTENDED = frozenset((scsi.INQUIRY, scsi.REPORT_LUNS, scsi.REQUEST_SENSE))

# fmt: off
COMMANDS: dict[int, Command] = {
    scsi.TEST_UNIT_READY:      Command(_D._test_unit_ready,   _hex("00 00 00 00 00 00")),
    scsi.REQUEST_SENSE:        Command(_D._request_sense,     _hex("03 01 00 00 ff 00")),
    scsi.READ_6:               Command(_D._read,              _hex("08 1f ff ff ff 00"), waits=True),
    scsi.WRITE_6:              Command(_D._write,             _hex("0a 1f ff ff ff 00"), waits=True),
    scsi.INQUIRY:              Command(_D._inquiry,           _hex("12 03 ff ff ff 00")),
    scsi.MODE_SENSE_6:         Command(_D._mode_sense,        _hex("1a 08 ff ff ff 00")),
    scsi.START_STOP_UNIT:      Command(_D._start_stop,        _hex("1b 01 00 00 f7 00"), waits=True),
    scsi.READ_CAPACITY_10:     Command(_D._read_capacity_10,  _hex("25 00 00 00 00 00 00 00 00 00")),
    scsi.READ_10:              Command(_D._read,              _hex("28 f8 ff ff ff ff 00 ff ff 00"), waits=True),
    scsi.WRITE_10:             Command(_D._write,             _hex("2a f8 ff ff ff ff 00 ff ff 00"), waits=True),
    scsi.VERIFY_10:            Command(_D._verify,            _hex("2f f6 ff ff ff ff 00 ff ff 00")),
    scsi.SYNCHRONIZE_CACHE_10: Command(_D._synchronize_cache, _hex("35 02 ff ff ff ff 00 ff ff 00"), waits=True),
    scsi.WRITE_SAME_10:        Command(_D._write_same,        _hex("41 f8 ff ff ff ff 00 ff ff 00"), waits=True),
    scsi.UNMAP:                Command(_D._unmap,             _hex("42 01 00 00 00 00 00 ff ff 00"), waits=True),
    scsi.MODE_SENSE_10:        Command(_D._mode_sense,        _hex("5a 18 ff ff 00 00 00 ff ff 00")),
    scsi.READ_16:              Command(_D._read,   _hex("88f8ffffffffffffffffffffffff0000"), waits=True),
    scsi.WRITE_16:             Command(_D._write,  _hex("8af8ffffffffffffffffffffffff0000"), waits=True),
    scsi.VERIFY_16:            Command(_D._verify, _hex("8ff6ffffffffffffffffffffffff0000")),
    scsi.SYNCHRONIZE_CACHE_16: Command(_D._synchronize_cache, _hex("9102ffffffffffffffffffffffff0000"), waits=True),
    scsi.WRITE_SAME_16: Command(_D._write_same, _hex("93f9ffffffffffffffffffffffff0000"), waits=True),
    scsi.REPORT_LUNS:          Command(_D._report_luns,       _hex("a000ff000000ffffffff0000")),
    scsi.READ_12:              Command(_D._read,              _hex("a8f8ffffffffffffffff0000"), waits=True),
    scsi.WRITE_12:             Command(_D._write,             _hex("aaf8ffffffffffffffff0000"), waits=True),
}
SERVICE_ACTIONS: dict[tuple[int, int], Command] = {
    (scsi.SERVICE_ACTION_IN_16, scsi.READ_CAPACITY_16):
        Command(_D._read_capacity_16, _hex("9e1f0000000000000000ffffffff0000")),
    (scsi.MAINTENANCE_IN, scsi.REPORT_OPCODES):
        Command(_D._report_opcodes, _hex("a31f87ffffffffffffff0000")),
}
# fmt: on
