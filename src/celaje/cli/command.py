"""The `celaje` command: finds the file of the command that was typed, runs it, and turns errors into one line.

Only the file of the command that runs is imported, and that file imports only what it needs: a machine is to execute
its first instruction within 0.4 s of the process's start, and every import counts against that.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

from celaje.cli.terminal_text import printable
from celaje.errors import CelajeError, UsageError

# Words -> (module, what it does). A module has `run(words: list[str]) -> int`: the words after the command's own name
# in, the exit status out. Where several small commands share a module, the function follows after a colon.
COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("up",): ("celaje.cli.up:up", "start the cloud: EC2, EBS and S3 on this machine"),
    ("down",): ("celaje.cli.up:down", "shut the cloud down; instances run on"),
    ("status",): ("celaje.cli.up:status", "tell whether the cloud runs, and what it has"),
    ("env",): ("celaje.cli.env", "print what makes any client of AWS speak to this cloud"),
    ("launch",): ("celaje.cli.launch", "launch instances, and what is needed to log in to them"),
    ("ls",): ("celaje.cli.ls", "list the instances of the cloud"),
    ("ssh",): ("celaje.cli.ssh", "log in to an instance or a machine, or run a command on it"),
    ("console",): ("celaje.cli.console", "print what an instance says on its console"),
    ("logs",): ("celaje.cli.up:logs", "print the log of the cloud's own process"),
    ("stop",): ("celaje.cli.instance_states:stop", "stop instances"),
    ("start",): ("celaje.cli.instance_states:start", "start instances that are stopped"),
    ("reboot",): ("celaje.cli.instance_states:reboot", "reboot instances"),
    ("terminate",): ("celaje.cli.instance_states:terminate", "terminate instances"),
    ("image", "ls"): ("celaje.cli.cloud_images:image_ls", "list the images that can be launched"),
    ("image", "create"): ("celaje.cli.cloud_images:image_create", "make an image of an instance"),
    ("image", "rm"): ("celaje.cli.cloud_images:image_rm", "deregister images and delete their snapshots"),
    ("image", "build"): ("celaje.cli.image_build", "make an image of this host from Debian's packages"),
    ("volume", "create"): ("celaje.cli.cloud_volumes:volume_create", "make a disk that outlives instances"),
    ("volume", "ls"): ("celaje.cli.cloud_volumes:volume_ls", "list the volumes of the cloud"),
    ("volume", "attach"): ("celaje.cli.cloud_volumes:volume_attach", "attach a volume to an instance"),
    ("volume", "detach"): ("celaje.cli.cloud_volumes:volume_detach", "take a volume from its instance"),
    ("volume", "grow"): ("celaje.cli.cloud_volumes:volume_grow", "make a volume larger"),
    ("volume", "snapshot"): ("celaje.cli.cloud_volumes:volume_snapshot", "keep what a volume holds now"),
    ("volume", "rm"): ("celaje.cli.cloud_volumes:volume_rm", "delete volumes"),
    ("snapshot", "ls"): ("celaje.cli.cloud_volumes:snapshot_ls", "list the snapshots of volumes"),
    ("snapshot", "rm"): ("celaje.cli.cloud_volumes:snapshot_rm", "delete snapshots"),
    ("bucket", "create"): ("celaje.cli.buckets:bucket_create", "make buckets in the object store"),
    ("bucket", "ls"): ("celaje.cli.buckets:bucket_ls", "list buckets, or the objects of one"),
    ("bucket", "put"): ("celaje.cli.buckets:bucket_put", "store a file as an object"),
    ("bucket", "get"): ("celaje.cli.buckets:bucket_get", "fetch an object"),
    ("bucket", "uploads"): ("celaje.cli.buckets:bucket_uploads", "list unfinished uploads, or abort them"),
    ("bucket", "rm"): ("celaje.cli.buckets:bucket_rm", "delete objects and buckets"),
    ("account", "create"): ("celaje.cli.accounts:account_create", "make accounts, apart from each other"),
    ("account", "ls"): ("celaje.cli.accounts:account_ls", "list the accounts of the cloud"),
    ("account", "rm"): ("celaje.cli.accounts:account_rm", "close accounts that have nothing any more"),
    ("account", "whoami"): ("celaje.cli.accounts:account_whoami", "tell who the commands here act as"),
    ("api", "coverage"): ("celaje.cli.api_coverage", "show which operations of AWS are implemented"),
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
    ("vm", "plug"): ("celaje.cli.vm_plug", "give a machine one more network card"),
    ("vm", "unplug"): ("celaje.cli.vm_unplug", "take such a card from a machine"),
    ("vm", "allow"): ("celaje.cli.vm_allow", "open and close a machine's ports"),
    ("vm", "stats"): ("celaje.cli.vm_stats", "show a machine's counters"),
    ("vm", "rm"): ("celaje.cli.vm_rm", "remove machines and their own disks"),
    ("vm", "ssh-config"): ("celaje.cli.vm_ssh_config", "print what ~/.ssh/config needs"),
    ("vm", "snapshot"): ("celaje.cli.vm_snapshot", "write a running machine to a file"),
    ("vm", "restore"): ("celaje.cli.vm_restore", "make a machine that goes on from such a file"),
    ("vm", "verify"): ("celaje.cli.vm_verify", "check a machine snapshot against its hashes"),
    ("vm", "image", "create"): ("celaje.cli.vm_image_create", "make an image of a disk"),
    ("vm", "image", "ls"): ("celaje.cli.vm_image_ls", "list the images that there are"),
    ("vm", "image", "verify"): ("celaje.cli.vm_image_verify", "check an image's files against their hashes"),
    ("vm", "image", "rm"): ("celaje.cli.vm_image_rm", "remove an image"),
    ("vm", "volume", "create"): ("celaje.cli.vm_volume_create", "make a disk that outlives machines"),
    ("vm", "volume", "ls"): ("celaje.cli.vm_volume_ls", "list the volumes that there are"),
    ("vm", "volume", "grow"): ("celaje.cli.vm_volume_grow", "make a volume larger"),
    ("vm", "volume", "snapshot"): ("celaje.cli.vm_volume_snapshot", "keep what a volume holds now"),
    ("vm", "volume", "import"): ("celaje.cli.vm_volume_import", "make a volume of a disk image's file"),
    ("vm", "volume", "export"): ("celaje.cli.vm_volume_export", "write a volume to a disk image's file"),
    ("vm", "volume", "check"): ("celaje.cli.vm_volume_check", "check volumes, snapshots and their chunks"),
    ("vm", "volume", "store"): ("celaje.cli.vm_volume_store", "show or choose where chunks are kept"),
    ("vm", "volume", "rm"): ("celaje.cli.vm_volume_rm", "remove a volume"),
    ("vm", "volume", "snapshots"): ("celaje.cli.vm_volume_snapshots", "list the snapshots of volumes"),
    ("vm", "volume", "rm-snapshot"): ("celaje.cli.vm_volume_rm_snapshot", "remove a snapshot"),
    ("proxy",): ("celaje.cli.proxy", "connect to a port of a machine"),
    ("completion",): ("celaje.cli.completion", "print what completes commands and names in a shell"),
    ("version",): ("celaje.cli.version", "show which celaje this is"),
}

_PREFIXES = {words[:length] for words in COMMANDS for length in range(1, len(words))}

INTRODUCTION = """\
celaje is a cloud of your own: EC2, EBS and S3 for every client of AWS, with virtual machines of its own behind them. It
needs no root, no KVM, no QEMU and no Docker.

