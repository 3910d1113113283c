"""A network's process: where its sockets are, and how there comes to be exactly one.

In the runtime directory a network `NAME` has three files:

    net-NAME.sock    its control socket
    net-NAME.lock    locked (flock) by the process as long as it lives; the kernel unlocks it however the process ends
    net-NAME.start   locked by whoever starts it, until it listens or has failed

So a process that was killed leaves a socket that nobody listens on and a lock that nobody holds: the next starter finds
the socket refusing, starts a process, and that replaces the socket once it has the lock. Two starters at once queue at
`start`; the second finds the first one's process listening. No file is ever unlinked but the socket, and that only
under `lock`, so nobody can lock a file that another has just unlinked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from celaje import paths
from celaje.errors import HostError, InputError
from celaje.network.messages import NAME_PATTERN, NetworkSettings

# Every frame and every read of a socket is a buffer of 64 KiB that lives for microseconds. By default glibc gives the
# top of the heap back to the kernel each time, and the next buffer is zeroed pages again: 30 instead of 10 µs a
# frame.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(4 << 20)}

START_SECONDS = 20.0  # a process that does not listen after that has failed


def checked_name(name: str) -> str:
    """`name`, if a network may be called so. InputError otherwise."""
    if not re.match(NAME_PATTERN, name):
        raise InputError(
            "a network's name has up to 28 lower-case letters, digits and hyphens, and starts with no hyphen; "
            f"{name!r} does not: choose another"
        )
    return name


def socket_path(name: str) -> Path:
    """The control socket of the network `name`."""
    return paths.runtime_directory() / f"net-{checked_name(name)}.sock"


def lock_path(name: str) -> Path:
    """What the process of the network `name` keeps locked while it lives."""
    return paths.runtime_directory() / f"net-{checked_name(name)}.lock"


def log_path(name: str) -> Path:
    """What the process of the network `name` writes its log to; it can be deleted at any time."""
    return paths.cache() / "log" / f"net-{checked_name(name)}.log"


def running() -> list[str]:
    """The names of the networks whose process answers, sorted."""
    found = paths.runtime_directory().glob("net-*.sock")
    names = (path.name[len("net-") : -len(".sock")] for path in found)
    return sorted(name for name in names if re.match(NAME_PATTERN, name) and answers(name))


def answers(name: str) -> bool:
    """Whether a process listens on the control socket of the network `name`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(socket_path(name)))
        except OSError:
            return False
    return True


def ensure_running(settings: NetworkSettings) -> None:
    """There is a process for the network, and it listens. HostError, with the end of its log, if it could not start.

    May be called by several threads and processes at once. The process is no child that anybody has to wait for, and
    outlives whoever started it. If one runs already its settings are not compared: Attach does that.
    """
    if answers(settings.name):
        return
    with _starting(settings.name):
        if not answers(settings.name):
            _start(settings)


@contextlib.contextmanager
def _starting(name: str) -> Iterator[None]:
    path = paths.runtime_directory() / f"net-{checked_name(name)}.start"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(settings: NetworkSettings) -> None:
    """Run the process and wait until it says that it listens: a byte on a pipe. The child that we wait for is only the
    parent of the process, so that nobody has to reap it."""
    log = log_path(settings.name)
    paths.made(log.parent)
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        with open(log, "ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "celaje.network.process", msgspec.json.encode(settings).decode(), str(says)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(says,),
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        os.close(says)
        says = -1
        listens = _listens(said)
        child.wait()
    finally:
        os.close(said)
        if says >= 0:
            os.close(says)
    if not listens:
        raise HostError(
            f"the process of the network {settings.name!r} did not start; {log} ends with: {_last_line(log)}"
        )


def _environment() -> dict[str, str]:
    """Ours, and a way to find this very celaje wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[2])
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, **ALLOCATOR, "PYTHONPATH": f"{root}{os.pathsep}{rest}" if rest else root}


def _listens(said: int) -> bool:
    """Whether the byte came before the pipe's end and before we stop waiting."""
    ends = time.monotonic() + START_SECONDS
    poller = select.poll()
    poller.register(said, select.POLLIN)
    while (left := ends - time.monotonic()) > 0:
        if poller.poll(left * 1000):
            return os.read(said, 1) == b"+"
    return False


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError as error:
        return f"(nothing: {error.strerror})"
    return lines[-1] if lines else "(nothing)"
