"""Bodies: from a request into the store, and from the store into an answer."""

from __future__ import annotations

import itertools
import os
from typing import cast

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.streams import FileRange, FileRanges, Pieces, RequestBody, ResponseBody
from celaje.cloud.s3.attributes import default_algorithm
from celaje.cloud.s3.ranges import Span
from celaje.cloud.s3.store.checksums import ALGORITHMS, Algorithm
from celaje.cloud.s3.store.encryption import NONE, Encryption
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.objects import Opened
from celaje.cloud.s3.store.receive import ROOM, Received
from celaje.cloud.s3.store.refusals import too_large

LARGEST_PUT = 5 << 30


class _Decrypted(Pieces):
    """The bytes of a span of an encrypted object. The first are decrypted at once: what is wrong with its key is told
    in an answer of its own, not in the middle of one. KeyUnusable."""

    def __init__(self, opened: Opened, span: Span) -> None:
        self._opened: Opened | None = opened
        blocks = opened.blocks(span.start, span.length)
        first = next(blocks, b"")
        super().__init__(map(bytes, itertools.chain((first,), blocks)), span.length)

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


def request_body(body: object) -> RequestBody:
    """The Body of a request, whose length the client has said, or whose end. MissingContentLength; EntityTooLarge."""
    streaming = cast(RequestBody, body)
    if streaming.enclosed:
        return streaming
    if streaming.length is None:
        raise AwsError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    if streaming.length > LARGEST_PUT:
        raise too_large()
    return streaming


def receive(
    store: ObjectStore,
    body: RequestBody,
    algorithm: Algorithm | None,
    *,
    part: bool = False,
    encryption: Encryption = NONE,
) -> Received:
    """Take a body in, with a checksum: of `algorithm`, else of the one that the client sent, else the usual one. What
    the client promised of it is verified before this returns. `encryption`: how it is kept. AwsError; KeyUnusable."""
    chosen = algorithm or claimed_algorithm(body) or default_algorithm()
    receiver = store.receiver(chosen, part=part, fed=body.checksum(chosen.name), encryption=encryption)
    try:
        if body.length is not None and body.length >= ROOM:
            while count := body.read_into(receiver.room()):
                receiver.filled(count)
        while piece := body.read():
            receiver.take(piece)
        return receiver.finish()
    except BaseException:
        receiver.abandon()
        raise


def claimed_algorithm(body: RequestBody) -> Algorithm | None:
    """The algorithm of the checksum that comes with a body, before it or in its trailer."""
    for name in body.promised:
        if name in ALGORITHMS:
            return ALGORITHMS[name]
    return None


def answer_body(opened: Opened, span: Span) -> ResponseBody:
    """The bytes of a span, and the object is closed when they are sent. OSError; KeyUnusable."""
    if (body := opened.body) is not None:
        opened.close()
        return body[span.start : span.start + span.length]
    if opened.encrypted:
        return _Decrypted(opened, span)
    pieces = list(opened.pieces(span.start, span.length))
    if len(pieces) == 1:
        path, offset, length = pieces[0]
        try:
            # From here on the descriptor keeps the bytes.
            return FileRange(os.open(path, os.O_RDONLY | os.O_CLOEXEC), offset, length)
        finally:
            opened.close()
    ranges = (FileRange(os.open(path, os.O_RDONLY | os.O_CLOEXEC), offset, length) for path, offset, length in pieces)
    return FileRanges(ranges, span.length, opened.close)
