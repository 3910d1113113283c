from __future__ import annotations

import gzip
import struct

import pytest

from celaje.errors import ImageError
from celaje.machine.boot.linux_image import parse, unpack


def image(
    text_offset: int = 0x200000, size: int = 0x400000, flags: int = 0, magic: bytes = b"RISCV\0\0\0", body: int = 1000
) -> bytes:
    header = struct.pack("<2I3QI12x8s4s4x", 0x6F, 0, text_offset, size, flags, 2, magic, b"RSC\x05")
    return header + bytes(body)


def test_a_kernel_says_where_it_wants_to_be() -> None:
    kernel = parse(image(), "Image")
    assert (kernel.text_offset, kernel.image_size) == (0x200000, 0x400000)
    assert kernel.data == image()


def test_a_kernel_takes_at_least_its_files_size() -> None:
    assert parse(image(size=0), "Image").image_size == 1064


def test_a_gzipped_kernel_is_unpacked() -> None:
    assert unpack(gzip.compress(image()), "Image.gz") == image()
    assert unpack(image(), "Image") == image()


def test_a_damaged_gzip_is_named() -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 50))
    packed[20] ^= 0xFF
    with pytest.raises(ImageError, match=r"Image\.gz is gzipped and damaged"):
        unpack(bytes(packed), "Image.gz")


def test_a_gzip_that_is_cut_short_is_named() -> None:
    with pytest.raises(ImageError, match=r"Image\.gz is gzipped and cut short"):
        unpack(gzip.compress(image())[:-20], "Image.gz")


def test_something_else_is_told_what_it_must_be() -> None:
    with pytest.raises(ImageError, match=r"vmlinuz must be a Linux image for RISC-V.*is neither.*--firmware"):
        parse(bytes(4096), "vmlinuz")
    with pytest.raises(ImageError, match="is neither"):
        parse(b"short", "vmlinuz")


def test_a_kernel_for_arm_is_recognised() -> None:
    with pytest.raises(ImageError, match="a Linux image for Arm"):
        parse(bytes(56) + b"ARM\x64" + bytes(100), "Image")


def test_a_big_endian_kernel_is_refused() -> None:
    with pytest.raises(ImageError, match="big-endian"):
        parse(image(flags=1), "Image")


def test_an_odd_load_offset_is_refused() -> None:
    with pytest.raises(ImageError, match="0x1001"):
        parse(image(text_offset=0x1001), "Image")
