"""What a network card does for a driver that has not negotiated offloads: cut large TCP frames, fill in checksums.

A link message is a header and an Ethernet frame (virtio 1.2, 5.1.6; the same towards a guest and on the link):

    | flags u8 | gso_type u8 | hdr_len le16 | gso_size le16 | csum_start le16 | csum_offset le16 | num_buffers le16 |

Offsets count from the frame's first byte. Where flags say NEEDS_CSUM, the 16 bits at csum_start + csum_offset hold the
sum of the pseudo-header only, and what is missing is the sum from csum_start to the frame's end. A frame with a
gso_type other than none holds up to 64 KiB of one TCP connection, to be sent on in segments of gso_size bytes.

Ones' complement sums (RFC 1071) are taken as remainders: 2 ** 16 is 1 modulo 65535, so the sum of a buffer's 16-bit
words is the whole buffer, read as one number, modulo 65535. Python does that in C, a microsecond for a kilobyte. Of
the two zeros of ones' complement a remainder has only one, so what is sent is never 0x0000 but 0xffff, which every
receiver takes for the same and which in UDP does not mean that there is no checksum.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_SIZE = 12
LARGEST_FRAME = 65550
"""Bytes of an Ethernet frame on the link: a 64 KiB IP packet and its Ethernet header, rounded up to whole words."""
LARGEST_MESSAGE = HEADER_SIZE + LARGEST_FRAME
SMALLEST_FRAME = 14
SMALLEST_SEGMENT = 48
"""Data in a segment: Linux sends no smaller ones either, and a frame from another guest must not become 65,000."""

NEEDS_CHECKSUM = 1
DATA_VALID = 2
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4

_ETHERNET = 14
_VLAN = 4
_ETHERTYPE_VLAN = 0x8100
_ETHERTYPE_IPV4 = 0x0800
_ETHERTYPE_IPV6 = 0x86DD
_TCP = 6
_TCP_CHECKSUM = 16
_FIN, _PUSH, _CWR = 0x01, 0x08, 0x80

_header = struct.Struct("<BBHHHHH")
_two = struct.Struct(">H")
_four = struct.Struct(">I")


class MalformedFrame(Exception):
    """A header that does not fit its frame. Who gave the frame gets it dropped."""


@dataclass(frozen=True, slots=True)
class Offloads:
    """What the driver at the other side takes over: checksums that are missing, large frames of TCP over IPv4, IPv6."""

    checksum: bool
    tcp4: bool
    tcp6: bool

    def accept(self, flags: int, gso_type: int) -> bool:
        """Whether a message with this header may be passed on as it is."""
        if not self.checksum:
            return not flags and not gso_type
        if not gso_type:
            return True
        return self.tcp4 if gso_type == GSO_TCPV4 else self.tcp6 if gso_type == GSO_TCPV6 else False


def ones_complement(data: bytes | bytearray | memoryview) -> int:
    """The sum of the big-endian 16-bit words of `data`, modulo 65535. An odd last byte counts as a high one."""
    total = int.from_bytes(data, "big")
    return (total << 8 if len(data) & 1 else total) % 0xFFFF


def checked(message: memoryview) -> tuple[int, int, int, int, int]:
    """(flags, gso_type, gso_size, csum_start, csum_offset) of a message. Raises MalformedFrame."""
    size = len(message) - HEADER_SIZE
    if not SMALLEST_FRAME <= size <= LARGEST_FRAME:
        raise MalformedFrame(f"a frame of {size} bytes; it must have {SMALLEST_FRAME} to {LARGEST_FRAME}")
    flags, gso_type, _, gso_size, start, offset, _ = _header.unpack_from(message)
    if flags & ~(NEEDS_CHECKSUM | DATA_VALID) or gso_type not in (GSO_NONE, GSO_TCPV4, GSO_TCPV6):
        raise MalformedFrame(f"a frame with flags {flags:#x} and the unknown segmentation {gso_type:#x}")
    if flags & NEEDS_CHECKSUM and start + offset + 2 > size:
        raise MalformedFrame(f"a checksum at {start} + {offset} in a frame of {size} bytes")
    if gso_type and not (flags & NEEDS_CHECKSUM and gso_size >= SMALLEST_SEGMENT):
        raise MalformedFrame(f"a frame for segments of {gso_size} bytes, at least {SMALLEST_SEGMENT}, or without a sum")
    return flags, gso_type, gso_size, start, offset


def adapt(message: memoryview, offloads: Offloads) -> list[bytearray]:
    """The messages, as a driver with `offloads` may see them, that stand for `message`. Raises MalformedFrame."""
    flags, gso_type, gso_size, start, offset = checked(message)
    frame = message[HEADER_SIZE:]
    if gso_type and not offloads.accept(flags, gso_type):
        return _segments(frame, gso_type, gso_size, start, partial=offloads.checksum)
    if offloads.checksum or not flags & NEEDS_CHECKSUM:
        kept = bytes(message[:HEADER_SIZE]) if offloads.checksum else bytes(HEADER_SIZE)
        return [bytearray(kept + frame)]
    complete = bytearray(bytes(HEADER_SIZE) + frame)
    _two.pack_into(complete, HEADER_SIZE + start + offset, ones_complement(frame[start:]) ^ 0xFFFF)
    return [complete]


def _segments(frame: memoryview, gso_type: int, gso_size: int, tcp: int, *, partial: bool) -> list[bytearray]:
    """Cut a TCP frame. `partial`: leave each segment's checksum to the driver."""
    network, headers_end = _check_tcp(frame, gso_type, tcp)
    payload = frame[headers_end:]
    if not len(payload):
        raise MalformedFrame("a frame to be segmented without data")
    header = bytearray(frame[:headers_end])
    if gso_type == GSO_TCPV4:
        pseudo = ones_complement(header[network + 12 : network + 20]) + _TCP
        identification = _two.unpack_from(header, network + 4)[0]
    else:
        pseudo = ones_complement(header[network + 8 : network + 40]) + _TCP
        identification = 0
    sequence = _four.unpack_from(header, tcp + 4)[0]
    flags = header[tcp + 13]
    tcp_size = headers_end - tcp
    prefix = bytes(HEADER_SIZE)
    if partial:
        prefix = _header.pack(NEEDS_CHECKSUM, GSO_NONE, headers_end, 0, tcp, _TCP_CHECKSUM, 0)

    result: list[bytearray] = []
    for at in range(0, len(payload), gso_size):
        data = payload[at : at + gso_size]
        if gso_type == GSO_TCPV4:
            _two.pack_into(header, network + 2, tcp - network + tcp_size + len(data))
            _two.pack_into(header, network + 4, (identification + len(result)) & 0xFFFF)
            _two.pack_into(header, network + 10, 0)
            _two.pack_into(header, network + 10, ones_complement(header[network:tcp]) ^ 0xFFFF)
        else:
            _two.pack_into(header, network + 4, tcp - network - 40 + tcp_size + len(data))
        _four.pack_into(header, tcp + 4, (sequence + at) & 0xFFFFFFFF)
        kept = flags if at == 0 else flags & ~_CWR
        header[tcp + 13] = kept if at + gso_size >= len(payload) else kept & ~(_FIN | _PUSH)
        sum_ = (pseudo + tcp_size + len(data)) % 0xFFFF
        if not partial:
            _two.pack_into(header, tcp + _TCP_CHECKSUM, 0)
            sum_ = (sum_ + ones_complement(header[tcp:]) + ones_complement(data)) % 0xFFFF ^ 0xFFFF
        _two.pack_into(header, tcp + _TCP_CHECKSUM, sum_)
        result.append(bytearray().join((prefix, header, data)))
    return result


