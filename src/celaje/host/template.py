"""The template of `celaje-vmm`: a process that has imported everything that a machine needs, and forks for each one.

So a start costs milliseconds, and machines share the pages that imports filled. There is one template a user, version
of celaje and of Python; it is started by whoever needs it and goes when nobody has for ten minutes. Machines live on
then: they are children only so that somebody notes how their processes ended.

It forks, so it must have one thread only: a fork copies no other, and what the others hold locked stays so for ever.

    runtime directory/template-KEY.sock    Start is asked here (messages.py)
    runtime directory/template-KEY.lock    locked (flock) by the template as long as it lives
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from celaje import __version__, bounded_log, paths
from celaje.host import messages
from celaje.host.control import peer
from celaje.host.record import MachineDirectory, ProcessExit

IDLE_SECONDS = 600.0
REQUEST_SECONDS = 5.0  # a client that has connected must have said what it wants by then; it keeps nobody waiting
BACKLOG = 64
SHORTAGE_SECONDS = 0.1
MOST_CLIENTS = 256  # that have said nothing yet; for one more the one that has been silent for longest goes
PACKAGE = Path(__file__).resolve().parents[1]

# What a machine's process imports sooner or later: once here instead of in every one.
IMPORTED = (
    "celaje.host.vmm",
    "celaje.engine.translate.engine",
    "celaje.machine.boot.elf",
    "celaje.machine.machine",
    "celaje.machine.snapshot.capture",
    "celaje.network.client",
    "celaje.image.store",
)
# Of the environment, what a machine's process takes over from whoever starts it.
SETTINGS = ("XDG_RUNTIME_DIR", "HOME", "TMPDIR")
SETTINGS_PREFIX = "CELAJE_"


@cache
def key() -> str:
    """Names this celaje: its version, and its files as they are now, so that who changes celaje starts the new one."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{__version__} {PACKAGE} {sys.executable} {sys.version}".encode())
    for directory, _, files in sorted(os.walk(PACKAGE)):
        for name in sorted(files):
            if name.endswith(".py"):
                held = os.stat(os.path.join(directory, name))
                digest.update(f"{name} {held.st_size} {held.st_mtime_ns}".encode())
    return digest.hexdigest()


def socket_path(named: str | None = None) -> Path:
    """Where this user's template of this celaje, or of the one that is `named` so, listens."""
    return paths.runtime_directory() / f"template-{named or key()}.sock"


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that is celaje's."""
    return {
        name: value for name, value in environment.items() if name in SETTINGS or name.startswith(SETTINGS_PREFIX)
    }


