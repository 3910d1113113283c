from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.host.console_ring import PIECE, ConsoleRing
from celaje.host.ring_console import TYPED_AHEAD, RingConsole
from tests.machine_processes import wait_until

CAPACITY = 4 * PIECE


def never() -> bool:
    return False


@pytest.fixture
def console(tmp_path: Path) -> Iterator[RingConsole]:
    found = RingConsole(ConsoleRing(tmp_path / "ring", write=True, capacity=CAPACITY))
    found.start()
    yield found
    found.close()


def say(console: RingConsole, data: bytes) -> None:
    for byte in data:
        console.put(byte)


def test_what_the_guest_says_is_read_in_order_and_again(console: RingConsole) -> None:
    say(console, b"hello")
    wait_until(lambda: console.count == 5)
    assert console.read(0, 100, never) == (0, b"hello")
    assert console.read(2, 2, never) == (2, b"ll")


def test_a_reader_waits_for_more(console: RingConsole) -> None:
    heard: list[tuple[int, bytes] | None] = []
    reader = threading.Thread(target=lambda: heard.append(console.read(0, 100, never)))
    reader.start()
    say(console, b"x")
    reader.join(60)
    assert heard == [(0, b"x")]


def test_a_reader_that_does_not_read_misses_some_and_slows_nobody(console: RingConsole) -> None:
    said = bytes(index * 7 % 251 for index in range(5 * CAPACITY))
    say(console, said)
    wait_until(lambda: console.count == len(said))
    found = console.read(10, 1000, never)
    assert found is not None
    position, data = found
    assert position == len(said) - (CAPACITY - PIECE)
    assert data == said[position : position + 1000]


def test_a_reader_can_be_stopped_while_it_waits(console: RingConsole) -> None:
    stopped = threading.Event()
    heard: list[object] = []
    reader = threading.Thread(target=lambda: heard.append(console.read(0, 100, stopped.is_set)))
    reader.start()
    stopped.set()
    console.wake_readers()
    reader.join(60)
    assert heard == [None]


def test_at_the_end_everything_that_was_said_is_read_first(console: RingConsole) -> None:
    say(console, b"last words")
    console.finish()
    assert console.read(0, 4, never) == (0, b"last")
    assert console.read(4, 100, never) == (4, b" words")
    assert console.read(10, 100, never) is None


def test_input_waits_for_a_guest_that_does_not_listen_and_is_never_lost(console: RingConsole) -> None:
    pieces = [bytes([index]) * 10_000 for index in range(20)]
    told: list[int] = []
    console.listen(lambda: told.append(1), lambda: None)

    def type_all() -> None:
        for piece in pieces:
            console.type(piece)

    typist = threading.Thread(target=type_all)
    typist.start()
    typist.join(0.1)
    assert typist.is_alive()
    assert len(told) <= TYPED_AHEAD // 10_000 + 1
    taken = b""
    while len(taken) < 200_000:
        taken += console.take(777)
    typist.join(60)
    assert taken == b"".join(pieces)
    console.give_back(b"again")
    assert console.take(100) == b"again"


def test_a_typist_is_let_go_at_the_end(console: RingConsole) -> None:
    console.type(bytes(TYPED_AHEAD))
    typist = threading.Thread(target=console.type, args=(b"x",))
    typist.start()
    console.finish()
    typist.join(60)
    assert not typist.is_alive()


def test_a_guest_that_asks_is_told_when_there_is_room_again(tmp_path: Path) -> None:
    console = RingConsole(ConsoleRing(tmp_path / "ring", write=True, capacity=CAPACITY))
    room = threading.Event()
    console.listen(lambda: None, room.set)
    say(console, bytes(70_000))
    assert not console.has_room
    console.start()
    assert room.wait(60)
    assert console.has_room
    console.close()


def test_output_that_the_host_cannot_keep_is_counted_and_stops_nobody(tmp_path: Path) -> None:
    class Full(ConsoleRing):
        def append(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    console = RingConsole(Full(tmp_path / "ring", write=True, capacity=CAPACITY))
    console.start()
    say(console, b"hello")
    console.close()
    assert console.lost == 5
