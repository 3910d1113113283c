"""Flattened device trees (Devicetree Specification 0.4, chapter 5), version 17, written and read.

All numbers are big-endian.

    header, 40 bytes                              memory reservations, each    structure, 4-byte aligned
    +---------------------------------------+     +-------------------+       +---------------------------------+
    | magic 0xd00dfeed | total size         |     | address  64 bits  |       | 1 BEGIN_NODE, name\\0 padded     |
    | structure at     | strings at         |     | size     64 bits  |       |   3 PROP, length, name at,      |
    | reservations at  | version 17         |     +-------------------+       |     value padded                |
    | compatible 16    | boot hart          |     | 0        0        | end   |   ... nodes ...                 |
    | strings' bytes   | structure's bytes  |     +-------------------+       | 2 END_NODE                      |
    +---------------------------------------+                                 | 9 END                           |
                                                                              +---------------------------------+
    The strings are the properties' names, each once, each ended by a zero byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

MAGIC = 0xD00DFEED
VERSION = 17
COMPATIBLE_VERSION = 16
BEGIN_NODE, END_NODE, PROP, NOP, END = 1, 2, 3, 4, 9
HEADER = struct.Struct(">10I")

Value = int | str | bytes | Sequence[int] | Sequence[str]
"""A number or numbers (32-bit cells), a string or strings, bytes as they are. b"" is one that is merely there."""


def wide(*numbers: int) -> list[int]:
    """64-bit numbers as pairs of cells."""
    return [cell for number in numbers for cell in (number >> 32, number & 0xFFFFFFFF)]


@dataclass
class Node:
    """A node with its properties and the nodes below it."""

    name: str
    properties: dict[str, Value] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def add(self, name: str, properties: dict[str, Value] | None = None) -> Node:
        """A new node below this one."""
        node = Node(name, properties or {})
        self.children.append(node)
        return node

    def find(self, path: str) -> Node:
        """The node at `path`, names joined by slashes. KeyError where there is none."""
        node = self
        for name in filter(None, path.split("/")):
            for child in node.children:
                if child.name == name:
                    node = child
                    break
            else:
                raise KeyError(f"no node {name} below {node.name or '/'}; there are: {[c.name for c in node.children]}")
        return node


def encode_value(value: Value) -> bytes:
    """A property's bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, int):
        return struct.pack(">I", value)
    return b"".join(encode_value(item) for item in value)


# Boot loaders add nodes in place, some (u-boot 2023.01) without asking whether there is room.
ROOM_TO_GROW = 8192


def flatten(root: Node, boot_hart: int = 0) -> bytes:
    """The tree as a blob, for the guest that starts on `boot_hart`."""
    structure, strings = bytearray(), bytearray()
    names: dict[str, int] = {}

    def pad() -> None:
        structure.extend(bytes(-len(structure) % 4))

    def emit(node: Node) -> None:
        structure.extend(struct.pack(">I", BEGIN_NODE) + node.name.encode() + b"\0")
        pad()
        for name, value in node.properties.items():
            if name not in names:
                names[name] = len(strings)
                strings.extend(name.encode() + b"\0")
            data = encode_value(value)
            structure.extend(struct.pack(">3I", PROP, len(data), names[name]) + data)
            pad()
        for child in node.children:
            emit(child)
        structure.extend(struct.pack(">I", END_NODE))

    emit(root)
    structure.extend(struct.pack(">I", END))
    reservations = bytes(16)
    structure_at = HEADER.size + len(reservations)
    strings_at = structure_at + len(structure)
    header = HEADER.pack(
        MAGIC,
        strings_at + len(strings) + ROOM_TO_GROW,
        structure_at,
        strings_at,
        HEADER.size,
        VERSION,
        COMPATIBLE_VERSION,
        boot_hart,
        len(strings),
        len(structure),
    )
    return header + reservations + bytes(structure) + bytes(strings) + bytes(ROOM_TO_GROW)


def parse(blob: bytes) -> Node:
    """The tree in `blob`, each property as bytes. ValueError where it is no device tree of version 17."""
    try:
        magic, _, structure_at, strings_at, _, version, *_ = HEADER.unpack_from(blob)
        if magic != MAGIC or version != VERSION:
            raise ValueError(
                f"a device tree starts with {MAGIC:#x} and has version {VERSION}, not {magic:#x}, {version}"
            )
        above: list[Node] = [Node("above the root")]
        at = structure_at
        while True:
            (token,) = struct.unpack_from(">I", blob, at)
            at += 4
            if token == BEGIN_NODE:
                end = blob.index(b"\0", at)
                above.append(above[-1].add(blob[at:end].decode()))
                at = end + 4 & ~3
            elif token == PROP:
                length, name_at = struct.unpack_from(">2I", blob, at)
                name_at += strings_at
                name = blob[name_at : blob.index(b"\0", name_at)].decode()
                above[-1].properties[name] = blob[at + 8 : at + 8 + length]
                at += 8 + length + 3 & ~3
            elif token == END_NODE:
                above.pop()
            elif token == END:
                (root,) = above[0].children
                return root
            elif token != NOP:
                raise ValueError(f"a device tree has no token {token} (at {at - 4:#x})")
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"the device tree is cut short or damaged: {error}") from error
