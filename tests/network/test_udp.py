"""UDP headers."""

from __future__ import annotations

from celaje.network import udp
from celaje.network.checksum import pseudo_header_sum


def test_a_header_leaves_its_checksum_to_be_computed() -> None:
    header = udp.header(0x0A4D0001, 67, 0x0A4D000A, 68, 300)
    assert header[:6] == bytes.fromhex("004300440134")
    assert int.from_bytes(header[6:], "big") == pseudo_header_sum(0x0A4D0001, 0x0A4D000A, 17, 308)


def test_data_ends_where_the_length_says_and_never_behind_the_packet() -> None:
    datagram = memoryview(b"\0\x01\0\x02\0\x0a\0\0abcd")
    assert udp.ports(datagram) == (1, 2)
    assert udp.data(datagram) == b"ab"
    assert udp.data(datagram[:9]) is None
    assert udp.data(memoryview(b"\0\x01\0\x02\0\x07\0\0")) is None
    assert udp.data(memoryview(b"\0\x01\0\x02\0\x08\0\0")) == b""
