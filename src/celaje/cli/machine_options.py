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

IMAGE_HELP = "an image's name (`celaje image ls`) or directory"


def add_options(parser: Parser) -> None:
    """Everything but the image."""
    add = parser.add_argument
    add("--kernel", type=Path, metavar="FILE", help="a Linux Image, plain or gzipped, or an ELF file: supervisor mode")
    add("--initrd", type=Path, metavar="FILE", help="the kernel's first file system")
    add("--append", metavar="TEXT", help="the kernel's command line")
    add("--firmware", type=Path, metavar="FILE", help="an ELF file, or a flat one for 0x80000000: machine mode")
    add("--disk", action="append", default=[], metavar="FILE[,readonly]", help="a raw disk; may be given again")
    add("--memory", type=size, default=size("512M"), metavar="SIZE", help="such as 512M (the default) or 2G")
    add("--cpus", type=count, default=1, metavar="N", help="harts (1)")
    add_network_option(parser)
    add("--engine", choices=("auto", "translate", "evaluate"), default="auto", help="what executes (auto)")
    add("--no-reboot", action="store_true", help="a restart ends the machine")
    add("--timeout", type=seconds, metavar="SECONDS", help="switch the machine off after this time")


def disk(text: str) -> DiskOption:
    """A disk from `FILE[,readonly]`."""
    from celaje.host.machine_options import DiskOption

    file = text.removesuffix(",readonly")
    if not file:
        raise UsageError(f"a disk is FILE or FILE,readonly, not {text!r}")
    return DiskOption(file, read_only=file != text)


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
        network=network_options(chosen.network, with_image=False),
    )
