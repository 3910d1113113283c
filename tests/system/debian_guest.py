"""Debians in processes of their own, for the system tests: a home that a module's tests share, a guest's shell on its
serial line, and machines that are booted once and restored from then on, which takes a tenth of a second.
"""

from __future__ import annotations

import contextlib
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.cli.command import main
from celaje.host import messages, record
from celaje.host.control import Control, wait_until_off
from celaje.host.record import MachineDirectory
from celaje.network import client
from celaje.network.messages import Interface
from tests.machine_processes import SECONDS, end, end_servers

SOURCE = Path(__file__).resolve().parents[2] / "src"
ANSWER_SECONDS = 240.0
BOOT_SECONDS = 600.0  # where other guests boot beside it on a busy host
PROMPT = ":~# "
_joined: list[Control] = []  # consoles that a place closes at its end, whatever became of their guests
MEMORY = "192M"


def celaje(*words: str | Path) -> None:
    """A command, in this process; it must succeed, and prints why if it does not."""
    assert main([*map(str, words)]) == 0


@contextlib.contextmanager
def place(home: Path, image: Path) -> Iterator[Path]:
    """CELAJE_HOME at `home` with the images that are beside `image`, and a runtime directory. What runs there ends."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "images").symlink_to(image.parent)
    directory = Path(tempfile.mkdtemp(prefix="celaje-", dir="/tmp"))  # a socket's path is short
    setting = pytest.MonkeyPatch()
    setting.setenv("XDG_RUNTIME_DIR", str(directory))
    setting.setenv("CELAJE_HOME", str(home))
    setting.setenv("PYTHONPATH", str(SOURCE))
    try:
        yield home
    finally:
        while _joined:
            _joined.pop().close()
        for name in record.names():
            machine = MachineDirectory.of(name)
            end(machine.holder())
            assert wait_until_off(machine, SECONDS)
        end_servers()
        setting.undo()
        shutil.rmtree(directory, ignore_errors=True)


class Guest:
    """The root shell on a machine's serial line; it neither echoes nor prompts."""

    def __init__(self, name: str, tail: int = 0) -> None:
        self.name = name
        self.patience = ANSWER_SECONDS  # for an answer
        self._control = Control(MachineDirectory.of(name))
        _joined.append(self._control)
        self._control.ask(messages.OpenConsole(tail=tail), messages.Done)
        self._said = ""
        self._asked = 0

    def close(self) -> None:
        """Leave the console; the machine goes on."""
        self._control.close()

    def type(self, text: str) -> None:
        """A line for the guest."""
        self._control.send(messages.ConsoleInput(data=text.encode() + b"\n"))

    def wait_for(self, text: str) -> str:
        """What the guest says before `text`."""
        until = time.monotonic() + self.patience
        while text not in self._said:
            assert time.monotonic() < until, f"no {text!r} from {self.name}, but {self._said[-2000:]!r}"
            if not select.select([self._control], [], [], 1)[0]:
                continue
            answer = self._control.receive(ANSWER_SECONDS)
            assert isinstance(answer, messages.ConsoleOutput), f"{self.name} ended ({answer}) and said {self._said!r}"
            self._said += answer.data.decode(errors="replace")
        before, _, self._said = self._said.partition(text)
        return before

    def status(self, command: str) -> tuple[int, str]:
        """The exit status of a command, and what it printed."""
        self._asked += 1
        self.type(f"{command}\necho \"<{self._asked}:\"\"$?>\"")
        printed = self.wait_for(f"<{self._asked}:")
        return int(self.wait_for(">")), printed.replace("\r", "").strip()

    def run(self, command: str) -> str:
        """What a command printed, which must end with status 0."""
        status, printed = self.status(command)
        assert status == 0, f"{self.name}: {command} ended with status {status}: {printed}"
        return printed

    def wait(self, condition: str) -> None:
        """Until a command of the guest's succeeds."""
        self.run(f"while ! {condition}; do usleep 50000; done")

    def fetch(self, url: str, path: str) -> None:
        """A program from a server of the host's."""
        self.run(f"wget -q -O {path} {url} && chmod 755 {path}")


def booted(name: str, image: Path, *words: str | Path) -> Guest:
    """A machine that is started."""
    celaje("vm", "start", name, image, "--memory", MEMORY, *words)
    return up(name)


def up(name: str, tail: int = 1 << 20) -> Guest:
    """A machine that was started, once its services are up. `tail` is 0 where it has said something in earlier runs."""
    guest = Guest(name, tail)
    guest.patience = BOOT_SECONDS
    guest.wait_for(PROMPT)
    guest.type("stty -echo; PS1= PS2=; echo qui''et")
    guest.wait_for("quiet")
    guest.wait_for("\n")
    guest.wait("[ -e /run/dropbear.pid ]")
    guest.wait("[ -z \"$(pidof services)\" ]")
    guest.patience = ANSWER_SECONDS
    return guest


def restored(name: str, file: Path, network: str = "user") -> Guest:
    """A machine that goes on from a snapshot, with its card in the network that `network` says."""
    celaje("vm", "restore", name, file, "--network", network)
    return Guest(name)


def remove(guest: Guest) -> None:
    """The machine and what is only its own."""
    guest.close()
    celaje("vm", "rm", "--force", guest.name)


def interface(name: str, network: str = "default") -> Interface:
    """How the network lists a machine."""
    return next(one for one in client.interfaces(network) if one.interface == name)


def ssh(name: str, key: Path, command: str, user: str = "root", *options: str) -> subprocess.CompletedProcess[str]:
    """`celaje ssh USER@NAME COMMAND`."""
    own = ["-i", str(key), "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", *options]
    words = [sys.executable, "-m", "celaje", "ssh", *own, f"{user}@{name}", command]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
