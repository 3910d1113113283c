"""Answers as JSON: values by the names of the wire, moments as seconds, bytes as base64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from celaje.cloud.aws.model import Reference, Service
from celaje.cloud.aws.scalars import write_blob, write_epoch, write_http_date, write_iso

_Convert = Callable[[Any], object]


class JsonWriters:
    """The converters of one service's shapes. A member that the model does not have raises KeyError."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._compiled: dict[str, _Convert] = {}

    def body(self, reference: Reference | None) -> Callable[[Mapping[str, object]], bytes]:
        """Of a whole answer; members that stand in headers are left out."""
        if reference is None:
            return lambda answer: b""
        convert = self.converter(reference)
        return lambda answer: msgspec.json.encode(convert(answer))

    def converter(self, reference: Reference) -> _Convert:
        shape = self.service.shape(reference)
        if shape.type == "structure":
            return self._structure(reference)
        if shape.type == "list":
            assert shape.member is not None
            item = self.converter(shape.member)
            return lambda value: [item(each) for each in value]
        if shape.type == "map":
            assert shape.value is not None
            value_converter = self.converter(shape.value)
            return lambda value: {key: value_converter(each) for key, each in value.items()}
        if shape.type == "timestamp":
            stated = reference.timestamp_format or shape.timestamp_format
            return {"iso8601": write_iso, "rfc822": write_http_date}.get(stated or "", write_epoch)
        if shape.type == "blob":
            return write_blob
        return _itself

    def _structure(self, reference: Reference) -> _Convert:
        known = self._compiled.get(reference.shape)
        if known is not None:
            return known
        fields: dict[str, tuple[str, _Convert] | None] = {}

        def convert(value: Mapping[str, object]) -> dict[str, object]:
            converted: dict[str, object] = {}
            for name, item in value.items():
                field = fields[name]
                if item is not None and field is not None:
                    converted[field[0]] = field[1](item)
            return converted

        self._compiled[reference.shape] = convert
        for name, member in self.service.shape(reference).members.items():
            elsewhere = member.location is not None
            fields[name] = None if elsewhere else (member.location_name or name, self.converter(member))
        return convert


def _itself(value: object) -> object:
    return value
