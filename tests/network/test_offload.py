"""The link's header."""

from __future__ import annotations

import struct

import pytest

from celaje.network import offload


def test_segments_are_described_as_the_specification_has_it() -> None:
    assert struct.unpack("<BBHHHHH", offload.tcp_segments(32, 1448)) == (1, 1, 66, 1448, 34, 16, 1)
    assert struct.unpack("<BBHHHHH", offload.UDP_NEEDS_CSUM) == (1, 0, 0, 0, 34, 6, 1)
    assert struct.unpack("<BBHHHHH", offload.VALID)[0] == offload.DATA_VALID


@pytest.mark.parametrize(
    ("header", "kind", "fits"),
    [
        ((0, 0, 0, 0, 0, 0), 0, True),
        ((0, 0, 99, 99, 99, 99), 0, True),  # nothing of this is looked at without a flag
        ((1, 0, 0, 0, 34, 16), 0, True),
        ((1, 0, 0, 0, 34, 86 - 34), 0, True),
        ((1, 0, 0, 0, 34, 87 - 34), 0, False),
        ((1, 0, 0, 0, 33, 16), 0, False),
        ((2, 0, 0, 0, 0, 0), 0, False),
        ((1, 1, 54, 1460, 34, 16), 1, True),
        ((1, 1, 54, 1460, 34, 16), 0, False),
        ((1, 1, 54, 1461, 34, 16), 1, False),
        ((1, 1, 54, 0, 34, 16), 1, False),
        ((1, 1, 54, 47, 34, 16), 1, False),
        ((1, 1, 54, 48, 34, 16), 1, True),
        ((1, 1, 54, 1460, 34, 6), 1, False),
        ((0, 1, 54, 1460, 34, 16), 1, False),
        ((1, 4, 74, 1440, 54, 16), 4, True),
        ((1, 4, 74, 1441, 54, 16), 4, False),
        ((1, 129, 54, 1000, 34, 16), 1, False),
    ],
)
def test_a_header_fits_its_frame_or_does_not(header: tuple[int, ...], kind: int, fits: bool) -> None:
    message = memoryview(struct.pack("<BBHHHHH", *header, 0) + bytes(88))
    assert offload.fits(message, kind, 1500) is fits
