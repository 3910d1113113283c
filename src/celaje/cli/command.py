"""The `celaje` command: finds the file of the command that was typed, runs it, and turns errors into one line.

Only the file of the command that runs is imported, and that file imports only what it needs: a machine is to execute
its first instruction within 0.4 s of the process's start, and every import counts against that.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

from celaje.errors import CelajeError, UsageError

# Words -> (module, what it does). A module has `run(words: list[str]) -> int`: the words after the command's own name
# in, the exit status out.
COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("vm", "run"): ("celaje.cli.vm_run", "run a computer: an image, a kernel or a firmware"),
    ("vm", "start"): ("celaje.cli.vm_start", "start a machine that goes on without a terminal"),
    ("vm", "ls"): ("celaje.cli.vm_ls", "list the machines that there are"),
    ("vm", "console"): ("celaje.cli.vm_console", "join a machine's serial console"),
    ("vm", "stop"): ("celaje.cli.vm_stop", "ask machines to shut down"),
    ("vm", "kill"): ("celaje.cli.vm_kill", "switch machines off at once"),
    ("vm", "pause"): ("celaje.cli.vm_pause", "stop machines where they are"),
    ("vm", "resume"): ("celaje.cli.vm_resume", "let paused machines go on"),
    ("vm", "reset"): ("celaje.cli.vm_reset", "start machines' guests anew"),
    ("vm", "attach"): ("celaje.cli.vm_attach", "attach a disk to a machine"),
    ("vm", "detach"): ("celaje.cli.vm_detach", "take a disk from a machine"),
    ("vm", "allow"): ("celaje.cli.vm_allow", "open and close a machine's ports"),
    ("vm", "stats"): ("celaje.cli.vm_stats", "show a machine's counters"),
    ("vm", "rm"): ("celaje.cli.vm_rm", "remove machines and their own disks"),
    ("vm", "ssh-config"): ("celaje.cli.vm_ssh_config", "print what ~/.ssh/config needs"),
    ("vm", "snapshot"): ("celaje.cli.vm_snapshot", "write a running machine to a file"),
    ("vm", "restore"): ("celaje.cli.vm_restore", "make a machine that goes on from such a file"),
    ("vm", "verify"): ("celaje.cli.vm_verify", "check a machine snapshot against its hashes"),
    ("image", "build"): ("celaje.cli.image_build", "make an image from Debian's packages"),
    ("image", "create"): ("celaje.cli.image_create", "make an image of a disk"),
    ("image", "ls"): ("celaje.cli.image_ls", "list the images that there are"),
    ("image", "verify"): ("celaje.cli.image_verify", "check an image's files against their hashes"),
    ("image", "rm"): ("celaje.cli.image_rm", "remove an image"),
    ("ssh",): ("celaje.cli.ssh", "log in to a machine, or run a command on it"),
    ("proxy",): ("celaje.cli.proxy", "connect to a port of a machine"),
    ("volume", "create"): ("celaje.cli.volume_create", "make a disk that outlives machines"),
    ("volume", "ls"): ("celaje.cli.volume_ls", "list the volumes that there are"),
    ("volume", "grow"): ("celaje.cli.volume_grow", "make a volume larger"),
    ("volume", "snapshot"): ("celaje.cli.volume_snapshot", "keep what a volume holds now"),
    ("volume", "import"): ("celaje.cli.volume_import", "make a volume of a disk image's file"),
    ("volume", "export"): ("celaje.cli.volume_export", "write a volume to a disk image's file"),
    ("volume", "check"): ("celaje.cli.volume_check", "check volumes, snapshots and their chunks"),
    ("volume", "store"): ("celaje.cli.volume_store", "show or choose where chunks are kept: a folder, an S3 bucket"),
    ("volume", "rm"): ("celaje.cli.volume_rm", "remove a volume"),
    ("snapshot", "ls"): ("celaje.cli.snapshot_ls", "list the snapshots of volumes"),
    ("snapshot", "rm"): ("celaje.cli.snapshot_rm", "remove a snapshot"),
    ("version",): ("celaje.cli.version", "show which celaje this is"),
}

INTRODUCTION = """\
celaje runs virtual computers. It needs no root, no KVM and no QEMU.

