"""The header in front of every frame on the link: virtio_net_hdr_v1 (virtio 1.2, 5.1.6).

    offset  bytes  little-endian
    0       1      flags         1 NEEDS_CSUM: from csum_start on, the sum is to be put at csum_start + csum_offset
                                 2 DATA_VALID: the checksums are known to be correct
    1       1      gso_type      0 none, 1 TCP over IPv4, 4 TCP over IPv6; 3 and 5, UDP, and 0x80, ECN, are not offered
    2       2      hdr_len       of the headers that every segment has; a hint
    4       2      gso_size      bytes of data in a segment
    6       2      csum_start    from the Ethernet header's first byte
    8       2      csum_offset
    10      2      num_buffers   the device's affair

A header that contradicts its frame is never passed on: the guest that it is sent to might believe it.
"""

from __future__ import annotations

import struct

SIZE = 12
NEEDS_CSUM = 1
DATA_VALID = 2
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
SMALLEST_SEGMENT = 48  # bytes of data; Linux sends no less either, and one frame must not become 65,000 on the host

CSUM_START = 34  # after an Ethernet header and an IPv4 header without options
TCP_CSUM_OFFSET = 16
UDP_CSUM_OFFSET = 6

_header = struct.Struct("<BBHHHHH")

NOTHING = _header.pack(0, GSO_NONE, 0, 0, 0, 0, 1)
VALID = _header.pack(DATA_VALID, GSO_NONE, 0, 0, 0, 0, 1)
UDP_NEEDS_CSUM = _header.pack(NEEDS_CSUM, GSO_NONE, 0, 0, CSUM_START, UDP_CSUM_OFFSET, 1)
TCP_NEEDS_CSUM = _header.pack(NEEDS_CSUM, GSO_NONE, 0, 0, CSUM_START, TCP_CSUM_OFFSET, 1)


def tcp_segments(header_length: int, gso_size: int) -> bytes:
    """The header of a TCP over IPv4 frame that stands for segments of `gso_size` bytes of data each. `header_length`
    is that of the TCP header."""
    return _header.pack(NEEDS_CSUM, GSO_TCPV4, CSUM_START + header_length, gso_size, CSUM_START, TCP_CSUM_OFFSET, 1)


def _read(message: memoryview) -> tuple[int, int, int, int, int, int, int]:
    return _header.unpack_from(message)


def fits(message: memoryview, gso_type: int, mtu: int) -> bool:
    """Whether the header agrees with its frame, of which `gso_type` are expected at most (GSO_NONE or one other)."""
    flags, gso, _, gso_size, start, offset, _ = _read(message)
    if flags & ~NEEDS_CSUM or gso not in (GSO_NONE, gso_type):
        return False
    if flags and not (CSUM_START <= start and start + offset + 2 <= len(message) - SIZE):
        return False
    if gso == GSO_NONE:
        return True
    headers = 40 if gso == GSO_TCPV4 else 60
    return flags == NEEDS_CSUM and offset == TCP_CSUM_OFFSET and SMALLEST_SEGMENT <= gso_size <= mtu - headers
