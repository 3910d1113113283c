"""Key pairs: the public halves. Nobody here ever keeps a private one."""

from __future__ import annotations

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped

from celaje.cloud.state.base import Base, Resource


class KeyPair(Resource, Base):
    """`public_line` is a line of authorized_keys without its comment; `key_type` is rsa or ed25519."""

    __tablename__ = "key_pairs"
    __table_args__ = (UniqueConstraint("account", "region", "name"),)

    name: Mapped[str]
    key_type: Mapped[str]
    fingerprint: Mapped[str]
    public_line: Mapped[str]
