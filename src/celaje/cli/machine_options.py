"""The options that describe a machine, the same for every command that makes one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser, count, seconds, size
from celaje.cli.network_option import add_network_option, network_options
from celaje.errors import InputError, UsageError

if TYPE_CHECKING:
    from celaje.host.machine_options import DiskOption, MachineOptions

USER_DATA_MOST = 16_384  # bytes, as EC2 has it
KEY_KINDS = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")
DISK_HELP = "a raw disk; may be given again"
DISK_EPILOG = """\
The first disk, the image's own if it has one, is a virtio block device (/dev/vda in Linux), the others are disks of a
SCSI controller (/dev/sda and so on). bus=virtio or bus=scsi puts one elsewhere, for a kernel that has one driver."""
IMAGE_HELP = "an image's name (`celaje vm image ls`) or directory"


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


def add_guest_options(parser: Parser) -> None:
    """What a guest is told about itself by its network's metadata address."""
    add = parser.add_argument
    add("--ssh-key", action="append", default=[], type=Path, metavar="FILE.pub", help="may log in; may be given again")
    add("--user-data", type=Path, metavar="FILE", help="what the guest runs, or reads, at its first start")


def guest_options(chosen: argparse.Namespace, options: MachineOptions) -> tuple[tuple[str, ...], bytes | None]:
    """Keys and user data. UsageError where the machine has no network to get them by, InputError for bad files."""
    keys, data = ssh_keys(chosen.ssh_key), user_data(chosen.user_data)
    if (keys or data is not None) and options.network is None:
        raise UsageError("keys and user data reach the guest through its network; give it one: --network user")
    return keys, data


def ssh_keys(files: list[Path]) -> tuple[str, ...]:
    """The lines of public keys in `files`. InputError for what is none."""
    lines: list[str] = []
    for path in files:
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the key {path} cannot be read ({error}); make one: ssh-keygen -t ed25519") from error
        found = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not found or not all(line.startswith(KEY_KINDS) and len(line.split()) >= 2 for line in found):
            hint = f"give {path}.pub" if "PRIVATE KEY" in text else "it is a line such as `ssh-ed25519 AAAA… name`"
            raise InputError(f"{path} is no public key of SSH; {hint}")
        lines += found
    return tuple(dict.fromkeys(lines))


def user_data(path: Path | None) -> bytes | None:
    """The content of the file. InputError if it cannot be read, or is too long."""
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the user data {path} cannot be read: {error.strerror}") from error
    if len(data) > USER_DATA_MOST:
        raise InputError(f"user data has at most {USER_DATA_MOST:,} bytes; {path} has {len(data):,}: fetch the rest")
    return data
