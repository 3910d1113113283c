"""Bodies of JSON requests (JSON 1.1 and REST-JSON), read by functions compiled from the shapes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from celaje.cloud.aws.model import Reference, Service
from celaje.cloud.aws.refusals import Dialect, shown
from celaje.cloud.aws.scalars import read_blob, read_timestamp

_Read = Callable[[object, str], object]
_KINDS = {dict: "a structure", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def read_json(body: bytes, dialect: Dialect) -> dict[str, object]:
    """The body's object; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise dialect.syntax(f"The body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise dialect.syntax("The body must be a JSON object")
    return value


class JsonReaders:
    """The readers of one service's shapes. Members that a shape does not have are ignored, as AWS does."""

    def __init__(self, service: Service, dialect: Dialect) -> None:
        self.service = service
        self.dialect = dialect
        self._compiled: dict[str, Callable[[object, str], dict[str, object]]] = {}

    def reader(self, reference: Reference) -> _Read:
        kind = self.service.shape(reference).type
        if kind == "structure":
            return self.structure(reference)
        if kind == "list":
            return self._list(reference)
        if kind == "map":
            return self._map(reference)
        return self._scalar(kind)

    def structure(self, reference: Reference) -> Callable[[object, str], dict[str, object]]:
        known = self._compiled.get(reference.shape)
        if known is not None:
            return known
        fields: dict[str, tuple[str, _Read]] = {}
        refuse = self._refuse

        def read(value: object, path: str) -> dict[str, object]:
            if not isinstance(value, dict):
                raise refuse(path, value, "a structure")
            members: dict[str, object] = {}
            for wire, item in value.items():
                field = fields.get(wire)
                if field is not None and item is not None:
                    members[field[0]] = field[1](item, f"{path}.{wire}" if path else wire)
            return members

        self._compiled[reference.shape] = read
        for name, member in self.service.shape(reference).members.items():
            if member.location is None:
                fields[member.location_name or name] = (name, self.reader(member))
        return read

    def _list(self, reference: Reference) -> _Read:
        shape = self.service.shape(reference)
        assert shape.member is not None
        item = self.reader(shape.member)
        refuse = self._refuse

        def read(value: object, path: str) -> object:
            if not isinstance(value, list):
                raise refuse(path, value, "a list")
            if None in value:
                raise refuse(path, None, "a list without nulls")
            return [item(each, f"{path}.{index}") for index, each in enumerate(value, 1)]

        return read

    def _map(self, reference: Reference) -> _Read:
        shape = self.service.shape(reference)
        assert shape.value is not None
        item = self.reader(shape.value)
        refuse = self._refuse

        def read(value: object, path: str) -> object:
            if not isinstance(value, dict):
                raise refuse(path, value, "a map")
            return {key: item(each, f"{path}.{key}") for key, each in value.items() if each is not None}

        return read

    def _scalar(self, kind: str) -> _Read:
        refuse = self._refuse
        if kind in ("string", "character"):

            def read_text(value: object, path: str) -> object:
                if not isinstance(value, str):
                    raise refuse(path, value, "a string")
                return value

            return read_text
        if kind == "boolean":

            def read_boolean(value: object, path: str) -> object:
                if not isinstance(value, bool):
                    raise refuse(path, value, "true or false")
                return value

            return read_boolean
        if kind in ("integer", "long"):
            bits = 31 if kind == "integer" else 63

            def read_integer(value: object, path: str) -> object:
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                if not isinstance(value, int) or isinstance(value, bool) or not -(1 << bits) <= value < 1 << bits:
                    raise refuse(path, value, f"an integer of {bits + 1} bits")
                return value

            return read_integer
        if kind in ("float", "double"):

            def read_float(value: object, path: str) -> object:
                if not isinstance(value, int | float) or isinstance(value, bool):
                    raise refuse(path, value, "a number")
                return float(value)

            return read_float
        if kind == "blob":
            return self._from_text(read_blob)
        assert kind == "timestamp", kind
        from_text = self._from_text(read_timestamp)

        def read_moment(value: object, path: str) -> object:
            if isinstance(value, int | float) and not isinstance(value, bool):
                try:
                    return datetime.fromtimestamp(value, UTC)
                except (OverflowError, ValueError, OSError):
                    raise refuse(path, value, "seconds since 1970") from None
            return from_text(value, path)

        return read_moment

    def _from_text(self, reader: Callable[[str], object]) -> _Read:
        refuse = self._refuse

        def read(value: object, path: str) -> object:
            if not isinstance(value, str):
                raise refuse(path, value, "a string")
            try:
                return reader(value)
            except ValueError as error:
                raise refuse(path, value, str(error)) from None

        return read

    def _refuse(self, path: str, value: object, expected: str) -> Exception:
        given = shown(value) if isinstance(value, str | int | float) else _KINDS.get(type(value), "null")
        return self.dialect.malformed(path, given, expected)
