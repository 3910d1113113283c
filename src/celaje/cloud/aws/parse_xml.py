"""Bodies of REST-XML requests: a small tree from expat, then functions compiled from the shapes.

The XML is hostile: document types (and with them entities) are refused, depth and size are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers import expat

from celaje.cloud.aws.model import Reference, Service
from celaje.cloud.aws.refusals import Dialect
from celaje.cloud.aws.scalars import READERS

ELEMENTS = 100_000
DEPTH = 32

_Read = Callable[["Element", str], object]


class Element:
    """Names are without their namespaces. `text` is what stands in it, between its children too."""

    __slots__ = ("attributes", "children", "name", "pieces", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.pieces: list[str] = []  # of the text: added to a string, it would be copied for each child
        self.text = ""


class _Refused(Exception):
    pass


def read_xml(body: bytes, dialect: Dialect) -> Element:
    """The document's element; AwsError in the dialect's terms if it is not well-formed, or not what anyone should
    send.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    root = Element("", {})
    open_elements = [root]
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > ELEMENTS or len(open_elements) > DEPTH:
            raise _Refused(f"more than {ELEMENTS} elements, or more than {DEPTH} deep")
        element = Element(_local(name), {_local(each): value for each, value in attributes.items()})
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(name: str) -> None:
        element = open_elements.pop()
        element.text, element.pieces = "".join(element.pieces), []

    def text(data: str) -> None:
        open_elements[-1].pieces.append(data)

    def refuse(*_: object) -> None:
        raise _Refused("a document type is not allowed")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, _Refused, UnicodeError, ValueError, LookupError) as error:
        raise dialect.syntax(str(error)) from None
    return root.children[0]


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


class XmlReaders:
    """The readers of one service's shapes."""

    def __init__(self, service: Service, dialect: Dialect) -> None:
        self.service = service
        self.dialect = dialect
        self._compiled: dict[str, Callable[[Element, str], dict[str, object]]] = {}

    def reader(self, reference: Reference) -> _Read:
        shape = self.service.shape(reference)
        if shape.type == "structure":
            return self.structure(reference)
        if shape.type == "list":
            return self._list(reference)
        if shape.type == "map":
            raise NotImplementedError(f"no service has a map in an XML request; {reference.shape}")
        return self._scalar(shape.type)

    def structure(self, reference: Reference) -> Callable[[Element, str], dict[str, object]]:
        known = self._compiled.get(reference.shape)
        if known is not None:
            return known
        shape = self.service.shape(reference)
        fields: dict[str, tuple[str, _Read, bool]] = {}
        attributes: dict[str, str] = {}
        dialect = self.dialect

        def read(element: Element, path: str) -> dict[str, object]:
            members: dict[str, object] = {}
            for child in element.children:
                field = fields.get(child.name)
                here = f"{path}.{child.name}"
                if field is None:
                    raise dialect.syntax(f"{here[:200]} is not part of the schema")
                name, reader, flattened = field
                if flattened:
                    listed = members.setdefault(name, [])
                    assert isinstance(listed, list)
                    listed.append(reader(child, here))
                elif name in members:
                    raise dialect.syntax(f"{here} is given more than once")
                else:
                    members[name] = reader(child, here)
            for wire, name in attributes.items():
                if wire in element.attributes:
                    members[name] = element.attributes[wire]
            return members

        self._compiled[reference.shape] = read
        for name, member in shape.members.items():
            if member.location is not None:
                continue
            target = self.service.shape(member)
            wire = member.location_name or name
            if member.xml_attribute:
                attributes[wire.rpartition(":")[2]] = name
            elif target.type == "list" and (target.flattened or member.flattened):
                assert target.member is not None
                fields[target.member.location_name or wire] = (name, self.reader(target.member), True)
            else:
                fields[wire] = (name, self.reader(member), False)
        return read

    def _list(self, reference: Reference) -> _Read:
        shape = self.service.shape(reference)
        assert shape.member is not None
        item = self.reader(shape.member)
        wire = shape.member.location_name or "member"
        dialect = self.dialect

        def read(element: Element, path: str) -> object:
            for child in element.children:
                if child.name != wire:
                    raise dialect.syntax(f"{path}.{child.name[:100]} is not part of the schema; expected {wire}")
            return [item(child, f"{path}.{wire}") for child in element.children]

        return read

    def _scalar(self, kind: str) -> _Read:
        reader = READERS[kind]
        dialect = self.dialect
        strips = kind != "string"

        def read(element: Element, path: str) -> object:
            if element.children:
                raise dialect.syntax(f"{path} must have a value, not elements")
            try:
                return reader(element.text.strip() if strips else element.text)
            except ValueError as error:
                raise dialect.syntax(f"{path} must be {error}") from None

        return read
