from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.machine.virtio.segmentation import (
    HEADER_SIZE,
    LARGEST_FRAME,
    MalformedFrame,
    Offloads,
    adapt,
    checked,
    ones_complement,
)
from tests.machine.virtio.frames import Segment, header, ipv4, large4, large6, pseudo4, sum16, tcp

NOTHING = Offloads(checksum=False, tcp4=False, tcp6=False)
CHECKSUM = Offloads(checksum=True, tcp4=False, tcp6=False)
EVERYTHING = Offloads(checksum=True, tcp4=True, tcp6=True)
DATA = Random(3).randbytes(10_000)
Large = Callable[..., bytes]


def messages(message: bytes, offloads: Offloads) -> list[bytes]:
    return [bytes(one) for one in adapt(memoryview(message), offloads)]


@given(st.binary(max_size=200))
def test_the_sum_is_that_of_rfc_1071(data: bytes) -> None:
    assert ones_complement(data) % 0xFFFF == sum16(data) % 0xFFFF


def test_a_missing_checksum_is_filled_in_for_a_driver_that_cannot() -> None:
    for length in (0, 1, 2, 999, 1000):
        segment = tcp(DATA[:length], pseudo4(6, 20 + length))
        (one,) = messages(header(1, 0, 0, 34, 16) + ipv4(6, segment), NOTHING)
        assert one[:HEADER_SIZE] == bytes(HEADER_SIZE)
        assert Segment(one[HEADER_SIZE:]).complete


def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones() -> None:
    datagram = struct.pack(">HHHH", 1, 2, 10, sum16(pseudo4(17, 10)))
    # The data makes the sum all ones, of which zero is the complement.
    data = struct.pack(">H", sum16(datagram) ^ 0xFFFF)
    (one,) = messages(header(1, 0, 0, 34, 6) + ipv4(17, datagram + data), NOTHING)
    assert one[HEADER_SIZE + 40 : HEADER_SIZE + 42] == b"\xff\xff"


def test_what_the_driver_can_take_is_left_as_it_is() -> None:
    for message in (large4(DATA, 1000), large6(DATA, 1000), header(2) + ipv4(6, bytes(40))):
        assert messages(message, EVERYTHING) == [message]


def test_that_a_checksum_is_valid_is_not_told_to_who_does_not_know_the_flag() -> None:
    frame = ipv4(6, bytes(40))
    assert messages(header(2) + frame, NOTHING) == [header() + frame]


@pytest.mark.parametrize("large", [large4, large6])
def test_a_large_frame_becomes_segments_that_carry_the_same_stream(large: Large) -> None:
    parts = messages(large(DATA, 1448, sequence=2**32 - 2000, flags=0x99), NOTHING)
    segments = [Segment(part[HEADER_SIZE:]) for part in parts]
    assert [len(one.data) for one in segments] == [1448] * 6 + [10_000 - 6 * 1448]
    assert b"".join(one.data for one in segments) == DATA
    assert [one.sequence for one in segments] == [(2**32 - 2000 + 1448 * n) % 2**32 for n in range(7)]
    assert all(one.complete for one in segments)
    assert all(part[:HEADER_SIZE] == bytes(HEADER_SIZE) for part in parts)
    # The first has CWR, the last FIN and PSH, and all have ACK.
    assert [one.flags for one in segments] == [0x90] + [0x10] * 5 + [0x19]
    if large is large4:
        assert [one.identification for one in segments] == [7 + n for n in range(7)]


@pytest.mark.parametrize("large", [large4, large6])
def test_segments_for_a_driver_that_fills_in_checksums_have_partial_ones(large: Large) -> None:
    for part in messages(large(DATA, 1448), CHECKSUM):
        flags, gso_type, _, start, offset = checked(memoryview(part))
        segment = Segment(part[HEADER_SIZE:])
        assert (flags, gso_type, offset) == (1, 0, 16)
        assert part[HEADER_SIZE + start :] == segment.tcp
        assert segment.partial


def test_a_frame_of_one_segment_is_one_segment() -> None:
    (one,) = messages(large4(DATA[:100], 1448), NOTHING)
    assert Segment(one[HEADER_SIZE:]).data == DATA[:100]


def test_a_frame_with_a_vlan_tag_is_cut_too() -> None:
    message = large4(DATA, 1448)
    tagged = header(1, 1, 1448, 38, 16) + message[12:24] + b"\x81\x00\x00\x05" + message[24:]
    parts = messages(tagged, NOTHING)
    assert len(parts) == 7
    for part in parts:
        frame = part[HEADER_SIZE:]
        assert frame[12:16] == b"\x81\x00\x00\x05"
        assert Segment(frame[:12] + frame[16:]).complete


@pytest.mark.parametrize(
    "message",
    [
        header() + bytes(13),
        header() + bytes(LARGEST_FRAME + 1),
        header(4) + bytes(60),
        header(1, 0, 0, 50, 9) + bytes(60),
        header(1, 0, 0, 0xFFFF, 0xFFFF) + bytes(60),
        header(1, 3, 1000, 34, 16) + bytes(60),
        header(1, 0x81, 1000, 34, 16) + bytes(60),
        header(0, 1, 1000, 34, 16) + large4(DATA, 1000)[12:],
        header(1, 1, 0, 34, 16) + large4(DATA, 1000)[12:],
        header(1, 1, 1, 34, 16) + large4(DATA, 1000)[12:],
        header(1, 4, 1000, 34, 16) + large4(DATA, 1000)[12:],
        header(1, 1, 1000, 54, 16) + large6(DATA, 1000)[12:],
        header(1, 1, 1000, 30, 16) + large4(DATA, 1000)[12:],
        header(1, 1, 1000, 34, 16) + ipv4(17, bytes(100)),
        header(1, 1, 1000, 34, 16) + ipv4(6, bytes(100)),
        header(1, 1, 1000, 34, 16) + ipv4(6, tcp(b"", pseudo4(6, 20))),
        header(1, 1, 1000, 0, 16) + bytes(20),
    ],
)
def test_a_header_that_does_not_fit_its_frame_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedFrame):
        messages(message, NOTHING)


@given(
    st.integers(0, 1), st.sampled_from([0, 1, 4]), st.integers(0, 2000), st.integers(0, 120), st.integers(0, 20),
    st.binary(max_size=200), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00\x08\x00", b"\x81\x00\x86\xdd"]),
)  # fmt: skip
def test_nothing_but_a_refusal_comes_of_any_frame(
    flags: int, gso_type: int, gso_size: int, start: int, offset: int, rest: bytes, ethertype: bytes
) -> None:
    message = header(flags, gso_type, gso_size, start, offset) + bytes(12) + ethertype + rest
    for offloads in (NOTHING, CHECKSUM, EVERYTHING):
        try:
            parts = messages(message, offloads)
        except MalformedFrame:
            continue
        assert all(len(part) <= HEADER_SIZE + LARGEST_FRAME for part in parts)
