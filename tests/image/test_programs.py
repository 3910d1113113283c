"""ELF files of the tests' own making: an interpreter, names of libraries, nothing that runs."""

from __future__ import annotations

import struct

import pytest

from celaje.errors import ImageError
from celaje.image.programs import with_libraries
from celaje.image.tree import Tree

LIBRARIES = "usr/lib/riscv64-linux-gnu"
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ = 0, 1, 5, 10
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3


def elf(*needed: str, interpreter: str = "") -> bytes:
    """A 64-bit RISC-V ELF file whose dynamic section needs these libraries."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    segments = 3 if interpreter else 2
    strings_at = 64 + 56 * segments
    path_at = strings_at + len(strings)
    path = interpreter.encode() + b"\0"
    dynamic_at = path_at + len(path)
    offsets = [strings.index(name.encode()) for name in needed]
    tags = [(DT_NEEDED, offset) for offset in offsets]
    tags += [(DT_STRTAB, strings_at), (DT_STRSZ, len(strings)), (DT_NULL, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    size = dynamic_at + len(dynamic)

    def segment(kind: int, start: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, start, start, start, length, length, 1)

    headers = segment(PT_LOAD, 0, size) + segment(PT_DYNAMIC, dynamic_at, len(dynamic))
    headers += segment(PT_INTERP, path_at, len(path)) if interpreter else b""
    start = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    start += struct.pack("<HHIQQQIHHHHHH", 3, 243, 1, 0, 64, 0, 0, 64, 56, segments, 64, 0, 0)
    return start + headers + strings + path + dynamic


@pytest.fixture
def packages() -> Tree:
    tree = Tree()
    tree.symlink("lib", "usr/lib")
    tree.file("usr/bin/tool", elf("libone.so.1", interpreter="/lib/ld.so.1"), 0o4755)
    tree.symlink(f"{LIBRARIES}/libone.so.1", "libone.so.1.2")
    tree.file(f"{LIBRARIES}/libone.so.1.2", elf("libtwo.so"))
    tree.file(f"{LIBRARIES}/libtwo.so", elf("libone.so.1"))
    tree.file(f"{LIBRARIES}/libother.so", elf())
    tree.symlink("usr/lib/ld.so.1", "riscv64-linux-gnu/ld.so.1")
    tree.file(f"{LIBRARIES}/ld.so.1", elf())
    tree.file("etc/tool.conf", b"setting")
    return tree


def test_a_program_comes_with_its_libraries_their_links_and_its_loader_and_nothing_else(packages: Tree) -> None:
    chosen = with_libraries(packages, ["usr/bin/tool", "etc/tool.conf"], [LIBRARIES])
    files = {path for path, entry in chosen if not entry.is_directory}
    libraries = {f"{LIBRARIES}/{name}" for name in ("libone.so.1", "libone.so.1.2", "libtwo.so", "ld.so.1")}
    assert files == {"usr/bin/tool", "etc/tool.conf", "usr/lib/ld.so.1", *libraries}
    assert chosen["usr/bin/tool"].mode & 0o7777 == 0o4755


def test_a_library_that_no_package_has_is_named_with_who_needs_it(packages: Tree) -> None:
    packages.file("usr/bin/other", elf("libnone.so"))
    with pytest.raises(ImageError, match="usr/bin/other needs the library libnone.so"):
        with_libraries(packages, ["usr/bin/other"], [LIBRARIES])
    with pytest.raises(ImageError, match="no file 'usr/bin/none'"):
        with_libraries(packages, ["usr/bin/none"], [LIBRARIES])


@pytest.mark.parametrize("length", [5, 20, 64, 100, 230])
def test_a_broken_program_is_refused(packages: Tree, length: int) -> None:
    packages.file("usr/bin/broken", elf("libone.so.1")[:length])
    with pytest.raises(ImageError, match="no ELF file"):
        with_libraries(packages, ["usr/bin/broken"], [LIBRARIES])