{commands}
  celaje vm …             machines, volumes and images by themselves, below the cloud (`celaje vm` lists more)

Begin with:
  celaje up --detach
  celaje launch --name web
  celaje ssh web
or, for one machine and no cloud:
  celaje image build debian-mini
  celaje vm run debian-mini

`celaje COMMAND --help` tells more about one of them. Exit status 2 means wrong use or input."""

WRONG_USE = 2
INTERRUPTED = 128 + 2  # as a shell reports SIGINT
MISTAKE_IN_CELAJE = 70  # EX_SOFTWARE of sysexits.h


def overview(prefix: tuple[str, ...] = (), without: str = "") -> str:
    """The commands that begin with `prefix`, one a line; none whose first word is `without`."""
    shown = {
        " ".join(words): summary
        for words, (_, summary) in COMMANDS.items()
        if words[: len(prefix)] == prefix and words[0] != without
    }
    width = max(map(len, shown))
    return "\n".join(f"  celaje {words:{width}}  {summary}" for words, summary in shown.items())


def find(words: list[str]) -> tuple[str, list[str]]:
    """The module of the command that `words` begin with, and the words that are left for it. Raises UsageError."""
    for length in (3, 2, 1):
        command = COMMANDS.get(tuple(words[:length]))
        if command and len(words) >= length:
            return command[0], words[length:]
    longest = 3 if tuple(words[:2]) in _PREFIXES else 2
    typed = " ".join(word for word in words[:longest] if not word.startswith("-"))
    from difflib import get_close_matches

    near = get_close_matches(typed, [" ".join(command) for command in COMMANDS], n=1, cutoff=0.6)
    hint = f"did you mean `celaje {near[0]}`?" if near else "`celaje` alone lists them"
    raise UsageError(f"there is no command `celaje {typed or words[0]}`; {hint}")


def dispatch(words: list[str]) -> int:
    """Run what `words` say. Returns the exit status; raises CelajeError."""
    if not words or words[0] in ("help", "--help", "-h"):
        print(INTRODUCTION.format(commands=overview(without="vm")))
        return 0
    if words[0] in ("--version", "-V"):
        words = ["version"]
    asked = tuple(words[:-1] if words[-1] in ("--help", "-h") else words)
    if asked in _PREFIXES:
        print(overview(asked))
        return 0
    found, rest = find(words)
    module, _, function = found.partition(":")
    status: int = getattr(import_module(module), function or "run")(rest)
    return status


def explain(error: BaseException, words: list[str]) -> tuple[str, int]:
    """What a person who typed `words` is told about `error`, and the exit status."""
    if isinstance(error, CelajeError):
        return f"{error}{_help_after(error, words)}", error.exit_status
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


def _help_after(error: CelajeError, words: list[str]) -> str:
    """Where a refusal of the cloud does not say what to type next: the command's help."""
    from celaje.cli.cloud_client import Refused

    command = next((words[:length] for length in (3, 2, 1) if tuple(words[:length]) in COMMANDS), None)
    if command is None or not isinstance(error, Refused) or error.hint:
        return ""
    return f"; what it takes: celaje {' '.join(command)} --help"


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
        text, status = explain(error, words)
        print(f"celaje: {printable(' '.join(text.split()))}", file=sys.stderr)
        return status
