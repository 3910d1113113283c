"""Public addresses in use, and the elastic ones among them."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from celaje.cloud.state.base import Base, Resource


class PublicAddress(Base):
    """An address of the pool that somebody has: unique over all accounts and regions, because a host knows neither.
    `holder` is an interface (eni-…) or an allocation (eipalloc-…)."""

    __tablename__ = "public_addresses"

    address: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(index=True)


class ElasticAddress(Resource, Base):
    """An address that an account keeps until it is released; its id is eipalloc-…. `interface` and `association` are ""
    while it is associated with nothing; `private_address` "" is the interface's first one."""

    __tablename__ = "elastic_addresses"

    address: Mapped[str] = mapped_column(unique=True)
    interface: Mapped[str] = mapped_column(default="", index=True)
    association: Mapped[str] = mapped_column(default="")
    private_address: Mapped[str] = mapped_column(default="", server_default="")

    def leave(self) -> None:
        """It is associated with nothing."""
        self.interface = self.association = self.private_address = ""
