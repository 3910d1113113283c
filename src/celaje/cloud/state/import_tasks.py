"""Imports of disks from buckets."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from celaje.cloud.state.base import Base, Resource


class ImportTask(Resource, Base):
    """An import (`import-snap-…`, `import-ami-…`) of the object `key` of `bucket`, which is in `format` (RAW, QCOW2).

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
