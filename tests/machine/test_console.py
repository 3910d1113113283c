from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.machine.console import CHUNK, LIMIT, ROOM, BufferConsole, EscapeReader, StreamConsole

WAIT = 30  # seconds after which something will not come any more


class Guest:
    """Takes input as a serial port does: some at a time, and waits to be told of more."""

    def __init__(self, console: StreamConsole, at_once: int = 16) -> None:
        self.console = console
        self.at_once = at_once
        self.received = bytearray()
        self.changed = threading.Condition()
        console.listen(self.on_input, lambda: None)

    def on_input(self) -> None:
        with self.changed:
            self.received += self.console.take(self.at_once)
            self.changed.notify_all()

    def read_until(self, count: int) -> bytes:
        with self.changed:
            while len(self.received) < count:
                got = self.console.take(self.at_once)
                self.received += got
                if not got:
                    assert self.changed.wait(WAIT), f"only {len(self.received)} of {count} bytes came"
            return bytes(self.received)


@pytest.fixture
def make() -> Iterator[Callable[..., StreamConsole]]:
    made: list[StreamConsole] = []

    def console(source: int | None, sink: int | None, on_leave: Callable[[], None] | None = None) -> StreamConsole:
        made.append(StreamConsole(source, sink, on_leave))
        made[-1].start()
        return made[-1]

    yield console
    for console_made in made:
        console_made.close()


def send(console: StreamConsole, data: bytes) -> None:
    for byte in data:
        console.put(byte)


def test_close_writes_everything_that_was_put(make: Callable[..., StreamConsole], tmp_path: Path) -> None:
    data = os.urandom(300_000)
    with (tmp_path / "output").open("wb") as file:
        console = make(None, file.fileno())
        send(console, data)
        console.close()
    assert (tmp_path / "output").read_bytes() == data


