"""`celaje vm attach`: one more disk for a machine, running or not."""

from __future__ import annotations

import os

from celaje.cli.arguments import Parser
from celaje.errors import UsageError


def run(words: list[str]) -> int:
    """Attach it. NotFound where there is no such machine or disk; InputError where it is in use."""
    parser = Parser("vm attach", "Attaches a disk to a machine, while it runs or before its next start.")
    parser.add_argument("name", metavar="NAME", help="of the machine (`celaje vm ls`)")
    parser.add_argument("disk", metavar="VOLUME|FILE", help="a volume's name, or a raw file (with a slash: ./data.img)")
    parser.add_argument("--read-only", action="store_true", help="the guest may not write to it")
    chosen = parser.parse_args(words)

    import msgspec

    from celaje.host import control, disks, messages
    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    if not directory.exists():
        raise directory.not_found()
    disk = disks.found(chosen.disk, chosen.read_only)
    connection = control.connected(directory)
    if connection is not None:
        with connection:
            attached = connection.ask(messages.AttachDisk(disk=disk), messages.DiskAttached)
        where = f"SCSI target {attached.target}, serial number {attached.serial}"
        print(f"{chosen.disk} is attached to {chosen.name}: {where}")
        return 0
    lock = directory.lock()
    try:
        record = directory.record()
        if any(one.source == disk.source for one in record.attached):
            raise UsageError(f"{chosen.disk} is attached already; first: celaje vm detach {chosen.name} {chosen.disk}")
        directory.write_record(msgspec.structs.replace(record, attached=(*record.attached, disk)))
    finally:
        os.close(lock)
    print(f"{chosen.disk} is attached to {chosen.name} from its next start on: celaje vm start {chosen.name}")
    return 0
