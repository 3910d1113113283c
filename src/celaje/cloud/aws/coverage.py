"""How much of each service is implemented: for `celaje api coverage`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from celaje.cloud.aws import model
from celaje.cloud.aws.action import Registry
from celaje.cloud.aws.model import snake_case


class Coverage(NamedTuple):
    """One service. `implemented` and `missing` are AWS's names of operations, sorted."""

    service: str
    full_name: str
    implemented: list[str]
    missing: list[str]

    @property
    def operations(self) -> int:
        return len(self.implemented) + len(self.missing)


def coverage(registry: Registry) -> Iterator[Coverage]:
    """Each service that the wire speaks, in the models' order. ValueError for an action that AWS does not have."""
    for name in model.MODELS:
        known = model.service(name)
        there = {action.name for action in registry.actions(name)}
        implemented = sorted(operation for operation in known.operations if snake_case(operation) in there)
        strangers = there - {snake_case(operation) for operation in implemented}
        if strangers:
            raise ValueError(f"{name} has no operation for the actions {', '.join(sorted(strangers))}")
        missing = sorted(set(known.operations) - set(implemented))
        yield Coverage(name, known.metadata.service_id, implemented, missing)
