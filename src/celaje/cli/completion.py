"""`celaje completion`: completion for a shell, which knows the commands and the live names of things.

The shell's script asks `celaje completion --words WORD …`, which prints what could come next, one a line. It asks
nobody but this host: a cloud that does not answer within a moment completes nothing.

Names are given by whoever may tag a resource, an instance's role for one. What a shell could take for anything but a
word is no candidate: bash puts candidates into the line as they are.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable

from celaje.cli.arguments import Parser
from celaje.cli.command import COMMANDS
from celaje.errors import CelajeError

SCRIPTS = {
    "bash": """\
_celaje() {
    mapfile -t COMPREPLY < <(celaje completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _celaje celaje""",
    "zsh": """\
_celaje() {
    local -a found
    found=("${(@f)$(celaje completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -- $found
}
compdef _celaje celaje""",
    "fish": """\
complete -c celaje -f -a '(celaje completion --words (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'""",
}
EPILOG = """\
  bash:  eval "$(celaje completion bash)"      in ~/.bashrc
  zsh:   eval "$(celaje completion zsh)"       in ~/.zshrc, after compinit
  fish:  celaje completion fish | source       in ~/.config/fish/config.fish"""
_WORD = re.compile(r"[\w./@][\w./@:%+=,-]*\Z")


def run(words: list[str]) -> int:
    """Print a shell's script, or what could come after some words."""
    if words[:1] == ["--words"]:
        print("\n".join(candidates(words[1:])))
        return 0
    parser = Parser("completion", "Prints what a shell evaluates to complete celaje's commands and names.", EPILOG)
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="which shell")
    print(SCRIPTS[parser.parse_args(words).shell])
    return 0


def candidates(words: list[str]) -> list[str]:
    """What the last of `words` could become: the next word of a command, else the names that the command takes."""
    before, begun = words[:-1], words[-1] if words else ""
    following = {
        command[len(before)]
        for command in COMMANDS
        if len(command) > len(before) and list(command[: len(before)]) == before
    }
    if not following:
        command = next((tuple(before[:length]) for length in (2, 1) if tuple(before[:length]) in COMMANDS), ())
        names = _NAMES.get(" ".join(command))
        with contextlib.suppress(CelajeError):
            following = set(names()) if names else set()
    return sorted(word for word in following if word.startswith(begun) and _WORD.match(word))


def _named(name: str, identifier: str) -> str:
    return name if _WORD.match(name) else identifier


def _machines() -> Iterable[str]:
    from celaje.host.record import names

    return names()


def _host_images() -> Iterable[str]:
    from celaje.image.store import names

    return names()


def _instances() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2, name_of
    from celaje.cli.instances import instances

    for one in instances(ec2()):
        if one["State"]["Name"] != "terminated":
            yield _named(name_of(one), one["InstanceId"])


def _reachable() -> Iterable[str]:
    yield from _machines()
    yield from _instances()


def _volumes() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2, name_of

    return [_named(name_of(one), one["VolumeId"]) for one in ec2().all("describe_volumes", "Volumes")]


def _snapshots() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [one["SnapshotId"] for one in ec2().all("describe_snapshots", "Snapshots", OwnerIds=["self"])]


def _images() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [one["Name"] for one in ec2()("describe_images")["Images"]]


def _buckets() -> Iterable[str]:
    from celaje.cli.cloud_client import Client

    return [one["Name"] for one in Client("s3")("list_buckets")["Buckets"]]


_OF_MACHINES = "start console stop kill pause resume reset attach detach allow stats rm snapshot ssh-config"
_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "ssh": _reachable,
    "proxy": _machines,
    "launch": _images,
    **dict.fromkeys(("console", "stop", "start", "reboot", "terminate", "image create"), _instances),
    **dict.fromkeys(("volume attach", "volume detach", "volume grow", "volume rm", "volume snapshot"), _volumes),
    "snapshot rm": _snapshots,
    "image rm": _images,
    **dict.fromkeys(("bucket ls", "bucket rm", "bucket get", "bucket uploads"), _buckets),
    **{f"vm {verb}": _machines for verb in _OF_MACHINES.split()},
    "vm run": _host_images,
}
