"""Frames for the tests of the network device, and a check of them that shares no code with it."""

from __future__ import annotations

import struct

ETHERNET = bytes.fromhex("020000000002 020000000001")
SOURCE4, DESTINATION4 = bytes([10, 77, 0, 10]), bytes([10, 77, 0, 11])
SOURCE6 = bytes.fromhex("fe80000000000000 0000000000000001")
DESTINATION6 = bytes.fromhex("fe80000000000000 0000000000000002")


def header(flags: int = 0, gso_type: int = 0, gso_size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    """A virtio header (5.1.6)."""
    return struct.pack("<BBHHHHH", flags, gso_type, 0, gso_size, start, offset, 0)


def sum16(data: bytes) -> int:
    """The ones' complement sum of RFC 1071, as its text says it."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo4(protocol: int, length: int) -> bytes:
    return SOURCE4 + DESTINATION4 + struct.pack(">BBH", 0, protocol, length)


def pseudo6(protocol: int, length: int) -> bytes:
    return SOURCE6 + DESTINATION6 + struct.pack(">II", length, protocol)


def ipv4(protocol: int, payload: bytes, identification: int = 7, options: bytes = b"") -> bytes:
    """An Ethernet frame with `payload`."""
    words = 5 + len(options) // 4
    before = struct.pack(">BBHHHBB", 0x40 | words, 0, 4 * words + len(payload), identification, 0x4000, 64, protocol)
    rest = SOURCE4 + DESTINATION4 + options
    check = sum16(before + b"\0\0" + rest) ^ 0xFFFF
    return ETHERNET + b"\x08\x00" + before + struct.pack(">H", check) + rest + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    return (
        ETHERNET
        + b"\x86\xdd"
        + struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
        + SOURCE6
        + DESTINATION6
        + payload
    )


def tcp(data: bytes, pseudo: bytes, *, sequence: int = 1000, flags: int = 0x18, options: bytes = b"") -> bytes:
    """A TCP segment with only the pseudo header's sum in its checksum."""
    words = 5 + len(options) // 4
    return struct.pack(">HHIIBBHHH", 4000, 80, sequence, 5, words << 4, flags, 512, sum16(pseudo), 0) + options + data


def large4(data: bytes, mss: int, **fields: int) -> bytes:
    """A link message: one large TCP frame over IPv4, with a timestamp option."""
    options = bytes.fromhex("0101080a0000000100000002")
    segment = tcp(data, pseudo4(6, 32 + len(data)), options=options, **fields)
    return header(1, 1, mss, 34, 16) + ipv4(6, segment)


def large6(data: bytes, mss: int, **fields: int) -> bytes:
    segment = tcp(data, pseudo6(6, 20 + len(data)), **fields)
    return header(1, 4, mss, 54, 16) + ipv6(6, segment)


class Segment:
    """A TCP frame taken apart; its lengths and IP checksum are asserted."""

    def __init__(self, frame: bytes) -> None:
        assert frame[:12] == ETHERNET
        if frame[12:14] == b"\x08\x00":
            size = 4 * (frame[14] & 15)
            assert struct.unpack_from(">H", frame, 16)[0] == len(frame) - 14
            assert sum16(frame[14 : 14 + size]) == 0xFFFF
            self.identification = struct.unpack_from(">H", frame, 18)[0]
            self.tcp = frame[14 + size :]
            self.pseudo = pseudo4(6, len(self.tcp))
        else:
            assert struct.unpack_from(">H", frame, 18)[0] == len(frame) - 54
            self.identification = 0
            self.tcp = frame[54:]
            self.pseudo = pseudo6(6, len(self.tcp))
        self.sequence = struct.unpack_from(">I", self.tcp, 4)[0]
        self.flags = self.tcp[13]
        self.data = self.tcp[4 * (self.tcp[12] >> 4) :]

    @property
    def complete(self) -> bool:
        """Whether the checksum is right as it stands."""
        return sum16(self.pseudo + self.tcp) == 0xFFFF

    @property
    def partial(self) -> bool:
        """Whether the checksum is the pseudo header's."""
        return struct.unpack_from(">H", self.tcp, 16)[0] % 0xFFFF == sum16(self.pseudo) % 0xFFFF
