from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.engine.memory import GuestMemory
from celaje.errors import ImageError, InputError, NotFound
from celaje.machine.boot import payload
from tests.machine.boot.elf_file import elf_file
from tests.machine.boot.test_linux_image import image

BASE = 0x80000000


@pytest.fixture
def ram() -> Iterator[GuestMemory]:
    ram = GuestMemory(BASE, 8 << 20)
    yield ram
    ram.close()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_linux_image_goes_where_its_header_says(tmp_path: Path) -> None:
    for name, data in (("Image", image()), ("Image.gz", gzip.compress(image()))):
        kernel = payload.kernel(write(tmp_path / name, data), BASE, above_firmware=False)
        assert kernel.entry == BASE + 0x200000
        assert kernel.end == BASE + 0x600000


def test_above_firmware_a_kernel_goes_to_its_fixed_place(tmp_path: Path) -> None:
    kernel = payload.kernel(write(tmp_path / "Image", image(text_offset=0)), BASE, above_firmware=True)
    assert kernel.entry == 0x80200000


def test_above_firmware_a_flat_kernel_will_do(tmp_path: Path) -> None:
    flat = write(tmp_path / "u-boot.bin", b"anything at all" * 10)
    assert payload.kernel(flat, BASE, above_firmware=True).entry == 0x80200000
    with pytest.raises(ImageError, match=r"u-boot\.bin must be a Linux image"):
        payload.kernel(flat, BASE, above_firmware=False)


def test_firmware_is_flat_or_an_elf_file(tmp_path: Path) -> None:
    assert payload.firmware(write(tmp_path / "fw.bin", b"\x13\0\0\0")).entry == 0x80000000
    data = elf_file([(BASE, BASE, b"code", 4)], BASE + 2, {"tohost": BASE + 0x1000})
    firmware = payload.firmware(write(tmp_path / "fw.elf", data))
    assert (firmware.entry, firmware.tohost, firmware.fromhost) == (BASE + 2, BASE + 0x1000, None)


def test_an_odd_tohost_is_refused(tmp_path: Path) -> None:
    data = elf_file([(BASE, BASE, b"code", 4)], BASE, {"tohost": BASE + 0x1004})
    with pytest.raises(ImageError, match="0x80001004; it must be a multiple of 8"):
        payload.firmware(write(tmp_path / "test.elf", data))


def test_loading_leaves_zeroes_behind_the_data(ram: GuestMemory) -> None:
    part = payload.Payload("a.elf", (payload.Segment(BASE + 8, b"data", 64),), BASE)
    payload.load(ram, part)
    assert ram.read(BASE, 80) == bytes(8) + b"data" + bytes(68)


@pytest.mark.parametrize("address", [0, BASE - 4096, BASE + (8 << 20) - 4])
def test_a_segment_outside_ram_is_named(ram: GuestMemory, address: int) -> None:
    part = payload.Payload("a.elf", (payload.Segment(address, b"12345678", 8),), address)
    with pytest.raises(ImageError, match=rf"a\.elf is made for {address:#x}.*RAM is 0x80000000"):
        payload.load(ram, part)


def test_a_tohost_outside_ram_is_named(ram: GuestMemory) -> None:
    part = payload.Payload("a.elf", (payload.Segment(BASE, b"code", 4),), BASE, tohost=0x1000)
    with pytest.raises(ImageError, match=r"a\.elf has tohost at 0x1000"):
        payload.load(ram, part)


def test_everything_is_placed_apart_at_the_top(ram: GuestMemory) -> None:
    place = payload.place(ram, BASE + 0x400000, 3000, bytes(5000))
    assert place.initrd is not None
    first, end = place.initrd
    assert end - first == 5000
    assert first % 4096 == place.information % 4096 == place.device_tree % 4096 == 0
    assert BASE + 0x400000 <= first
    assert end <= place.information
    assert place.information + 4096 <= place.device_tree
    assert place.device_tree + 3000 + 0x10000 <= BASE + (8 << 20)


def test_too_little_memory_says_how_much_would_do(ram: GuestMemory) -> None:
    with pytest.raises(InputError, match="8 MiB of memory are too small.*give at least --memory 11M"):
        payload.place(ram, BASE + 0x400000, 3000, bytes(6 << 20))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no kernel .*nothing"):
        payload.kernel(tmp_path / "nothing", BASE, above_firmware=False)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="firmware .* is a directory"):
        payload.firmware(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="initrd .* is empty"):
        payload.read_file(write(tmp_path / "initrd", b""), "initrd")
