"""What a call asks for of policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# The values of a condition key, None where it has none; a callable looks them up once a condition asks.
Values = Sequence[str] | None
Fact = Values | Callable[[], Values]


@dataclass(frozen=True, slots=True)
class Question:
    """An action (`ec2:StopInstances`) on a resource (its ARN), and what is known of both beside the call: by condition
    keys in lower case, and the tags of the resource."""

    action: str
    resource: str = "*"
    facts: Mapping[str, Fact] = field(default_factory=dict)
    tags: Callable[[], Mapping[str, str]] | None = None
