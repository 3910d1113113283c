"""`celaje up`, `celaje down`, `celaje status` and `celaje logs`: the cloud's own process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import NOT_RUNNING, Running, cloud_directory, running
from celaje.cli.patience import patience
from celaje.cli.table import table
from celaje.cli.terminal_text import console_text
from celaje.errors import HostError, UsageError

START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.02
EPILOG = """\
Without --detach the cloud runs until Ctrl-C, and its log is shown. Instances run on while the cloud is down, and are
found again when it is up.

  celaje up --detach
  eval "$(celaje env)"
  celaje launch --name web"""


def log_file() -> Path:
    """What the cloud's process says about itself."""
    return cloud_directory() / "log"


def up(words: list[str]) -> int:
    """Start the cloud; returns when it answers, or without --detach when it has ended."""
    parser = Parser("up", "Starts the cloud: EC2, EBS and S3 for every client of AWS.", EPILOG)
    parser.add_argument("--detach", action="store_true", help="return when it answers, and leave it running")
    parser.add_argument("--port", type=_port, metavar="PORT", help="where it answers (4566, or what the settings say)")
    parser.add_argument(
        "--auth",
        choices=("signed", "open"),
        default="signed",
        help="open: take any key, for test suites that sign with made-up ones; on loopback only",
    )
    chosen = parser.parse_args(words)
    there = running()
    if there is not None:
        print(f"the cloud runs already, at {there.endpoint} (process {there.process})")
        return 0
    command = [sys.executable, "-m", "celaje.cloud.daemon", "--auth", chosen.auth]
    if chosen.port is not None:
        command += ["--port", str(chosen.port)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with patience("the cloud is starting …"):
        found = _answering(process)
    print(f"the cloud answers at {found.endpoint}")
    print('  eval "$(celaje env)"       for boto3, the AWS CLI and other clients')
    print("  celaje launch --name web   for an instance")
    sys.stdout.flush()
    return 0 if chosen.detach else _follow(process)


def _port(text: str) -> int:
    """A port of the command line; 0 for any that is free."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 16:
        raise ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return number


def _answering(process: subprocess.Popen[bytes]) -> Running:
    """The cloud, when it answers. HostError, with what it said, if it ends before."""
    ends = time.monotonic() + START_SECONDS
    while (found := running()) is None or found.process != process.pid:
        if process.poll() is not None:
            said = process.communicate()[0].decode(errors="replace").strip().splitlines()
            raise HostError(said[-1].removeprefix("celaje: ") if said else f"the cloud did not start; see {log_file()}")
        if time.monotonic() > ends:
            process.terminate()
            raise HostError(f"the cloud does not answer after {START_SECONDS:.0f} s; see {log_file()}")
        time.sleep(LOOK_SECONDS)
    return found


def _follow(process: subprocess.Popen[bytes]) -> int:
    """Show the log until the cloud ends; Ctrl-C ends it."""
    position = log_file().stat().st_size if log_file().exists() else 0
    try:
        while process.poll() is None:
            position = _show(position)
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("the cloud is shut down; instances run on", file=sys.stderr)
        process.terminate()
        process.wait(STOP_SECONDS)
    _show(position)
    return 0 if process.returncode in (0, -signal.SIGTERM) else 1


def _show(position: int) -> int:
    """Print what the log has from `position` on; returns where it ends. One that was begun anew is shown from there."""
    with contextlib.suppress(FileNotFoundError), open(log_file(), "rb") as file:
        if os.fstat(file.fileno()).st_size < position:
            position = 0
        file.seek(position)
        text = file.read().decode(errors="replace")
        sys.stdout.write(console_text(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
        return file.tell()
    return position


def down(words: list[str]) -> int:
    """Shut the cloud down, and wait until it has gone. Instances run on."""
    parser = Parser("down", "Shuts the cloud down. Instances run on; `celaje up` finds them again.")
    parser.parse_args(words)
    found = running()
    if found is None:
        print("no cloud runs here")
        return 0
    try:
        descriptor = os.pidfd_open(found.process)
    except ProcessLookupError:
        return 0
    import select

    with os.fdopen(descriptor, closefd=True):
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        with patience("the cloud finishes what it is doing …"):
            ended = poller.poll(STOP_SECONDS * 1000)
    if not ended:
        raise HostError(f"the cloud (process {found.process}) has not ended for {STOP_SECONDS:.0f} s; see {log_file()}")
    print("the cloud is down; instances run on until they are stopped: celaje up, celaje stop INSTANCE")
    return 0


def status(words: list[str]) -> int:
    """Tell how the cloud does. Exit status 1 where none runs."""
    parser = Parser("status", "Tells whether the cloud runs, where it answers, and what it has.")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(words)
    found = running()
    if found is None:
        print(json.dumps({"running": False}) if chosen.json else NOT_RUNNING)
        return 1
    from celaje.cli.cloud_client import ec2
    from celaje.cli.instances import instances

    client = ec2()
    states: dict[str, int] = {}
    for one in instances(client):
        states[one["State"]["Name"]] = states.get(one["State"]["Name"], 0) + 1
    facts: dict[str, object] = {
        "running": True,
        "endpoint": found.endpoint,
        "process": found.process,
        "instances": states,
        "images": {one["Name"]: one["State"] for one in client("describe_images")["Images"]},
        "volumes": sum(1 for _ in client.all("describe_volumes", "Volumes")),
        "log": str(log_file()),
    }
    if chosen.json:
        print(json.dumps(facts, indent=2))
        return 0
    rows = [(name, _told(value)) for name, value in facts.items() if name != "running"]
    print(table(("CLOUD", "runs"), rows))
    return 0


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {state}" for name, state in value.items()) or "none"
    return str(value)


def logs(words: list[str]) -> int:
    """Print what the cloud's process has said."""
    parser = Parser("logs", "Prints the log of the cloud's own process; an instance's is: celaje console INSTANCE.")
    parser.add_argument("--follow", action="store_true", help="go on printing what comes, until Ctrl-C")
    chosen = parser.parse_args(words)
    if not log_file().exists():
        raise UsageError(f"there is no log yet ({log_file()}); start the cloud: celaje up --detach")
    position = _show(0)
    while chosen.follow:
        time.sleep(0.2)
        position = _show(position)
    return 0
