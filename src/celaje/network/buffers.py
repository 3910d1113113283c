"""What a frame's bytes are handed on as: pieces, never joined on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Buffer = bytes | bytearray | memoryview

# A packet's header and data, in order, without having been joined.
Parts = Sequence[Buffer]

# Sends one TCP segment: its header (checksum field: the pseudo header's sum) and its data in pieces, up to 65,495
# bytes together with the IPv4 header. Where the data is longer than `gso_size`, the receiver cuts it into segments of
# that many bytes. Pieces stay as they are for good: whoever gets them may keep them.
TransmitSegment = Callable[[list[Buffer], int], None]