{commands}

Begin with:
  celaje image build debian-mini
  celaje vm run debian-mini
  celaje vm start web debian-mini --ssh-key ~/.ssh/id_ed25519.pub

`celaje COMMAND --help` tells more about one of them. Exit status 2 means wrong use or input."""

WRONG_USE = 2
INTERRUPTED = 128 + 2  # as a shell reports SIGINT
MISTAKE_IN_CELAJE = 70  # EX_SOFTWARE of sysexits.h


def overview(prefix: tuple[str, ...] = ()) -> str:
    """The commands that begin with `prefix`, one a line."""
    shown = {" ".join(words): summary for words, (_, summary) in COMMANDS.items() if words[: len(prefix)] == prefix}
    width = max(map(len, shown))
    return "\n".join(f"  celaje {words:{width}}  {summary}" for words, summary in shown.items())


def find(words: list[str]) -> tuple[str, list[str]]:
    """The module of the command that `words` begin with, and the words that are left for it. Raises UsageError."""
    for length in (2, 1):
        command = COMMANDS.get(tuple(words[:length]))
        if command and len(words) >= length:
            return command[0], words[length:]
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    from difflib import get_close_matches

    near = get_close_matches(typed, [" ".join(command) for command in COMMANDS], n=1, cutoff=0.5)
    hint = f"did you mean `celaje {near[0]}`?" if near else "`celaje` alone lists them"
    raise UsageError(f"there is no command `celaje {typed or words[0]}`; {hint}")


def dispatch(words: list[str]) -> int:
    """Run what `words` say. Returns the exit status; raises CelajeError."""
    if not words or words[0] in ("help", "--help", "-h"):
        print(INTRODUCTION.format(commands=overview()))
        return 0
    if words[0] in ("--version", "-V"):
        words = ["version"]
    rooms = {command[0] for command in COMMANDS if len(command) > 1}
    if words[0] in rooms and (len(words) == 1 or words[1] in ("--help", "-h")):
        print(overview((words[0],)))
        return 0
    module, rest = find(words)
    status: int = import_module(module).run(rest)
    return status


def explain(error: BaseException) -> tuple[str, int]:
    """What a person is told about `error`, and the exit status."""
    if isinstance(error, CelajeError):
        return str(error), error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, OSError):  # a system call's failure that no room made a sentence of
        text = f"{error.filename}: " * bool(error.filename) + (error.strerror or str(error))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += "; free some space, or put celaje's files elsewhere with CELAJE_HOME and CELAJE_CACHE"
        return text, WRONG_USE
    if isinstance(error, MemoryError):
        return "the host has not enough memory for this; ask for less, for example with --memory 512M", WRONG_USE
    text = f"a mistake in celaje itself ({type(error).__name__}: {error}); CELAJE_DEBUG=1 shows where"
    return text, MISTAKE_IN_CELAJE


def main(words: list[str] | None = None) -> int:
    """The command's entry point. An error is one line; CELAJE_DEBUG=1, or a first word --debug, adds the traceback."""
    words = list(sys.argv[1:] if words is None else words)
    debug = os.environ.get("CELAJE_DEBUG", "0") not in ("", "0")
    if words[:1] == ["--debug"]:
        debug, words = True, words[1:]
    try:
        status = dispatch(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read the output has gone; point stdout elsewhere, or the interpreter complains again as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # the edge: a person gets a line, and --debug the rest
        if debug:
            import traceback

            traceback.print_exc()
        text, status = explain(error)
        print(f"celaje: {' '.join(text.split())}", file=sys.stderr)
        return status
