"""Rules of a network's security groups that hold whoever attaches: home()/networks/NAME.groups.json.

Without it a group's rules are what whoever attached or updated an interface has said last, which suits a machine that
brings its own. In a cloud a group is many interfaces' and changes while they run: then the file has the rules of all
groups of the network, interfaces say the names of theirs only, and one small message (ReadGroups) makes a network that
runs read it again. A group that stands in the file has these rules whatever is said besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from celaje import durable_file, paths
from celaje.errors import InputError
from celaje.network.messages import SecurityGroup
from celaje.network.notation import security_group
from celaje.network.spawn import checked_name
from celaje.typed_data import from_json

VERSION = 1


class _Version(msgspec.Struct):
    version: int


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    groups: tuple[SecurityGroup, ...]


def group_file(network: str) -> Path:
    """Where the groups of the network of this name are; it need not exist."""
    return paths.home() / "networks" / f"{checked_name(network)}.groups.json"


def read_groups(network: str) -> tuple[SecurityGroup, ...]:
    """What stands there, nothing if there is no file. InputError if it is not what it must be."""
    path = group_file(network)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        version = from_json(data, _Version).version
        if version != VERSION:
            raise InputError(f"{path} has version {version} and must have {VERSION}; use the celaje that wrote it")
        groups = from_json(data, _File).groups
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} has no security groups ({error}); write it anew, or remove it") from error
    check_groups(groups)
    return groups


def keep_groups(network: str, groups: Iterable[SecurityGroup]) -> None:
    """These and no others are in the file, durably. InputError for what can be no group, HostError where the host
    cannot."""
    kept = tuple(sorted(groups, key=lambda group: group.name))
    check_groups(kept)
    path = group_file(network)
    data = msgspec.json.encode(_File(VERSION, kept))
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass  # it is written below, or that says why not
    paths.made(path.parent)
    durable_file.replace(path, data)


def forget_groups(network: str) -> None:
    """There is no file any more."""
    durable_file.remove(group_file(network))


def check_groups(groups: Iterable[SecurityGroup]) -> None:
    """InputError if one of them can be no group, or a name is there twice."""
    names = set()
    for group in groups:
        security_group(group)
        if group.name in names:
            raise InputError(f"the security group {group.name!r} is there twice; give each a name of its own")
        names.add(group.name)
