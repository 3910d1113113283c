from __future__ import annotations

import dataclasses

import pytest

from celaje.errors import ImageError
from celaje.image import store
from celaje.image.disk_image import image_from_disk
from celaje.image.store import Image
from tests.image.conftest import DiskInMemory, MakeDisk
from tests.image.test_boot_files import EXTLINUX, KERNELS


def content(image: Image, role: str) -> bytes:
    path = image.file(role)
    assert path is not None
    return path.read_bytes()


def test_an_image_of_a_disk_has_its_content_and_the_kernel_that_it_boots_now(make_disk: MakeDisk) -> None:
    disk = make_disk(KERNELS)
    image = image_from_disk("mine", DiskInMemory(disk))
    assert store.open_image("mine") == image
    assert content(image, "disk") == disk
    assert content(image, "kernel") == b"tenth again"
    assert content(image, "initrd") == b"tenth initrd"
    assert image.description.command_line.startswith("console=ttyS0 root=UUID=")
    assert image.size < len(disk)


def test_the_command_line_is_the_callers_else_the_disks_else_the_bases(make_disk: MakeDisk) -> None:
    disk = DiskInMemory(make_disk(KERNELS))
    first = image_from_disk("first", disk, command_line="init=/bin/sh")
    assert first.description.command_line == "init=/bin/sh"
    described = dataclasses.replace(first.description, command_line="of the base", packages={"dash": "1"})
    second = image_from_disk("second", disk, Image(first.directory, described))
    assert second.description.command_line == "of the base"
    assert second.description.packages == {"dash": "1"}


def test_a_boot_loaders_command_line_goes_before_the_bases(make_disk: MakeDisk) -> None:
    disk = DiskInMemory(make_disk({**KERNELS, "boot/extlinux/extlinux.conf": EXTLINUX}))
    image = image_from_disk("mine", disk)
    assert image.description.command_line == "root=/dev/vda1 quiet"
    assert content(image, "kernel") == b"second"
    assert image.file("initrd") is not None


def test_a_disk_that_boots_nothing_makes_no_image() -> None:
    with pytest.raises(ImageError, match="no kernel"):
        image_from_disk("mine", DiskInMemory(bytes(4 << 20)))
    assert store.names() == []
