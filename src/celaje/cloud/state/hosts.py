"""The hosts that instances run on, and what each has to give. On one machine there is one, `local`."""

from __future__ import annotations

import datetime

from sqlalchemy.orm import Mapped, mapped_column

from celaje.cloud.state.base import Base

LOCAL = "local"


class Host(Base):
    """`memory` (MiB) and `cpus` are what instances may have there altogether, overcommitment included; `architectures`
    are those, by AWS's names and separated by spaces, that some engine there runs. `noted`: when that was looked at."""

    __tablename__ = "hosts"

    id: Mapped[str] = mapped_column(primary_key=True)
    memory: Mapped[int]
    cpus: Mapped[int]
    architectures: Mapped[str]
    noted: Mapped[datetime.datetime]
