"""Volumes, what they are attached to, and their modifications."""

from __future__ import annotations

import datetime

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Resource
from celaje.cloud.state.prepared import IDENTIFIERS, rows_of


class Volume(Resource, Base):
    """A volume of EBS. `size` in GiB, `throughput` in MiB/s; `snapshot` is what it was made from, "" for nothing.

    `state` is AWS's: creating, available, in-use, deleting, deleted (the row goes a while after), error. `made` is
    whether its file is there.
    """

    __tablename__ = "volumes"

    zone: Mapped[str]
    size: Mapped[int]
    kind: Mapped[str]  # gp3, gp2, io1, …
    iops: Mapped[int | None]
    throughput: Mapped[int | None]
    snapshot: Mapped[str] = mapped_column(default="", index=True)
    state: Mapped[str] = mapped_column(default="creating", index=True)
    problem: Mapped[str] = mapped_column(default="")
    made: Mapped[bool] = mapped_column(default=False)
    ended: Mapped[datetime.datetime | None]  # when it was deleted


class VolumeAttachment(Base):
    """A volume at an instance. One volume has at most one. `state` is AWS's: attaching, attached, detaching; the row
    goes when it is detached. `forced`: detach whatever the guest says."""

    __tablename__ = "volume_attachments"

    volume: Mapped[str] = mapped_column(primary_key=True)
    instance: Mapped[str] = mapped_column(index=True)
    account: Mapped[str]
    region: Mapped[str]
    device: Mapped[str]  # /dev/sda1, /dev/sdf, as the request said
    is_root: Mapped[bool] = mapped_column(default=False)
    delete_on_termination: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(default="attaching", index=True)
    forced: Mapped[bool] = mapped_column(default=False)
    since: Mapped[datetime.datetime]


class VolumeModification(Base):
    """The last modification of a volume. `state` is AWS's: modifying, optimizing, completed, failed."""

    __tablename__ = "volume_modifications"

    volume: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(index=True)
    region: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    message: Mapped[str] = mapped_column(default="")
    progress: Mapped[int] = mapped_column(default=0)
    started: Mapped[datetime.datetime]
    ended: Mapped[datetime.datetime | None]
    size: Mapped[int]
    kind: Mapped[str]
    iops: Mapped[int | None]
    throughput: Mapped[int | None]
    original_size: Mapped[int]
    original_kind: Mapped[str]
    original_iops: Mapped[int | None]
    original_throughput: Mapped[int | None]


def root_volume(session: Session, instance: str) -> Volume | None:
    """The volume that an instance boots from; None while there is none."""
    return session.scalars(
        select(Volume)
        .join(VolumeAttachment, VolumeAttachment.volume == Volume.id)
        .where(VolumeAttachment.instance == instance, VolumeAttachment.is_root)
    ).one_or_none()


_ATTACHED = (
    select(VolumeAttachment)
    .where(VolumeAttachment.instance.in_(IDENTIFIERS))
    .order_by(VolumeAttachment.is_root.desc(), VolumeAttachment.device)
)


def attached_to(session: Session, instances: list[str]) -> dict[str, list[VolumeAttachment]]:
    """The attachments of each of `instances`, the root first, then by device."""
    found: dict[str, list[VolumeAttachment]] = {instance: [] for instance in instances}
    for (row,) in rows_of(session, _ATTACHED, list(found)):
        found[row.instance].append(row)
    return found
