"""A piece of a program in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """`data` at guest-physical `address`, zeroes after it up to `size` bytes."""

    address: int
    data: bytes
    size: int
