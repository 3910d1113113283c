"""What recipes take out of Debian's packages: a kernel and its modules, busybox, programs, tools, firmware."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from celaje.errors import ImageError
from celaje.image import deb, userland
from celaje.image.archive import Archive, Package, PackageIndex
from celaje.image.kernel_modules import KernelModules
from celaje.image.programs import with_libraries
from celaje.image.progress import BuildProgress
from celaje.image.tree import Tree

ARCHITECTURE = "riscv64"
LIBRARIES = "usr/lib/riscv64-linux-gnu"
PRIVATE_LIBRARIES = "usr/libexec/sudo"
FIRMWARE = f"{LIBRARIES}/opensbi/generic/fw_dynamic.bin"
BOOT_LOADER = "usr/lib/u-boot/qemu-riscv64_smode/uboot.elf"


@dataclass
class Ingredients:
    """An archive's packages, unpacked as they are asked for; `versions` notes which were."""

    archive: Archive
    progress: BuildProgress
    versions: dict[str, str] = field(default_factory=dict)

    def fetch(self, package: Package) -> Path:
        """The package's .deb."""
        self.versions[package.name] = package.version
        return self.archive.fetch(package, self.progress)

    def kernel(self) -> tuple[str, bytes, KernelModules]:
        """Debian's kernel: its release, its image, its modules. ImageError, HostError."""
        package = self.archive.packages[kernel_package(self.archive.packages)]
        release = package.name.removeprefix("linux-image-")
        image, directory = f"boot/vmlinux-{release}", f"usr/lib/modules/{release}"
        tree = deb.unpack(self.fetch(package), lambda path: path == image or path.startswith(directory + "/"))
        return release, tree.read(image), KernelModules(tree, directory)

    def file(self, name: str, path: str) -> bytes:
        """The file `path` of the package `name`. ImageError, HostError."""
        return deb.unpack(self.fetch(self.archive.packages[name]), lambda one: one == path).read(path)

    def userland(self, hostname: str) -> Tree:
        """busybox's userland."""
        return userland.busybox_userland(self.file("busybox-static", userland.BUSYBOX), hostname)

    def programs(self, packages: Iterable[str], without: Iterable[str], paths: Iterable[str]) -> Tree:
        """The files `paths` of `packages` and of what they need, except `without`; with their libraries."""
        unpacked = Tree()
        unpacked.symlink("lib", "usr/lib")
        for package in self.archive.packages.closure(packages, without):
            unpacked.update(deb.unpack(self.fetch(package)), package.name)
        return with_libraries(unpacked, paths, [LIBRARIES, "usr/lib", PRIVATE_LIBRARIES])

    def toolbox(self, modules: KernelModules, names: Iterable[str] = ("virtio_mmio", "virtio_blk")) -> Tree:
        """What a machine that makes a file system has: busybox, mke2fs, the modules `names`."""
        tree = self.userland("builder")
        tree.update(modules.selected(names))
        for package in self.archive.packages.closure(["e2fsprogs"], without=["logsave"]):
            tree.update(deb.unpack(self.fetch(package), _is_for_mke2fs), package.name)
        return tree


def kernel_package(packages: PackageIndex) -> str:
    """The package of the kernel that `linux-image-riscv64` stands for. ImageError where it stands for none."""
    for alternatives in packages[f"linux-image-{ARCHITECTURE}"].dependencies:
        for name in alternatives:
            if name.startswith("linux-image-") and name in packages:
                return name
    raise ImageError(f"the archive's package linux-image-{ARCHITECTURE} names no kernel that the archive has")


def _is_for_mke2fs(path: str) -> bool:
    library = path.startswith("usr/lib/") and ".so" in path and "/gconv/" not in path
    return library or path in ("usr/sbin/mke2fs", "etc/mke2fs.conf")
