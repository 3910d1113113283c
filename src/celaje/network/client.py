"""Talking to a network's process: attach an interface, list, change, measure, connect, stop.

Everything here blocks, for a moment. Where the process refuses, or is not there, an error says why and what to do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from celaje.errors import CelajeError, HostError, InputError, NotFound
from celaje.network import group_file, messages, spawn
from celaje.network import topology as topology_file
from celaje.network.messages import Answer, Refused, Request
from celaje.network.topology import Topology
from celaje.network.topology_plan import plan_of

ANSWER_SECONDS = 30.0  # a process that has not answered by then hangs
LINK_BUFFER = 1 << 20  # bytes that a link holds in each direction, where the host allows it
ATTEMPTS = 5  # a process may end, idle, between being found and being asked

AnswerType = TypeVar("AnswerType", bound=Answer)
PartType = TypeVar("PartType", messages.InterfaceList, messages.Described, messages.Statistics, messages.Heard)


class Taken(HostError):
    """An interface of that name is attached already."""


_CAUSES: dict[str, type[CelajeError]] = {
    "unknown": NotFound,
    "malformed": InputError,
    "settings": InputError,
    "taken": Taken,
}


class Unanswered(HostError):
    """A guest does not answer on a port: `silent` if it says nothing at all, else it refuses."""

    def __init__(self, reason: str, silent: bool):
        super().__init__(reason)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Attachment:
    """An interface: `link` carries frames (non-blocking SEQPACKET); closing it detaches."""

    link: socket.socket
    attached: messages.Attached


def attach(request: messages.Attach) -> Attachment:
    """Attach an interface, starting the network's process if there is none. HostError or InputError if refused."""
    name = request.network.name
    for _ in range(ATTEMPTS):
        spawn.ensure_running(request.network)
        with contextlib.ExitStack() as on_failure:
            connection = _connection(name)
            if connection is None:
                continue
            on_failure.callback(connection.close)
            answer = _asked(connection, request)
            if answer is None:
                continue
            attached = _expected(answer, messages.Attached)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                connection.setsockopt(socket.SOL_SOCKET, option, LINK_BUFFER)
            connection.setblocking(False)
            on_failure.pop_all()
            return Attachment(connection, attached)
    raise HostError(f"the process of the network {name!r} ends whenever it is asked; see {_log(name)}")


def interfaces(name: str) -> list[messages.Interface]:
    """Who is attached to the network `name`; nobody, if its process does not run."""
    parts = _in_parts(name, messages.ListInterfaces(), messages.InterfaceList) or []
    return [one for part in parts for one in part.interfaces]


def update(name: str, request: messages.Update) -> messages.Updated:
    """Change an attached interface. NotFound if it is not attached."""
    return _expected(requested(name, request), messages.Updated)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What a network's process has: see fingerprint.py."""

    interfaces: dict[str, str]
    groups: str


def fingerprints(name: str, interface: str | None = None) -> Fingerprints | None:
    """Of the interfaces of the network `name`, or of one; None if its process does not run."""
    parts = _in_parts(name, messages.Describe(interface=interface), messages.Described)
    if parts is None:
        return None
    return Fingerprints({key: one for part in parts for key, one in part.interfaces.items()}, parts[-1].groups)


def heard(name: str) -> dict[str, float | None]:
    """How many seconds ago each interface's guest was last found to have said something, None: never; and every guest
    is asked to, which the next call finds out. Of a network whose process does not run, nothing."""
    parts = _in_parts(name, messages.Hail(), messages.Heard) or []
    return {key: age for part in parts for key, age in part.ages.items()}


def set_groups(name: str, groups: Iterable[messages.SecurityGroup]) -> int:
    """The network's groups have these rules from now on, and no other groups have any that are kept: durably, and at
    once where its process runs. How many flows were cut. InputError for what can be no group, HostError."""
    group_file.keep_groups(name, groups)
    connection = _connection(name)
    if connection is None:
        return 0
    with connection:
        answer = _asked(connection, messages.ReadGroups())
    return 0 if answer is None else _expected(answer, messages.Updated).cut


def set_topology(name: str, topology: Topology) -> None:
    """The planned network `name` has this topology from now on: durably, and at once where its process runs. InputError
    for what can be none, HostError."""
    plan_of(topology)
    topology_file.keep_topology(name, topology)
    connection = _connection(name)
    if connection is None:
        return
    with connection:
        answer = _asked(connection, messages.ReadTopology())
    if answer is not None:
        _expected(answer, messages.Updated)


def statistics(name: str) -> messages.Statistics:
    """The network's counters. NotFound if its process does not run."""
    parts = _in_parts(name, messages.Measure(), messages.Statistics)
    if parts is None:
        raise _not_running(name)
    merged = {key: counted for part in parts for key, counted in part.interfaces.items()}
    return msgspec.structs.replace(parts[-1], interfaces=merged)


