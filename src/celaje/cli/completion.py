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
Names = Callable[[], Iterable[str]]
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
        with contextlib.suppress(CelajeError):
            following = set(_names(" ".join(command), before[len(command) :])())
    return sorted(word for word in following if word.startswith(begun) and _WORD.match(word))


def _names(command: str, given: list[str]) -> Names:
    """What knows the names that may follow the words that a command was given: the value of an option, else what the
    command takes at this place."""
    places = _NAMES.get(command, (_nothing,))
    place = 0
    option = ""
    for word in given:
        place += not (option or word.startswith("-"))
        option = word if not option and word in _OPTIONS else ""
    return _OPTIONS[option] if option else places[min(place, len(places) - 1)]


def _nothing() -> Iterable[str]:
    return ()


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


def _own_images() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [_named(one["Name"], one["ImageId"]) for one in ec2()("describe_images", Owners=["self"])["Images"]]


def _key_pairs() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [one["KeyName"] for one in ec2()("describe_key_pairs")["KeyPairs"]]


def _security_groups() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [one["GroupId"] for one in ec2().all("describe_security_groups", "SecurityGroups")]


def _zones() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [one["ZoneName"] for one in ec2()("describe_availability_zones")["AvailabilityZones"]]


def _types() -> Iterable[str]:
    from celaje.cli.cloud_client import ec2

    return [one["InstanceType"] for one in ec2().all("describe_instance_types", "InstanceTypes")]


def _profiles() -> Iterable[str]:
    from celaje.cli.cloud_client import Client

    found = Client("iam").all("list_instance_profiles", "InstanceProfiles")
    return [one["InstanceProfileName"] for one in found]


def _accounts() -> Iterable[str]:
    from celaje.cli.cloud_client import Client

    return [_named(one["Name"], one["Id"]) for one in Client("organizations").all("list_accounts", "Accounts")]


def _buckets() -> Iterable[str]:
    from celaje.cli.cloud_client import Client

    return [one["Name"] for one in Client("s3")("list_buckets")["Buckets"]]


_OF_MACHINES = "start console stop kill pause resume reset attach detach allow stats rm snapshot ssh-config"
# What a command takes, by place; the last is of all places after it too.
_NAMES: dict[str, tuple[Names, ...]] = {
    "ssh": (_reachable, _nothing),
    "proxy": (_machines, _nothing),
    "launch": (_images, _nothing),
    **dict.fromkeys(("stop", "start", "reboot", "terminate"), (_instances,)),
    **dict.fromkeys(("console", "image create"), (_instances, _nothing)),
    "volume attach": (_volumes, _instances, _nothing),
    **dict.fromkeys(("volume detach", "volume rm"), (_volumes,)),
    **dict.fromkeys(("volume grow", "volume snapshot"), (_volumes, _nothing)),
    "snapshot rm": (_snapshots,),
    "image rm": (_own_images,),
    **dict.fromkeys(("bucket ls", "bucket rm", "bucket get", "bucket uploads"), (_buckets,)),
    "bucket put": (_nothing, _buckets),
    "account rm": (_accounts,),
    **{f"vm {verb}": (_machines,) for verb in _OF_MACHINES.split()},
    "vm run": (_host_images,),
}
# What follows an option.
_OPTIONS: dict[str, Names] = {
    "--account": _accounts,
    "--group": _security_groups,
    "--key": _key_pairs,
    "--role": _profiles,
    "--snapshot": _snapshots,
    "--type": _types,
    "--zone": _zones,
}
