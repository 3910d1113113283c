"""`celaje ssh`: a shell, or a command, on an instance of the cloud or a machine."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.errors import HostError, NotFound, UsageError

if TYPE_CHECKING:
    from celaje.host.reach import SshTarget

EPILOG = """\
The host's own ssh does it, with the key that the instance was launched with (or the machine was started with); where
there is none, celaje's own. Options of ssh come before the name, as in: celaje ssh -L 8080:localhost:80 web"""
WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # ssh's options that have one
USER = "admin"
SSH_PORT = 22


def run(words: list[str]) -> int:
    """Become ssh. NotFound where nothing of that name runs."""
    parser = Parser("ssh", "Logs in to an instance or a machine, or runs a command on it.", EPILOG)
    parser.add_argument("target", metavar="[USER@]NAME", help="or an address instead (`celaje ls`); USER is admin")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="instead of a shell")
    options: list[str] = []
    while words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        count = 2 if len(words[0]) == 2 and words[0][1] in WITH_VALUE else 1
        options, words = options + words[:count], words[count:]
    chosen = parser.parse_args(words)
    user, at, name = chosen.target.rpartition("@")
    target = _target(name)
    program = shutil.which("ssh")
    sys.stdout.flush()
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    if program is None:
        if options:
            raise UsageError(f"{options[0]} is an option of ssh, and this host has none; install openssh-client")
        return _own(target, user if at else USER, command)
    given = [word for option, value in target.options().items() for word in ("-o", f"{option}={value}")]
    os.execv(program, ["ssh", *options, *given, f"{user if at else USER}@{target.host}", *command])


def _target(name: str) -> SshTarget:
    """A machine of this host goes before an instance with that Name tag: its name is an identifier here."""
    from celaje.host import reach
    from celaje.host.record import MachineDirectory

    name = reach.machine_of(name)
    try:
        directory = MachineDirectory.of(name)
    except UsageError:
        return _instance(name)
    if directory.exists() and not name.startswith("i-"):
        return reach.ssh_target(reach.reachable(name))
    return _instance(name)


def _instance(name: str) -> SshTarget:
    from celaje.cli.cloud_client import cloud_directory, ec2, running
    from celaje.cli.instances import found, label
    from celaje.cli.launch import client_account, key_file
    from celaje.host.reach import SshTarget

    if running() is None and "AWS_ENDPOINT_URL" not in os.environ:
        from celaje.host.record import MachineDirectory

        directory = MachineDirectory.of(name)
        if directory.exists():
            return _without_its_cloud(name)
        raise NotFound(f"{directory.not_found()}; no cloud runs here that may know it: celaje up --detach")
    client = ec2()
    (one,) = found(client, [name])
    if one["State"]["Name"] != "running":
        raise UsageError(f"{label(one)} is {one['State']['Name']}; start it: celaje start {shlex.quote(name)}")
    public = one.get("PublicIpAddress")
    if not public:
        raise HostError(f"{label(one)} has no public address; give it one: aws ec2 associate-address")
    key = key_file(client_account(client), client.access.region, one.get("KeyName", ""))
    return SshTarget(public, one["InstanceId"], cloud_directory() / "known_hosts", key if key.exists() else None)


def _without_its_cloud(name: str) -> SshTarget:
    """An instance that runs on while its cloud is down."""
    from celaje.cli.cloud_client import cloud_directory
    from celaje.host import reach
    from celaje.host.reach import SshTarget

    reach.reachable(name)
    return SshTarget(name, name, cloud_directory() / "known_hosts", only_key(cloud_directory()))


def only_key(cloud: Path) -> Path | None:
    """Nobody tells which key pair an instance has while its cloud is down: if one is kept, it is that; otherwise ssh's
    own, or the one that -i says."""
    keys = list((cloud / "keys").glob("*.pem"))
    return keys[0] if len(keys) == 1 else None


def _own(target: SshTarget, user: str, command: list[str]) -> int:
    from celaje.cli.own_ssh import Destination, log_in
    from celaje.host import reach

    destination = Destination(
        user=user,
        alias=target.alias,
        known_hosts=target.known_hosts,
        keys=(target.key,) if target.key else (),
        connect=lambda: reach.connect(target.host, SSH_PORT),
    )
    return log_in(destination, command)
