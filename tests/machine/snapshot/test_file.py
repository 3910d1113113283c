"""The file of a machine snapshot: what is written is found again, and what was altered is refused by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.errors import InputError, NotFound
from celaje.machine.snapshot import file
from celaje.machine.snapshot.file import BLOCK, HASH_BYTES, PAGE, ZERO_BLOCK, SnapshotFile, SnapshotWriter, map_section

MEMORY = 3 * BLOCK + 5 * PAGE
STATE = b"what harts and devices hold"


def written(path: Path) -> dict[str, bytes]:
    """A snapshot with two sections; returns their contents."""
    memory = bytearray(MEMORY)
    memory[PAGE : PAGE + 4] = b"page"
    memory[-4:] = b"last"
    with SnapshotWriter(path) as writer:
        at = writer.add("memory", MEMORY)
        writer.write(at + PAGE, [b"pa", b"ge"])
        writer.write(at + MEMORY - 4, [b"last"])
        disk = writer.add("disk0", 2 * PAGE)
        writer.write(disk, [b"d" * 2 * PAGE])
        writer.finish(STATE)
    return {"memory": bytes(memory), "disk0": b"d" * 2 * PAGE}


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    contents = written(path)
    with SnapshotFile(path) as file:
        assert file.state == STATE
        assert {name: b"".join(file.blocks(one)) for name, one in file.sections.items()} == contents
        file.verify()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_blocks_of_zeros_are_holes_also_where_zeros_were_written(tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    with SnapshotWriter(path) as writer:
        at = writer.add("memory", 64 * BLOCK)
        writer.write(at, [bytes(64 * BLOCK)])
        writer.finish(STATE)
    assert path.stat().st_blocks * 512 < 8 * BLOCK
    with SnapshotFile(path) as file:
        section = file.section("memory")
        assert section.hashes == ZERO_BLOCK * (len(section.hashes) // HASH_BYTES)
        file.verify()


def test_zeros_that_are_too_few_are_noticed_where_the_file_is_cut_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    with SnapshotWriter(path) as writer:
        writer.add("memory", 2 * BLOCK)
        writer.finish(STATE)
    with SnapshotFile(path) as file:
        os.truncate(path, file.section("memory").offset + BLOCK + PAGE)
        with pytest.raises(InputError, match="block 1 of its section memory was altered"):
            file.verify()


def test_a_mapping_is_private_and_outlives_the_open_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    contents = written(path)
    before = path.read_bytes()
    with SnapshotFile(path) as file:
        memory = map_section(file, file.section("memory", MEMORY))
    assert memory[:] == contents["memory"]
    memory[0:4] = b"mine"
    assert path.read_bytes() == before
    memory.close()


def test_progress_reaches_the_end_when_taken_and_when_verified(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "machine.snap"
    with SnapshotWriter(path) as writer:
        writer.add("memory", MEMORY)
        writer.finish(STATE, lambda done, total: told.append((done, total)))
    assert told[-1] == (MEMORY, MEMORY)
    told.clear()
    with SnapshotFile(path) as file:
        file.verify(lambda done, total: told.append((done, total)))
    assert told[-1] == (MEMORY, MEMORY)


def test_a_snapshot_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path / "machine.snap") as writer:
        writer.add("memory", MEMORY)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"machine.snap is there already; remove it first"):
        SnapshotWriter(path)
    path.unlink()
    with SnapshotWriter(path) as writer:
        path.write_text("made meanwhile")
        with pytest.raises(InputError, match=r"is there already"):
            writer.finish(STATE)
    assert path.read_text() == "made meanwhile"
    assert os.listdir(tmp_path) == ["machine.snap"]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no machine snapshot .*none; celaje vm snapshot NAME"):
        SnapshotFile(tmp_path / "none")
    other = tmp_path / "other"
    other.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(InputError, match="other is no machine snapshot"):
        SnapshotFile(other)


def test_another_version_is_refused_before_anything_else_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "machine.snap"
    written(path)
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(b"\x09")
    with pytest.raises(InputError, match="is of version 9, and this celaje reads version 1"):
        SnapshotFile(path)


def test_an_index_that_is_no_text_is_refused_also_where_its_hash_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "machine.snap"
    monkeypatch.setattr(file.msgspec.msgpack, "encode", lambda sections: b"\x91\x84\xa4name\xa1\xff")
    written(path)
    with pytest.raises(InputError, match="its index is malformed"):
        SnapshotFile(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_refused_wherever_it_ends(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "machine.snap"
    written(path)
    length = data.draw(st.integers(0, path.stat().st_size - 1))
    os.truncate(path, length)
    with pytest.raises(InputError, match=r"machine snapshot"):
        SnapshotFile(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_altered_byte_is_found_at_the_latest_by_verify(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("altered") / "machine.snap"
    contents = written(path)
    with SnapshotFile(path) as whole:
        state_and_index = [(path.stat().st_size - 2 * PAGE, 2 * PAGE)]
        sections = [(one.offset, one.length) for one in whole.sections.values()]
    start, length = data.draw(st.sampled_from([(0, 152), *state_and_index, *sections]))
    at = start + data.draw(st.integers(0, length - 1))
    content = bytearray(path.read_bytes())
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        with SnapshotFile(path) as file:
            file.verify()
            # Behind index and state their pages are filled up with bytes that nobody reads.
            assert {name: b"".join(file.blocks(one)) for name, one in file.sections.items()} == contents
            assert file.state == STATE
            assert start == state_and_index[0][0]
    except InputError as error:
        assert "machine.snap" in str(error)
