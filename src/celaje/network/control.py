"""The control socket of a network's process: who attaches, asks and is told."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from celaje.errors import CelajeError, HostError, InputError
from celaje.network import messages
from celaje.network.attachment import Attachment
from celaje.network.bridge import Bridge
from celaje.network.event_loop import READ, WRITE, EventLoop
from celaje.network.group_file import read_groups
from celaje.network.group_rules import GroupRules
from celaje.network.messages import Answer, Attach, Interface, Refused, Request

MOST_CALLERS = 256  # connections that have attached nothing
PAUSE_SECONDS = 0.5
LOOPBACK = 0x7F000001

log = logging.getLogger(__name__)


class Leaving(Exception):
    """The process ends, so that another one can take the network over: who asked is to ask that one."""


# What the control socket needs of the network's process.
AttachTo = Callable[[Attach], Attachment]


class ControlSocket:
    """Answers at `path`. `attach` makes an attachment (CelajeError: refused; Leaving: not by this process), `measure`
    gives the network's counters and table sizes, `changed` is called when somebody attached, detached or was changed,
    `received` after frames, `stop` on a Stop, `read_topology` on a ReadTopology. `rules` are the network's groups'."""

    def __init__(
        self,
        loop: EventLoop,
        path: Path,
        attach: AttachTo,
        measure: Callable[[], tuple[dict[str, int], dict[str, int]]],
        changed: Callable[[], None],
        received: Callable[[], None],
        stop: Callable[[], None],
        rules: GroupRules,
        read_topology: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.attachments: dict[str, Attachment] = {}
        self._attach = attach
        self._measure = measure
        self._changed = changed
        self._received = received
        self._stop = stop
        self._rules = rules
        self._read_topology = read_topology
        self._path = path
        self._name = path.stem.removeprefix("net-")
        self._callers: set[_Caller] = set()
        self._pause = loop.timer(self._go_on)
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(str(path))
        self._socket.listen(128)
        loop.watch(self._socket.fileno(), READ, self._accept)

    def close(self) -> None:
        """Everybody is detached, and every caller gets the end: who waits for that finds no socket any more."""
        self.loop.discard(self._pause)
        self.loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)
        for attachment in tuple(self.attachments.values()):
            attachment.close()
        self.attachments.clear()
        for caller in tuple(self._callers):
            caller.close()

    def _go_on(self) -> None:
        self.loop.watch(self._socket.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("a caller waits: %s", error.strerror)
                self.loop.unwatch(self._socket.fileno())  # or it would be announced over and over
                self.loop.set(self._pause, self.loop.now + PAUSE_SECONDS)
                return
            connection.setblocking(False)
            if len(self._callers) >= MOST_CALLERS:
                connection.close()
                continue
            self._callers.add(_Caller(self, connection))

    # Requests.

    def answer(self, caller: _Caller, request: Request) -> None:
        """Do what is asked, and tell."""
        try:
            match request:
                case Attach():
                    self._attached(caller, request)
                case messages.ListInterfaces():
                    self._list(caller)
                case messages.Describe():
                    self._describe(caller, request)
                case messages.Update():
                    caller.send(self._updated(request))
                case messages.ReadGroups():
                    with self._followed():
                        cut = self._rules.keep(read_groups(self._name))
                    caller.send(messages.Updated(cut=cut))
                case messages.ReadTopology():
                    self._read_topology()
                    caller.send(messages.Updated(cut=0))
                case messages.Measure():
                    self._count(caller)
                case messages.Hail():
                    self._hail(caller)
                case messages.Proxy():
                    self._proxy(caller, request)
                case messages.Stop() if request.unused and self.attachments:
                    attached = ", ".join(sorted(self.attachments)[:8])
                    caller.send(Refused(cause="taken", reason=f"the network is in use by {attached}; stop these first"))
                case messages.Stop():
                    caller.send(messages.Stopping())
                    self._stop()
        except Leaving:
            caller.close()
        except HostError as error:
            caller.send(Refused(cause="host", reason=str(error)))
        except InputError as error:
            caller.send(Refused(cause="malformed", reason=str(error)))
        except CelajeError as error:
            caller.send(Refused(cause="taken", reason=str(error)))

    def _attached(self, caller: _Caller, request: Attach) -> None:
        name = request.interface
        former = self.attachments.get(name)
        if former is not None and former.has_ended():
            self._detached(name)
        if name in self.attachments:
            reason = f"an interface {name!r} is attached to the network {request.network.name!r} already; "
            caller.send(Refused(cause="taken", reason=reason + "stop that machine, or choose another name"))
            return
        with self._followed():
            attachment = self._attach(request)
        self.attachments[name] = attachment
        connection = caller.leave()
        try:
            connection.send(messages.encoded(attachment.attached()))
        except (OSError, CelajeError):
            connection.close()
            self._detached(name)
            return
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        attachment.start(connection, self._received, lambda: self._detached(name))
        log.info("%s attached: %s", name, attachment.address)
        self._changed()

    def _detached(self, name: str) -> None:
        attachment = self.attachments.pop(name, None)
        if attachment is not None:
            attachment.close()
            log.info("%s detached", name)
            self._changed()

    def _list(self, caller: _Caller) -> None:
        for part, more in _parts(self.attachments, messages.INTERFACES_A_PART):
            listed: tuple[Interface, ...] = tuple(self.attachments[name].listed() for name in part)
            caller.send(messages.InterfaceList(interfaces=listed, more=more))

    def _count(self, caller: _Caller) -> None:
        counters, tables = self._measure()
        for part, more in _parts(self.attachments, messages.COUNTERS_A_PART):
            interfaces = {name: self.attachments[name].counters() for name in part}
            caller.send(
                messages.Statistics(
                    process=os.getpid(), counters=counters, tables=tables, interfaces=interfaces, more=more
                )
            )

    def _hail(self, caller: _Caller) -> None:
        now = self.loop.now
        for part, more in _parts(self.attachments, messages.FINGERPRINTS_A_PART):
            ages = {name: self.attachments[name].hail(now) for name in part}
            caller.send(messages.Heard(ages=ages, more=more))

    def _updated(self, request: messages.Update) -> Answer:
        attachment = self.attachments.get(request.interface)
        if attachment is None:
            return self._unknown(request.interface)
        with self._followed():
            cut = attachment.update(request)
        self._changed()
        return messages.Updated(cut=cut, ports=attachment.listed_ports())

    @contextlib.contextmanager
    def _followed(self) -> Iterator[None]:
        """A group's rules are every member's: if some change inside, all interfaces' ports and flows follow."""
        changes = self._rules.changes
        try:
            yield
        finally:
            if self._rules.changes != changes:
                for one in self.attachments.values():
                    one.rules_changed()

    def _describe(self, caller: _Caller, request: messages.Describe) -> None:
        chosen = [name for name in self.attachments if request.interface in (None, name)]
        for part, more in _parts(chosen, messages.FINGERPRINTS_A_PART):
            found = {name: self.attachments[name].fingerprint for name in part}
            caller.send(messages.Described(interfaces=found, groups=self._rules.fingerprint, more=more))

    def _unknown(self, name: str) -> Refused:
        attached = ", ".join(sorted(self.attachments)) or "none"
        return Refused(
            cause="unknown",
            reason=f"no machine {name!r} is attached to this network (attached: {attached}); see `celaje vm ls`",
        )

    def _proxy(self, caller: _Caller, request: messages.Proxy) -> None:
        attachment = next((one for one in self.attachments.values() if one.is_called(request.host)), None)
        if attachment is None:
            caller.send(self._unknown(request.host))
            return
        if not 0 < request.port < 65_536:
            raise InputError(f"a port is a number from 1 to 65535, and {request.port} is not")
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise HostError(
                f"no sockets for the connection: {error.strerror}; raise the limit of open files"
            ) from error
        ours.setblocking(False)
        flows = attachment.flows
        bridge: Bridge | None = flows.nat.connect_inward(flows, ours, (LOOPBACK, 0), request.port, True)
        if bridge is None:
            ours.close()
            theirs.close()
            reason = f"the rules of {request.host!r} admit nobody from 127.0.0.1 to tcp port {request.port}; "
            groups = ", ".join(attachment.interface.groups)
            kept = f"admit 127.0.0.1/32 there in one of its security groups ({groups})"
            remedy = f"start it with allow=tcp:{request.port}" if attachment.request.subnet is None else kept
            caller.send(Refused(cause="unreachable", reason=reason + remedy))
            return

        def decided(admitted: bool) -> None:
            if admitted:
                caller.send(messages.Connected(), theirs)
            else:
                reason = f"{request.host!r} does not answer on tcp port {request.port}; is a server running there?"
                caller.send(Refused(cause="unanswered", reason=reason))
            caller.awaited = None
            theirs.close()

        bridge.on_decided = decided
        caller.awaited = bridge


