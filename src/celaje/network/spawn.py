"""A network's process: where its sockets are, and how there comes to be exactly one.

In the runtime directory a network `NAME` has three files:

    net-NAME.sock    its control socket
    net-NAME.lock    locked (flock) by the process as long as it lives; the kernel unlocks it however the process ends
    net-NAME.start   locked by whoever starts it, until it listens or has failed

So a process that was killed leaves a socket that nobody listens on and a lock that nobody holds: the next starter finds
the socket refusing, starts a process, and that replaces the socket once it has the lock. Two starters at once queue at
`start`; the second finds the first one's process listening. No file is ever unlinked but the socket, and that only
under `lock`, so nobody can lock a file that another has just unlinked.

The lock says whose it is, and which code that process runs. One that runs other code than there is now is asked to end
(SIGUSR1), which it does if no machine is attached to it: so who changes celaje, and then starts machines, has the new
one. A network that is in use is not taken from its machines.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from celaje import background, paths
from celaje.errors import HostError, InputError
from celaje.network.messages import NAME_PATTERN, NetworkSettings

# Every frame and every read of a socket is a buffer of 64 KiB that lives for microseconds. By default glibc gives the
# top of the heap back to the kernel each time, and the next buffer is zeroed pages again: 30 instead of 10 µs a
# frame.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(4 << 20)}

GO_SECONDS = 30.0  # a process that has not answered by then hangs
START_SECONDS = 60.0  # a process that does not listen after that has failed: on a busy host it takes a while


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
    return _listener(name) is not None


def _listener(name: str) -> int | None:
    """The process that does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(socket_path(name)))
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    return int(struct.unpack("3i", peer)[0])


def build() -> str:
    """Names the code of a network's process, as its files are now."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        held = path.stat()
        digest.update(f"{path} {held.st_size} {held.st_mtime_ns}".encode())
    return digest.hexdigest()


def sign(lock: int) -> None:
    """Write into a network's lock that this process has it, and runs the code that is there now."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {build()}\n".encode(), 0)


def ensure_running(settings: NetworkSettings) -> None:
    """There is a process for the network, and it listens. HostError, with the end of its log, if it could not start.

    May be called by several threads and processes at once. The process is no child that anybody has to wait for, and
    outlives whoever started it. If one runs already its settings are not compared: Attach does that.
    """
    name = settings.name
    if answers(name) and _outdated(name) is None:
        return
    with _starting(name):
        former = _outdated(name)
        if former is not None:
            _ask_to_go(name, former)
        if not answers(name):
            _start(settings)


def _outdated(name: str) -> int | None:
    """The process that listens for the network `name`, if it runs other code than there is now."""
    listener = _listener(name)
    try:
        signed = lock_path(name).read_text().split()
    except OSError:
        return None
    # Whoever did not sign knows nothing of the signal, and would die of it.
    return listener if len(signed) == 2 and signed[0] == str(listener) and signed[1] != build() else None


def _ask_to_go(name: str, process: int) -> None:
    """Returns when it has gone, or has decided to stay.

    It answers what is no message, whichever code it runs. The signal comes before the first question, so it is acted on
    at the latest at the end of the round in which that is answered; the second question is for a round after that one.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking, contextlib.suppress(OSError):
        asking.settimeout(GO_SECONDS)
        asking.connect(str(socket_path(name)))
        os.kill(process, signal.SIGUSR1)
        for _ in range(2):
            asking.send(b"?")
            if not asking.recv(1 << 16):
                return


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
    """Run the process and wait until it says that it listens."""
    log = log_path(settings.name)
    words = msgspec.json.encode(settings).decode()
    said = background.start("celaje.network.process", lambda says: [words, str(says)], log, START_SECONDS, ALLOCATOR)
    if said != b"+":
        raise HostError(
            f"the process of the network {settings.name!r} did not start; {log} ends with: {background.last_line(log)}"
        )
