"""Control messages: one JSON object each, decoded into types or refused.

A message is a struct with a tag, and with `version`; another version than the room's own is refused before anything
else of the message is looked at, since nothing else of it can be relied on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

from celaje.typed_data import json_decoder

Requests = TypeVar("Requests")
Answers = TypeVar("Answers")
_Message = TypeVar("_Message")

Buffer = bytes | memoryview
Unreadable = Callable[[Literal["malformed", "version"], str], Exception]
"""The error, and what its sender is told, for what is no message of this version."""

_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.json.Encoder()


class _Envelope(msgspec.Struct):
    version: int


_envelopes = json_decoder(_Envelope)


class MessageCodec(Generic[Requests, Answers]):
    """The messages of one protocol: `requests` and `answers` are unions of tagged structs.

    `whose`: "a machine", for the texts of errors; `advice`: what to do where the other end is of another version.
    """

    def __init__(
        self,
        requests: msgspec.json.Decoder[Requests],
        answers: msgspec.json.Decoder[Answers],
        version: int,
        longest: int,
        whose: str,
        advice: str,
        unreadable: Unreadable,
        too_long: Callable[[str], Exception],
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._version = version
        self._longest = longest
        self._whose = whose
        self._advice = advice
        self._unreadable = unreadable
        self._too_long = too_long

    def encoded(self, message: Requests | Answers) -> bytes:
        """The message as it is sent. Raises `too_long` of a text if it is longer than a control socket carries."""
        data = _encoder.encode(message)
        if len(data) > self._longest:
            raise self._too_long(
                f"the control message {type(message).__name__} has {len(data):,} bytes of at most {self._longest:,}"
            )
        return data

    def request(self, data: Buffer) -> Requests:
        """The request in `data`. Raises `unreadable` if it is none, or one of another version."""
        return self._decoded(self._requests, data)

    def answer(self, data: Buffer) -> Answers:
        """The answer in `data`. Raises `unreadable` if it is none, or one of another version."""
        return self._decoded(self._answers, data)

    def _decoded(self, decoder: msgspec.json.Decoder[_Message], data: Buffer) -> _Message:
        try:
            version = _envelopes.decode(data).version
            if version == self._version:
                return decoder.decode(data)
        except _MALFORMED as error:
            raise self._unreadable("malformed", f"malformed control message of {self._whose}: {error}") from error
        raise self._unreadable(
            "version",
            f"{self._whose}'s control message has version {version} and must have {self._version}: {self._advice}",
        )
