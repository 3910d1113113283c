"""debian-13: Debian 13 as its cloud images have it: systemd, cloud-init, OpenSSH, apt.

The packages are unpacked here and configured inside a machine (installation.py). Kernel and initrd are what the guest's
own scripts made and named in its /boot; they are read from there, as they are of every disk (boot_files.py).
"""

from __future__ import annotations

import uuid
from pathlib import Path

from celaje.image import deb, installation, partition_table, userland
from celaje.image.archive import Archive
from celaje.image.boot_files import boot_files
from celaje.image.bundle import Bundle
from celaje.image.dpkg import Unpacked
from celaje.image.filesystem import RunMachine, Target, Toolbox
from celaje.image.ingredients import ARCHITECTURE, Ingredients
from celaje.image.installation import system_file
from celaje.image.partition_table import BOOTABLE, Partition
from celaje.image.progress import BuildProgress
from celaje.image.tree import Tree
from celaje.machine.virtio.block_backend import RawFile

CODENAME = "trixie"
NAME = "debian-13"
# Beside what is required (Debian Policy 2.5) and what these need.
PACKAGES = (
    "apt ca-certificates cloud-guest-utils cloud-init curl dbus debian-archive-keyring e2fsprogs fdisk initramfs-tools "
    "iproute2 iputils-ping kmod less libpam-systemd linux-image-riscv64 nano netbase openssh-server procps sudo "
    "systemd systemd-resolved systemd-sysv udev zstd"
).split()
_MIB = 1 << 20
_PARTITION_BYTES = 2048 * _MIB
_MODULES = ("virtio_mmio", "virtio_blk", "virtio_rng", "ext4")
_NAMESPACE = uuid.UUID("b0ad1c1c-41a1-5a8b-8f2b-0d0a0a5f5a13")
_LEFT_OUT = tuple(f"usr/share/{name}/" for name in ("doc", "info", "lintian", "locale", "man"))
_SETTINGS = {
    "etc/cloud/cloud.cfg.d/90_image.cfg": "cloud.cfg",
    "etc/dpkg/dpkg.cfg.d/documentation": "dpkg.cfg",
    "etc/initramfs-tools/conf.d/machine": "initramfs.conf",
    "etc/modprobe.d/machine.conf": "modprobe.conf",
    "etc/ssh/sshd_config.d/machine.conf": "sshd.conf",
    "etc/systemd/network/99-machine.network": "cards.network",
    "etc/systemd/networkd.conf.d/machine.conf": "networkd.conf",
    "usr/lib/udev/rules.d/60-machine-slot.rules": "slot.rules",
    "etc/systemd/system.conf.d/machine.conf": "systemd.conf",
    "etc/systemd/system/systemd-networkd-wait-online.service.d/machine.conf": "wait-online.conf",
    "etc/systemd/system/machine-clock.service": "clock.service",
    "usr/share/initramfs-tools/modules.d/machine": "initramfs-modules",
    "configure": "configure",
}


def build(directory: Path, archive: Archive, run_machine: RunMachine, progress: BuildProgress) -> Bundle:
    """Make the files of the image in `directory`.

    ImageError, HostError, GuestError as packages, downloads and the machine that installs them do.
    """
    ingredients = Ingredients(archive, progress)
    progress.stage("Fetching the packages")
    asked = [*archive.packages.base(), *PACKAGES]
    packages = archive.packages.closure(asked)
    files = {package.name: ingredients.fetch(package) for package in packages}
    progress.stage("Unpacking the packages")
    unpacked = Unpacked(_is_kept)
    for name, path in files.items():
        unpacked.add(deb.control(path), deb.unpack(path), name)
    tree = unpacked.finish()
    identifier = installation.identifier_of(_NAMESPACE, ingredients.versions)
    _set_up(tree, identifier, archive, set(files) - set(asked))

    _, kernel, modules = ingredients.kernel()
    (directory / "kernel").write_bytes(kernel)
    toolbox = Toolbox(directory / "kernel", ingredients.toolbox(modules, _MODULES))
    disk = directory / "disk.raw"
    partition = Partition(_MIB, _PARTITION_BYTES, uuid.uuid5(identifier, "partition"), "root", attributes=BOOTABLE)
    size = partition_table.smallest_disk([partition])
    with open(disk, "wb") as file:
        file.truncate(size)
        partition_table.write(file, size, uuid.uuid5(identifier, "disk"), [partition])
    target = Target(disk, 1, partition.start, identifier, NAME)
    installation.install(tree, len(packages), target, toolbox, run_machine, progress)

    found = boot_files(RawFile(disk, read_only=True))
    (directory / "kernel").write_bytes(found.kernel)
    (directory / "initrd").write_bytes(found.initrd)
    return Bundle(
        "kernel",
        ARCHITECTURE,
        f"console=ttyS0 root=UUID={identifier} rw ds=Ec2",
        {"kernel": directory / "kernel", "initrd": directory / "initrd", "disk": disk},
        {package.name: package.version for package in packages},
        archive.released,
        archive.notes,
    )


def _is_kept(path: str) -> bool:
    """As system/dpkg.cfg says it to the guest's dpkg."""
    return not path.startswith(_LEFT_OUT) or path.endswith(("/copyright", "/locale.alias"))


def _set_up(tree: Tree, identifier: uuid.UUID, archive: Archive, automatic: set[str]) -> None:
    """Put what no package has into the tree; system/configure does what has to wait for their scripts."""
    for path, name in _SETTINGS.items():
        tree.file(path, system_file(name))
    tree.file("usr/lib/machine/clock", userland.script("clock"), 0o755)
    tree.file("usr/lib/machine/slot", system_file("slot"), 0o755)
    tree.file("etc/fstab", f"UUID={identifier} / ext4 defaults,discard,errors=remount-ro 0 1\n".encode())
    tree.file("etc/hostname", f"{NAME}\n".encode())
    tree.file("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n::1 localhost ip6-localhost\n".encode())
    tree.file("etc/default/locale", b"LANG=C.UTF-8\n")
    if not archive.mirror.base.startswith("file:"):
        source = (
            f"Types: deb\nURIs: {archive.mirror.base}\nSuites: {CODENAME} {CODENAME}-updates\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        tree.file("etc/apt/sources.list.d/debian.sources", source.encode())
    # apt autoremove takes only what came as a dependency.
    marks = (f"Package: {name}\nArchitecture: {ARCHITECTURE}\nAuto-Installed: 1\n" for name in sorted(automatic))
    tree.file("var/lib/apt/extended_states", "\n".join(marks).encode())
    for kind in ("rsa", "ecdsa", "ed25519"):
        # openssh-server's script makes the keys that it does not find, and every instance would have the same.
        tree.file(f"etc/ssh/ssh_host_{kind}_key", b"", 0o600)
