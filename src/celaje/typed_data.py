"""JSON and MessagePack read into classes, from any thread.

What msgspec knows of a class it works out when it first decodes into it, and of every class that this one has in its
fields. Two threads that do so at the same time for classes with one in common end the process with a fault (0.22: one
of them uses what the other has begun). So decoders are made here, one at a time, and kept; decoding itself is safe.
Nothing else in the package makes a decoder or gives msgspec a type; a test looks.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_json: dict[object, msgspec.json.Decoder[Any]] = {}
_msgpack: dict[object, msgspec.msgpack.Decoder[Any]] = {}


@overload
def json_decoder(of: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def json_decoder(of: object) -> msgspec.json.Decoder[Any]: ...  # a union of classes is no class
def json_decoder(of: object) -> msgspec.json.Decoder[Any]:
    """The decoder of JSON into `of`."""
    decoder = _json.get(of)
    if decoder is None:
        with _lock:
            decoder = _json.setdefault(of, msgspec.json.Decoder[Any](of))
    return decoder


@overload
def msgpack_decoder(of: type[T]) -> msgspec.msgpack.Decoder[T]: ...
@overload
def msgpack_decoder(of: object) -> msgspec.msgpack.Decoder[Any]: ...  # a union of classes is no class
def msgpack_decoder(of: object) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of MessagePack into `of`."""
    decoder = _msgpack.get(of)
    if decoder is None:
        with _lock:
            decoder = _msgpack.setdefault(of, msgspec.msgpack.Decoder[Any](of))
    return decoder


@overload
def from_json(data: bytes | bytearray | memoryview | str, of: type[T]) -> T: ...
@overload
def from_json(data: bytes | bytearray | memoryview | str, of: object) -> Any: ...
def from_json(data: bytes | bytearray | memoryview | str, of: object) -> Any:
    """`data` as an `of`. Raises msgspec.DecodeError, or ValidationError where it is JSON of something else."""
    return json_decoder(of).decode(data)


@overload
def from_msgpack(data: bytes | bytearray | memoryview, of: type[T]) -> T: ...
@overload
def from_msgpack(data: bytes | bytearray | memoryview, of: object) -> Any: ...
def from_msgpack(data: bytes | bytearray | memoryview, of: object) -> Any:
    """`data` as an `of`. Raises as `from_json`."""
    return msgpack_decoder(of).decode(data)