class Watched(deque[int]):
    """Output that is waited for by a writer who has just seen that there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()
        self.go_on = threading.Event()

    def __len__(self) -> int:
        length = super().__len__()
        if not length and threading.current_thread().name == "console output" and not self.seen.is_set():
            self.seen.set()
            assert self.go_on.wait(WAIT)
        return length


def test_close_writes_also_what_was_put_after_the_writers_last_look(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as file:
        console = StreamConsole(None, file.fileno())
        console._output = output = Watched()
        console.start()
        console.put(ord("a"))
        assert output.seen.wait(WAIT)
        console.put(ord("b"))
        closing = threading.Thread(target=console.close)
        closing.start()
        while not console._closing:
            time.sleep(0.001)
        output.go_on.set()
        closing.join(WAIT)
        assert not closing.is_alive()
    assert (tmp_path / "output").read_bytes() == b"ab"


def test_output_comes_without_a_newline_or_a_close(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    console = make(None, writer)
    send(console, b"login: ")
    got = b""
    while len(got) < 7:
        got += os.read(reader, 7)
    assert got == b"login: "
    console.close()
    os.close(reader)
    os.close(writer)


def test_output_to_a_pipe_that_does_not_block_is_whole(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    data = os.urandom(500_000)
    got = bytearray()

    def drain() -> None:
        while chunk := os.read(reader, 65536):
            got.extend(chunk)

    console = make(None, writer)
    send(console, data[:200_000])
    thread = threading.Thread(target=drain)
    thread.start()
    send(console, data[200_000:])
    console.close()
    os.close(writer)
    thread.join(WAIT)
    assert bytes(got) == data
    os.close(reader)


def test_a_reader_that_has_gone_away_is_no_error(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    console = make(None, writer)
    send(console, bytes(ROOM + 10))
    console.close()
    assert console.output_error is None
    os.close(writer)


def test_a_full_disk_is_kept_for_the_report(make: Callable[..., StreamConsole]) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        console = make(None, full.fileno())
        send(console, b"lost")
        console.close()
        assert console.output_error is not None


def test_a_reader_that_stops_takes_the_room_and_gives_it_back(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    console = make(None, writer)
    room = threading.Event()
    console.listen(lambda: None, room.set)
    sent = 0
    while console.has_room and sent < LIMIT:
        console.put(0)
        sent += 1
    assert sent < LIMIT
    got = 0
    while not console.has_room:  # a writer that began late may have told of room before
        got += len(os.read(reader, 65536))
    assert room.wait(WAIT)
    while got < sent:
        got += len(os.read(reader, 65536))
    console.close()
    os.close(reader)
    os.close(writer)


def test_a_guest_that_never_looks_loses_nothing_and_gets_away(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    held = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CHUNK)
    console = make(None, writer)
    count = LIMIT + CHUNK + held + 100  # more than the writer has in hand and the pipe holds besides
    for index in range(count):
        console.put(index & 0xFF)
    got = bytearray()

    def read() -> None:
        while len(got) < count:
            got.extend(os.read(reader, 65536))

    drain = threading.Thread(target=read)
    drain.start()
    console.close()
    drain.join(WAIT)
    assert bytes(got) == bytes(index & 0xFF for index in range(count))
    os.close(reader)
    os.close(writer)


def test_input_reaches_a_guest_that_reads_a_little_at_a_time(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    data = os.urandom(20_000)
    guest = Guest(make(reader, None))
    thread = threading.Thread(target=os.write, args=(writer, data))
    thread.start()
    assert guest.read_until(len(data)) == data
    thread.join()
    os.close(writer)
    os.close(reader)


def test_what_the_guest_does_not_ask_for_stays_in_the_file(make: Callable[..., StreamConsole], tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(bytes(range(200)))
    with (tmp_path / "input").open("rb", buffering=0) as file:
        console = make(file.fileno(), None)
        guest = Guest(console, at_once=10)
        guest.read_until(10)
        console.close()
        assert file.tell() <= 20
        assert bytes(guest.received) == bytes(range(len(guest.received)))


def test_a_guest_that_never_asks_leaves_the_file_untouched(make: Callable[..., StreamConsole], tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(bytes(100))
    with (tmp_path / "input").open("rb", buffering=0) as file:
        make(file.fileno(), None).close()
        assert file.tell() == 0


def test_the_end_of_input_is_quiet(make: Callable[..., StreamConsole]) -> None:
    with open("/dev/null", "rb", buffering=0) as null:
        console = make(null.fileno(), None)
        assert console.take(16) == b""
        console.close()
        assert console.take(16) == b""


def test_what_is_given_back_comes_first_again(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    console = make(reader, None)
    guest = Guest(console, at_once=4)
    os.write(writer, b"abcdefgh")
    guest.read_until(4)
    console.give_back(b"abcd")
    guest.received.clear()
    assert guest.read_until(8) == b"abcdefgh"
    console.close()
    os.close(reader)
    os.close(writer)


def test_a_terminal_is_read_though_the_guest_does_not_listen(make: Callable[..., StreamConsole]) -> None:
    reader, writer = os.pipe()
    left = threading.Event()
    console = make(reader, None, left.set)
    os.write(writer, b"some input\x01x")
    assert left.wait(WAIT)
    console.close()
    assert console.take(100) == b"some input"
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize(
    ("typed", "kept", "left"),
    [
        (b"ls\r", b"ls\r", False),
        (b"\x01\x01", b"\x01", False),
        (b"a\x01xb", b"a", True),
        (b"\x01X", b"", True),
        (b"\x01q", b"q", False),
        (b"\x01\x01x", b"\x01x", False),
        (b"\x03", b"\x03", False),
    ],
)
def test_ctrl_a_is_the_escape(typed: bytes, kept: bytes, left: bool) -> None:
    escapes = EscapeReader()
    assert escapes.feed(typed) == kept
    assert escapes.left == left


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=8))
def test_escapes_mean_the_same_however_the_typing_is_cut(chunks: list[bytes]) -> None:
    whole, cut = EscapeReader(), EscapeReader()
    expected = whole.feed(b"".join(chunks))
    got = b""
    for chunk in chunks:
        got += cut.feed(chunk)
        if cut.left:
            break
    assert (got, cut.left) == (expected, whole.left)


def test_a_buffer_console_tells_of_typing() -> None:
    console = BufferConsole()
    heard: list[bytes] = []
    console.listen(lambda: heard.append(console.take(2)), lambda: None)
    console.type(b"abc")
    assert heard == [b"ab"]
    assert console.take(5) == b"c"
