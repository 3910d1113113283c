"""The SCSI target: commands as bytes in, data and sense out."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.machine.virtio import scsi_command as scsi
from celaje.machine.virtio.scsi_command import Overrun
from celaje.machine.virtio.scsi_disk import COMMANDS, SERVICE_ACTIONS, ScsiDisk, perform_absent
from tests.machine.virtio.memory_disk import MemoryDisk, pattern

SECTORS = 256
NO_SENSE, MEDIUM, HARDWARE, ILLEGAL, ATTENTION, PROTECT = 0, 3, 4, 5, 6, 7


class Initiator:
    """Sends commands to a disk whose unit attention of power-on has been taken."""

    def __init__(self, backend: MemoryDisk) -> None:
        self.backend = backend
        self.disk = ScsiDisk(backend)
        self.disk.attentions.clear()

    def send(self, cdb: bytes | str, data_out: bytes = b"", room: int = 0) -> tuple[int, bytes]:
        """(status, data in); sense data is kept in `sense`."""
        cdb = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        data_in = bytearray(room)
        # In pieces, as a guest's pages are.
        pieces_in = [memoryview(data_in)[at : at + 100] for at in range(0, room, 100)]
        pieces_out = [memoryview(data_out)[at : at + 300] for at in range(0, len(data_out), 300)]
        outcome = self.disk.perform(cdb.ljust(16, b"\0"), pieces_out, pieces_in)
        self.sense = outcome.sense
        return outcome.status, bytes(data_in[: outcome.transferred])

    def data(self, cdb: bytes | str, room: int) -> bytes:
        status, data = self.send(cdb, room=room)
        assert (status, self.sense) == (scsi.GOOD, b"")
        return data

    def good(self, cdb: bytes | str, data_out: bytes = b"") -> None:
        assert self.send(cdb, data_out) == (scsi.GOOD, b"")

    def refused(self, cdb: bytes | str, data_out: bytes = b"", room: int = 0) -> tuple[int, int, int]:
        """(sense key, code, qualifier) of a command that is not done."""
        status, data = self.send(cdb, data_out, room)
        assert (status, data) == (scsi.CHECK_CONDITION, b"")
        assert len(self.sense) == 18
        assert (self.sense[0], self.sense[7]) == (0x70, 10)
        return self.sense[2], self.sense[12], self.sense[13]

    @property
    def wrong_byte(self) -> int | None:
        """Where the last sense data says that the CDB is wrong (None: it does not say)."""
        return int.from_bytes(self.sense[16:18], "big") if self.sense[15] & 0xC0 == 0xC0 else None


@pytest.fixture
def backend() -> MemoryDisk:
    return MemoryDisk(SECTORS)


@pytest.fixture
def disk(backend: MemoryDisk) -> Initiator:
    return Initiator(backend)


READS = {
    "6": lambda lba, count: struct.pack(">IBB", 0x08 << 24 | lba, count & 0xFF, 0),
    "10": lambda lba, count: struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0),
    "12": lambda lba, count: struct.pack(">BBIIBB", 0xA8, 0, lba, count, 0, 0),
    "16": lambda lba, count: struct.pack(">BBQIBB", 0x88, 0, lba, count, 0, 0),
}
WRITES = {
    "6": lambda lba, count: struct.pack(">IBB", 0x0A << 24 | lba, count & 0xFF, 0),
    "10": lambda lba, count: struct.pack(">BBIBHB", 0x2A, 0, lba, 0, count, 0),
    "12": lambda lba, count: struct.pack(">BBIIBB", 0xAA, 0, lba, count, 0, 0),
    "16": lambda lba, count: struct.pack(">BBQIBB", 0x8A, 0, lba, count, 0, 0),
}


@pytest.mark.parametrize("size", READS)
def test_reads_of_every_length_bring_the_blocks_asked_for(disk: Initiator, size: str) -> None:
    assert disk.data(READS[size](3, 5), 5 * 512) == pattern(3, 5)
    assert disk.data(READS[size](SECTORS - 1, 1), 512) == pattern(SECTORS - 1)


@pytest.mark.parametrize("size", WRITES)
def test_writes_of_every_length_change_the_blocks_named_and_no_others(disk: Initiator, size: str) -> None:
    data = bytes(range(256)) * 6
    disk.good(WRITES[size](9, 3), data)
    assert disk.data(READS["10"](8, 5), 5 * 512) == pattern(8) + data + pattern(12)


def test_a_length_of_zero_is_256_blocks_in_the_shortest_form_and_none_in_the_others(disk: Initiator) -> None:
    assert disk.data(READS["6"](0, 0), SECTORS * 512) == pattern(0, SECTORS)
    for size in ("10", "12", "16"):
        assert disk.data(READS[size](0, 0), 0) == b""
        disk.good(WRITES[size](0, 0))


@pytest.mark.parametrize("commands", [READS, WRITES], ids=["read", "write"])
@pytest.mark.parametrize("size", ["10", "12", "16"])
@pytest.mark.parametrize(("lba", "count"), [(SECTORS, 1), (SECTORS - 1, 2), (0xFFFF_FFFF, 0xFFFF)])
def test_blocks_beyond_the_end_are_out_of_range(
    disk: Initiator, commands: dict[str, object], size: str, lba: int, count: int
) -> None:
    cdb = (READS if commands is READS else WRITES)[size](lba, count)
    assert disk.refused(cdb) == (ILLEGAL, 0x21, 0)
    assert disk.backend.data == pattern(0, SECTORS)


def test_a_block_beyond_32_bits_is_out_of_range(disk: Initiator) -> None:
    assert disk.refused(READS["16"]((1 << 64) - 1, 0xFFFF_FFFF)) == (ILLEGAL, 0x21, 0)


def test_a_command_of_more_data_than_its_buffers_hold_is_an_overrun(disk: Initiator) -> None:
    with pytest.raises(Overrun, match="1024 bytes, its buffers hold 512"):
        disk.send(READS["10"](0, 2), room=512)
    with pytest.raises(Overrun):
        disk.send(WRITES["10"](0, 2), bytes(512))
    assert disk.backend.data == pattern(0, SECTORS)


def test_of_buffers_that_hold_more_the_rest_is_left_alone(disk: Initiator) -> None:
    assert disk.data(READS["10"](7, 1), 2048) == pattern(7)


def test_a_forced_write_is_flushed_and_an_ordinary_one_is_not(disk: Initiator) -> None:
    disk.good("2a 00 00000001 00 0001 00", bytes(512))
    assert disk.backend.flushes == 0
    disk.good("2a 08 00000001 00 0001 00", bytes(512))
    disk.good("8a 08 0000000000000001 00000001 0000", bytes(512))
    assert disk.backend.flushes == 2


@pytest.mark.parametrize("cdb", ["28 20 00000000 00 0001", "2a e0 00000000 00 0001", "41 20 00000000 00 0001"])
def test_protection_information_is_refused(disk: Initiator, cdb: str) -> None:
    assert disk.refused(cdb, b"" if cdb.startswith("28") else bytes(512)) == (ILLEGAL, 0x24, 0)
    assert disk.wrong_byte == 1


def test_synchronize_cache_flushes(disk: Initiator) -> None:
    disk.good("35 00 00000000 00 0000")
    disk.good("91 00 0000000000000000 00000000")
    assert disk.backend.flushes == 2
    assert disk.refused("35 00 00000100 00 0001") == (ILLEGAL, 0x21, 0)


def test_capacity_is_told_in_both_lengths(disk: Initiator) -> None:
    assert disk.data("25", 8) == struct.pack(">II", SECTORS - 1, 512)
    data = disk.data("9e 10 0000000000000000 00000020", 32)
    assert struct.unpack(">QIBBH", data[:16]) == (SECTORS - 1, 512, 0, 3, 0x8000)
    assert len(data) == 32


def test_a_disk_too_large_for_the_short_form_says_so(disk: Initiator) -> None:
    disk.disk.capacity = (1 << 32) + 1
    assert disk.data("25", 8)[:4] == b"\xff\xff\xff\xff"
    assert disk.data("9e 10 0000000000000000 00000020", 32)[:8] == (1 << 32).to_bytes(8, "big")


def test_inquiry_tells_what_it_is(disk: Initiator) -> None:
    data = disk.data("12 00 00 0060 00", 96)
    assert (data[0], data[2], data[3] & 0xF, data[4]) == (0, 6, 2, len(data) - 5)
    assert data[8:36] == b"CELAJE  VOLUME          1   "
    assert len(disk.data("12 00 00 0024 00", 255)) == 36
    assert disk.refused("12 00 80 0060 00", room=96) == (ILLEGAL, 0x24, 0)
    assert disk.wrong_byte == 2


def page(disk: Initiator, code: int) -> bytes:
    data = disk.data(bytes([0x12, 1, code, 0x10, 0, 0]), 4096)
    assert data[:2] == bytes([0, code])
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data[4:]


def test_every_vital_product_data_page_that_is_listed_is_there(disk: Initiator) -> None:
    listed = page(disk, 0)
    assert list(listed) == [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2]
    for code in listed:
        page(disk, code)
    assert disk.refused("12 01 b3 00ff 00", room=255) == (ILLEGAL, 0x24, 0)


def test_the_serial_number_is_the_backends(disk: Initiator) -> None:
    assert page(disk, 0x80) == b"vol0123456789abcdef0"
    assert page(disk, 0x83) == bytes([0x02, 0x01, 0, 28]) + b"CELAJE  vol0123456789abcdef0"


def test_limits_and_provisioning_are_told(disk: Initiator) -> None:
    limits = page(disk, 0xB0)
    assert len(limits) == 60
    wsnz, _, granularity = struct.unpack_from(">BBH", limits)
    blocks, descriptors, unmap_granularity = struct.unpack_from(">III", limits, 16)
    assert (wsnz, granularity, blocks, descriptors, unmap_granularity) == (1, 8, 1 << 22, 16, 8)
    assert struct.unpack_from(">Q", limits, 32) == (1 << 22,)
    assert page(disk, 0xB1)[:2] == b"\0\1"
    assert page(disk, 0xB2) == bytes([0, 0xE0, 2, 0])


def test_mode_pages_say_that_writes_are_cached_and_may_be_forced(disk: Initiator) -> None:
    data = disk.data("1a 00 3f 00 ff 00", 255)
    assert data[0] == len(data) - 1
    assert (data[2], data[3]) == (0x10, 8)
    assert data[4:12] == struct.pack(">II", SECTORS, 512)
    assert (data[12], data[13], data[14]) == (0x08, 18, 0x04)
    assert data[32:34] == bytes([0x0A, 10])
    assert disk.data("1a 08 08 00 ff 00", 255)[4:7] == bytes([0x08, 18, 0x04])
    long = disk.data("5a 08 08 00 000000 00ff 00", 255)
    assert int.from_bytes(long[:2], "big") == len(long) - 2
    assert (long[3], long[8]) == (0x10, 0x08)
    assert disk.data("1a 08 48 00 ff 00", 255)[6] == 0, "nothing may be changed"


@pytest.mark.parametrize(
    ("cdb", "code"), [("1a 08 03 00 ff", 0x24), ("1a 08 08 01 ff", 0x24), ("1a 08 c8 00 ff", 0x39)]
)
def test_mode_pages_that_there_are_not_are_refused(disk: Initiator, cdb: str, code: int) -> None:
    assert disk.refused(cdb, room=255) == (ILLEGAL, code, 0)


def test_a_read_only_disk_says_so_and_refuses_every_change() -> None:
    disk = Initiator(MemoryDisk(SECTORS, read_only=True))
    assert disk.data("1a 08 08 00 ff 00", 255)[2:7] == bytes([0x90, 0, 0x08, 18, 0])
    assert disk.data("9e 10 0000000000000000 00000020", 32)[14] == 0
    assert page(disk, 0xB2) == bytes(4)
    for cdb, data in [
        (WRITES["10"](0, 1), bytes(512)),
        (bytes.fromhex("93000000000000000000000000010000"), bytes(512)),
        (bytes.fromhex("42000000000000001800"), bytes(24)),
    ]:
        assert disk.refused(cdb, data) == (PROTECT, 0x27, 0)
    disk.good("35")
    assert disk.backend.flushes == 0


def unmap(*ranges: tuple[int, int]) -> tuple[bytes, bytes]:
    body = b"".join(struct.pack(">QII", lba, blocks, 0) for lba, blocks in ranges)
    data = struct.pack(">HHI", len(body) + 6, len(body), 0) + body
    return struct.pack(">BB5xHB", 0x42, 0, len(data), 0), data


def test_unmap_discards_its_ranges(disk: Initiator) -> None:
    disk.good(*unmap((8, 16), (40, 0), (SECTORS - 1, 1)))
    assert disk.backend.discarded == [(8 * 512, 16 * 512), ((SECTORS - 1) * 512, 512)]
    disk.good("42 00 0000000000 0000 00")
    assert len(disk.backend.discarded) == 2


@pytest.mark.parametrize(
    ("cdb", "data", "refused"),
    [
        (*unmap((0, 8), (SECTORS, 1)), (ILLEGAL, 0x21, 0)),
        (*unmap((0, 8), ((1 << 64) - 1, 2)), (ILLEGAL, 0x21, 0)),
        (*unmap(*[(0, 1)] * 17), (ILLEGAL, 0x24, 0)),
        (bytes.fromhex("42 00 0000000000 0004 00"), bytes(4), (ILLEGAL, 0x1A, 0)),
    ],
    ids=["beyond the end", "far beyond", "too many", "no header"],
)
def test_a_wrong_range_stops_the_whole_unmap(
    disk: Initiator, cdb: bytes, data: bytes, refused: tuple[int, int, int]
) -> None:
    assert disk.refused(cdb, data) == refused
    assert disk.backend.discarded == []


def test_an_unmap_whose_lengths_disagree_does_what_is_whole(disk: Initiator) -> None:
    data = struct.pack(">HHI", 100, 90, 0) + struct.pack(">QII", 8, 8, 0) + bytes(7)
    disk.good(struct.pack(">BB5xHB", 0x42, 0, len(data), 0), data)
    assert disk.backend.discarded == [(8 * 512, 8 * 512)]


def test_write_same_writes_zeroes_with_and_without_a_hole(disk: Initiator) -> None:
    disk.good("41 00 00000003 00 0014 00", bytes(512))
    disk.good("93 08 0000000000000028 00000001 0000", bytes(512))
    disk.good("93 09 0000000000000030 00000002 0000")
    assert disk.backend.zeroed == [(3 * 512, 20 * 512, False), (40 * 512, 512, True), (48 * 512, 1024, True)]


def test_write_same_repeats_a_block_that_is_not_zero(disk: Initiator) -> None:
    block = bytes(511) + b"x"
    disk.good("93 08 0000000000000005 00000003 0000", block)
    assert disk.data(READS["10"](4, 5), 5 * 512) == pattern(4) + block * 3 + pattern(8)


def test_write_same_of_a_long_range_is_written_in_pieces() -> None:
    disk = Initiator(MemoryDisk(5000))
    block = b"long" * 128
    disk.good(struct.pack(">BBQIBB", 0x93, 0, 1, 4998, 0, 0), block)
    assert disk.backend.data == pattern(0) + block * 4998 + pattern(4999)


@pytest.mark.parametrize("cdb", ["41 00 00000000 00 0000", "93 00 0000000000000000 00400001", "41 10 00000000 00 0001"])
def test_write_same_of_nothing_or_of_too_much_is_refused(disk: Initiator, cdb: str) -> None:
    disk.disk.capacity = 1 << 30
    assert disk.refused(cdb, bytes(512)) == (ILLEGAL, 0x24, 0)


def test_there_is_one_logical_unit(disk: Initiator) -> None:
    assert disk.data("a0 00 00 000000 00000010", 16) == struct.pack(">IIQ", 8, 0, 0)
    assert disk.data("a0 00 01 000000 00000010", 16) == bytes(8)
    assert disk.refused("a0 00 03 000000 00000010", room=16) == (ILLEGAL, 0x24, 0)


def test_verify_checks_the_range(disk: Initiator) -> None:
    disk.good("2f 00 00000000 00 0100")
    assert disk.refused("2f 00 00000001 00 0100") == (ILLEGAL, 0x21, 0)
    assert disk.refused("8f 02 0000000000000000 00000001") == (ILLEGAL, 0x24, 0)


def test_a_stop_makes_durable_what_was_written(disk: Initiator) -> None:
    disk.good("1b 00 00 00 01")
    assert disk.backend.flushes == 0
    disk.good("1b 00 00 00 00")
    assert disk.backend.flushes == 1
    assert disk.refused("1b 00 00 00 02") == (ILLEGAL, 0x24, 0)


def test_a_command_it_does_not_know_is_refused(disk: Initiator) -> None:
    for code in set(range(256)) - set(COMMANDS) - set(scsi.SERVICE_ACTIONS):
        assert disk.refused(bytes([code])) == (ILLEGAL, 0x20, 0)
        assert disk.wrong_byte == 0
    assert disk.refused("9e 11") == (ILLEGAL, 0x24, 0)
    assert disk.wrong_byte == 1


def test_the_commands_that_it_reports_are_those_that_it_knows(disk: Initiator) -> None:
    data = disk.data("a3 0c 00 00 0000 00001000", 4096)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    codes = [(data[at], data[at + 3]) for at in range(4, len(data), 8)]
    assert sorted(codes) == sorted([(code, 0) for code in COMMANDS] + list(SERVICE_ACTIONS))


def test_it_says_of_one_command_whether_it_knows_it_and_how_long_it_is(disk: Initiator) -> None:
    assert disk.data("a3 0c 01 93 0000 00000040", 64)[:5] == bytes([0, 3, 0, 16, 0x93])
    assert disk.data("a3 0c 01 89 0000 00000040", 64) == bytes([0, 1, 0, 0])
    assert disk.data("a3 0c 02 9e 0010 00000040", 64)[:5] == bytes([0, 3, 0, 16, 0x9E])
    assert disk.refused("a3 0c 01 9e 0000 00000040", room=64) == (ILLEGAL, 0x24, 0)
    assert disk.refused("a3 0c 81 93 0000 00000040", room=64) == (ILLEGAL, 0x24, 0)


@pytest.mark.parametrize("code", COMMANDS)
def test_the_usage_of_a_command_is_as_long_as_its_group_says(code: int) -> None:
    usage = COMMANDS[code].usage
    assert len(usage) == {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[code >> 5]
    assert usage[0] == code


def test_a_unit_attention_meets_one_command_and_no_inquiry(disk: Initiator) -> None:
    disk.disk.attend(scsi.POWER_ON)
    disk.disk.attend(scsi.POWER_ON)
    assert disk.data("12 00 00 0024 00", 36)
    assert disk.data("a0 00 00 000000 00000010", 16)
    assert not disk.disk.read_at_once(READS["10"](0, 1).ljust(16, b"\0"), [memoryview(bytearray(512))])
    assert disk.refused("00") == (ATTENTION, 0x29, 0)
    disk.good("00")


def test_request_sense_takes_a_unit_attention(disk: Initiator) -> None:
    assert disk.data("03 00 00 00 fc", 252)[2] == NO_SENSE
    disk.disk.attend(scsi.DEVICE_RESET)
    data = disk.data("03 00 00 00 fc", 252)
    assert (data[2], data[12], data[13]) == (ATTENTION, 0x29, 3)
    disk.good("00")


def test_a_disk_that_has_grown_says_so_once(disk: Initiator) -> None:
    assert not disk.disk.look_at_size()
    disk.backend.grow(44)
    assert disk.refused(READS["10"](299, 1), room=512) == (ILLEGAL, 0x21, 0)
    assert disk.disk.look_at_size()
    assert disk.refused(READS["10"](299, 1), room=512) == (ATTENTION, 0x2A, 9)
    assert disk.data(READS["10"](299, 1), 512) == bytes(512)
    assert int.from_bytes(disk.data("25", 8)[:4], "big") == 299


@pytest.mark.parametrize(
    ("number", "reading", "writing"),
    [
        (errno.EIO, (MEDIUM, 0x11, 0), (MEDIUM, 0x0C, 0)),
        (errno.ENOSPC, (PROTECT, 0x27, 7), (PROTECT, 0x27, 7)),
        (errno.EDQUOT, (PROTECT, 0x27, 7), (PROTECT, 0x27, 7)),
        (errno.EBADF, (HARDWARE, 0x44, 0), (HARDWARE, 0x44, 0)),
    ],
)
def test_a_host_that_fails_is_told_as_it_failed(
    disk: Initiator, number: int, reading: tuple[int, int, int], writing: tuple[int, int, int]
) -> None:
    disk.backend.failure = OSError(number, "on purpose")
    assert disk.refused(READS["10"](0, 1), room=512) == reading
    assert disk.refused(WRITES["10"](0, 1), bytes(512)) == writing
    assert disk.refused("35") == writing
    disk.backend.failure = None
    assert disk.data(READS["10"](0, 1), 512) == pattern(0)


def test_a_unit_that_is_not_there_says_so() -> None:
    room = memoryview(bytearray(96))
    outcome = perform_absent(bytes.fromhex("120000006000").ljust(16, b"\0"), [room])
    assert (outcome.status, room[0]) == (scsi.GOOD, 0x7F)
    outcome = perform_absent(bytes(16), [])
    assert (outcome.status, outcome.sense[2], outcome.sense[12]) == (scsi.CHECK_CONDITION, ILLEGAL, 0x25)
    outcome = perform_absent(bytes.fromhex("03000000fc00").ljust(16, b"\0"), [room])
    assert (outcome.status, room[2], room[12]) == (scsi.GOOD, ILLEGAL, 0x25)


def cdbs() -> Iterator[st.SearchStrategy[bytes]]:
    yield st.binary(min_size=16, max_size=32)
    yield st.builds(lambda code, rest: bytes([code]) + rest, st.sampled_from(sorted(COMMANDS)), st.binary(min_size=15))


@given(st.one_of(*cdbs()), st.binary(max_size=1024), st.integers(0, 2048))
def test_no_command_does_anything_but_end(cdb: bytes, data_out: bytes, room: int) -> None:
    disk = Initiator(MemoryDisk(SECTORS))
    data_in = memoryview(bytearray(room))
    try:
        outcome = disk.disk.perform(cdb, [memoryview(data_out)] if data_out else [], [data_in] if room else [])
    except Overrun:
        return
    assert outcome.status in (scsi.GOOD, scsi.CHECK_CONDITION)
    assert bool(outcome.sense) == (outcome.status == scsi.CHECK_CONDITION)
    assert 0 <= outcome.transferred <= max(room, len(data_out))
    assert len(disk.backend.data) == SECTORS * 512
