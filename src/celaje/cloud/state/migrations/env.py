"""Alembic's entry: runs the revisions, or compares, on the connection that it was given."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import TypeDecorator

from celaje.cloud.state.tables import metadata


def plain_types(kind: str, item: Any, autogenerating: AutogenContext) -> str | Literal[False]:
    """A revision names what a column is in the database: classes of this celaje's may be gone when it is run."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{type(item.impl_instance).__name__}()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata(),
    render_item=plain_types,
    render_as_batch=True,  # SQLite changes a column by copying its table
)
with context.begin_transaction():
    context.run_migrations()
