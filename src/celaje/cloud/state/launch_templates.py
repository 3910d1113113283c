"""Launch templates and their versions."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Resource, Structure


class LaunchTemplate(Resource, Base):
    """A launch template. `made` is how many versions were ever made: numbers of deleted ones are not given again."""

    __tablename__ = "launch_templates"

    name: Mapped[str] = mapped_column(index=True)
    created_by: Mapped[str]
    default_version: Mapped[int] = mapped_column(default=1)
    made: Mapped[int] = mapped_column(default=1)


class LaunchTemplateVersion(Base):
    """One version: `data` has the members of AWS's RequestLaunchTemplateData as the request gave them."""

    __tablename__ = "launch_template_versions"

    template: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    data: Mapped[dict[str, Any]] = mapped_column(Structure(dict[str, Any]))
    created: Mapped[datetime.datetime]
    created_by: Mapped[str]


def versions_of(session: Session, template: str) -> list[LaunchTemplateVersion]:
    """All versions of a template, the oldest first."""
    query = select(LaunchTemplateVersion).where(LaunchTemplateVersion.template == template)
    return list(session.scalars(query.order_by(LaunchTemplateVersion.version)))
