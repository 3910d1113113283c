from __future__ import annotations

import pytest

from celaje.errors import ImageError
from celaje.image.dpkg import Unpacked
from celaje.image.tree import Tree


def control(text: str, **members: str) -> Tree:
    tree = Tree()
    tree.file("control", text.encode())
    for name, content in members.items():
        tree.file(name, content.encode(), 0o755 if name in ("preinst", "postinst") else 0o644)
    return tree


def files(*paths: str) -> Tree:
    tree = Tree()
    for path in paths:
        tree.file(path, path.encode())
    return tree


TOOL = "Package: tool\nArchitecture: riscv64\nVersion: 1.0-1\nDescription: a tool\n that does things\n"
LIBRARY = "Package: libone1\nArchitecture: riscv64\nMulti-Arch: same\nVersion: 2\n"


def test_the_database_is_what_dpkg_leaves_between_unpacking_and_configuring() -> None:
    unpacked = Unpacked()
    unpacked.add(
        control(TOOL, conffiles="/etc/tool.conf\nremove-on-upgrade /etc/old.conf\n", postinst="#!/bin/sh\n"),
        files("etc/tool.conf", "usr/bin/tool"),
        "tool",
    )
    unpacked.add(control(LIBRARY, triggers="activate-noawait ldconfig\n"), files("usr/lib/libone.so.1"), "libone1")
    tree = unpacked.finish()
    assert tree.read("var/lib/dpkg/status").decode() == (
        f"{TOOL}Status: install ok unpacked\nConffiles:\n /etc/tool.conf newconffile\n\n"
        f"{LIBRARY}Status: install ok unpacked\n"
    )
    assert tree.read("var/lib/dpkg/info/tool.list") == b"/.\n/etc\n/etc/tool.conf\n/usr\n/usr/bin\n/usr/bin/tool\n"
    assert tree["var/lib/dpkg/info/tool.postinst"].mode & 0o111
    assert tree.read("var/lib/dpkg/info/libone1:riscv64.list").startswith(b"/.\n")
    assert tree.read("var/lib/dpkg/info/format") == b"1\n"
    assert "var/lib/dpkg/info/tool.control" not in tree
    assert tree.read("etc/tool.conf.dpkg-new") == b"etc/tool.conf"
    assert "etc/tool.conf" not in tree
    assert tree.read("usr/bin/tool") == b"usr/bin/tool"


def test_who_wants_to_know_of_paths_and_events_stands_where_dpkg_looks() -> None:
    unpacked = Unpacked()
    text = "# a comment\ninterest-noawait /usr/share/icons\ninterest ldconfig\ninterest-await /usr/lib # why\n"
    unpacked.add(control(TOOL, triggers=text), Tree(), "tool")
    unpacked.add(control(LIBRARY, triggers="interest-noawait ldconfig\n"), Tree(), "libone1")
    tree = unpacked.finish()
    assert tree.read("var/lib/dpkg/triggers/File") == b"/usr/share/icons tool/noawait\n/usr/lib tool\n"
    assert tree.read("var/lib/dpkg/triggers/ldconfig") == b"tool\nlibone1/noawait\n"


def test_what_is_not_kept_is_listed_all_the_same() -> None:
    unpacked = Unpacked(lambda path: not path.startswith("usr/share/doc/"))
    unpacked.add(control(TOOL), files("usr/bin/tool", "usr/share/doc/tool/README"), "tool")
    tree = unpacked.finish()
    assert "usr/share/doc/tool/README" not in tree
    assert b"/usr/share/doc/tool/README\n" in tree.read("var/lib/dpkg/info/tool.list")


def test_files_below_lib_come_below_usr_whichever_package_is_first() -> None:
    base = Tree()
    base.symlink("lib", "usr/lib")
    base.symlink("bin", "usr/bin")
    for order in (0, 1):
        unpacked = Unpacked()
        packages = [(LIBRARY, files("lib/libone.so.1"), "libone1"), (TOOL, base, "tool")]
        for text, tree, name in packages[::-1] if order else packages:
            unpacked.add(control(text), tree, name)
        whole = unpacked.finish()
        assert whole["lib"].is_symlink
        assert whole.read("usr/lib/libone.so.1") == b"lib/libone.so.1"


def test_the_first_package_with_a_directory_says_whose_it_is() -> None:
    first, second = Tree(), Tree()
    first.directory("var/mail", 0o2775, gid=8)
    second.directory("var/mail", 0o755)
    unpacked = Unpacked()
    unpacked.add(control(TOOL), first, "tool")
    unpacked.add(control(LIBRARY), second, "libone1")
    assert (unpacked.finish()["var/mail"].mode & 0o7777, unpacked.finish()["var/mail"].gid) == (0o2775, 8)


@pytest.mark.parametrize(
    "text",
    [
        "Package: other\nArchitecture: all\n",
        "Architecture: all\n",
        "Package: tool\n",
        "Package: tool\nArchitecture: all\n\nPackage: second\n",
    ],
)
def test_a_control_file_that_is_not_the_packages_own_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="control file"):
        Unpacked().add(control(text), Tree(), "tool")
