"""Requests of the EC2 and the query protocol: form parameters to members.

    Action=RunInstances&MinCount=1&TagSpecification.1.Tag.2.Key=Name

Parameters are first put into a tree by the dots in their names; functions compiled from the input's shape then read
the tree. EC2 names a member by its `queryName`, else its capitalised `locationName`, and counts a list's items right
after its name (`Filter.1.Value.2`); the query protocol has `member` between them (`Tags.member.1`) and writes maps as
`entry.1.key`. Both count from 1, some clients from 0: the order is what matters.
"""

import itertools
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

from celaje.cloud.aws.model import Operation, Reference, Service
from celaje.cloud.aws.refusals import DIALECTS, Dialect
from celaje.cloud.aws.scalars import READERS

Tree = dict[str, "str | Tree"]
_Read = Callable[["str | Tree", str], object]
QueryParser = Callable[[Tree], dict[str, object]]

PARAMETERS = 10_000  # of one request; AWS's own bound on the bytes of a request is reached well before
_DEPTH = 16
# Parameters that are not the operation's.
_COMMON = frozenset(
    "Action Version AWSAccessKeyId Signature SignatureMethod SignatureVersion Timestamp Expires SecurityToken".split()
)


def read_form(text: str, dialect: Dialect) -> list[tuple[str, str]]:
    """The pairs of a query string or an `application/x-www-form-urlencoded` body, decoded."""
    pairs: list[tuple[str, str]] = []
    if not text:
        return pairs
    pieces = text.split("&")
    if len(pieces) > PARAMETERS:
        raise dialect.syntax(f"The request has more than {PARAMETERS} parameters")
    for piece in pieces:
        if not piece:
            continue
        name, _, value = piece.partition("=")
        pairs.append((_decoded(name, dialect), _decoded(value, dialect)))
    return pairs


def _decoded(text: str, dialect: Dialect) -> str:
    if "%" not in text and "+" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeError:
        raise dialect.syntax("The query string contains bytes that are not UTF-8") from None


def grow(pairs: Iterable[tuple[str, str]], dialect: Dialect) -> Tree:
    """The tree of parameters; those that belong to the protocol (Action, the signature's) are left out."""
    root: Tree = {}
    for name, value in pairs:
        if "." not in name:
            if name in _COMMON or name[:6].lower() == "x-amz-":
                continue
            if name in root:
                raise dialect.syntax(
                    f"The parameter {name[:200]} is given more than once, or both alone and as a group"
                )
            root[name] = value
            continue
        *path, last = name.split(".")
        if len(path) > _DEPTH:
            raise dialect.syntax(f"The parameter {name[:200]} is nested more than {_DEPTH} deep")
        node = root
        for part in path:
            child = node.get(part)
            if child is None:
                child = node[part] = {}
            elif isinstance(child, str):
                raise dialect.syntax(f"The parameter {name[:200]} is given both alone and as a group")
            node = child
        if last in node:
            raise dialect.syntax(f"The parameter {name[:200]} is given more than once, or both alone and as a group")
        node[last] = value
    return root


def compile_query_parser(service: Service, operation: Operation) -> QueryParser:
    """A function from the tree to the operation's members; raises AwsError in the service's dialect."""
    dialect = DIALECTS[service.name]
    if operation.input is None:

        def read_nothing(tree: Tree) -> dict[str, object]:
            for name in tree:
                refusal = dialect.unknown(name)
                if refusal is not None:
                    raise refusal
            return {}

        return read_nothing
    compiler = _Compiler(service, dialect)
    members = compiler.structure(operation.input)

    def read(tree: Tree) -> dict[str, object]:
        return members(tree, "")

    return read


def wire_name(service: Service, name: str, member: Reference) -> str:
    """What a member is called in a request."""
    if service.protocol == "ec2":
        if member.query_name:
            return member.query_name
        located = member.location_name or name
        return located[0].upper() + located[1:]
    return member.location_name or name


