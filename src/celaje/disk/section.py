"""A volume for a machine snapshot: what it holds that its image (or its volume snapshot) does not, at one instant.

It goes into the file by whole chunks, as a snapshot of the volume alone would. A volume that was itself made from a
machine snapshot gives that one's clusters too, so that a file is never needed for another file to be whole.
"""

from __future__ import annotations

from functools import cached_property

import msgspec

from celaje.disk.chunk_store import CHUNK
from celaje.disk.cluster_map import CLUSTER
from celaje.disk.description import Lower, SectionBelow, lower_of
from celaje.disk.volume import Volume
from celaje.typed_data import from_json

_CLUSTERS = CHUNK // CLUSTER


class MachineCut:
    """`volume` at this instant; the guest may go on at once. Whoever copies reads every extent once, in order."""

    def __init__(self, volume: Volume, name: str) -> None:
        self.name = name
        self.size = volume.size
        self.base = msgspec.json.encode(lower_of(volume.description.base))
        self._volume = volume
        self._cut = volume.cut()
        self._changed: set[int] = set()

    @cached_property
    def extents(self) -> list[tuple[int, int]]:
        """(first cluster, clusters) of 4 KiB, a chunk each. Looked for when first asked, not at the instant."""
        below = self._volume.description.base
        held: set[int] = set()
        found: list[tuple[int, int]] = []
        if isinstance(below, SectionBelow):
            for first, count in below.extents:
                held.update(range(first // _CLUSTERS, -(-(first + count) // _CLUSTERS)))
        clusters = -(-self.size // CLUSTER)
        for number, changed in self._cut.changed():
            if changed:
                self._changed.add(number)
            if changed or number in held:
                first = number * _CLUSTERS
                found.append((first, min(_CLUSTERS, clusters - first)))
        return found

    def read(self, cluster: int, count: int) -> bytes:
        """The `count` clusters of the extent that begins at `cluster`, zeros beyond the volume's end. OSError."""
        number = cluster // _CLUSTERS
        if number in self._changed:
            block = self._cut.read(number)
        else:
            block = bytearray(CHUNK)
            self._volume.base.readinto([memoryview(block)], number * CHUNK)
        return bytes(memoryview(block)[: count * CLUSTER])

    def close(self) -> None:
        """The copy is done, or nobody wants it."""
        self._cut.close()


def decoded_base(base: bytes) -> Lower:
    """What `MachineCut.base` said. ValueError if it is nothing of the kind."""
    try:
        found: Lower = from_json(base, Lower)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"a disk's base is malformed: {error}") from error
    return found
