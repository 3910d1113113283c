"""What a snapshot says of a machine beyond its memory and disks. It comes from a file, so from anybody: decoded into
these types or refused, and every device and hart judges its own part again when it takes it.
"""

from __future__ import annotations

import msgspec

from celaje.typed_data import from_msgpack


class MemoryState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A memory slot, guest-physical; its contents are the section `section`."""

    section: str
    base: int
    size: int


class DeviceState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `save` of the device at guest-physical `base` gave; `kind` names its class."""

    base: int
    kind: str
    state: dict[str, int | list[int] | bytes]


class HartState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hart: what `Hart.save` gave, its state of the SBI's hart state management, and where it is to start if it waits
    for that (guest-physical address, second argument)."""

    registers: dict[str, list[int]]
    state: int
    start: tuple[int, int] | None


class DiskState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A writable disk: what it was made over (the owner's own words), and where its own clusters of 4 KiB are.

    `extents` are (first cluster, clusters), ascending; section `section` has the clusters in that order.
    """

    section: str
    name: str
    size: int
    base: bytes
    extents: list[tuple[int, int]]


class MachineState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. `taken_at` is the host's clock in nanoseconds since 1970.

    `firmware` says that the machine was started in machine mode; `information` is then where the firmware finds what
    starts next. `htif` are the addresses of tohost and fromhost. `owner` is whatever whoever runs machines keeps.
    """

    celaje: str
    memory: list[MemoryState]
    harts: list[HartState]
    devices: list[DeviceState]
    disks: list[DiskState]
    isa: str
    taken_at: int
    firmware: bool
    information: int
    htif: tuple[int, int | None] | None
    htif_wants_input: bool
    owner: bytes


def encode(state: MachineState) -> bytes:
    """The bytes of `state` for a file."""
    return msgspec.msgpack.encode(state)


def decode(data: bytes) -> MachineState:
    """The state in `data`. ValueError says what does not fit."""
    try:
        return from_msgpack(data, MachineState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the machine's state is malformed: {error}") from error
