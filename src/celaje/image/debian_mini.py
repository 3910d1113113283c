"""debian-mini: the smallest Debian that boots: its kernel, the modules a virtual machine needs, busybox.

    initrd      userland + modules + an /init that goes on to the disk, or stays where no root= is given
    disk        GPT, one ext4: the same userland; SSH, sudo and tools for file systems; /boot with kernel, initrd and
                extlinux/extlinux.conf

So the disk boots from a kernel beside it (boot method `kernel`) and from u-boot, which reads extlinux.conf
(boot method `firmware`).
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from celaje.image import partition_table, userland
from celaje.image.archive import Archive
from celaje.image.bundle import Bundle
from celaje.image.filesystem import RunMachine, Target, Toolbox, build_ext4
from celaje.image.ingredients import ARCHITECTURE, BOOT_LOADER, FIRMWARE, LIBRARIES, Ingredients
from celaje.image.initramfs import initramfs
from celaje.image.partition_table import BOOTABLE, Partition
from celaje.image.progress import BuildProgress
from celaje.image.tree import Tree

CODENAME = "trixie"
HOSTNAME = "debian-mini"
_MIB = 1 << 20
_PARTITION_BYTES = 256 * _MIB
_ROOT_MODULES = "virtio_mmio virtio_blk virtio_net virtio_scsi sd_mod virtio_rng virtio_input evdev ext4".split()
_PACKAGES = "dropbear-bin e2fsprogs libpam-modules openssh-sftp-server sudo".split()
# What they name, but none of the programs below needs.
_WITHOUT = (
    "debconf init-system-helpers libdb5.3t64 libpam-modules-bin libsystemd0 logsave openssh-client "
    "openssl-provider-legacy"
).split()
_PROGRAMS = (
    "usr/sbin/dropbear usr/bin/dropbearkey usr/bin/dbclient usr/lib/openssh/sftp-server usr/sbin/mke2fs "
    "usr/sbin/e2fsck usr/sbin/resize2fs etc/mke2fs.conf usr/bin/sudo usr/libexec/sudo/sudoers.so"
).split()
_PAM_MODULES = ("pam_deny.so", "pam_permit.so")
_LINKS = {
    "usr/bin/ssh": "dbclient",
    "usr/lib/sftp-server": "openssh/sftp-server",  # where dropbear looks
    "usr/sbin/mkfs.ext4": "mke2fs",
    "usr/sbin/fsck.ext4": "e2fsck",
}
_SUDOERS = b"""# Root and admin do what they like; nobody has a password.
Defaults env_reset, secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) NOPASSWD: ALL
admin ALL=(ALL:ALL) NOPASSWD: ALL
"""
_PAM = b"auth required pam_deny.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
_NAMESPACE = uuid.UUID("2b2f5d0e-5a64-5b1c-9c06-7f1d9f0d8a31")


def build(
    directory: Path, archive: Archive, run_machine: RunMachine, progress: BuildProgress, boot_method: str
) -> Bundle:
    """Make the files of the image in `directory`. `created` is the time of the archive's release, so builds repeat.

    ImageError, HostError, GuestError as packages, downloads and the machine that makes the file system do.
    """
    ingredients = Ingredients(archive, progress)
    progress.stage("Unpacking the kernel and busybox")
    kernel_version, kernel, modules = ingredients.kernel()
    base = ingredients.userland(HOSTNAME)
    base.update(modules.selected(_ROOT_MODULES))
    initrd = initramfs(base, userland.script("init"))
    (directory / "kernel").write_bytes(kernel)
    (directory / "initrd").write_bytes(initrd)

    identifier = uuid.uuid5(_NAMESPACE, hashlib.sha256(kernel + initrd).hexdigest())
    command_line = f"console=ttyS0 root=UUID={identifier} rw quiet"
    root = Tree()
    root.update(base)
    root.update(_programs(ingredients))
    _add_boot(root, kernel_version, kernel, initrd, command_line)
    progress.stage("Making the disk inside a machine")
    toolbox = Toolbox(directory / "kernel", ingredients.toolbox(modules))
    _make_disk(directory / "disk.raw", root, identifier, toolbox, run_machine, archive.released)

    files = {"kernel": directory / "kernel", "initrd": directory / "initrd", "disk": directory / "disk.raw"}
    if boot_method == "firmware":
        files = {"disk": files["disk"], **_firmware(directory, ingredients)}
        (directory / "initrd").unlink()
    return Bundle(
        boot_method,
        ARCHITECTURE,
        command_line if boot_method == "kernel" else "",
        files,
        dict(sorted(ingredients.versions.items())),
        archive.released,
        archive.notes,
    )


def _programs(ingredients: Ingredients) -> Tree:
    """SSH, sudo and what makes, checks and grows ext4, set up."""
    modules = [f"{LIBRARIES}/security/{name}" for name in _PAM_MODULES]
    tree = ingredients.programs(_PACKAGES, _WITHOUT, [*_PROGRAMS, *modules])
    for path, target in _LINKS.items():
        tree.symlink(path, target)
    tree.file("etc/sudoers", _SUDOERS, 0o440)
    tree.directory("etc/dropbear", 0o700)
    for service in ("sudo", "sudo-i", "other"):
        tree.file(f"etc/pam.d/{service}", _PAM)
    return tree


def _firmware(directory: Path, ingredients: Ingredients) -> dict[str, Path]:
    files = {"firmware": ingredients.file("opensbi", FIRMWARE), "kernel": ingredients.file("u-boot-qemu", BOOT_LOADER)}
    for role, content in files.items():
        (directory / role).write_bytes(content)
    return {role: directory / role for role in files}


def _add_boot(root: Tree, release: str, kernel: bytes, initrd: bytes, command_line: str) -> None:
    root.file(f"boot/vmlinux-{release}", kernel)
    root.file(f"boot/initrd.img-{release}", initrd)
    entry = f"""default debian
timeout 1
label debian
    menu label Debian GNU/Linux, {release}
    linux /boot/vmlinux-{release}
    initrd /boot/initrd.img-{release}
    append {command_line}
"""
    root.file("boot/extlinux/extlinux.conf", entry.encode())


def _make_disk(
    path: Path, root: Tree, identifier: uuid.UUID, toolbox: Toolbox, run_machine: RunMachine, time: int
) -> None:
    partition = Partition(_MIB, _PARTITION_BYTES, uuid.uuid5(identifier, "partition"), "root", attributes=BOOTABLE)
    disk_bytes = partition_table.smallest_disk([partition])
    with open(path, "wb") as file:
        file.truncate(disk_bytes)
        partition_table.write(file, disk_bytes, uuid.uuid5(identifier, "disk"), [partition])
    build_ext4(root, Target(path, 1, partition.start, identifier, HOSTNAME), toolbox, run_machine, time)