def _parts(names: Iterable[str], size: int) -> Iterator[tuple[list[str], bool]]:
    """`names` in parts of at most `size`, at least one, each with whether there are more."""
    rest = list(names)
    while True:
        part, rest = rest[:size], rest[size:]
        yield part, bool(rest)
        if not rest:
            return


class _Caller:
    """A connection that has attached nothing, at least not yet."""

    def __init__(self, control: ControlSocket, connection: socket.socket) -> None:
        self.awaited: Bridge | None = None  # the connection that it asked for, until the guest has answered
        self._control = control
        self._connection: socket.socket | None = connection
        self._waits = False
        self._unsent: deque[bytes] = deque()  # answers that wait until it reads; meanwhile nothing more is asked
        control.loop.watch(connection.fileno(), READ, self._ready)

    def _ready(self, _events: int) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._unsent:
            self._send_more(connection)
            return
        try:
            data = connection.recv(messages.LONGEST_MESSAGE + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            request = messages.decoded_request(data)
        except messages.Unreadable as error:
            self.send(error.answer)
            return
        self._control.answer(self, request)

    def send(self, answer: Answer, passed: socket.socket | None = None) -> None:
        """An answer of many parts is sent as the caller reads it."""
        connection = self._connection
        if connection is None:
            return
        try:
            data = messages.encoded(answer)
        except messages.Unreadable as error:
            data = messages.encoded(error.answer)
        if passed is None:
            self._unsent.append(data)
            if len(self._unsent) == 1:
                self._send_more(connection)
            return
        try:
            socket.send_fds(connection, [data], [passed.fileno()])
        except OSError:
            self.close()

    def _send_more(self, connection: socket.socket) -> None:
        waits = False
        try:
            while self._unsent:
                connection.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            waits = True
        except OSError:
            self.close()
            return
        if waits is not self._waits:
            self._waits = waits
            self._control.loop.change(connection.fileno(), WRITE if waits else READ)

    def leave(self) -> socket.socket:
        """The connection is somebody else's from now on."""
        connection = self._connection
        assert connection is not None
        self._forget(connection)
        return connection

    def close(self) -> None:
        connection = self._connection
        if connection is not None:
            self._forget(connection)
            with contextlib.suppress(OSError):
                connection.close()

    def _forget(self, connection: socket.socket) -> None:
        self._connection = None
        self._control.loop.unwatch(connection.fileno())
        self._control._callers.discard(self)
        awaited, self.awaited = self.awaited, None
        if awaited is not None:
            awaited.abort()
