from __future__ import annotations

import stat

import pytest

from celaje.errors import ImageError
from celaje.image.tree import Entry, Tree, normalised


@pytest.mark.parametrize(
    ("path", "expected"), [("./usr/bin/", "usr/bin"), ("/etc//passwd", "etc/passwd"), (".", ""), ("", "")]
)
def test_paths_are_normalised(path: str, expected: str) -> None:
    assert normalised(path) == expected


@pytest.mark.parametrize("path", ["../etc/passwd", "usr/../../etc", "a/..", "a\0b", "x" * 256])
def test_a_path_that_leaves_the_tree_is_refused(path: str) -> None:
    with pytest.raises(ImageError):
        normalised(path)


def test_parents_are_made_and_come_before_their_children() -> None:
    tree = Tree()
    tree.file("usr/share/doc/x", b"")
    tree.file("usr-local", b"")
    assert [path for path, _ in tree] == ["", "usr", "usr/share", "usr/share/doc", "usr/share/doc/x", "usr-local"]


def test_nothing_is_written_through_a_symbolic_link() -> None:
    tree = Tree()
    tree.symlink("out", "/etc")
    with pytest.raises(ImageError, match="no directory"):
        tree.file("out/passwd", b"evil")


def test_a_merged_usr_is_followed_and_kept() -> None:
    tree = Tree()
    tree.symlink("lib", "usr/lib")
    tree.file("lib/libc.so", b"c")
    tree.directory("lib/modules")
    tree.symlink("usr/lib", "elsewhere")
    assert tree.read("usr/lib/libc.so") == tree.read("lib/libc.so") == b"c"
    assert tree["usr/lib"].is_directory
    assert tree["lib"].is_symlink


def test_a_directory_is_not_replaced_by_a_file() -> None:
    tree = Tree()
    tree.directory("etc")
    with pytest.raises(ImageError, match="replaces the directory"):
        tree.file("etc", b"")


def test_reading_what_is_no_file_is_an_error_that_names_it() -> None:
    tree = Tree()
    tree.directory("boot")
    with pytest.raises(ImageError, match="'boot'"):
        tree.read("boot")
    with pytest.raises(ImageError, match="'boot/vmlinux'"):
        tree.read("boot/vmlinux")


def test_time_stamps_can_be_set_for_all() -> None:
    tree = Tree()
    tree.add("a", Entry(stat.S_IFREG | 0o600, b"x", mtime=5))
    assert {entry.mtime for _, entry in tree.with_time(77)} == {77}
    assert tree["a"].mtime == 5
