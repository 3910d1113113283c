from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.errors import InputError, NotFound
from celaje.host.console_ring import PIECE, RING, SLOTS, ConsoleRing

CAPACITY = 3 * PIECE + 17


def open_ring(path: Path) -> ConsoleRing:
    return ConsoleRing(path, write=True, capacity=CAPACITY)


@given(pieces=st.lists(st.binary(max_size=3 * PIECE), max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_tail_is_the_end_of_all_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("ring") / "console.ring"
    said = b""
    with open_ring(path) as ring:
        for piece in pieces:
            ring.append(piece)
            said += piece
            assert ring.count == len(said)
            assert ring.tail(CAPACITY) == said[-(CAPACITY - PIECE) :]
            assert ring.tail(10) == said[-10:]
    with open_ring(path) as again:
        assert again.tail(CAPACITY) == said[-(CAPACITY - PIECE) :]
        again.append(b"more")
        assert again.tail(CAPACITY) == (said + b"more")[-(CAPACITY - PIECE) :]


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_a_kill_tears_the_rest_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Every write of the last append is cut at any byte, or is not done at all."""
    path = tmp_path_factory.mktemp("ring") / "console.ring"
    said = bytes(os.urandom(data.draw(st.integers(1, 2 * CAPACITY))))
    last = bytes(os.urandom(data.draw(st.integers(1, PIECE))))
    with open_ring(path) as ring:
        ring.append(said)
        slot = SLOTS[ring._next_slot]
        count = ring.count
    whole = bytearray(path.read_bytes())
    done = data.draw(st.integers(0, len(last)))
    for index in range(done):
        whole[RING + (count + index) % CAPACITY] = last[index]
    if done == len(last):
        torn = data.draw(st.integers(0, 31))
        whole[slot : slot + torn] = os.urandom(torn)
    path.write_bytes(whole)
    with ConsoleRing(path) as reader:
        assert reader.count == count
        assert reader.tail(CAPACITY) == said[-(CAPACITY - PIECE) :]


def test_a_reader_that_is_behind_gets_what_is_left_and_can_tell_what_it_missed(tmp_path: Path) -> None:
    with open_ring(tmp_path / "ring") as ring, ConsoleRing(tmp_path / "ring") as reader:
        said = os.urandom(5 * CAPACITY)
        ring.append(said)
        assert reader.read(0, 100) == (0, b"")
        reader.refresh()
        position, data = reader.read(7, 100)
        assert position == len(said) - (CAPACITY - PIECE)
        assert data == said[position : position + 100]
        assert reader.read(reader.count, 100) == (reader.count, b"")


def test_two_slots_that_are_both_torn_are_an_empty_ring(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with open_ring(path) as ring:
        ring.append(b"x" * 100)
        ring.append(b"y" * 100)
    whole = bytearray(path.read_bytes())
    for place in SLOTS:
        whole[place] ^= 1
    path.write_bytes(whole)
    with open_ring(path) as ring:
        assert ring.tail(1000) == b""
        ring.append(b"again")
        assert ring.tail(1000) == b"again"


@pytest.mark.parametrize("content", [b"", b"celajeR1", b"x" * 5000, b"celajeR1" + b"\xff" * 9000])
def test_what_is_no_ring_is_refused_to_readers_and_replaced_by_the_writer(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ring"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no console ring"):
        ConsoleRing(path)
    with open_ring(path) as ring:
        ring.append(b"hello")
    with ConsoleRing(path) as reader:
        assert reader.tail(100) == b"hello"
        assert reader.capacity == CAPACITY


def test_no_file_says_that_the_machine_has_not_started(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has not started yet"):
        ConsoleRing(tmp_path / "none")
