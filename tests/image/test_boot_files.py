from __future__ import annotations

import random

import pytest

from celaje.errors import ImageError
from celaje.image.boot_files import boot_files
from tests.image.conftest import DiskInMemory, MakeDisk

MIB = 1 << 20
EXTLINUX = b"""default two
LABEL one
    linux /boot/vmlinux-1
label two
    menu label the second
    linux ../vmlinux-2
    initrd /boot/initrd.img-2
    append root=/dev/vda1 quiet
"""


KERNELS: dict[str, bytes | str] = {
    "boot/vmlinux-1": b"first",
    "boot/vmlinux-2": b"second",
    "boot/initrd.img-2": b"second initrd",
    "boot/vmlinux-10~rc1": b"tenth candidate",
    "boot/vmlinux-10": b"tenth",
    "boot/vmlinux-10+b1": b"tenth again",
    "boot/initrd.img-10+b1": b"tenth initrd",
}


def test_the_default_entry_of_extlinux_conf_boots(make_disk: MakeDisk) -> None:
    files = {**KERNELS, "boot/extlinux/extlinux.conf": EXTLINUX, "vmlinuz": "boot/vmlinux-1"}
    found = boot_files(DiskInMemory(make_disk(files)))
    assert (found.path, found.kernel, found.initrd) == ("/boot/vmlinux-2", b"second", b"second initrd")
    assert found.command_line == "root=/dev/vda1 quiet"


def test_else_debians_links_lead_to_what_boots(make_disk: MakeDisk) -> None:
    links: dict[str, bytes | str] = {"vmlinux": "boot/vmlinux-2", "initrd.img": "boot/initrd.img-2"}
    found = boot_files(DiskInMemory(make_disk({**KERNELS, **links})))
    assert (found.kernel, found.initrd, found.command_line) == (b"second", b"second initrd", "")


def test_a_link_to_a_kernel_alone_leads_to_the_initrd_of_its_version(make_disk: MakeDisk) -> None:
    found = boot_files(DiskInMemory(make_disk({**KERNELS, "vmlinuz": "boot/vmlinux-2"})))
    assert (found.path, found.initrd) == ("/boot/vmlinux-2", b"second initrd")
    assert boot_files(DiskInMemory(make_disk({"vmlinuz": "boot/kernel", "boot/kernel": b"it"}))).initrd == b""


@pytest.mark.parametrize("partitioned", [True, False])
def test_else_the_newest_version_boots(make_disk: MakeDisk, partitioned: bool) -> None:
    found = boot_files(DiskInMemory(make_disk(KERNELS, partitioned)))
    assert (found.path, found.initrd) == ("/boot/vmlinux-10+b1", b"tenth initrd")


def test_the_second_copy_of_the_partition_table_serves_where_the_first_is_gone(make_disk: MakeDisk) -> None:
    disk = bytearray(make_disk(KERNELS))
    disk[512:1024] = bytes(512)
    assert boot_files(DiskInMemory(disk)).kernel == b"tenth again"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"etc/hostname": b"guest"}, "without /boot/extlinux/extlinux.conf"),
        ({"boot/extlinux/extlinux.conf": b"default none\n"}, "names no kernel"),
        ({"boot/extlinux/extlinux.conf": b"label a\nlinux /gone\n"}, "names the kernel /gone, which is not there"),
        ({**KERNELS, "boot/extlinux/extlinux.conf": b"label a\nlinux /boot/vmlinux-1\ninitrd /gone\n"}, "initrd /gone"),
        ({"vmlinuz": "boot/gone"}, "no kernel"),
    ],
)
def test_a_disk_that_boots_nothing_says_why(make_disk: MakeDisk, files: dict[str, bytes | str], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        boot_files(DiskInMemory(make_disk(files)))


def test_damage_is_an_image_error_or_boots_something_else(make_disk: MakeDisk) -> None:
    whole = make_disk({**KERNELS, "boot/extlinux/extlinux.conf": EXTLINUX})
    used = [start for start in range(0, len(whole), 512) if any(whole[start : start + 512])]
    chance = random.Random(40)
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            damaged[chance.choice(used) + chance.randrange(512)] = chance.randrange(256)
        try:
            boot_files(DiskInMemory(damaged))
        except ImageError as error:
            assert "no kernel that celaje can start" in str(error) or "sectors" in str(error)
    for length in (0, 512, 40 * 512, MIB, 3 * MIB):
        with pytest.raises(ImageError):
            boot_files(DiskInMemory(whole[:length]))
