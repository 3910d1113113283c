"""The recipe, from a fabricated archive to a published image. Only the machine that runs mke2fs is replaced here."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.errors import GuestError, ImageError
from celaje.image import cpio, debian_mini, recipes, store, userland
from celaje.image.archive_keys import ArchiveKeys
from celaje.image.filesystem import VERDICT_MADE, MachineRun
from celaje.image.ingredients import BOOT_LOADER, FIRMWARE, LIBRARIES
from tests.image.conftest import FabricatedArchive, MirrorServer, deb_of
from tests.image.test_kernel_modules import module
from tests.image.test_userland import BUSYBOX

RELEASE = "6.12-riscv64"
MODULES = {
    "drivers/virtio/virtio_mmio": module(depends="", alias="of:N*T*Cvirtio,mmio"),
    "drivers/block/virtio_blk": module(depends="", alias="virtio:d00000002v*"),
    "drivers/net/virtio_net": module(depends="net_failover"),
    "drivers/net/net_failover": module(depends=""),
    "drivers/scsi/virtio_scsi": module(depends="scsi_mod"),
    "drivers/scsi/sd_mod": module(depends="scsi_mod"),
    "drivers/scsi/scsi_mod": module(depends=""),
    "drivers/char/hw_random/virtio-rng": module(depends=""),
    "drivers/virtio/virtio_input": module(depends=""),
    "drivers/input/evdev": module(depends="", alias="input:b*"),
    "fs/ext4/ext4": module(depends="jbd2"),
    "fs/jbd2/jbd2": module(depends=""),
    "drivers/gpu/unwanted": module(depends=""),
}


@pytest.fixture
def debian(fabricated: FabricatedArchive, server: MirrorServer, monkeypatch: pytest.MonkeyPatch) -> FabricatedArchive:
    """An archive with all that the recipe wants, which this host's settings lead to."""
    kernel = {f"./boot/vmlinux-{RELEASE}": b"MZ kernel", f"./usr/lib/modules/{RELEASE}/modules.builtin": b""}
    kernel |= {f"./usr/lib/modules/{RELEASE}/kernel/{path}.ko": content for path, content in MODULES.items()}
    firmware = {"./" + FIRMWARE: b"opensbi"}
    loader = {"./" + BOOT_LOADER: b"\x7fELF u-boot"}
    libraries = {"./usr/lib/riscv64-linux-gnu/libc.so.6": b"libc", "./usr/lib/riscv64-linux-gnu/gconv/BIG5.so": b"big"}
    fabricated.package("linux-image-riscv64", depends=f"linux-image-{RELEASE} (= 6.12-1)")
    fabricated.package(f"linux-image-{RELEASE}", deb_of(kernel), depends="kmod, initramfs-tools | linux-initramfs-tool")
    programs = {f"./{path}": b"program" for path in debian_mini._PROGRAMS}
    programs |= {f"./{LIBRARIES}/security/{name}": b"module" for name in debian_mini._PAM_MODULES}
    fabricated.package("dropbear-bin", deb_of(programs | {"./usr/bin/unwanted": b""}))
    for name in ("libpam-modules", "openssh-sftp-server", "sudo"):
        fabricated.package(name, deb_of({f"./usr/share/doc/{name}": b""}), "libc6")
    fabricated.package("busybox-static", deb_of({"./usr/bin/busybox": BUSYBOX}))
    fabricated.package(
        "e2fsprogs", deb_of({"./usr/sbin/mke2fs": b"mke2fs", "./etc/mke2fs.conf": b""}), "libc6, logsave"
    )
    fabricated.package("libc6", deb_of(libraries))
    fabricated.package("opensbi", deb_of(firmware))
    fabricated.package("u-boot-qemu", deb_of(loader))
    fabricated.publish()
    monkeypatch.setenv("CELAJE_DEBIAN_MIRROR", server.base)
    monkeypatch.setattr(ArchiveKeys, "of_debian", lambda: fabricated.keys)
    return fabricated


