"""Machine images (AMIs)."""

from __future__ import annotations

import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Resource, Structure


class BlockDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an image's block device mapping. `size` in GiB; `virtual` names an instance store disk
    (ephemeral0), and then there is no volume."""

    device: str
    snapshot: str = ""
    size: int = 0
    kind: str = "gp3"
    iops: int | None = None
    throughput: int | None = None
    delete_on_termination: bool = True
    virtual: str = ""


class Image(Resource, Base):
    """An image. `state` is AWS's: pending, available, failed, disabled; "deregistered" rows are shown to nobody;
    who could use such an image is told so for a while (`deregistered`: since when, None for one that nobody ever used).

    Its root disk is the snapshot of the device `root_device`; `host_image` is the image of the host that has its kernel
    and initrd, and the kernel's command line: of a public image the one of its name, of another its own identifier.
    `revision` tells a public image from one of the same name that was built by another recipe.
    """

    __tablename__ = "images"

    name: Mapped[str] = mapped_column(index=True)
    description: Mapped[str] = mapped_column(default="")
    architecture: Mapped[str]
    state: Mapped[str] = mapped_column(default="pending", index=True)
    problem: Mapped[str] = mapped_column(default="")
    public: Mapped[bool] = mapped_column(default=False, index=True)
    root_device: Mapped[str] = mapped_column(default="/dev/sda1")
    devices: Mapped[list[BlockDevice]] = mapped_column(Structure(list[BlockDevice]))
    host_image: Mapped[str]
    revision: Mapped[str] = mapped_column(default="")
    reboot_pending: Mapped[bool] = mapped_column(default=False)  # its instance is off until its snapshots are whole
    source_instance: Mapped[str] = mapped_column(default="")
    source_image: Mapped[str] = mapped_column(default="")
    source_region: Mapped[str] = mapped_column(default="")
    instance_metadata_v2_only: Mapped[bool] = mapped_column(default=False)
    deregistered: Mapped[datetime.datetime | None]
    deprecated: Mapped[datetime.datetime | None]  # from when on only its owner and who knows its id sees it


def rebooted_for(session: Session) -> dict[str, str]:
    """The snapshots that are taken of instances which are switched off for it, and each one's instance."""
    images = session.scalars(select(Image).where(Image.state == "pending", Image.reboot_pending))
    return {one.snapshot: image.source_instance for image in images for one in image.devices if one.snapshot}
