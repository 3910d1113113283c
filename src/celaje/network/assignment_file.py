"""Which address belongs to which interface of a network, kept across its processes: home()/networks/NAME.json."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Sequence

import msgspec

from celaje import paths
from celaje.network.messages import NetworkSettings
from celaje.network.network import Assignment
from celaje.typed_data import from_json

VERSION = 1

log = logging.getLogger(__name__)


class _Assigned(msgspec.Struct, frozen=True):
    name: str
    mac: str
    address: str


class _File(msgspec.Struct, frozen=True):
    version: int
    subnet: str
    assigned: list[_Assigned]


class AssignmentFile:
    """That of one network. An address is a convenience: where the file is lost or of another subnet, machines get
    others."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._subnet = settings.blocks[0]
        self._path = paths.home() / "networks" / f"{settings.name}.json"
        self._written: tuple[Assignment, ...] = ()

    def read(self) -> list[Assignment]:
        """What is kept."""
        try:
            held = from_json(self._path.read_bytes(), _File)
            assigned = [
                Assignment(one.name, bytes.fromhex(one.mac), int(ipaddress.IPv4Address(one.address)))
                for one in held.assigned
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("%s is not used: %s", self._path, error)
            return []
        return assigned if held.version == VERSION and held.subnet == self._subnet else []

    def write(self, assignments: Sequence[Assignment]) -> None:
        """Keep these, if they are not kept already."""
        if tuple(assignments) == self._written:
            return
        held = _File(
            VERSION,
            self._subnet,
            [_Assigned(one.name, one.mac.hex(), str(ipaddress.IPv4Address(one.address))) for one in assignments],
        )
        aside = self._path.with_suffix(".new")
        try:
            paths.made(self._path.parent)
            aside.write_bytes(msgspec.json.format(msgspec.json.encode(held)))
            os.replace(aside, self._path)
        except OSError as error:
            log.warning("which addresses are whose is not kept: cannot write %s: %s", self._path, error.strerror)
            return
        self._written = tuple(assignments)
