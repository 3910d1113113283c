from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.errors import ImageError
from celaje.machine.boot.elf import parse
from celaje.machine.boot.segment import Segment
from tests.machine.boot.elf_file import AARCH64, X86_64, elf_file

BASE = 0x80000000


def test_segments_are_loaded_by_physical_address() -> None:
    program = parse(elf_file([(BASE, BASE, b"code", 4), (BASE + 0x2000, BASE + 0x1000, b"data", 64)], BASE), "a.elf")
    assert program.segments == (Segment(BASE, b"code", 4), Segment(BASE + 0x1000, b"data", 64))
    assert program.entry == BASE


def test_a_virtual_entry_becomes_a_physical_one() -> None:
    virtual = 0xFFFFFFFF80000000
    assert parse(elf_file([(virtual, BASE, bytes(64), 64)], virtual + 0x20), "vmlinux").entry == BASE + 0x20


def test_htif_symbols_are_found() -> None:
    data = elf_file(
        [(BASE, BASE, b"code", 4)], BASE, {"tohost": BASE + 0x1000, "fromhost": BASE + 0x1040, "main": BASE}
    )
    assert parse(data, "a.elf").symbols == {"tohost": BASE + 0x1000, "fromhost": BASE + 0x1040}


def test_firmwares_own_htif_section_does_not_count() -> None:
    data = elf_file([(BASE, BASE, b"code", 4)], BASE, {"tohost": BASE + 0x1000}, section=".htif")
    assert parse(data, "fw_dynamic.elf").symbols == {}


@pytest.mark.parametrize(("machine", "name"), [(X86_64, "x64"), (AARCH64, "AArch64")])
def test_another_architecture_is_named(machine: int, name: str) -> None:
    with pytest.raises(ImageError, match=rf"a\.elf is for the architecture {name}; this machine needs 64-bit RISC-V"):
        parse(elf_file([(BASE, BASE, b"code", 4)], BASE, machine=machine), "a.elf")


def test_a_32_bit_program_is_refused() -> None:
    data = b"\x7fELF\x01\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (243).to_bytes(2, "little") + bytes(32)
    with pytest.raises(ImageError, match=r"a\.elf is a 32-bit RISC-V program"):
        parse(data, "a.elf")


def test_an_object_file_is_refused() -> None:
    with pytest.raises(ImageError, match="is not linked"):
        parse(elf_file([(BASE, BASE, b"code", 4)], BASE, kind=1), "a.o")


def test_a_file_with_nothing_to_load_is_refused() -> None:
    with pytest.raises(ImageError, match="has nothing to load"):
        parse(elf_file([], BASE), "a.elf")


def test_a_file_that_is_cut_short_is_refused() -> None:
    whole = elf_file([(BASE, BASE, bytes(1000), 1000)], BASE)
    for length in (4, 20, 63, 100, 500):
        with pytest.raises(ImageError, match=r"a\.elf"):
            parse(whole[:length], "a.elf")


@settings(deadline=None)
@given(st.data())
def test_a_damaged_file_raises_nothing_but_an_image_error(data: st.DataObject) -> None:
    damaged = bytearray(elf_file([(BASE, BASE, b"code", 4)], BASE, {"tohost": BASE + 0x1000}))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(damaged), "a.elf")
    except ImageError as error:
        assert "a.elf" in str(error)
