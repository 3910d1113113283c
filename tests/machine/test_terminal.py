"""A program that holds a terminal raw, seen from the other end of the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import celaje

SOURCE = str(Path(celaje.__file__).parents[1])


class Terminal:
    """A pseudo-terminal whose foreground program is `program`."""

    def __init__(self, program: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(self.master)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SOURCE},
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)

    def expect(self, text: bytes) -> bytes:
        """Everything up to and with `text`."""
        seen = b""
        while text not in seen:
            seen += os.read(self.master, 1000)
        return seen

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.master)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.master) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=60)
        os.close(self.master)


@pytest.fixture
def start() -> Iterator[Callable[[str], Terminal]]:
    started: list[Terminal] = []

    def start(program: str) -> Terminal:
        started.append(Terminal(program))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


HOLD = """
    import threading
    from celaje.machine.terminal import standard_streams
    left = threading.Event()
    with standard_streams(left.set) as console:
        for byte in b"ready":
            console.put(byte)
        {body}
"""


def test_the_terminal_is_raw_and_then_as_it_was(start: Callable[[str], Terminal]) -> None:
    terminal = start(HOLD.format(body="left.wait()"))
    terminal.expect(b"ready")
    assert terminal.is_raw
    os.write(terminal.master, b"\x03\x01x")
    assert terminal.process.wait(60) == 0
    assert terminal.is_as_before


def test_output_ends_lines_as_a_terminal_wants(start: Callable[[str], Terminal]) -> None:
    terminal = start(HOLD.format(body="[console.put(byte) for byte in b'a\\nb']; left.wait()"))
    assert b"a\r\nb" in terminal.expect(b"b")


def test_an_exception_gives_the_terminal_back(start: Callable[[str], Terminal]) -> None:
    terminal = start(HOLD.format(body="left.wait(); raise RuntimeError"))
    terminal.expect(b"ready")
    os.write(terminal.master, b"\x01x")
    assert terminal.process.wait(60) == 1
    assert terminal.is_as_before


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(start: Callable[[str], Terminal], number: signal.Signals) -> None:
    terminal = start(HOLD.format(body="left.wait()"))
    terminal.expect(b"ready")
    terminal.process.send_signal(number)
    status = terminal.process.wait(60)
    assert status == (-number if number is signal.SIGINT else 128 + number)
    assert terminal.is_as_before


def test_what_is_typed_reaches_the_guest_as_it_is(start: Callable[[str], Terminal]) -> None:
    body = """
        got = bytearray()
        import time
        while len(got) < 5:
            got += console.take(5)
            time.sleep(0.001)
        [console.put(byte) for byte in repr(bytes(got)).encode()]
    """
    terminal = start(HOLD.format(body=textwrap.indent(textwrap.dedent(body), " " * 8).strip()))
    terminal.expect(b"ready")
    os.write(terminal.master, b"\x03\r\x01\x01\x1a\x7f")
    terminal.expect(repr(b"\x03\r\x01\x1a\x7f").encode())
    assert terminal.process.wait(60) == 0


def test_a_terminal_that_another_job_has_is_refused(start: Callable[[str], Terminal]) -> None:
    terminal = start(
        """
        import os, signal
        from celaje.errors import InputError
        from celaje.machine.terminal import standard_streams
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            try:
                with standard_streams(lambda: None):
                    os._exit(3)
            except InputError as error:
                os.write(2, str(error).encode())
                os._exit(2)
        _, status = os.waitpid(child, 0)
        raise SystemExit(os.waitstatus_to_exitcode(status))
        """
    )
    _, message = terminal.process.communicate(timeout=60)
    assert terminal.process.returncode == 2
    assert b"is occupied: another job of its shell has it; bring celaje to the foreground with fg" in message
    assert terminal.is_as_before


def test_without_standard_input_there_is_no_input() -> None:
    program = textwrap.dedent(HOLD.format(body="assert console.take(1) == b''"))
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, program],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        timeout=60,
        check=True,
    )
    assert done.stdout == b"ready"
