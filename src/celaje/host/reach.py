"""How a machine is reached from the host: by ssh, and by a connection to any port that its rules admit."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from celaje.errors import HostError, NotFound, UsageError
from celaje.host import inventory
from celaje.host.interface_file import read_interface
from celaje.host.record import MachineDirectory, Record, names
from celaje.network import client, spawn

USER = "admin"
PIECE = 1 << 16
PATIENCE_SECONDS = 300.0  # how long a guest may take until its server answers
FIRST_ATTEMPT_SECONDS, LONGEST_ATTEMPT_SECONDS = 1.0, 5.0  # a guest on a busy host may need its time for an answer
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
PAUSE_SECONDS = 0.2  # before a guest that refused is asked again


def celaje_command() -> str:
    """The `celaje` command as a shell runs it."""
    installed = shutil.which("celaje")
    return shlex.quote(installed) if installed else f"{shlex.quote(sys.executable)} -m celaje"


@dataclass(frozen=True, slots=True)
class SshTarget:
    """What ssh connects to: `host` is what `celaje proxy` is asked for. Its host key is remembered as `alias`'s in
    `known_hosts`; `key` is a file with a private key, None for those that ssh finds by itself."""

    host: str
    alias: str
    known_hosts: Path
    key: Path | None = None

    def options(self) -> dict[str, str]:
        """ssh's options for it."""
        found = {
            "ProxyCommand": f"{celaje_command()} proxy {self.host} %p",
            "HostKeyAlias": self.alias,
            "UserKnownHostsFile": f'"{self.known_hosts}"',
            "StrictHostKeyChecking": "accept-new",
            "CheckHostIP": "no",
            "LogLevel": "ERROR",
        }
        if self.key is not None:
            found |= {"IdentityFile": f'"{self.key}"', "IdentitiesOnly": "yes"}
        return found


def machine_of(host: str) -> str:
    """The name of the machine that a person means: its name, or its private or public address. NotFound, UsageError."""
    return _meant(host)[1] if _ADDRESS.fullmatch(host) else host


def ssh_target(record: Record) -> SshTarget:
    """One machine. Its host key is remembered in its own directory, and goes with it."""
    return SshTarget(record.name, record.instance, MachineDirectory.of(record.name).path / "known_hosts")


def reachable(name: str) -> Record:
    """The record of a machine that runs in a network. NotFound, UsageError."""
    seen = inventory.look(MachineDirectory.of(name))
    if seen.state == inventory.PAUSED:
        raise UsageError(f"the machine {name} is paused and answers nobody; first: celaje vm resume {name}")
    if not seen.alive:
        raise NotFound(f"the machine {name} does not run; start it: celaje vm start {name}")
    if _network_of(seen.record) is None:
        raise UsageError(f"the machine {name} has no network; use its console: celaje vm console {name}")
    return seen.record


def _network_of(record: Record) -> str | None:
    """The network that the machine's card is plugged into."""
    interface = read_interface(MachineDirectory.of(record.name))
    if interface is not None:
        return interface.network.name
    return None if record.options.network is None else record.options.network.network


def ssh_config(record: Record) -> str:
    """What ~/.ssh/config needs, so that `ssh NAME.celaje` reaches the machine."""
    options = {"User": USER, **ssh_target(record).options()}
    return "\n".join([f"Host {record.name}.celaje", *(f"    {name} {value}" for name, value in options.items())])


def connect(
    host: str, port: int, patience: float = PATIENCE_SECONDS, pause: Callable[[float], None] = time.sleep
) -> socket.socket:
    """A TCP connection to a machine: by its name, or by its private or public address.

    A guest that is starting, or says nothing, is waited for, `patience` seconds at most, also while its network's
    process starts anew. NotFound where no machine that runs is meant; HostError where the rules or the guest refuse.
    """
    network, name = _meant(host)
    began = time.monotonic()
    attempt = FIRST_ATTEMPT_SECONDS
    while True:
        try:
            return client.proxy(network, name, port, attempt)
        except (client.Unanswered, NotFound) as error:
            waited = time.monotonic() - began
            if waited > patience:
                console = f"; look at its console: celaje vm console {name}" if name in names() else ""
                raise HostError(
                    f"{host} has not answered on tcp port {port} for {waited:.0f} s{console}"
                ) from error
            if isinstance(error, client.Unanswered) and error.silent:
                attempt = min(attempt + FIRST_ATTEMPT_SECONDS, LONGEST_ATTEMPT_SECONDS)
            elif isinstance(error, client.Unanswered) and not _may_come(name, patience):
                raise
            else:
                pause(PAUSE_SECONDS)
            network, name = _meant(host)  # it may have ended meanwhile


def _meant(host: str) -> tuple[str, str]:
    """(network, interface) of whom a person calls `host`. NotFound, UsageError."""
    name = host.removesuffix(".celaje")
    if name in names():
        network = _network_of(reachable(name))
        assert network is not None
        return network, name
    found = [
        (network, one.interface)
        for network in spawn.running()
        for one in client.interfaces(network)
        if host in (one.interface, one.host_name, one.address, one.public_address)
    ]
    if not found:
        raise NotFound(f"no running machine is called {host}, or has that address; celaje vm ls lists them")
    if len(found) > 1:
        # Networks see nothing of each other, so two of them may well have the same addresses and host names.
        meant = ", ".join(f"{interface} (network {network})" for network, interface in found)
        raise UsageError(f"{host} may be any of {meant}; say one of these by its name")
    return found[0]


def _may_come(name: str, patience: float) -> bool:
    """Whether a server that is not there may come yet: the machine has started within the last `patience` seconds."""
    if name not in names():
        return False
    described = inventory.look(MachineDirectory.of(name)).description
    return described is None or time.time() - described.started < patience


def relay(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Bytes both ways until both ends have closed; the end of `source` is the end of one direction only."""

    def outward() -> None:
        try:
            while data := os.read(source, PIECE):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other direction ends too, and says so

    threading.Thread(target=outward, name="outward", daemon=True).start()
    while data := _received(connection):
        view = memoryview(data)
        while view:
            view = view[os.write(sink, view) :]


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(PIECE)
    except ConnectionError:
        return b""
