"""Starting a machine's process: through the template, which is started first where there is none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from celaje import background, paths
from celaje.errors import HostError
from celaje.host import messages, template
from celaje.host.control import ProgressTold, peer
from celaje.host.record import MachineDirectory

TEMPLATE_SECONDS = 120.0  # the first one compiles the engine
START_SECONDS = 120.0  # a machine that restores, or attaches to a network that starts, takes more than a moment
ATTEMPTS = 3
# glibc gives each thread an arena of its own, which idle machines would pay for.
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}

Say = Callable[[str], None]


def _nobody(text: str) -> None:
    pass


def _no_progress(progress: messages.Progress) -> None:
    pass


def start(directory: MachineDirectory, say: Say = _nobody, progress: ProgressTold = _no_progress) -> int:
    """Start the machine of `directory`; returns its process when that is up. What keeps it from starting is raised as
    the process tells it, NotFound if there is no such machine. `say` hears of what takes long."""
    if not directory.exists():
        raise directory.not_found()
    request = messages.encoded(
        messages.Start(directory=str(directory.path), environment=template.settings(os.environ))
    )
    for _ in range(ATTEMPTS):
        connection = _template(say)
        with connection:
            connection.settimeout(START_SECONDS)
            try:
                connection.send(request)
                answer = _answer(connection, progress)
            except (ConnectionResetError, BrokenPipeError):
                continue  # the template was ended in this very moment
            except TimeoutError as error:
                raise HostError(
                    f"the machine {directory.name} was not up within {START_SECONDS:.0f} s; see {directory.log}"
                ) from error
        if isinstance(answer, messages.Refused):
            raise messages.error_of(answer)
        if isinstance(answer, messages.Started):
            return answer.process
        raise HostError(f"the process of the machine {directory.name} ended at its start; see {directory.log}")
    raise HostError(f"the template ends whenever it is asked; see {log_path()}")


def _answer(connection: socket.socket, progress: ProgressTold) -> messages.Answer | None:
    while True:
        data = connection.recv(messages.LONGEST_MESSAGE)
        if not data:
            return None
        answer = messages.decoded_answer(data)
        if not isinstance(answer, messages.Progress):
            return answer
        progress(answer)


def log_path() -> Path:
    """What the template writes its log to; it can be deleted at any time."""
    return paths.cache() / "log" / "template.log"


def _connected() -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(template.socket_path()))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise HostError(f"cannot connect to {template.socket_path()}: {error.strerror}") from error
    return connection


def _template(say: Say) -> socket.socket:
    """A connection to the template, which is started where there is none. HostError if it does not start."""
    ends = time.monotonic() + TEMPLATE_SECONDS
    while (connection := _connected()) is None:
        if time.monotonic() > ends:
            raise HostError(f"the template does not listen after {TEMPLATE_SECONDS:.0f} s; see {log_path()}")
        start_template(say)
    return connection


def template_process() -> int | None:
    """The process of this user's template, None if there is none."""
    connection = _connected()
    if connection is None:
        return None
    with connection:
        return peer(connection)[0]


def start_template(
    say: Say = _nobody,
    idle_seconds: float = template.IDLE_SECONDS,
    request_seconds: float = template.REQUEST_SECONDS,
) -> None:
    """Start a template and wait until it listens, unless another one is there, or about to be. HostError if it cannot
    start."""
    log = log_path()
    answer = background.start(
        "celaje.host.template",
        lambda says: [str(says), str(idle_seconds), str(request_seconds), template.key()],
        log,
        TEMPLATE_SECONDS,
        ALLOCATOR,
        lambda: say("preparing machines' processes (once for a while) …"),
    )
    if answer == b"=":
        time.sleep(0.005)  # another one has the lock, and is about to listen
    elif answer != b"+":
        raise HostError(f"the template did not start; {log} ends with: {background.last_line(log)}")

