"""IPv4 headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celaje.network import ipv4
from celaje.network.checksum import checksum

ADDRESS = st.integers(0, 0xFFFFFFFF)


@given(ADDRESS, ADDRESS, st.integers(0, 255), st.integers(0, 65515), st.integers(0, 255), st.integers(0, 255))
def test_a_headers_checksum_is_right_whatever_it_says(
    source: int, destination: int, protocol: int, length: int, ttl: int, tos: int
) -> None:
    header = ipv4.header(source, destination, protocol, length, ttl, tos)
    assert checksum(header) == 0
    assert header[10:12] != b"\xff\xff"  # the other zero, which no sum that is not 0 has
    assert (header[0], header[1], header[8], header[9]) == (0x45, tos, ttl, protocol)
    assert int.from_bytes(header[2:4], "big") == 20 + length
    assert header[12:] == source.to_bytes(4, "big") + destination.to_bytes(4, "big")


def test_addresses_are_written_as_dotted_quads() -> None:
    assert ipv4.text(0x0A4D0001) == "10.77.0.1"


def test_multicast_is_from_224_to_239() -> None:
    assert [ipv4.is_multicast(first << 24) for first in (223, 224, 239, 240)] == [False, True, True, False]
