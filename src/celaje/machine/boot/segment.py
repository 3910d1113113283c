"""A piece of a program in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """`data` at guest-physical `address`, zeroes after it up to `size` bytes.

    The first `heading` bytes are only the file's own headers, which linkers like to load before the program.
    """

    address: int
    data: bytes
    size: int
    heading: int = 0

    def without_heading(self) -> Segment:
        """The program's part."""
        return Segment(self.address + self.heading, self.data[self.heading :], self.size - self.heading)
