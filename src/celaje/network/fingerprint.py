"""What an interface has, or a network's groups, as a short text: equal for what is equal.

Whoever keeps many interfaces as they are to be (a cloud's controller) asks a network's process for these with one
message (Describe), and changes those that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from celaje.network.messages import Attach, NetworkSettings, SecurityGroup

_encoder = msgspec.json.Encoder(order="deterministic")


def fingerprint(interface: Attach) -> str:
    """Of everything that an Attach says but the network's settings."""
    return _digest(_encoder.encode(msgspec.structs.replace(interface, network=NetworkSettings())))


def groups_fingerprint(groups: Iterable[SecurityGroup]) -> str:
    """Of groups with their rules, in whatever order the groups come."""
    return _digest(_encoder.encode(sorted(groups, key=lambda group: group.name)))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
