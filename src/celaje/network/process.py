"""celaje-net: one network's process. `python -m celaje.network.process SETTINGS DESCRIPTOR` (network/spawn.py runs it).

It belongs to nobody: it leaves its starter's session, keeps the network's lock as long as it lives, and ends when no
machine has been attached for IDLE_SECONDS, on a Stop message, on SIGTERM, or on SIGUSR1 if no machine is attached. A
byte on DESCRIPTOR says that it listens.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from celaje import bounded_log
from celaje.errors import CelajeError, HostError
from celaje.network import spawn
from celaje.network.assignment_file import AssignmentFile
from celaje.network.attachment import Attachment
from celaje.network.control import ControlSocket, Leaving
from celaje.network.destinations import Destinations
from celaje.network.event_loop import READ, EventLoop
from celaje.network.exchange import Exchange
from celaje.network.forwarding import Plan
from celaje.network.group_file import read_groups
from celaje.network.group_rules import GroupRules
from celaje.network.host_sockets import KernelSockets
from celaje.network.messages import Attach, NetworkSettings
from celaje.network.metadata import MetadataHandler, instance_metadata
from celaje.network.nat import Nat
from celaje.network.network import Network
from celaje.network.notation import network_config, network_of, subnet_of
from celaje.network.public_pool import PublicPool
from celaje.network.resolver import HostResolvers, Resolver
from celaje.network.routing_table import RoutingTable
from celaje.network.scheduling import ask_for_short_slices
from celaje.network.subnet import Blocks
from celaje.network.topology import read_topology
from celaje.network.topology_plan import plan_of
from celaje.typed_data import from_json

IDLE_SECONDS = 600.0
POLL_SECONDS = 0.5  # how late the network may learn that a flow or a question has timed out
LOCK_SECONDS = 10.0  # to wait for a process that is about to end

log = logging.getLogger(__name__)


class NetworkProcess:
    """Everything of a network, in one thread.

    `metadata` answers at 169.254.169.254 for machines whose Attach has facts.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        path: Path,
        metadata: MetadataHandler | None = None,
        resolvers: HostResolvers | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.settings = settings
        self.loop = EventLoop()
        self._metadata = metadata
        self._idle_seconds = idle_seconds
        self._config = network_config(settings)
        self._blocks = Blocks(self._config.blocks)
        self._routes = RoutingTable()
        self._resolver = Resolver(self.loop, resolvers or HostResolvers())
        destinations = Destinations(self._blocks, self._routes.type_of)
        self.nat = Nat(self.loop, KernelSockets(), destinations, self._resolver.resolve, self._config)
        self._assignments = AssignmentFile(settings)
        self.network = Network(self._config, self.nat, self.loop.clock, self._assignments.read(), self._blocks)
        self.nat.network = self.network
        self._rules = GroupRules(self.network, read_groups(settings.name))
        self._pool: PublicPool | None = None
        if settings.pool is not None:
            self._pool = PublicPool(
                self.loop,
                self.network,
                network_of(settings.pool),
                settings.mtu,
                self.nat.counters,
                lambda address: destinations.refusal(address) is not None,
            )
        self._exchange: Exchange | None = None
        if settings.planned and self._pool is None:
            self._exchange = Exchange(self.loop, self.network, settings.name, self.nat.counters)
            self.nat.beyond = self._exchange.took
        self._poll = self.loop.timer(self._polled)
        self._idle = self.loop.timer(self.loop.stop)
        self.control = ControlSocket(
            self.loop,
            path,
            self._attach,
            self._measure,
            self._changed,
            self._received,
            self._stop,
            self._rules,
            self._read_topology,
        )
        self._read_topology()
        self._changed()
        self._polled()

    def run(self) -> None:
        """Until it is to end; afterwards nothing of it is left."""
        try:
            self.loop.run()
        finally:
            self.close()

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
        self.control.close()
        if self._pool is not None:
            self._pool.close()
        self._resolver.close()
        self._routes.close()
        self.loop.close()

    def _attach(self, request: Attach) -> Attachment:
        if not _is_same(request.network, self.settings):
            if not self.control.attachments:
                self.loop.stop()
                raise Leaving
            raise HostError(
                f"the network {self.settings.name!r} runs as {_described(self.settings)} and cannot be "
                f"{_described(request.network)}; choose another name for that network, or stop this one's machines"
            )
        for block in request.network.blocks:
            self._blocks.add(subnet_of(block))
        attachment = Attachment(self.network, self._config, self.nat, self._rules, self._metadata, self._pool, request)
        self._assignments.write(self.network.assignments)
        return attachment

    def _read_topology(self) -> None:
        """The network is as its file says, from now on. InputError, with nothing changed, if that can be none."""
        if not self.settings.planned:
            return
        topology = read_topology(self.settings.name)
        self.network.set_plan(Plan() if topology is None else plan_of(topology))
        for one in self.control.attachments.values():
            one.routes_changed()

    def _measure(self) -> tuple[dict[str, int], dict[str, int]]:
        counters = {**self.nat.counters, "callbacks that failed": self.loop.failures}
        tables = {
            **self.nat.tables(),
            "DNS questions": len(self._resolver.questions),
            "watched descriptors": len(self.loop),
            "public addresses": 0 if self._pool is None else len(self._pool),
            "interfaces": len(self.control.attachments),
        }
        return counters, tables

    def _changed(self) -> None:
        """Somebody has attached or detached."""
        attachments = self.control.attachments.values()
        shaped = any(one.interface.to_guest is not None for one in attachments)
        self.loop.after_round = self._polled if shaped else None
        idle = not attachments
        self.loop.set(self._idle, self.loop.clock() + self._idle_seconds if idle else None)

    def _received(self) -> None:
        """Frames came: what the network has to do next may be due sooner than it said, though nothing but the frames of
        limited interfaces by less than a second."""
        soon = self.loop.now + POLL_SECONDS
        if self._poll.deadline is None or self._poll.deadline > soon:
            self.loop.set(self._poll, soon)

    def _polled(self) -> None:
        self.loop.set(self._poll, self.network.poll(self.loop.now))
        self.nat.settle()

    def stop_if_unused(self) -> None:
        """End, unless machines are attached."""
        if not self.control.attachments:
            self.loop.stop()

    def _stop(self) -> None:
        self.loop.stop()