def stop_unused(name: str) -> bool:
    """End the network's process unless somebody is attached. Whether there is none any more."""
    try:
        _stopped(name, messages.Stop(unused=True))
    except Taken:
        return False
    return True


def stop(name: str) -> bool:
    """End the network's process. Whether there was one."""
    return _stopped(name, messages.Stop())


def _stopped(name: str, request: messages.Stop) -> bool:
    connection = _connection(name)
    if connection is None:
        return False
    with connection:
        answer = _asked(connection, request)
        if answer is not None:
            _expected(answer, messages.Stopping)
            _received(connection)  # its end: the process has gone
    return True


def proxy(name: str, host: str, port: int, seconds: float = ANSWER_SECONDS) -> socket.socket:
    """A stream socket whose bytes are those of a TCP connection to a machine of the network `name`.

    `host` is an interface's name, host name, private or public address. NotFound if nobody has it, HostError if the
    rules refuse, Unanswered if the guest does or says nothing for `seconds`. Shutting down one direction half-closes
    the connection.
    """
    connection = _connected(name)
    with connection:
        connection.settimeout(seconds)
        connection.send(messages.encoded(messages.Proxy(host=host, port=port)))
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, messages.LONGEST_MESSAGE, 1)
        except TimeoutError as error:
            raise Unanswered(f"{host!r} has not answered on tcp port {port} for {seconds:.0f} s", True) from error
        try:
            if not data:
                raise _gone(name)
            _expected(messages.decoded_answer(data), messages.Connected)
            if not descriptors:
                raise HostError(f"the process of the network {name!r} sent no socket; see {_log(name)}")
            return socket.socket(fileno=descriptors.pop())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def requested(name: str, request: Request) -> Answer:
    """The answer to a request that has one answer. NotFound if the network's process does not run."""
    with _connected(name) as connection:
        answer = _asked(connection, request)
    if answer is None:
        raise _gone(name)
    return answer


def _connected(name: str) -> socket.socket:
    connection = _connection(name)
    if connection is None:
        raise _not_running(name)
    return connection


def _not_running(name: str) -> NotFound:
    running = ", ".join(spawn.running()) or "none"
    return NotFound(
        f"the network {name!r} does not run (running: {running}); start a machine in it with `celaje vm start`"
    )


def _in_parts(name: str, request: Request, expected: type[PartType]) -> list[PartType] | None:
    """The parts of an answer that has some; None if the network's process does not run, or ends just now."""
    connection = _connection(name)
    if connection is None:
        return None
    parts: list[PartType] = []
    with connection:
        answer = _asked(connection, request)
        if answer is None:
            return None
        while answer is not None:
            parts.append(_expected(answer, expected))
            if not parts[-1].more:
                return parts
            answer = _received(connection)
    raise _gone(name)


def _connection(name: str) -> socket.socket | None:
    """A connection to the network's process, or None if nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Behind as many callers as the process's queue has places for, who waits in the kernel is let in when there is one;
    # a socket with a timeout of Python's would be refused.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_SECONDS), 0))
    try:
        connection.connect(str(spawn.socket_path(name)))
        connection.settimeout(ANSWER_SECONDS)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise HostError(f"cannot connect to {spawn.socket_path(name)}: {error.strerror}") from error
    return connection


def _asked(connection: socket.socket, request: Request) -> Answer | None:
    """The answer, or None if the process ended before it gave one."""
    try:
        connection.send(messages.encoded(request))
    except (BrokenPipeError, ConnectionResetError):
        return None
    return _received(connection)


def _received(connection: socket.socket) -> Answer | None:
    try:
        data = connection.recv(messages.LONGEST_MESSAGE)
    except ConnectionResetError:
        return None
    except TimeoutError as error:
        raise HostError(f"a network's process did not answer for {ANSWER_SECONDS:.0f} s; look at its log") from error
    return messages.decoded_answer(data) if data else None


def _expected(answer: Answer, expected: type[AnswerType]) -> AnswerType:
    if isinstance(answer, Refused):
        if answer.cause == "unanswered":
            raise Unanswered(answer.reason, False)
        raise _CAUSES.get(answer.cause, HostError)(answer.reason)
    if not isinstance(answer, expected):
        raise HostError(
            f"a network's process answered {type(answer).__name__} where {expected.__name__} was due; "
            "stop its machines and start them again"
        )
    return answer


def _gone(name: str) -> HostError:
    return HostError(f"the process of the network {name!r} ended while it was asked; see {_log(name)}, then ask again")


def _log(name: str) -> str:
    return str(spawn.log_path(name))
