"""`celaje vm start`: a machine in a process of its own, new or again."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser, size
from celaje.cli.machine_options import (
    DISK_EPILOG,
    IMAGE_HELP,
    add_guest_options,
    add_options,
    guest_options,
    machine_options,
)
from celaje.cli.network_option import EPILOG as NETWORK_EPILOG
from celaje.errors import CelajeError, UsageError

if TYPE_CHECKING:
    from celaje.host.inventory import Sighting
    from celaje.host.record import MachineDirectory, Record

CARDS = 3  # that `celaje vm plug` can give a machine; the guest's kernel looks for each when it boots
EPILOG = f"""\
With an image, or a kernel or firmware, a new machine is made: it keeps its disks until `celaje vm rm NAME`. The name
alone starts a machine again that has stopped. The command returns when the machine's process is up; it goes on without
a terminal, and `celaje vm ls` finds it.

The root disk is a volume over the image's disk. A machine with an image has a network unless --network none is given.

{DISK_EPILOG}

{NETWORK_EPILOG}

  celaje vm start web debian-mini --ssh-key ~/.ssh/id_ed25519.pub
  celaje ssh web
  celaje vm start web"""


def parser() -> Parser:
    """The options, as `celaje vm start --help` shows them."""
    found = Parser("vm start", "Starts a machine in a process of its own, a new one or one that has stopped.", EPILOG)
    found.add_argument("name", metavar="NAME", help="lower-case letters, digits and hyphens; the guest's host name")
    found.add_argument("image", nargs="?", metavar="IMAGE", help=IMAGE_HELP)
    add_options(found)
    add = found.add_argument
    add("--root-size", type=size, metavar="SIZE", help="of the root disk, such as 8G (as the image's)")
    add_guest_options(found)
    return found


def run(words: list[str]) -> int:
    """Start it. Raises CelajeError for wrong use or input, and for what keeps the machine from starting."""
    chosen = parser().parse_args(words)

    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    if chosen.image or chosen.kernel or chosen.firmware:
        new = _made(chosen)
    else:
        _refuse_options(chosen, directory)
        new = None

    from celaje.cli.patience import say
    from celaje.host import inventory, starting

    try:
        starting.start(directory, say)
        seen = inventory.look_until_begun(directory)
    except BaseException:
        if new is not None:
            _unmake(directory)
        raise
    print("\n".join(_told(seen)))
    return 0


def _refuse_options(chosen: argparse.Namespace, directory: MachineDirectory) -> None:
    """A machine that starts again is what it was."""
    if not directory.exists():
        raise directory.not_found()
    plain = vars(parser().parse_args([chosen.name]))
    given = [name for name, value in vars(chosen).items() if value != plain[name]]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise UsageError(
            f"{option} is for a new machine, and {chosen.name} is one already; start it without options, "
            f"or make it anew: celaje vm rm {chosen.name}"
        )


def _made(chosen: argparse.Namespace) -> Record:
    """A new machine's record and directory, and its root volume."""
    import msgspec

    from celaje.cli.patience import patience
    from celaje.disk.description import new_id
    from celaje.host import disks, record
    from celaje.host.configuration import resolved

    options = dataclasses.replace(machine_options(chosen).anchored(), cards=CARDS)
    keys, data = guest_options(chosen, options)
    with patience("every byte of the image is compared with its hash (once) …"):
        boot = resolved(options)
    new = record.new_record(chosen.name, options, dataclasses.replace(boot, disk=None, disk_sha256=None))
    if record.MachineDirectory.of(chosen.name).exists():
        raise record.taken(chosen.name)
    if boot.disk is None and chosen.root_size is not None:
        raise UsageError("--root-size is of an image's disk, and there is none; make a disk: truncate -s 8G FILE")
    root = None if boot.disk is None else new_id("vol")
    new = msgspec.structs.replace(new, root=root, ssh_keys=keys, user_data=data)

    def prepare(place: Path) -> None:
        if root is not None:
            disks.root_volume(chosen.name, boot, chosen.root_size, root)

    try:
        record.create(new, prepare)
    except BaseException:
        if root is not None:
            disks.remove_volume(root)
        raise
    return new


def _unmake(directory: MachineDirectory) -> None:
    """A machine that never came up leaves nothing behind. One that came up meanwhile has the lock, and stays."""
    import contextlib

    from celaje.host import removal

    with contextlib.suppress(CelajeError, OSError):
        removal.remove(directory)


def _told(seen: Sighting) -> list[str]:
    """What a person does next."""
    name = seen.record.name
    described = seen.description
    if described is None:
        return [f"{name} has ended already: {seen.detail}"]
    lines = [f"{name} runs"]
    if described.network is not None:
        lines[0] += f", with the address {described.network.address}"
        if seen.record.ssh_keys:
            lines.append(f"  celaje ssh {name}")
        else:
            keys = sorted(Path("~/.ssh").expanduser().glob("id_*.pub"))
            hint = f"; to log in by ssh, give a new machine --ssh-key {keys[0]}" if keys else ""
            lines[0] += f"; it has no SSH key{hint}"
    lines.append(f"  celaje vm console {name}")
    return lines