class Template:
    """Listens on `listener` and forks. `lock` is a descriptor that keeps others out."""

    def __init__(
        self,
        listener: socket.socket,
        lock: int,
        idle_seconds: float = IDLE_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._listener = listener
        self._lock = lock
        self._idle_seconds = idle_seconds
        self._request_seconds = request_seconds
        self._poller = select.poll()
        self._silent: dict[int, tuple[socket.socket, float]] = {}  # by descriptor, the longest silent first: until when
        self._children: dict[int, MachineDirectory] = {}
        self._woken, self._wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> None:
        """Until nobody has asked for a while, or SIGTERM. Returns in the template; a machine's process ends inside."""
        leaving: list[int] = []
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: leaving.append(number))
        signal.set_wakeup_fd(self._wakes)
        gc.collect()
        gc.disable()
        gc.freeze()  # what is there now is never looked at again, so that machines go on sharing its pages
        self._poller.register(self._listener, select.POLLIN)
        self._poller.register(self._woken, select.POLLIN)
        self._listener.setblocking(False)
        last = time.monotonic()
        while not leaving and (left := last + self._idle_seconds - time.monotonic()) > 0:
            if self._round(left):
                last = time.monotonic()
        # Whoever connects from here on starts another template; those who are waiting already are served.
        Path(self._listener.getsockname()).unlink(missing_ok=True)
        self._accept()
        while self._silent:
            self._round(self._request_seconds)
        signal.set_wakeup_fd(-1)

    def _round(self, seconds: float) -> bool:
        """Wait for whatever comes next, and serve it. Whether anybody came, or spoke."""
        if self._silent:
            seconds = min(seconds, next(iter(self._silent.values()))[1] - time.monotonic())
        active = False
        looked = time.monotonic()
        for descriptor, _ in self._poller.poll(max(0.0, seconds) * 1000):
            if descriptor == self._woken:
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._woken, 4096):
                        pass
            elif descriptor == self._listener.fileno():
                self._accept()
                active = True
            elif descriptor in self._silent:
                self._hear(self._dropped(descriptor))
                active = True
        self._reap()
        # Who has spoken in time is heard, however late it became here.
        for descriptor in [each for each, (_, until) in self._silent.items() if until <= looked]:
            self._dropped(descriptor).close()
        return active

    def _accept(self) -> None:
        """Take in all who have connected."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # the host gives no more descriptors just now
                if not self._silent:
                    time.sleep(SHORTAGE_SECONDS)
                    return
                self._dropped(next(iter(self._silent))).close()
                continue
            connection.setblocking(False)
            if peer(connection)[1] != os.getuid():
                refused = messages.Refused(cause="host", reason="this template is another user's")
                with connection, contextlib.suppress(OSError):
                    connection.send(messages.encoded(refused))
                continue
            if len(self._silent) >= MOST_CLIENTS:
                self._dropped(next(iter(self._silent))).close()
            self._silent[connection.fileno()] = connection, time.monotonic() + self._request_seconds
            self._poller.register(connection, select.POLLIN)

    def _dropped(self, descriptor: int) -> socket.socket:
        """A client that is waited for no more."""
        self._poller.unregister(descriptor)
        return self._silent.pop(descriptor)[0]

    def _hear(self, connection: socket.socket) -> None:
        """Serve one client, who has said something or has gone."""
        with connection:
            try:
                self._answer(connection)
            except messages.Unreadable as error:
                with contextlib.suppress(OSError):
                    connection.send(messages.encoded(error.answer))
            except OSError:
                return  # it has gone

    def _answer(self, connection: socket.socket) -> None:
        data = connection.recv(messages.LONGEST_MESSAGE)
        if not data:
            return
        request = messages.decoded_request(data)
        if not isinstance(request, messages.Start):
            refused = messages.Refused(
                cause="usage", reason=f"a template starts machines and does not answer {type(request).__name__}"
            )
            connection.send(messages.encoded(refused))
            return
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            reason = f"the template has {threads} threads and can fork with one only: a mistake in celaje itself"
            connection.send(messages.encoded(messages.Refused(cause="mistake", reason=reason)))
            return
        try:
            child = os.fork()
        except OSError as error:
            reason = f"the host makes no more processes ({error.strerror}); end some, or raise the limit (ulimit -u)"
            connection.send(messages.encoded(messages.Refused(cause="host", reason=reason)))
            return
        if child:
            self._children[child] = MachineDirectory(Path(request.directory))
            return
        status = 70
        try:
            self._become_machine(request, connection)
            status = _machine(request, connection)
        except BaseException:  # nobody else will tell: not the template's code, which must not be returned to
            traceback.print_exc()
        finally:
            # Nothing of the template's may be run in the child: no handler at exit, no other's buffer.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _become_machine(self, request: messages.Start, connection: socket.socket) -> None:
        """In the child: give up everything that is the template's."""
        os.setsid()
        os.umask(0o077)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._listener.close()
        for silent, _ in self._silent.values():
            silent.close()
        for descriptor in (self._lock, self._woken, self._wakes):
            os.close(descriptor)
        self._children.clear()
        for name in settings(os.environ):
            del os.environ[name]
        os.environ.update(request.environment)
        connection.setblocking(True)
        gc.enable()

    def _reap(self) -> None:
        """No child stays a zombie, and how each ended is noted in its machine's directory."""
        while self._children:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process:
                return
            directory = self._children.pop(process, None)
            if directory is not None and directory.exists():
                seen = ProcessExit(process=process, status=os.waitstatus_to_exitcode(status))
                with contextlib.suppress(Exception):  # the directory may be removed meanwhile, or the disk full
                    directory.write_process_exit(seen)


def _machine(request: messages.Start, connection: socket.socket) -> int:
    """The machine's whole life, in the child."""
    from celaje.host.vmm import serve

    directory = MachineDirectory(Path(request.directory))
    try:
        log = bounded_log.opened(directory.log)
    except OSError as error:
        reason = f"cannot write {directory.log}: {error.strerror}; see celaje vm ls"
        connection.send(messages.encoded(messages.Refused(cause="host", reason=reason)))
        return 1
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return serve(directory, connection)


def main(words: list[str]) -> int:
    """`python -m celaje.host.template DESCRIPTOR IDLE REQUEST KEY`: says "+" there when it listens, "=" if another
    template is there already; goes after IDLE seconds without a start, and lets a client go that says nothing for
    REQUEST seconds. KEY is what its starter, who may run for long, calls this celaje: the files may be others by now,
    and it would be looked for in vain under what they are called. The process that was started ends at once, and its
    child is the template, so that nobody has to reap it."""
    said = int(words[0])
    idle_seconds, request_seconds = map(float, words[1:3])
    path = socket_path(words[3])
    if os.fork():
        return 0
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(said, b"=")
        return 0
    for module in IMPORTED:
        import_module(module)
    from celaje.engine.translate.code_cache import load_program

    load_program()
    from celaje.host import removal

    with contextlib.suppress(Exception):  # it is no reason to start nothing
        removal.sweep()
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    os.write(said, b"+")
    os.close(said)
    with listener:
        Template(listener, lock, idle_seconds, request_seconds).serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