def _check_tcp(frame: memoryview, gso_type: int, tcp: int) -> tuple[int, int]:
    """Where the network's header begins and where TCP's ends, in a frame whose TCP header is at `tcp`."""
    if len(frame) < tcp + 20:
        raise MalformedFrame(f"a TCP header at {tcp} of a frame of {len(frame)} bytes")
    network, ethertype = _ETHERNET, _two.unpack_from(frame, 12)[0]
    if ethertype == _ETHERTYPE_VLAN:
        network, ethertype = _ETHERNET + _VLAN, _two.unpack_from(frame, 16)[0]
    if gso_type == GSO_TCPV4:
        fits = ethertype == _ETHERTYPE_IPV4 and tcp == network + 4 * (frame[network] & 0x0F) >= network + 20
        fits = fits and frame[network] >> 4 == 4 and frame[network + 9] == _TCP
    else:
        # Extension headers may lie between; their lengths do not matter here, only that IPv6's own header fits.
        fits = ethertype == _ETHERTYPE_IPV6 and tcp >= network + 40 and frame[network] >> 4 == 6
    end = tcp + 4 * (frame[tcp + 12] >> 4)
    if not fits or not tcp + 20 <= end <= len(frame):
        raise MalformedFrame(f"no TCP header at {tcp} of a frame of type {ethertype:#06x}")
    return network, end
