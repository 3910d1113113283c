"""The smallest guest that an instance can have: it waits for interrupts for ever, and has a disk of a mebibyte.

It starts in a moment and costs nothing, so many of them can be made and killed. It hears no power button.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from celaje.cloud.state.database import Database
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.snapshots import Snapshot
from celaje.image.description import FILE_NAME, Description, FileDescription
from tests.cloud.ec2.acting import NOW

NAME = "tiny"
AMI, SNAPSHOT = "ami-0123456789abcdef0", "snap-0123456789abcdef0"
IDLE = struct.pack("<2I", 0x10500073, 0xFFDFF06F)  # 1: wfi; j 1b
DISK = bytes(1 << 20)


def write_tiny_image(home: Path) -> None:
    """The image, in the images of `home`."""
    directory = home / "images" / NAME
    directory.mkdir(parents=True)
    files = {}
    for role, data in (("firmware", IDLE), ("disk", DISK)):
        (directory / role).write_bytes(data)
        files[role] = FileDescription(role, len(data), hashlib.sha256(data).hexdigest())
    described = Description(NAME, "riscv64", "firmware", "", 0, files, {})
    (directory / FILE_NAME).write_text(described.to_json())


def register_tiny_image(database: Database, account: str, region: str) -> None:
    """Its rows, as the controller of public images makes them."""
    with database.write() as session:
        session.merge(
            Snapshot(
                id=SNAPSHOT,
                account=account,
                region=region,
                created=NOW,
                volume="",
                size=1,
                state="completed",
                progress=100,
                completed=NOW,
                host_image=NAME,
                public=True,
            )
        )
        session.merge(
            Image(
                id=AMI,
                account=account,
                region=region,
                created=NOW,
                name=NAME,
                architecture="riscv64",
                state="available",
                public=True,
                devices=[BlockDevice(device="/dev/sda1", snapshot=SNAPSHOT, size=1)],
                host_image=NAME,
            )
        )
