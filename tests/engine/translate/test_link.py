"""Linking: what is placed, what is patched, what is refused."""

from __future__ import annotations

import ctypes
import mmap
import struct

import pytest
from llvmlite import binding

from celaje.engine.translate.link import PATCHES, link
from celaje.errors import CelajeError


def compiled(text: str) -> bytes:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(text)
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")
    return bytes(machine.emit_object(module))


def test_what_was_linked_runs_wherever_it_is_mapped() -> None:
    """A function in a section of its own, a call, a table of constants: distances, all of them."""
    linked = link(
        compiled(
            """
            @numbers = internal constant [4 x i64] [i64 3, i64 5, i64 7, i64 11]
            define internal i64 @twice(i64 %x) noinline section ".text.other" {
              %y = add i64 %x, %x
              ret i64 %y
            }
            define i64 @f(i64 %i) {
              %p = getelementptr [4 x i64], ptr @numbers, i64 0, i64 %i
              %x = load i64, ptr %p
              %y = call i64 @twice(i64 %x)
              %z = add i64 %y, 1
              ret i64 %z
            }
        """
        )
    )
    assert {"f", "twice"} <= linked.symbols.keys()
    for _ in range(2):
        area = mmap.mmap(-1, -(-len(linked.code) // 4096) * 4096, prot=7, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area[: len(linked.code)] = linked.code
        base = ctypes.addressof(ctypes.c_char.from_buffer(area))
        f = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(base + linked.symbols["f"])
        assert [f(index) for index in range(4)] == [7, 11, 15, 23]


NEEDY = {
    "a library's function": (
        """
        declare i64 @abs(i64)
        define i64 @f(i64 %x) { %y = call i64 @abs(i64 %x)
          ret i64 %y }
        """,
        "abs",
    ),
    "a variable from outside": (
        """
        @x = external global i64
        define i64 @f() { %y = load i64, ptr @x
          ret i64 %y }
        """,
        "x",
    ),
    "a variable": (
        """
        @x = global i64 5
        define i64 @f() { %y = load i64, ptr @x
          store i64 1, ptr @x
          ret i64 %y }
        """,
        "writable",
    ),
    "a variable of zero": (
        """
        @x = internal global i64 0
        define i64 @f() { %y = load volatile i64, ptr @x
          store volatile i64 1, ptr @x
          ret i64 %y }
        """,
        "cannot be shared",
    ),
    "addresses": (
        """
        @t = internal constant [2 x ptr] [ptr @f, ptr @g]
        define i64 @f() { ret i64 1 }
        define i64 @g(i64 %i) { %p = getelementptr ptr, ptr @t, i64 %i
          %f = load ptr, ptr %p
          %y = call i64 %f()
          ret i64 %y }
        """,
        "generated code",
    ),
    "a thread's": (
        """
        @x = thread_local global i64 0
        define i64 @f() { %y = load i64, ptr @x
          ret i64 %y }
        """,
        "generated code",
    ),
}


@pytest.mark.parametrize("kind", NEEDY)
def test_what_needs_something_of_the_process_is_refused(kind: str) -> None:
    text, what = NEEDY[kind]
    with pytest.raises(CelajeError, match=what):
        link(compiled(text))


def test_relocations_of_an_unknown_kind_are_refused_by_number_and_name() -> None:
    binary = bytearray(compiled("declare i64 @g(i64)\ndefine i64 @f(i64 %x) { %y = call i64 @g(i64 %x)\n ret i64 %y }"))
    with pytest.raises(CelajeError, match=r"relocation \d+ against 'g'"):
        link(bytes(binary))


def test_sections_lie_on_lines_of_their_own() -> None:
    linked = link(compiled('define i64 @f() { ret i64 1 }\ndefine i64 @g() section ".text.g" { ret i64 2 }'))
    assert all(offset % 64 == 0 for offset in linked.symbols.values())
    assert len(set(linked.symbols.values())) == 2


def test_distances_are_little_endian_and_relative_to_their_place() -> None:
    code = bytearray(16)
    PATCHES["EM_X86_64", 2](code, 8, 4)
    assert struct.unpack_from("<i", code, 8) == (-4,)
    PATCHES["EM_AARCH64", 260](code, 0, 1 << 40)
    assert struct.unpack_from("<q", code, 0) == (1 << 40,)


@pytest.mark.parametrize(("at", "value"), [(0x1000, 0x800), (0x100, 0x40000), (0, 0)])
def test_branches_of_aarch64_reach_their_targets(at: int, value: int) -> None:
    code = bytearray(at + 4)
    struct.pack_into("<I", code, at, 0x94000000)
    PATCHES["EM_AARCH64", 283](code, at, value)
    (word,) = struct.unpack_from("<I", code, at)
    distance = (word & 0x3FFFFFF) << 2
    distance -= (distance & 1 << 27) << 1
    assert word >> 26 == 0x94000000 >> 26
    assert at + distance == value


def test_pages_of_aarch64_and_what_lies_in_them_make_the_address() -> None:
    for at, value in ((0x2004, 0x12345678), (0x7FFFF000, 0x1230), (0, 0xFFF8)):
        code = bytearray(8)
        shifted = {"at": at & 0xFFF}
        struct.pack_into("<II", code, 0, 0x90000000, 0xF9400000)
        # the patch takes an offset in the code; a page's distance counts alone, so the code may begin elsewhere
        base = at - shifted["at"]
        window = bytearray(shifted["at"] + 8)
        window[shifted["at"] :] = code
        PATCHES["EM_AARCH64", 275](window, shifted["at"], value - base)
        PATCHES["EM_AARCH64", 286](window, shifted["at"] + 4, value - base)
        adrp, load = struct.unpack_from("<II", window, shifted["at"])
        pages = (adrp >> 5 & 0x7FFFF) << 2 | adrp >> 29 & 3
        pages -= (pages & 1 << 20) << 1
        reached = (at & ~0xFFF) + (pages << 12) + ((load >> 10 & 0xFFF) << 3)
        assert reached == value
