"""Kernel and initrd of a disk, as the system on it would boot: what a guest has upgraded is what starts next.

Looked for on the first file system (of a GUID partition table, or the whole disk) that has one of
    /boot/extlinux/extlinux.conf         its default entry (U-Boot: doc/README.pxe; the syslinux project's format)
    /vmlinuz, /vmlinux                   Debian's links to the newest kernel, beside them /initrd.img (else as below)
    /boot/vmlinuz-V, /boot/vmlinux-V     the newest version V, beside it /boot/initrd.img-V
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from posixpath import join

from celaje.errors import ImageError
from celaje.image import partition_table
from celaje.image.disk_source import DiskSource
from celaje.image.ext4 import Ext4

_TEXT_BYTES = 1 << 20
_KERNELS = ("vmlinuz", "vmlinux")
_EXTLINUX = "/boot/extlinux/extlinux.conf"


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What boots: `command_line` is empty where the disk says nothing of it, `initrd` where there is none.

    `path` is the kernel's own on the file system with the identifier `file_system`.
    """

    file_system: uuid.UUID
    path: str
    kernel: bytes
    initrd: bytes
    command_line: str


def boot_files(disk: DiskSource) -> BootFiles:
    """The kernel that `disk` boots. ImageError where nothing on it can be read, or it has none."""
    reasons = []
    for start, length in _places(disk):
        try:
            system = Ext4(disk, start, length)
            found = _by_extlinux(system) or _by_links(system) or _by_version(system)
        except ImageError as error:
            reasons.append(f"at byte {start}: {error}")
            continue
        if found:
            return found
        reasons.append(f"at byte {start}: a file system without {_EXTLINUX}, /vmlinuz or a kernel in /boot")
    raise ImageError(f"the disk has no kernel that celaje can start ({'; '.join(reasons[:4])})")


def _places(disk: DiskSource) -> list[tuple[int, int]]:
    """Where there may be a file system: start and length in bytes."""
    partitions = partition_table.read(disk)
    if partitions is None:
        return [(0, disk.size)]
    return [(one.start, one.size) for one in partitions]


def _taken(system: Ext4, kernel: str, initrd: str, command_line: str = "") -> BootFiles | None:
    found = system.find(kernel)
    if found is None or not found[1].is_regular:
        return None
    content = system.read(initrd) if initrd else b""
    if initrd and content is None:
        raise ImageError(f"the disk has the kernel {found[0]}, but not its initrd {initrd}")
    return BootFiles(system.identifier, found[0], system.content(found[1]), content or b"", command_line)


def _by_extlinux(system: Ext4) -> BootFiles | None:
    text = system.read(_EXTLINUX, _TEXT_BYTES)
    if text is None:
        return None
    default = ""
    entry: dict[str, str] = {}
    entries: dict[str, dict[str, str]] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        word, _, rest = line.strip().partition(" ")
        word, rest = word.lower(), rest.strip()
        if word == "default":
            default = rest
        elif word == "label":
            entry = entries.setdefault(rest, {})
        elif word in ("linux", "kernel"):
            entry["linux"] = rest
        elif word in ("initrd", "append"):
            entry[word] = rest
    chosen: dict[str, str] = entries.get(default) or next(iter(entries.values()), {})
    if "linux" not in chosen:
        raise ImageError(f"{_EXTLINUX} on the disk names no kernel")
    folder = _EXTLINUX.rpartition("/")[0]
    kernel = join(folder, chosen["linux"])
    initrd = join(folder, chosen["initrd"]) if "initrd" in chosen else ""
    found = _taken(system, kernel, initrd, chosen.get("append", ""))
    if found is None:
        raise ImageError(f"{_EXTLINUX} on the disk names the kernel {kernel}, which is not there")
    return found


def _by_links(system: Ext4) -> BootFiles | None:
    for folder in ("/", "/boot"):
        for name in _KERNELS:
            found = system.find(join(folder, name))
            if found is not None:
                link = join(folder, "initrd.img")
                return _taken(system, found[0], link if system.find(link) else _initrd_beside(system, found[0]))
    return None


def _initrd_beside(system: Ext4, kernel: str) -> str:
    """The initrd of the same version; empty where there is none, or the kernel's name says no version."""
    folder, _, name = kernel.rpartition("/")
    initrd = f"{folder}/initrd.img-{name.partition('-')[2]}"
    return initrd if "-" in name and system.find(initrd) else ""


def _by_version(system: Ext4) -> BootFiles | None:
    names = system.names("/boot")
    kernels = [name for name in names if name.partition("-")[0] in _KERNELS and "-" in name]
    if not kernels:
        return None
    newest = f"/boot/{max(kernels, key=lambda name: _version(name.partition('-')[2]))}"
    return _taken(system, newest, _initrd_beside(system, newest))


def _version(text: str) -> list[tuple[int, int, str]]:
    """What versions are compared by: numbers as numbers; `~` is before everything, the end included."""
    parts = re.findall(r"\d+|~|[^\d~]+", text)
    key = [(2, int(part), "") if part.isdigit() else (0 if part == "~" else 3, 0, part) for part in parts]
    return [*key, (1, 0, "")]
