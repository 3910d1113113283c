"""TCP's segments (RFC 9293, 3.1), read and written.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |          Source port          |       Destination port        |
    |                        Sequence number                        |
    |                     Acknowledgment number                     |
    | Offset|  Rsvd |C|E|U|A|P|R|S|F|            Window             |
    |           Checksum            |        Urgent pointer         |
    |                 Options, up to 40 bytes                       |
    |                             Data                              |

Options that are read: maximum segment size (RFC 9293, 3.7.1), window scale (RFC 7323, 2.2), SACK permitted and SACK
(RFC 2018). Any other is skipped by its length, as MUST-6 has it; where a length cannot be true, reading options ends
and the segment still counts.
"""

from __future__ import annotations

import struct
from typing import Final

from celaje.network.buffers import Buffer

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20

HEADER_BYTES: Final = 20
PROTOCOL: Final = 6

# Without the option, a segment may hold 536 bytes over IPv4 (RFC 9293, 3.7.1, MUST-15).
DEFAULT_MSS: Final = 536
LARGEST_WINDOW_SCALE: Final = 14

_HEADER = struct.Struct(">HHIIBBHHH")
_SACK_BLOCK = struct.Struct(">II")

_END, _NO_OPERATION, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK = range(6)


class TcpSegment:
    """One segment: the header's fields, the options' bytes and the data. Sequence numbers are as sent: modulo 2**32.

    From the guest it may be a large one, which stands for several of the connection's MSS (GSO); TCP treats both alike.
    """

    __slots__ = (
        "acknowledgment",
        "destination_port",
        "flags",
        "options",
        "payload",
        "sequence",
        "source_port",
        "window",
    )

    def __init__(
        self,
        source_port: int,
        destination_port: int,
        sequence: int,
        acknowledgment: int,
        flags: int,
        window: int,
        options: Buffer = b"",
        payload: Buffer = b"",
    ) -> None:
        self.source_port = source_port
        self.destination_port = destination_port
        self.sequence = sequence
        self.acknowledgment = acknowledgment
        self.flags = flags
        self.window = window
        self.options = options
        self.payload = payload

    @classmethod
    def parse(cls, data: Buffer) -> TcpSegment | None:
        """The segment that `data` (header to the last byte of data) is; None if it is cut short. Its checksum is not
        looked at.

        The payload is a view of `data` where `data` is a memoryview.
        """
        length = len(data)
        if length < HEADER_BYTES:
            return None
        source, destination, sequence, acknowledgment, offset, flags, window, _, _ = _HEADER.unpack_from(data)
        start = offset >> 4 << 2
        if not HEADER_BYTES <= start <= length:
            return None
        options: Buffer = b"" if start == HEADER_BYTES else bytes(data[HEADER_BYTES:start])
        return cls(source, destination, sequence, acknowledgment, flags, window, options, data[start:])

    @property
    def is_opening(self) -> bool:
        """Whether it asks for a new connection: SYN, and neither ACK nor RST."""
        return self.flags & (SYN | ACK | RST) == SYN

    def __repr__(self) -> str:
        names = "".join(letter for bit, letter in _FLAG_LETTERS if self.flags & bit) or "-"
        return (
            f"<{self.source_port}>{self.destination_port} {names} seq={self.sequence} ack={self.acknowledgment} "
            f"win={self.window} len={len(self.payload)}>"
        )


_FLAG_LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "A"), (URG, "U"))


def header(
    source_port: int,
    destination_port: int,
    sequence: int,
    acknowledgment: int,
    flags: int,
    window: int,
    checksum: int,
    options: bytes = b"",
) -> bytes:
    """A header's bytes; `options` are a multiple of four bytes, at most 40. Sequence numbers are reduced modulo 2**32
    here.
    """
    return (
        _HEADER.pack(
            source_port,
            destination_port,
            sequence & 0xFFFFFFFF,
            acknowledgment & 0xFFFFFFFF,
            (HEADER_BYTES + len(options)) << 2,
            flags,
            window,
            checksum,
            0,
        )
        + options
    )


class SynOptions:
    """What a SYN's options say. A field is None (or False) where the option is absent or malformed."""

    __slots__ = ("mss", "sack_permitted", "window_scale")

    def __init__(self, options: Buffer) -> None:
        self.mss: int | None = None
        self.window_scale: int | None = None
        self.sack_permitted = False
        for kind, value in _options(options):
            if kind == _MSS and len(value) == 2:
                self.mss = int.from_bytes(value, "big")
            elif kind == _WINDOW_SCALE and len(value) == 1:
                # More than 14 counts as 14 (RFC 7323, 2.3).
                self.window_scale = min(value[0], LARGEST_WINDOW_SCALE)
            elif kind == _SACK_PERMITTED and not value:
                self.sack_permitted = True


def syn_options(mss: int, window_scale: int | None, sack_permitted: bool) -> bytes:
    """The options of a SYN, padded to four bytes."""
    options = struct.pack(">BBH", _MSS, 4, mss)
    if window_scale is not None:
        options += struct.pack(">BBBB", _NO_OPERATION, _WINDOW_SCALE, 3, window_scale)
    if sack_permitted:
        options += bytes((_NO_OPERATION, _NO_OPERATION, _SACK_PERMITTED, 2))
    return options


def sack_blocks(options: Buffer) -> list[tuple[int, int]]:
    """The blocks (first sequence number, the one after the last; as sent) of a SACK option, at most four."""
    for kind, value in _options(options):
        if kind == _SACK and len(value) % 8 == 0:
            return list(_SACK_BLOCK.iter_unpack(value))
    return []


def sack_option(blocks: list[tuple[int, int]]) -> bytes:
    """The option that reports `blocks` (at most four), padded to four bytes; nothing for none."""
    if not blocks:
        return b""
    packed = b"".join(_SACK_BLOCK.pack(first & 0xFFFFFFFF, end & 0xFFFFFFFF) for first, end in blocks[:4])
    return bytes((_NO_OPERATION, _NO_OPERATION, _SACK, 2 + len(packed))) + packed


def _options(options: Buffer) -> list[tuple[int, bytes]]:
    """Each option's kind and value. At most 40 bytes are there, so the loop is short."""
    found = []
    data = bytes(options)
    at = 0
    while at < len(data):
        kind = data[at]
        if kind == _END:
            break
        if kind == _NO_OPERATION:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        length = data[at + 1]
        if length < 2 or at + length > len(data):
            break
        found.append((kind, data[at + 2 : at + length]))
        at += length
    return found


def reset_for(segment: TcpSegment) -> tuple[int, int, int] | None:
    """Sequence number, acknowledgment and flags of the reset that answers `segment`, which belongs to no connection.

    None for a reset, which is never answered (RFC 9293, 3.10.7.1).
    """
    if segment.flags & RST:
        return None
    if segment.flags & ACK:
        return segment.acknowledgment, 0, RST
    length = len(segment.payload) + (segment.flags & SYN != 0) + (segment.flags & FIN != 0)
    return 0, (segment.sequence + length) & 0xFFFFFFFF, RST | ACK
