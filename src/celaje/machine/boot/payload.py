"""What the files that a person gives put into memory, and where the harts start: kernel, initrd, firmware, device tree.

0x8000_0000   firmware, or a kernel's text_offset from here
0x8020_0000   the kernel above firmware
...
...           initrd
...           tables of the UEFI kind (efi.py), where a kernel is told who the machine is
...           information for firmware, a page
end - 64 KiB  device tree, with room to grow: firmware edits it in place
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from celaje.engine.memory import PAGE_SIZE, GuestMemory, OutOfGuestMemory
from celaje.errors import HostError, ImageError, InputError, NotFound
from celaje.machine.boot import linux_image
from celaje.machine.boot.firmware import FLAT_BASE, KERNEL_BASE
from celaje.machine.boot.segment import Segment

DEVICE_TREE_GROWTH = 1 << 16
ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Payload:
    """One file's contribution: its pieces, where it starts, and where it has its HTIF doublewords."""

    name: str
    segments: tuple[Segment, ...]
    entry: int
    tohost: int | None = None
    fromhost: int | None = None

    @property
    def end(self) -> int:
        """The first address behind it."""
        return max(segment.address + segment.size for segment in self.segments)


def read_file(path: Path, what: str) -> bytes:
    """The file's bytes. `what` it is said to be stands in the error: NotFound, InputError or HostError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no {what} {path}; check the name: ls {path.parent}") from None
    except IsADirectoryError:
        raise InputError(f"{what} {path} is a directory; give a file in it: ls {path}") from None
    except PermissionError:
        raise InputError(f"{what} {path} may not be read by this user; change its mode: chmod +r {path}") from None
    except OSError as error:
        raise HostError(f"{what} {path} cannot be read ({error.strerror}); copy it to a disk that works") from error
    if not data:
        raise ImageError(f"{what} {path} is empty; build or get it again")
    return data


def _elf(data: bytes, name: str) -> Payload:
    # pyelftools takes longer to import than all of the machine, and most machines start no ELF file.
    from celaje.machine.boot import elf

    program = elf.parse(data, name)
    tohost, fromhost = program.symbols.get("tohost"), program.symbols.get("fromhost")
    if tohost is not None and tohost % 8:
        raise ImageError(
            f"{name} has tohost at {tohost:#x}; it must be a multiple of 8, so align it in the linker script"
        )
    return Payload(name, program.segments, program.entry, tohost, fromhost)


def kernel(path: Path, ram_base: int, above_firmware: bool) -> Payload:
    """A kernel for supervisor mode: a Linux image, an ELF file or (above firmware only) anything flat."""
    name = str(path)
    data = linux_image.unpack(read_file(path, "kernel"), name)
    if data.startswith(ELF_MAGIC):
        return _elf(data, name)
    if above_firmware and not linux_image.is_linux_image(data):
        return Payload(name, (Segment(KERNEL_BASE, data, len(data)),), KERNEL_BASE)
    image = linux_image.parse(data, name)
    base = KERNEL_BASE if above_firmware else ram_base + image.text_offset
    return Payload(name, (Segment(base, image.data, image.image_size),), base)


def firmware(path: Path) -> Payload:
    """Firmware or a bare-metal program for machine mode: an ELF file, or flat for 0x80000000."""
    name = str(path)
    data = read_file(path, "firmware")
    if data.startswith(ELF_MAGIC):
        return _elf(data, name)
    return Payload(name, (Segment(FLAT_BASE, data, len(data)),), FLAT_BASE)


def _remedy(ram: GuestMemory, address: int) -> str:
    if address < ram.base:
        return f"link it for {ram.base:#x}, or give its flat binary"
    return "give more --memory"


def load(ram: GuestMemory, payload: Payload) -> None:
    """Put `payload` into fresh `ram`. ImageError where it does not lie there wholly."""
    for whole in payload.segments:
        segment = whole if whole.address >= ram.base else whole.without_heading()
        if not ram.contains(segment.address, segment.size):
            raise ImageError(
                f"{payload.name} is made for {segment.address:#x} to {segment.address + segment.size:#x}, and RAM is "
                f"{ram.base:#x} to {ram.base + ram.size:#x}; {_remedy(ram, segment.address)}"
            )
        try:
            ram.write(segment.address, segment.data)
        except OutOfGuestMemory as error:  # more bytes than it says it takes
            raise ImageError(f"{payload.name} is damaged: {error}") from error
    if payload.tohost is not None and not ram.contains(payload.tohost, 8):
        raise ImageError(
            f"{payload.name} has tohost at {payload.tohost:#x}, where no RAM is; link it for {ram.base:#x}"
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything lies that is not the kernel's or firmware's own choice (guest-physical)."""

    device_tree: int
    information: int
    tables: int
    initrd: tuple[int, int] | None


def place(
    ram: GuestMemory, end: int, device_tree_size: int, initrd: bytes | None, tables_size: int = 0
) -> Placement:
    """Addresses at the top of `ram`, above `end`, the end of what is loaded. InputError where memory is too small.

    Sizes are in bytes; that of the tables is whole pages.
    """
    device_tree = ram.base + ram.size - DEVICE_TREE_GROWTH - device_tree_size & -PAGE_SIZE
    information = device_tree - PAGE_SIZE
    tables = lowest = information - tables_size
    where = None
    if initrd is not None:
        lowest = tables - len(initrd) & -PAGE_SIZE
        where = (lowest, lowest + len(initrd))
    if lowest < end:
        missing = (end - lowest >> 20) + 1
        raise InputError(
            f"{ram.size >> 20} MiB of memory are too small for what is to be loaded; "
            f"give at least --memory {(ram.size >> 20) + missing}M"
        )
    return Placement(device_tree, information, tables, where)
