"""Asking a machine's process: a connection to its control socket, and what an answer or a refusal becomes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from celaje.errors import HostError, NotFound
from celaje.host import messages
from celaje.host.messages import Answer, Request
from celaje.host.record import MachineDirectory

ANSWER_SECONDS = 60.0  # a process that has not answered by then hangs
KILL_SECONDS = 10.0  # one that does not say by then that it ends is killed
UNHEARD_SECONDS = 0.02  # between two attempts to reach one that does not listen just now
ENDING_SECONDS = 60.0  # and so is one that said so and is there still
_credentials = struct.Struct("3i")  # struct ucred: process, user, group

AnswerType = TypeVar("AnswerType", bound=Answer)
ProgressTold = Callable[[messages.Progress], None]


def peer(connection: socket.socket) -> tuple[int, int]:
    """(process, user) at the other end of a Unix socket, as the kernel noted them when it was connected."""
    held = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size)
    process, user, _ = _credentials.unpack(held)
    return process, user


def _nobody(progress: messages.Progress) -> None:
    pass


class Control:
    """A connection to the process of one machine. NotFound if none runs, HostError if it does not answer."""

    def __init__(self, directory: MachineDirectory) -> None:
        self._name = directory.name
        self._log = directory.log
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with directory.socket_path() as path:
                self._socket.connect(path)
            self.process, user = peer(self._socket)
            if user != os.getuid():
                raise HostError(f"the control socket of the machine {self._name} is user {user}'s; remove it")
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            if not directory.exists():
                raise directory.not_found() from None
            raise NotFound(
                f"the machine {self._name} does not run; start it: celaje vm start {self._name}"
            ) from None
        except OSError as error:
            self._socket.close()
            raise HostError(f"cannot reach the machine {self._name}: {error.strerror}; see celaje vm ls") from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket's, for poll."""
        return self._socket.fileno()

    def send(self, request: Request) -> None:
        """Send without waiting for an answer."""
        with self._named():
            self._socket.send(messages.encoded(request))

    def receive(self, seconds: float | None = ANSWER_SECONDS) -> Answer | None:
        """The next answer; None when the process has gone. A refusal is raised."""
        self._socket.settimeout(seconds)
        with self._named():
            try:
                data = self._socket.recv(messages.LONGEST_MESSAGE)
            except ConnectionResetError:
                # It has closed its end with something of ours unread; what it said before that is still here.
                data = self._socket.recv(messages.LONGEST_MESSAGE)
        if not data:
            return None
        answer = messages.decoded_answer(data)
        if isinstance(answer, messages.Refused):
            raise messages.error_of(answer)
        return answer

    def ask(
        self,
        request: Request,
        expected: type[AnswerType],
        progress: ProgressTold = _nobody,
        seconds: float | None = ANSWER_SECONDS,
    ) -> AnswerType:
        """The answer to `request`. What it was refused with is raised; HostError if the process ends meanwhile."""
        # One that refuses whoever connects says so without listening.
        with self._named(), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.send(messages.encoded(request))
        while isinstance(answer := self.receive(seconds), messages.Progress):
            progress(answer)
        if answer is None:
            raise self._gone()
        if not isinstance(answer, expected):
            raise HostError(
                f"the machine {self._name} answered {type(answer).__name__} where {expected.__name__} was due; "
                f"restart it: celaje vm stop {self._name}"
            )
        return answer

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise HostError(
                f"the machine {self._name} did not answer for {self._socket.gettimeout():.0f} s; "
                f"see {self._log}, or end it: celaje vm kill {self._name}"
            ) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._gone() from error

    def _gone(self) -> HostError:
        return HostError(f"the machine {self._name} ended while it was asked; see celaje vm ls and {self._log}")


def connected(directory: MachineDirectory) -> Control | None:
    """A connection to the machine's process, None if none runs."""
    try:
        return Control(directory)
    except NotFound:
        return None


def ask(
    name: str,
    request: Request,
    expected: type[AnswerType],
    progress: ProgressTold = _nobody,
    seconds: float | None = ANSWER_SECONDS,
) -> AnswerType:
    """The answer of the machine `name` to one request. NotFound if it does not run."""
    with Control(MachineDirectory.of(name)) as control:
        return control.ask(request, expected, progress, seconds)


def wait_until_off(directory: MachineDirectory, seconds: float) -> bool:
    """Wait until no process runs the machine, at most so long. Whether it is so.

    The process is gone then: the kernel lets go of its lock and of its volumes' in no order that could be relied on.
    """
    ends = time.monotonic() + seconds
    while (process := directory.holder()) is not None:
        with contextlib.suppress(ProcessLookupError), _process(process) as descriptor:
            if directory.holder() != process:
                continue
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            if not poller.poll(max(0.0, ends - time.monotonic()) * 1000):
                return False
    return True


@contextlib.contextmanager
def _process(identifier: int) -> Iterator[int]:
    """A descriptor that can be read from when the process has gone. ProcessLookupError if there is none."""
    descriptor = os.pidfd_open(identifier)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def kill(directory: MachineDirectory, seconds: float = KILL_SECONDS) -> None:
    """Switch the machine off at once; its process is killed if it does not answer for `seconds`, or has not ended in
    order ENDING_SECONDS later. NotFound if none runs."""
    ends = time.monotonic() + seconds
    told = False
    while not told:
        try:
            with Control(directory) as control:
                control.ask(messages.Kill(), messages.Done, seconds=seconds)
            told = True
        except NotFound:
            if directory.holder() is None or time.monotonic() > ends:
                raise
            # It starts, and does not listen yet; or it ends, and does not any more.
            if wait_until_off(directory, UNHEARD_SECONDS):
                return
        except HostError:
            break
    # What ends in order notes how, and has the last bytes of its disks written, which a busy host takes its time for.
    if not wait_until_off(directory, ENDING_SECONDS if told else seconds):
        process = directory.holder()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            if not wait_until_off(directory, ENDING_SECONDS):
                raise HostError(f"process {process} of the machine {directory.name} cannot be killed; see ps {process}")
