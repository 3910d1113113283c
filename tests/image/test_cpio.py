from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.errors import ImageError
from celaje.image import cpio
from celaje.image.tree import Entry, Tree

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..", "TRAILER!!!")
)
ENTRIES = st.builds(
    Entry,
    mode=st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO]).flatmap(
        lambda kind: st.integers(0, 0o7777).map(lambda mode: kind | mode)
    ),
    data=st.binary(max_size=40),
    uid=st.integers(0, 0xFFFFFFFF),
    gid=st.integers(0, 0xFFFFFFFF),
    mtime=st.integers(0, 0xFFFFFFFF),
)


@given(st.dictionaries(NAMES, ENTRIES, max_size=8))
def test_what_is_packed_unpacks_to_the_same(files: dict[str, Entry]) -> None:
    tree = Tree()
    for name, entry in files.items():
        tree.add(f"some/{name}", entry)
    assert list(cpio.unpack(cpio.pack(tree))) == list(tree)


def test_a_device_node_has_its_numbers_and_its_mode() -> None:
    tree = Tree()
    tree.character_device("dev/console", 5, 1)
    archive = cpio.pack(tree)
    # The layout, byte by byte: header, name, and the numbers where the kernel looks for them.
    start = archive.index(b"dev/console\0") - 110
    header = archive[start : start + 110]
    assert header[:6] == b"070701"
    fields = [int(header[at : at + 8], 16) for at in range(6, 110, 8)]
    assert fields[1] == stat.S_IFCHR | 0o600
    assert (fields[9], fields[10]) == (5, 1)
    assert start % 4 == 0


def test_an_archive_ends_in_a_trailer_and_whole_sectors() -> None:
    archive = cpio.pack(Tree())
    assert b"TRAILER!!!\0" in archive
    assert len(archive) % 512 == 0


@pytest.mark.parametrize("length", [0, 60, 109, 113, 115])
def test_an_archive_that_is_cut_short_is_refused(length: int) -> None:
    tree = Tree()
    tree.file("a", b"x" * 100)
    with pytest.raises(ImageError, match="cpio"):
        cpio.unpack(cpio.pack(tree)[:length])


def test_an_entry_that_leaves_the_tree_is_refused() -> None:
    tree = Tree()
    tree.file("aa/etc/passwd", b"evil")
    with pytest.raises(ImageError, match="leaves the tree"):
        cpio.unpack(cpio.pack(tree).replace(b"aa/etc/passwd", b"../etc/passwd"))


def test_a_header_that_is_no_number_is_refused() -> None:
    archive = bytearray(cpio.pack(Tree()))
    archive[14:22] = b"zzzzzzzz"
    with pytest.raises(ImageError, match="numbers"):
        cpio.unpack(bytes(archive))