class Guest:
    """Stands where a machine runs mke2fs: keeps what it was given and leaves a superblock."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.initrd: bytes = b""

    def __call__(self, wanted: MachineRun) -> str:
        disk, source = wanted.disks
        with tarfile.open(source.path) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                if content is not None:
                    self.files[member.name] = content.read()
        self.initrd = wanted.initrd.read_bytes()
        words = dict(word.split("=", 1) for word in wanted.command_line.split() if "=" in word)
        superblock = bytearray(1024)
        struct.pack_into("<HH", superblock, 0x38, 0xEF53, 1)
        superblock[0x68:0x78] = bytes.fromhex(words["celaje.uuid"].replace("-", ""))
        with open(disk.path, "r+b") as file:
            file.seek((1 << 20) + 1024)
            file.write(superblock)
        return VERDICT_MADE


def content(image: store.Image, role: str) -> bytes:
    path = image.file(role)
    assert path is not None
    return path.read_bytes()


@pytest.mark.usefixtures("debian")
def test_the_image_has_kernel_initrd_and_a_disk_that_boots_the_same() -> None:
    guest = Guest()
    image = recipes.build("debian-mini", guest).image
    assert store.open_image("debian-mini") == image
    assert content(image, "kernel") == b"MZ kernel" == guest.files[f"boot/vmlinux-{RELEASE}"]
    assert content(image, "initrd") == guest.files[f"boot/initrd.img-{RELEASE}"]
    initrd = cpio.unpack(content(image, "initrd"))
    assert initrd.read("init") == userland.script("init")
    modules = f"usr/lib/modules/{RELEASE}/kernel"
    wanted = {path for path in MODULES if path != "drivers/gpu/unwanted"}
    assert {path.removeprefix(f"{modules}/") for path, _ in initrd if path.endswith(".ko")} == {
        f"{one}.ko" for one in wanted
    }
    command_line = image.description.command_line
    assert "root=UUID=" in command_line
    assert f"append {command_line}" in guest.files["boot/extlinux/extlinux.conf"].decode()
    assert guest.files["usr/sbin/dropbear"] == b"program"
    assert "usr/bin/unwanted" not in guest.files
    assert "usr/sbin/dropbear" not in initrd
    assert initrd["usr/sbin/grow-partition"].mode & 0o111
    assert image.description.boot == "kernel"
    assert image.description.packages["busybox-static"] == "1.0-1"
    assert content(image, "disk")[512:520] == b"EFI PART"


@pytest.mark.usefixtures("debian")
def test_the_machine_that_makes_the_disk_has_debians_mke2fs_and_its_libraries() -> None:
    guest = Guest()
    recipes.build("debian-mini", guest)
    tools = cpio.unpack(guest.initrd)
    assert tools.read("usr/sbin/mke2fs") == b"mke2fs"
    assert tools.read("lib/riscv64-linux-gnu/libc.so.6") == b"libc"
    assert "usr/lib/riscv64-linux-gnu/gconv/BIG5.so" not in tools
    assert tools.read("init") == userland.script("make-filesystem")


@pytest.mark.usefixtures("debian")
def test_the_same_packages_make_the_same_files() -> None:
    first = recipes.build("debian-mini", Guest()).image.description
    second = recipes.build("debian-mini", Guest(), name="again").image.description
    assert first.files == second.files


@pytest.mark.usefixtures("debian")
def test_the_firmware_image_has_the_firmware_and_the_boot_loader() -> None:
    image = recipes.build("debian-mini-firmware", Guest()).image
    assert image.description.boot == "firmware"
    assert image.description.command_line == ""
    assert content(image, "firmware") == b"opensbi"
    assert content(image, "kernel") == b"\x7fELF u-boot"
    assert image.file("initrd") is None
    assert {path.name for path in image.directory.iterdir()} == {"image.json", "disk.raw", "firmware", "kernel"}


def break_kernel(debian: FabricatedArchive) -> None:
    path = next(path for path in debian.files if f"linux-image-{RELEASE}_" in path)
    debian.files[path] = debian.files[path][:-1] + b"!"


def break_signature(debian: FabricatedArchive) -> None:
    debian.files["dists/trixie/InRelease"] = debian.files["dists/trixie/InRelease"].replace(b"13.0", b"13.1")


def lose_busybox(debian: FabricatedArchive) -> None:
    debian.stanzas = [stanza for stanza in debian.stanzas if "busybox" not in stanza]
    debian.publish()


def empty_busybox(debian: FabricatedArchive) -> None:
    debian.stanzas = [stanza for stanza in debian.stanzas if "busybox" not in stanza]
    debian.package("busybox-static", deb_of({"./usr/share/doc": b""}))
    debian.publish()


def lose_kernel(debian: FabricatedArchive) -> None:
    debian.stanzas = [stanza for stanza in debian.stanzas if not stanza.startswith(f"Package: linux-image-{RELEASE}\n")]
    debian.publish()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_kernel, "SHA-256"),
        (break_signature, "not signed by a key"),
        (lose_busybox, "no package 'busybox-static'"),
        (empty_busybox, "no file 'usr/bin/busybox'"),
        (lose_kernel, "names no kernel"),
    ],
)
def test_what_debian_did_not_sign_makes_no_image(
    debian: FabricatedArchive, damage: Callable[[FabricatedArchive], None], said: str
) -> None:
    damage(debian)
    with pytest.raises(ImageError, match=said) as caught:
        recipes.build("debian-mini", Guest())
    assert "\n" not in str(caught.value)
    assert store.names() == []
    assert not any(store.images_directory().glob("*/*"))


@pytest.mark.usefixtures("debian")
def test_a_machine_that_fails_makes_no_image() -> None:
    with pytest.raises(GuestError, match="Kernel panic"):
        recipes.build("debian-mini", lambda wanted: "Kernel panic - not syncing\n")
    assert store.names() == []
    assert not list(Path(store.images_directory()).glob("**/disk.raw"))
