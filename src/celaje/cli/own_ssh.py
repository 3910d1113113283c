"""`celaje ssh` where the host has no ssh client: asyncssh, with this terminal or without one.

The host key is handled as by the real client's StrictHostKeyChecking=accept-new: the first one is remembered in the
given file, another one later is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from celaje.errors import HostError

PIECE = 1 << 16
KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")  # of ~/.ssh, where no key is given


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to log in: `connect` makes the connection, `alias` is the name that the host key is kept under in
    `known_hosts`, `keys` are files with private keys (none: those of ~/.ssh)."""

    user: str
    alias: str
    known_hosts: Path
    keys: tuple[Path, ...]
    connect: Callable[[], socket.socket]


class _HostKeys(asyncssh.SSHClient):
    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self.problem = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Remember the first key, and refuse another."""
        line = key.export_public_key("openssh").decode("ascii").split()[:2]
        path, alias = self._destination.known_hosts, self._destination.alias
        with contextlib.suppress(FileNotFoundError):
            for known in path.read_text(encoding="utf-8").splitlines():
                fields = known.split()
                if len(fields) >= 3 and fields[0] == alias and fields[1] == line[0]:
                    if fields[2] == line[1]:
                        return True
                    self.problem = f"the host key of {alias} is not the one that {path} remembers; remove that line"
                    return False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(" ".join((alias, *line)) + "\n")
        return True


def keys() -> tuple[Path, ...]:
    """The private keys of ~/.ssh that there are."""
    directory = Path("~/.ssh").expanduser()
    return tuple(path for name in KEY_NAMES if (path := directory / name).exists())


def log_in(destination: Destination, command: Sequence[str]) -> int:
    """A shell, or `command`, there. Returns its exit status; HostError where there is no way in."""
    return asyncio.run(_log_in(destination, command))


async def _log_in(destination: Destination, command: Sequence[str]) -> int:
    client = _HostKeys(destination)
    try:
        connection, _ = await asyncssh.create_connection(
            lambda: client,
            destination.alias,
            sock=destination.connect(),
            username=destination.user,
            client_keys=[str(path) for path in destination.keys or keys()],
            known_hosts=lambda host, addr, port: ([], [], [], [], [], [], []),
            config=None,
            agent_path=os.environ.get("SSH_AUTH_SOCK"),
        )
    except (asyncssh.Error, OSError) as error:
        raise HostError(f"cannot log in as {destination.user}: {client.problem or error}") from error
    interactive = not command and sys.stdin.isatty()
    async with connection:
        process = await connection.create_process(
            " ".join(command) or None,
            term_type=os.environ.get("TERM", "xterm") if interactive else None,
            term_size=shutil.get_terminal_size() if interactive else (0, 0),
            encoding=None,
        )
        with _raw(interactive, process):
            _hand_on_input(process)
            await asyncio.gather(_copied(process.stdout, 1), _copied(process.stderr, 2))
            await process.wait_closed()
    status = process.exit_status
    return 255 if status is None else status


def _hand_on_input(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """Standard input to the command, by a thread: it may be a file or a terminal, which no event loop waits for."""
    loop = asyncio.get_running_loop()

    async def give(data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionError, asyncssh.Error):
            if data:
                process.stdin.write(data)
                await process.stdin.drain()
            else:
                process.stdin.write_eof()

    def read() -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the loop has ended: nobody is there to take it
            while True:
                data = os.read(0, PIECE)
                asyncio.run_coroutine_threadsafe(give(data), loop).result()
                if not data:
                    return

    threading.Thread(target=read, daemon=True).start()


async def _copied(source: asyncssh.SSHReader[bytes], target: int) -> None:
    while data := await source.read(PIECE):
        while data:
            data = data[os.write(target, data) :]


@contextlib.contextmanager
def _raw(interactive: bool, process: asyncssh.SSHClientProcess[bytes]) -> Iterator[None]:
    """The terminal hands on every key, and tells of its size."""
    if not interactive:
        yield
        return
    before = termios.tcgetattr(sys.stdin)

    def resized() -> None:
        process.change_terminal_size(*shutil.get_terminal_size())

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, resized)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        loop.remove_signal_handler(signal.SIGWINCH)
