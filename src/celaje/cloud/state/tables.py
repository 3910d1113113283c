"""Every table, for whoever makes or migrates them all: a module of this room that has tables is imported here."""

from __future__ import annotations

import importlib
import pkgutil

from sqlalchemy import MetaData

import celaje.cloud.state
from celaje.cloud.state.base import Base


def metadata() -> MetaData:
    """What the tables are to be."""
    for module in pkgutil.iter_modules(celaje.cloud.state.__path__, "celaje.cloud.state."):
        if not module.ispkg:
            importlib.import_module(module.name)
    return Base.metadata
