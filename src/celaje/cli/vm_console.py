"""`celaje vm console`: a machine's serial console in this terminal, or through a pipe."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser
from celaje.errors import HostError, UsageError

if TYPE_CHECKING:
    from celaje.host.control import Control
    from celaje.host.record import MachineDirectory

TAIL = 4096  # bytes of what was said before, at most
EPILOG = """\
At a terminal, Ctrl-A x leaves the console, and the machine goes on; Ctrl-A Ctrl-A types a Ctrl-A. Many consoles may be
open at once. Through a pipe the command ends when the machine does, or whoever reads it goes."""


def run(words: list[str]) -> int:
    """Show and type until the person leaves or the machine ends. NotFound where it does not run."""
    parser = Parser("vm console", "Joins a machine's serial console.", EPILOG)
    parser.add_argument("name", metavar="NAME", help="of a machine (`celaje vm ls`)")
    parser.add_argument("--log", action="store_true", help="only print what was said last, also if the machine is off")
    parser.add_argument("--read-only", action="store_true", help="type nothing")
    chosen = parser.parse_args(words)

    from celaje.host.record import MachineDirectory

    directory = MachineDirectory.of(chosen.name)
    if chosen.log:
        return _log(directory)
    from celaje.host import messages
    from celaje.host.control import Control

    if not directory.exists():
        raise directory.not_found()
    if directory.holder() is None and directory.ring.exists():
        raise UsageError(
            f"the machine {chosen.name} does not run; what it said last: celaje vm console --log {chosen.name}"
        )
    with Control(directory) as control:
        control.ask(messages.OpenConsole(tail=TAIL, write=not chosen.read_only), messages.Done)
        return _converse(control, chosen.name, not chosen.read_only)


def _log(directory: MachineDirectory) -> int:
    from celaje.host.console_ring import ConsoleRing

    if not directory.exists():
        raise directory.not_found()
    with ConsoleRing(directory.ring) as ring:
        sys.stdout.buffer.write(ring.tail(ring.capacity))
    sys.stdout.flush()
    return 0


def _converse(control: Control, name: str, write: bool) -> int:
    from celaje.host import messages
    from celaje.machine.terminal import RawTerminal

    sys.stdout.flush()
    terminal = write and sys.stdin is not None and os.isatty(0)
    left, leaves = os.pipe2(os.O_CLOEXEC)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, left)
        if terminal:
            print(f"celaje: this is {name}'s console; Ctrl-A x leaves it", file=sys.stderr, end="\r\n")
            stack.enter_context(RawTerminal(0))
        if write:
            typist = threading.Thread(target=_type, args=(control, terminal, leaves), name="typist", daemon=True)
            typist.start()
        poller = select.poll()
        for descriptor in (control.fileno(), left):
            poller.register(descriptor, select.POLLIN)
        ended = None
        while all(descriptor != left for descriptor, _ in poller.poll()):
            answer = control.receive()
            if isinstance(answer, messages.ConsoleOutput):
                if answer.missed:
                    _say(f"{answer.missed:,} bytes were missed here", terminal)
                _write_whole(answer.data)
            elif isinstance(answer, messages.Ended):
                ended = answer
            elif answer is None:
                break
    if ended is not None:
        reason = f": {ended.reason}" if ended.reason else ""
        print(f"celaje: the machine {name} has ended ({ended.kind}{reason})", file=sys.stderr)
    elif terminal:
        print(f"\ncelaje: {name} goes on; join it again: celaje vm console {name}", file=sys.stderr)
    return 0


def _say(text: str, terminal: bool) -> None:
    print(f"celaje: {text}", file=sys.stderr, end="\r\n" if terminal else "\n", flush=True)


def _write_whole(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _type(control: Control, terminal: bool, leaves: int) -> None:
    """Send what is typed. Closes `leaves` when the person leaves; the end of a pipe is not the console's, and the
    machine's is told by what it sends."""
    from celaje.host import messages
    from celaje.machine.console import EscapeReader

    escapes = EscapeReader()
    with contextlib.suppress(OSError, HostError):
        while data := os.read(0, 4096):
            kept = escapes.feed(data) if terminal else data
            if kept:
                control.send(messages.ConsoleInput(data=kept))
            if escapes.left:
                os.close(leaves)
                return
