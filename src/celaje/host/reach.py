"""How a machine is reached from the host: by ssh, and by a connection to any port that its rules admit."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
import threading

from celaje.errors import HostError, NotFound, UsageError
from celaje.host import inventory
from celaje.host.record import MachineDirectory, Record, names
from celaje.network import client, spawn

USER = "admin"
PIECE = 1 << 16


def celaje_command() -> str:
    """The `celaje` command as a shell runs it."""
    installed = shutil.which("celaje")
    return shlex.quote(installed) if installed else f"{shlex.quote(sys.executable)} -m celaje"


def ssh_options(record: Record) -> dict[str, str]:
    """Options of ssh for one machine. Its host key is remembered in its own directory, and goes with it."""
    known = MachineDirectory.of(record.name).path / "known_hosts"
    return {
        "ProxyCommand": f"{celaje_command()} proxy {record.name} %p",
        "HostKeyAlias": record.instance,
        "UserKnownHostsFile": f'"{known}"',
        "StrictHostKeyChecking": "accept-new",
        "CheckHostIP": "no",
        "LogLevel": "ERROR",
    }


def ssh_words(target: str) -> tuple[str, list[str]]:
    """(path of ssh, words before the command) for [USER@]NAME. NotFound, UsageError, HostError."""
    user, at, name = target.rpartition("@")
    record = reachable(name)
    program = shutil.which("ssh")
    if program is None:
        raise HostError(
            f"this host has no ssh; install openssh-client, or use the console: celaje vm console {record.name}"
        )
    options = [word for option, value in ssh_options(record).items() for word in ("-o", f"{option}={value}")]
    return program, ["ssh", *options, f"{user if at else USER}@{record.name}"]


def reachable(name: str) -> Record:
    """The record of a machine that runs in a network. NotFound, UsageError."""
    seen = inventory.look(MachineDirectory.of(name))
    if not seen.alive:
        raise NotFound(f"the machine {name} does not run; start it: celaje vm start {name}")
    if seen.record.options.network is None:
        raise UsageError(f"the machine {name} has no network; use its console: celaje vm console {name}")
    return seen.record


def ssh_config(record: Record) -> str:
    """What ~/.ssh/config needs, so that `ssh NAME.celaje` reaches the machine."""
    options = {"User": USER, **ssh_options(record)}
    return "\n".join([f"Host {record.name}.celaje", *(f"    {name} {value}" for name, value in options.items())])


def connect(host: str, port: int) -> socket.socket:
    """A TCP connection to a machine: by its name, or by its private or public address. NotFound, HostError."""
    name = host.removesuffix(".celaje")
    if name in names():
        network = reachable(name).options.network
        assert network is not None
        return client.proxy(network.network, name, port)
    for network_name in spawn.running():
        for one in client.interfaces(network_name):
            if host in (one.interface, one.host_name, one.address, one.public_address):
                return client.proxy(network_name, one.interface, port)
    raise NotFound(f"no running machine is called {host}, or has that address; celaje vm ls lists them")


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
