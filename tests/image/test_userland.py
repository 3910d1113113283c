from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from celaje import zstandard
from celaje.errors import ImageError
from celaje.image import cpio, userland
from celaje.image.initramfs import initramfs

NAMES = sorted({*userland._NEEDED, "[", "[[", "acpid", "zcat"})
BUSYBOX = b"\x7fELF code \0" + "\0".join(NAMES).encode() + b"\0\0/bin/sh\0more"
SCRIPTS = ("init", "profile", "make-filesystem", *sorted(set(userland._PROGRAMS.values())))


def test_the_commands_of_a_busybox_are_read_from_its_table() -> None:
    assert userland.busybox_commands(BUSYBOX) == tuple(NAMES)


def test_a_busybox_without_what_an_image_needs_is_refused() -> None:
    with pytest.raises(ImageError, match="switch_root"):
        userland.busybox_commands(BUSYBOX.replace(b"\0switch_root", b""))
    with pytest.raises(ImageError, match="mount"):
        userland.busybox_commands(b"no table")


def test_a_userland_has_a_command_behind_every_name_and_every_start_up_file() -> None:
    tree = userland.busybox_userland(BUSYBOX, "guest")
    assert tree.read("usr/bin/busybox") == BUSYBOX
    assert tree["usr/bin/poweroff"].data == b"busybox"
    assert tree["sbin"].data == b"usr/sbin"
    assert tree["dev/console"].device == (5, 1)
    assert tree.read("etc/hostname") == b"guest\n"
    for name in userland._PROGRAMS:
        assert tree[name].mode & 0o111
    assert (tree["home/admin"].uid, tree["home/admin"].gid) == (userland.ADMIN, userland.ADMIN)
    assert b"admin:*:" in tree.read("etc/passwd")
    for line in tree.read("etc/inittab").decode().splitlines():
        command = line.split(":")[-1].split()[0] if not line.startswith("#") else "/bin/sh"
        assert any(f"{place}/{Path(command).name}" in tree for place in ("usr/bin", "usr/sbin", "etc/init.d"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_start_up_files_are_shell_programs(name: str) -> None:
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    finished = subprocess.run([shell, "-n"], input=userland.script(name), capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")


def test_the_first_thing_that_init_does_is_to_say_so() -> None:
    commands = [line for line in userland.script("init").decode().splitlines() if line and not line.startswith("#")]
    assert commands[0] == 'echo "celaje: userland"'


def test_an_initramfs_is_an_archive_with_init_in_it() -> None:
    tree = userland.busybox_userland(BUSYBOX, "guest")
    archive = initramfs(tree, b"#!/bin/sh\n")
    unpacked = cpio.unpack(archive)
    assert unpacked.read("init") == b"#!/bin/sh\n"
    assert unpacked["init"].mode & 0o111
    assert unpacked.read("usr/bin/busybox") == BUSYBOX
    assert zstandard.decompress(initramfs(tree, b"#!/bin/sh\n", "zstd")) == archive
    with pytest.raises(ImageError, match="none, gzip, zstd"):
        initramfs(tree, b"", "rar")
