import struct

from hypothesis import given
from hypothesis import strategies as st

from celaje.network import checksum


def by_the_book(data: bytes) -> int:
    """RFC 1071's loop over words, with the end-around carry."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + bytes(len(data) & 1)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.lists(st.binary(max_size=70), max_size=6))
def test_the_sum_of_parts_is_the_sum_of_the_whole(parts: list[bytes]) -> None:
    assert checksum.ones_sum(*parts) == by_the_book(b"".join(parts))


@given(st.lists(st.sampled_from([b"", b"\xff", b"\xff\xff", b"\0", b"\0\0", b"\xff\xfe", b"\0\x01"]), max_size=8))
def test_both_zeros_of_ones_complement_are_kept_apart(parts: list[bytes]) -> None:
    assert checksum.ones_sum(*parts) == by_the_book(b"".join(parts))


@given(st.integers(2040, 2060), st.integers(4090, 9000), st.integers(0, 255))
def test_long_parts_of_odd_and_even_lengths_sum_alike(first: int, second: int, seed: int) -> None:
    whole = bytes((at * 7 + seed + (at >> 8)) & 0xFF for at in range(first + second))
    assert checksum.ones_sum(whole[:first], memoryview(whole)[first:]) == by_the_book(whole)


def test_rfc_1071s_own_example() -> None:
    assert checksum.ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


def test_an_ipv4_header_verifies_with_its_checksum_in_place() -> None:
    header = bytearray.fromhex("450000730000400040110000c0a80001c0a800c7")
    header[10:12] = checksum.checksum(header).to_bytes(2, "big")
    assert header[10:12].hex() == "b861"
    assert checksum.is_correct(header)
    header[1] ^= 1
    assert not checksum.is_correct(header)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 0xFFFF))
def test_the_pseudo_header_of_ipv4_sums_as_its_bytes_do(
    source: int, destination: int, protocol: int, length: int
) -> None:
    data = struct.pack(">IIBBH", source, destination, 0, protocol, length)
    assert checksum.pseudo_header_sum(source, destination, protocol, length) == (by_the_book(data) or 0xFFFF)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))
def test_the_pseudo_header_of_ipv6_sums_as_its_bytes_do(source: int, destination: int, length: int) -> None:
    data = source.to_bytes(16, "big") + destination.to_bytes(16, "big") + struct.pack(">IHBB", length, 0, 0, 58)
    assert checksum.pseudo_header_sum_v6(source, destination, 58, length) == by_the_book(data)


def test_a_frame_whose_sum_was_left_to_be_computed_verifies_once_it_was() -> None:
    data = b"\x1f\x90\x00\x16\x00\x0b" + b"\x00\x00" + b"odd"
    pseudo = checksum.pseudo_header_sum(0x0A4D0001, 0x0A4D000A, 17, len(data))
    left = data[:6] + pseudo.to_bytes(2, "big") + data[8:]
    filled = data[:6] + checksum.checksum(left).to_bytes(2, "big") + data[8:]
    assert checksum.is_correct(filled, initial=pseudo)
