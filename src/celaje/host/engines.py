"""Which engines `--engine` knows, and where they are. Only the one that is chosen is imported."""

from __future__ import annotations

from importlib import import_module

from celaje.errors import UsageError
from celaje.machine.machine import EngineFactory

AUTO = "translate"
ENGINES = {
    "translate": ("celaje.engine.translate.engine", "TranslateEngine"),
    "evaluate": ("celaje.engine.evaluate.engine", "EvaluateEngine"),
}


def factory(name: str) -> EngineFactory:
    """What makes engine `name`, a key of ENGINES, or `auto` for the fastest that this host has. UsageError for another:
    a record or a snapshot may name any."""
    known = ENGINES.get(AUTO if name == "auto" else name)
    if known is None:
        raise UsageError(f"there is no engine {name!r}; there are: auto, {', '.join(ENGINES)}")
    module, engine = known
    found: EngineFactory = getattr(import_module(module), engine)
    return found
