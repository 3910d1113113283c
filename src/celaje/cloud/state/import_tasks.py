"""Imports of disks from buckets."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Resource
from celaje.cloud.state.images import Image
from celaje.cloud.state.snapshots import Snapshot


class ImportTask(Resource, Base):
    """An import (`import-snap-…`, `import-ami-…`) of the object `key` of `bucket`, which is in `format` (RAW, QCOW2).

    `version` and `etag` are of the object that was there when the import was asked for: no other one is read for it. An
    `etag` of "" is of none, None of a task that is older than this was kept.

    `status` is AWS's: active, completed, deleted (it failed, and `message` says why). `snapshot` is what it makes, and
    `image`, for an import of an image, "" for a snapshot's.
    """

    __tablename__ = "import_tasks"

    bucket: Mapped[str]
    key: Mapped[str]
    format: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    architecture: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(default="active", index=True)
    message: Mapped[str] = mapped_column(default="")
    progress: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(default=0)  # bytes of the object
    snapshot: Mapped[str] = mapped_column(default="")
    image: Mapped[str] = mapped_column(default="")
    version: Mapped[str] = mapped_column(default="", server_default="")
    etag: Mapped[str | None]


def take_away(session: Session, task: ImportTask) -> None:
    """Let what a task has made go, which nobody is to have: of a disk that cannot be booted, or that was cancelled."""
    image = session.get(Image, task.image) if task.image else None
    if image is not None:
        image.state = "deregistered"
    snapshot = session.get(Snapshot, task.snapshot)
    if snapshot is not None:
        snapshot.state = "deleting"