class _Compiler:
    def __init__(self, service: Service, dialect: Dialect) -> None:
        self.service = service
        self.dialect = dialect
        self.compiled: dict[str, Callable[[str | Tree, str], dict[str, object]]] = {}

    def reader(self, reference: Reference) -> _Read:
        kind = self.service.shape(reference).type
        if kind == "structure":
            return self.structure(reference)
        if kind == "list":
            return self.list(reference)
        if kind == "map":
            return self.map(reference)
        return self.scalar(kind)

    def structure(self, reference: Reference) -> Callable[[str | Tree, str], dict[str, object]]:
        known = self.compiled.get(reference.shape)
        if known is not None:
            return known
        fields: dict[str, tuple[str, _Read]] = {}
        dialect = self.dialect

        def read(node: str | Tree, path: str) -> dict[str, object]:
            if isinstance(node, str):
                if node:
                    raise dialect.unknown(path) or dialect.malformed(path, node, "a structure")
                return {}
            members: dict[str, object] = {}
            prefix = path + "." if path else ""
            for wire, child in node.items():
                field = fields.get(wire)
                if field is None:
                    refusal = dialect.unknown(prefix + wire)
                    if refusal is not None:
                        raise refusal
                    continue
                members[field[0]] = field[1](child, prefix + wire)
            return members

        self.compiled[reference.shape] = read  # before its members: shapes can contain themselves
        for name, member in self.service.shape(reference).members.items():
            fields[wire_name(self.service, name, member)] = (name, self.reader(member))
        return read

    def list(self, reference: Reference) -> _Read:
        shape = self.service.shape(reference)
        assert shape.member is not None
        item = self.reader(shape.member)
        between = None
        if self.service.protocol == "query" and not (shape.flattened or reference.flattened):
            between = shape.member.location_name or "member"
        dialect = self.dialect
        one = self.service.protocol == "ec2"  # EC2 takes KeyName=x for KeyName.1=x, as libcloud writes it

        def read(node: str | Tree, path: str) -> object:
            if isinstance(node, str):
                if node and not one:
                    raise dialect.unknown(path) or dialect.malformed(path, node, "a list")
                return [item(node, path)] if node else []
            if between is not None:
                inner = node.get(between)
                if not isinstance(inner, dict) or len(node) > 1:
                    raise dialect.malformed(path, ", ".join(node), f"a list: {path}.{between}.1")
                node = inner
                path = f"{path}.{between}"
            return [item(child, f"{path}.{index}") for index, child in _in_order(node, path, dialect)]

        return read

    def map(self, reference: Reference) -> _Read:
        shape = self.service.shape(reference)
        assert shape.key is not None
        assert shape.value is not None
        key_name = shape.key.location_name or "key"
        value_name = shape.value.location_name or "value"
        key = self.reader(shape.key)
        value = self.reader(shape.value)
        flattened = shape.flattened or reference.flattened
        dialect = self.dialect

        def read(node: str | Tree, path: str) -> object:
            if not flattened and isinstance(node, dict):
                inner = node.get("entry", "")
                if len(node) > 1 or not inner:
                    raise dialect.malformed(path, ", ".join(node), f"a map: {path}.entry.1")
                node = inner
                path += ".entry"
            if isinstance(node, str):
                if node:
                    raise dialect.malformed(path, node, "a map")
                return {}
            entries: dict[object, object] = {}
            for index, child in _in_order(node, path, dialect):
                if not isinstance(child, dict) or set(child) - {key_name, value_name} or key_name not in child:
                    raise dialect.malformed(f"{path}.{index}", "", f"{key_name} and {value_name}")
                name = key(child[key_name], f"{path}.{index}.{key_name}")
                if name in entries:
                    raise dialect.malformed(f"{path}.{index}", str(name), "each key once")
                entries[name] = value(child.get(value_name, ""), f"{path}.{index}.{value_name}")
            return entries

        return read

    def scalar(self, kind: str) -> _Read:
        reader = READERS[kind]
        dialect = self.dialect

        def read(node: str | Tree, path: str) -> object:
            if not isinstance(node, str):
                child = next(iter(node))
                raise dialect.unknown(f"{path}.{child}") or dialect.malformed(path, child, "one value")
            try:
                return reader(node)
            except ValueError as error:
                raise dialect.malformed(path, node, str(error)) from None

        def read_text(node: str | Tree, path: str) -> object:
            if type(node) is str and node.isprintable():  # no control characters: nearly all there is
                return node
            if not isinstance(node, str):
                return read(node, path)
            for character in node:
                # Characters that XML 1.0 (section 2.2) cannot carry could never be shown again.
                if (character < " " and character not in "\t\n\r") or character in "\ufffe\uffff":
                    raise dialect.malformed(path, repr(node), "characters that XML allows")
            return node

        return read_text if kind == "string" else read


def _in_order(node: Tree, path: str, dialect: Dialect) -> list[tuple[int, "str | Tree"]]:
    items: list[tuple[int, str | Tree]] = []
    for index, child in node.items():
        if not (index.isascii() and index.isdigit() and len(index) <= 9):
            raise dialect.unknown(f"{path}.{index}") or dialect.malformed(path, index, f"an index, as in {path}.1")
        items.append((int(index), child))
    items.sort(key=lambda pair: pair[0])
    for (one, _), (other, _) in itertools.pairwise(items):
        if one == other:
            raise dialect.syntax(f"The parameter {path}.{one} is given more than once")
    return items
