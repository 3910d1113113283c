"""The options that describe a machine, the same for every command that makes one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser, count, seconds, size
from celaje.cli.network_option import add_network_option, network_options
from celaje.errors import UsageError

if TYPE_CHECKING:
    from celaje.host.machine_options import DiskOption, MachineOptions

DISK_HELP = "a raw disk; may be given again"
DISK_EPILOG = """\
The first disk, the image's own if it has one, is a virtio block device (/dev/vda in Linux), the others are disks of a
SCSI controller (/dev/sda and so on). bus=virtio or bus=scsi puts one elsewhere, for a kernel that has one driver."""
IMAGE_HELP = "an image's name (`celaje image ls`) or directory"


def add_options(parser: Parser) -> None:
    """Everything but the image."""
    add = parser.add_argument
    add("--kernel", type=Path, metavar="FILE", help="a Linux Image, plain or gzipped, or an ELF file: supervisor mode")
    add("--initrd", type=Path, metavar="FILE", help="the kernel's first file system")
    add("--append", metavar="TEXT", help="the kernel's command line")
    add("--firmware", type=Path, metavar="FILE", help="an ELF file, or a flat one for 0x80000000: machine mode")
    add("--disk", action="append", default=[], metavar="FILE[,readonly][,bus=virtio|scsi]", help=DISK_HELP)
    add("--memory", type=size, default=size("512M"), metavar="SIZE", help="such as 512M (the default) or 2G")
    add("--cpus", type=count, default=1, metavar="N", help="harts (1)")
    add_network_option(parser)
    add("--engine", choices=("auto", "translate", "evaluate"), default="auto", help="what executes (auto)")
    add("--no-reboot", action="store_true", help="a restart ends the machine")
    add("--timeout", type=seconds, metavar="SECONDS", help="switch the machine off after this time")


def disk(text: str) -> DiskOption:
    """A disk from `FILE[,readonly][,bus=virtio|scsi]`; FILE may have commas."""
    from celaje.host.machine_options import DiskOption

    file, read_only, bus = text, False, None
    while True:
        rest, comma, option = file.rpartition(",")
        if not comma:
            break
        if option == "readonly":
            file, read_only = rest, True
        elif option in ("bus=virtio", "bus=scsi"):
            file, bus = rest, option.removeprefix("bus=")
        elif option.startswith("bus="):
            raise UsageError(f"a disk's bus is virtio or scsi, not {option.removeprefix('bus=')!r}")
        else:
            break
    if not file:
        raise UsageError(f"a disk is FILE[,readonly][,bus=virtio|scsi], not {text!r}")
    return DiskOption(file, read_only, bus)


def machine_options(chosen: argparse.Namespace) -> MachineOptions:
    """What was chosen. UsageError for a combination that means nothing."""
    from celaje.host.machine_options import MachineOptions

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return MachineOptions(
        image=chosen.image,
        kernel=text(chosen.kernel),
        initrd=text(chosen.initrd),
        append=chosen.append,
        firmware=text(chosen.firmware),
        disks=tuple(map(disk, chosen.disk)),
        memory=chosen.memory,
        cpus=chosen.cpus,
        engine=chosen.engine,
        no_reboot=chosen.no_reboot,
        timeout=chosen.timeout,
        network=network_options(chosen.network, with_image=chosen.image is not None),
    )
