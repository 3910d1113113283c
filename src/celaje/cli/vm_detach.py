"""`celaje vm detach`: takes a disk from a machine, running or not."""

from __future__ import annotations

import os

from celaje.cli.arguments import Parser
from celaje.errors import NotFound


def run(words: list[str]) -> int:
    """Detach it. NotFound where it is not attached."""
    parser = Parser("vm detach", "Takes a disk from a machine; what the guest has written to it is durable then.")
    parser.add_argument("name", metavar="NAME", help="of the machine (`celaje vm ls`)")
    parser.add_argument("disk", metavar="VOLUME|FILE", help="as it was attached, or the volume's identifier")
    chosen = parser.parse_args(words)

    import msgspec

    from celaje.host import control, disks, messages
    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    source = chosen.disk
    if source not in [disk.source for disk in directory.record().attached]:
        source = disks.found(source).source
    connection = control.connected(directory)
    if connection is not None:
        with connection:
            connection.ask(messages.DetachDisk(source=source), messages.Done)
        print(f"{chosen.disk} is detached from {chosen.name}")
        return 0
    lock = directory.lock()
    try:
        record = directory.record()
        left = tuple(disk for disk in record.attached if disk.source != source)
        if left == record.attached:
            attached = ", ".join(disk.source for disk in left) or "none"
            raise NotFound(f"{chosen.disk} is not attached to {chosen.name}; there are: {attached}")
        directory.write_record(msgspec.structs.replace(record, attached=left))
    finally:
        os.close(lock)
    print(f"{chosen.disk} is detached from {chosen.name}")
    return 0