def _is_same(wanted: NetworkSettings, there: NetworkSettings) -> bool:
    """Whether a network that is there can be the one that is wanted: further blocks are no difference."""
    return wanted.blocks[:1] == there.blocks[:1] and msgspec.structs.replace(wanted, blocks=there.blocks) == there


def _described(settings: NetworkSettings) -> str:
    pool = f", pool {settings.pool}" if settings.pool else ""
    return f"{', '.join(settings.blocks)}, domain {settings.domain}, MTU {settings.mtu}{pool}"


def main(words: list[str]) -> int:
    """The process, from its two arguments."""
    settings = from_json(words[0], NetworkSettings)
    says = int(words[1])
    bounded_log.begin(spawn.log_path(settings.name))
    if os.fork():
        os._exit(0)  # whoever started us waits for this one, and nobody has to wait for the other
    try:
        return serve(settings, says)
    except CelajeError as error:
        print(error, file=sys.stderr)
        return error.exit_status


def serve(settings: NetworkSettings, says: int) -> int:
    """Be the network's process, from here to the end."""
    lock = _locked(settings.name)
    spawn.sign(lock)
    path = spawn.socket_path(settings.name)
    _raise_descriptor_limit()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a process that was killed: the lock is ours
    refused = ask_for_short_slices()
    if refused is not None:
        log.info("the host's scheduler gives no short time slices: %s", refused)
    with contextlib.suppress(OSError):  # a name for ps(1), and only that
        Path("/proc/self/comm").write_text("celaje-net")
    process = NetworkProcess(settings, path, instance_metadata)
    _end_on_signal(process)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    os.write(says, b"+")
    os.close(says)
    log.info("network %s runs: %s", settings.name, _described(settings))
    try:
        process.run()
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        log.info("network %s ends", settings.name)
        os.close(lock)
    return 0


def _locked(name: str) -> int:
    """The network's lock, held. HostError if another process keeps it."""
    descriptor = os.open(spawn.lock_path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    ends = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as error:
            if time.monotonic() > ends:
                raise HostError(
                    f"another process keeps the lock of the network {name!r} and does not listen; "
                    f"find it with `fuser {spawn.lock_path(name)}` and end it"
                ) from error
        time.sleep(0.05)


def _raise_descriptor_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end_on_signal(process: NetworkProcess) -> None:
    """SIGTERM and SIGINT end the present round, SIGUSR1 if no machine is attached then. The wake-up socket is what
    interrupts the wait: epoll goes on after a handler has run."""
    wakes, woken = socket.socketpair()
    loop = process.loop
    for end in (wakes, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    signal.signal(signal.SIGUSR1, lambda *_: loop.soon(process.stop_if_unused))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def drained(_events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            wakes.recv(64)
        woken.fileno()  # both ends live as long as the loop

    loop.watch(wakes.fileno(), READ, drained)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
