"""SCSI commands as bytes: what a command descriptor block says, and the sense data that refuses it.

A command descriptor block (CDB; SPC-4, 4.2) starts with its operation code. Where the logical block address (LBA) and
the number of blocks stand depends only on its length, which the code tells (SBC-3, 5); numbers are big-endian:

    ( 6)  | code | 0 0 0 lba[20:16] | lba[15:0] | length 8 | control |                a length of 0 is 256 blocks
    (10)  | code | flags | lba 32 | group | length 16 | control |
    (12)  | code | flags | lba 32 | length 32 | group | control |
    (16)  | code | flags | lba 64 | length 32 | group | control |
    flags   | protect 3 | DPO | FUA | ...      of reads and writes
            | protect 3 | anchor | UNMAP | ... NDOB in bit 0 of (16)    of WRITE SAME

Sense data in fixed format (SPC-4, 4.5.3), 18 bytes, which is all that this target uses:

     0  | 0x70: current, and `information` is not valid |
     2  | sense key 4 bits |
     7  | 10: bytes that follow |
    12  | additional sense code (ASC) | its qualifier (ASCQ) |
    15  | SKSV, C/D, BPV, bit pointer | field pointer 16 |     which byte of the CDB was wrong (4.5.2.4.2)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

# fmt: off
TEST_UNIT_READY      = 0x00
REQUEST_SENSE        = 0x03
READ_6               = 0x08
WRITE_6              = 0x0A
INQUIRY              = 0x12
MODE_SENSE_6         = 0x1A
START_STOP_UNIT      = 0x1B
READ_CAPACITY_10     = 0x25
READ_10              = 0x28
WRITE_10             = 0x2A
VERIFY_10            = 0x2F
SYNCHRONIZE_CACHE_10 = 0x35
WRITE_SAME_10        = 0x41
UNMAP                = 0x42
MODE_SENSE_10        = 0x5A
READ_16              = 0x88
WRITE_16             = 0x8A
VERIFY_16            = 0x8F
SYNCHRONIZE_CACHE_16 = 0x91
WRITE_SAME_16        = 0x93
SERVICE_ACTION_IN_16 = 0x9E
REPORT_LUNS          = 0xA0
MAINTENANCE_IN       = 0xA3
READ_12              = 0xA8
WRITE_12             = 0xAA

READ_CAPACITY_16     = 0x10  # a service action of SERVICE_ACTION_IN_16
REPORT_OPCODES       = 0x0C  # a service action of MAINTENANCE_IN

GOOD                 = 0x00  # status codes: SAM-5, 5.3
CHECK_CONDITION      = 0x02
# fmt: on

WRITES = frozenset((WRITE_6, WRITE_10, WRITE_12, WRITE_16))
SERVICE_ACTIONS = (SERVICE_ACTION_IN_16, MAINTENANCE_IN)
SERVICE_ACTION = 0x1F
FLAG_PROTECT = 0xE0
FLAG_FUA = 0x08
FLAG_UNMAP = 0x08
FLAG_ANCHOR = 0x10
FLAG_NO_DATA_OUT = 0x01

_sense = struct.Struct(">BxB4xB4xBBxBH").pack
_word32 = struct.Struct(">I").unpack_from
_words_10 = struct.Struct(">IxH").unpack_from
_words_12 = struct.Struct(">II").unpack_from
_words_16 = struct.Struct(">QI").unpack_from


@dataclass(frozen=True, slots=True)
class Sense:
    """Why a command was refused, or what happened before it: sense key, additional sense code and qualifier.

    `field`: the first byte of the CDB (or, with `in_parameters`, of the parameter list) that is wrong.
    """

    key: int
    code: int
    qualifier: int = 0
    field: int | None = None
    in_parameters: bool = False

    @property
    def data(self) -> bytes:
        """Fixed format, 18 bytes."""
        specific = 0
        if self.field is not None:
            specific = 0x80 if self.in_parameters else 0xC0
        return _sense(0x70, self.key, 10, self.code, self.qualifier, specific, self.field or 0)


# fmt: off
NO_SENSE            = Sense(0x0, 0x00)
UNRECOVERED_READ    = Sense(0x3, 0x11)
WRITE_ERROR         = Sense(0x3, 0x0C)
INTERNAL_FAILURE    = Sense(0x4, 0x44)
INVALID_OPCODE      = Sense(0x5, 0x20, field=0)
LBA_OUT_OF_RANGE    = Sense(0x5, 0x21)
LUN_NOT_SUPPORTED   = Sense(0x5, 0x25)
SAVING_NOT_SUPPORTED = Sense(0x5, 0x39)
PARAMETER_LENGTH    = Sense(0x5, 0x1A)
POWER_ON            = Sense(0x6, 0x29, 0x00)
DEVICE_RESET        = Sense(0x6, 0x29, 0x03)
NEXUS_LOSS          = Sense(0x6, 0x29, 0x07)
CAPACITY_CHANGED    = Sense(0x6, 0x2A, 0x09)
LUNS_CHANGED        = Sense(0x6, 0x3F, 0x0E)
WRITE_PROTECTED     = Sense(0x7, 0x27, 0x00)
NO_SPACE            = Sense(0x7, 0x27, 0x07)  # space allocation failed; Linux makes ENOSPC of it
# fmt: on


def invalid_field(byte: int) -> Sense:
    """INVALID FIELD IN CDB: byte `byte` of it."""
    return Sense(0x5, 0x24, field=byte)


def invalid_parameter(byte: int) -> Sense:
    """INVALID FIELD IN PARAMETER LIST: byte `byte` of it."""
    return Sense(0x5, 0x26, field=byte, in_parameters=True)


class Refused(Exception):
    """A command ends with CHECK CONDITION and `sense`. Caught where the command was begun."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(sense)
        self.sense = sense


class Overrun(Exception):
    """A command needs more data than the driver has given buffers for. Caught where the command was begun."""


def _range_6(cdb: bytes) -> tuple[int, int]:
    return _word32(cdb, 0)[0] & 0x1F_FFFF, cdb[4] or 256


# By the three upper bits of the operation code (SPC-4, 4.2.5.1), which say how long the CDB is.
_RANGES: dict[int, Callable[[bytes], tuple[int, int]]] = {
    0: _range_6,
    1: lambda cdb: _words_10(cdb, 2),
    2: lambda cdb: _words_10(cdb, 2),
    4: lambda cdb: _words_16(cdb, 2),
    5: lambda cdb: _words_12(cdb, 2),
}


def block_range(cdb: bytes) -> tuple[int, int]:
    """(LBA, number of blocks) of a command on blocks, at least 16 bytes of CDB."""
    return _RANGES[cdb[0] >> 5](cdb)


def word16(data: bytes, at: int) -> int:
    """The big-endian 16 bits at byte `at`."""
    return int.from_bytes(data[at : at + 2], "big")


def word32(data: bytes, at: int) -> int:
    """The big-endian 32 bits at byte `at`."""
    return int.from_bytes(data[at : at + 4], "big")
