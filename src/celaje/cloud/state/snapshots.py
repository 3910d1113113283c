"""Snapshots of volumes."""

from __future__ import annotations

import datetime

from sqlalchemy.orm import Mapped, mapped_column

from celaje.cloud.state.base import Base, Resource

BLOCKS = "blocks"


class Snapshot(Resource, Base):
    """A snapshot of EBS: `size` in GiB of the volume that it was taken of. `state` is AWS's: pending, completed, error;
    "deleting" rows are shown to nobody.

    `host_image` is the name of an image of the host whose disk it stands for, "" for one whose contents are chunks: a
    volume made of it is there at once over the image's file. `public` ones may be used by everybody.

    `origin` is what it is taken of: "" a volume, "copy" the snapshot `source` (of any region), "import" a task's disk,
    "blocks" what is written to it by EBS's direct API, over the snapshot `source` if there is one, until it is `sealed`
    or nothing has come for `timeout` minutes.
    """

    __tablename__ = "snapshots"

    volume: Mapped[str] = mapped_column(index=True)
    size: Mapped[int]
    description: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="pending", index=True)
    problem: Mapped[str] = mapped_column(default="")
    progress: Mapped[int] = mapped_column(default=0)
    completed: Mapped[datetime.datetime | None]
    host_image: Mapped[str] = mapped_column(default="")
    public: Mapped[bool] = mapped_column(default=False)
    origin: Mapped[str] = mapped_column(default="", server_default="")
    source: Mapped[str] = mapped_column(default="", server_default="")
    sealed: Mapped[bool] = mapped_column(default=False, server_default="0")
    timeout: Mapped[int] = mapped_column(default=60, server_default="60")
