from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from celaje.machine.boot.device_tree import ROOM_TO_GROW, Node, flatten, parse, wide


def tree() -> Node:
    root = Node("", {"#address-cells": 2, "compatible": ["first", "second"], "empty": b"", "text": "odd"})
    root.add("memory@80000000", {"reg": wide(0x80000000, 0x1_0000_0000), "bytes": b"\x01\x02\x03"})
    root.add("cpus", {"#address-cells": 1}).add("cpu@0", {"reg": 0})
    return root


def test_what_is_written_is_read_back() -> None:
    root = parse(flatten(tree(), boot_hart=3))
    assert root.properties == {
        "#address-cells": b"\0\0\0\2",
        "compatible": b"first\0second\0",
        "empty": b"",
        "text": b"odd\0",
    }
    memory = root.find("memory@80000000")
    assert memory.properties["reg"] == bytes.fromhex("0000000080000000 0000000100000000")
    assert memory.properties["bytes"] == b"\x01\x02\x03"
    assert root.find("/cpus/cpu@0").properties == {"reg": bytes(4)}


def test_the_header_says_what_is_where() -> None:
    blob = flatten(tree(), boot_hart=3)
    words = [int.from_bytes(blob[at : at + 4], "big") for at in range(0, 40, 4)]
    assert words[0] == 0xD00DFEED
    assert words[1] == len(blob)
    assert words[5:8] == [17, 16, 3]
    assert words[2] + words[9] == words[3]
    assert words[3] + words[8] == len(blob) - ROOM_TO_GROW
    assert words[4] % 8 == 0
    assert blob[words[4] : words[4] + 16] == bytes(16)


def test_a_property_name_is_stored_once() -> None:
    assert flatten(tree()).count(b"#address-cells\0") == 1


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="no node cpu@1 below cpus"):
        tree().find("/cpus/cpu@1")


@pytest.mark.parametrize("cut", [0, 10, 39, 60, 100])
def test_a_tree_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ValueError):
        parse(flatten(tree())[:cut])


def test_another_version_is_refused() -> None:
    blob = bytearray(flatten(tree()))
    blob[23] = 18
    with pytest.raises(ValueError, match="18"):
        parse(bytes(blob))


def test_dtc_reads_the_same_tree(tool: Callable[[str], str]) -> None:
    done = subprocess.run(
        [tool("dtc"), "-I", "dtb", "-O", "dtb", "-"], input=flatten(tree()), capture_output=True, check=True, timeout=60
    )
    assert parse(done.stdout) == parse(flatten(tree()))
