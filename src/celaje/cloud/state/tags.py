"""Tags: keys and values on any resource of EC2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base
from celaje.cloud.state.prepared import IDENTIFIERS, values_of


class Tag(Base):
    """`resource_type` is AWS's word: instance, volume, security-group, …"""

    __tablename__ = "tags"

    resource: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    resource_type: Mapped[str]
    account: Mapped[str] = mapped_column(index=True)
    region: Mapped[str]


_ADD = insert(Tag)
_CHANGE = (
    update(Tag).where(Tag.resource == bindparam("of"), Tag.key == bindparam("its_key")).values(value=bindparam("new"))
)
_TAGS = select(Tag.resource, Tag.key, Tag.value).where(Tag.resource.in_(IDENTIFIERS)).order_by(Tag.key)


def tags_of(session: Session, resources: Iterable[str]) -> dict[str, dict[str, str]]:
    """Key to value, by the resource's identifier; those without tags have an empty one."""
    found: dict[str, dict[str, str]] = {resource: {} for resource in resources}
    for resource, key, value in values_of(session, _TAGS, list(found)):
        found[resource][key] = value
    return found


def answered_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as every description of EC2 has them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def set_tags(
    session: Session, resource: str, resource_type: str, account: str, region: str, tags: Mapping[str, str]
) -> None:
    """Add `tags` to a resource, over those of the same keys. Limits are for who calls to check."""
    if not tags:
        return
    present = tags_of(session, [resource])[resource]
    of = {"resource": resource, "resource_type": resource_type, "account": account, "region": region}
    added = [of | {"key": key, "value": value} for key, value in tags.items() if key not in present]
    changed = [
        {"of": resource, "its_key": key, "new": value}
        for key, value in tags.items()
        if present.get(key, value) != value
    ]
    connection = session.connection()
    if added:
        connection.execute(_ADD, added)
    if changed:
        connection.execute(_CHANGE, changed)


def remove_tags(session: Session, resource: str) -> None:
    """All of a resource's tags: it is gone."""
    session.execute(delete(Tag).where(Tag.resource == resource))
