"""Values of any shape of a service's model, for hypothesis."""

from __future__ import annotations

import datetime
import functools
from typing import Any

from hypothesis import strategies as st

from celaje.cloud.aws.model import Reference, Service, Shape

# What XML can carry and all protocols give back as it was: no control characters, and nothing that a parser normalises.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
TEXT = st.text(CHARACTERS, min_size=1, max_size=12)
# Header values have no spaces at their ends, and HTTP wants them short and plain.
PLAIN = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=12)
MOMENTS = st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=datetime.UTC)
)


def values(service: Service, reference: Reference, depth: int = 0, *, plain: bool = False) -> st.SearchStrategy[Any]:
    shape = service.shape(reference)
    kind = shape.type
    if kind == "structure":
        return structures(service, shape, depth)
    if kind == "list":
        assert shape.member is not None
        if depth > 4:
            return st.just([])
        least = 1
        return st.lists(values(service, shape.member, depth + 1, plain=plain), min_size=least, max_size=3)
    if kind == "map":
        assert shape.value is not None
        key = PLAIN.map(str.lower) if plain else TEXT
        return st.dictionaries(key, values(service, shape.value, depth + 1, plain=plain), min_size=1, max_size=3)
    if kind == "string" and shape.enum:
        return st.sampled_from(shape.enum[:5])
    if kind in ("string", "character"):
        return PLAIN if plain else TEXT
    if kind == "integer":
        return st.integers(-(2**31), 2**31 - 1)
    if kind == "long":
        return st.integers(-(2**53), 2**53)
    if kind in ("float", "double"):
        return st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
    if kind == "boolean":
        return st.booleans()
    if kind == "blob":
        return st.binary(min_size=1, max_size=20)
    assert kind == "timestamp", kind
    return MOMENTS


def structures(
    service: Service, shape: Shape, depth: int = 0, skip: frozenset[str] = frozenset()
) -> st.SearchStrategy[Any]:
    """Some members of a structure: all that are required, few of the others, so that they stay small."""

    @st.composite
    def draw(draw: Any) -> dict[str, Any]:
        names = [name for name in shape.members if name not in skip]
        required = [name for name in shape.required if name not in skip]
        optional = [name for name in names if name not in required]
        if depth > 3:
            optional = []
        chosen = draw(st.lists(st.sampled_from(optional), unique=True, max_size=4 if depth else 6)) if optional else []
        if not required and not chosen and names:
            chosen = [names[0]]
        if depth > 8:
            return {}
        return {
            name: draw(values(service, shape.members[name], depth + 1, plain=shape.members[name].location is not None))
            for name in [*required, *chosen]
        }

    return draw()


@functools.cache
def botocore_model(name: str) -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model(name)
