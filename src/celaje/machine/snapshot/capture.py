"""Taking a snapshot beside a running guest, by pre-copy: memory is copied while the guest writes it, then what it wrote
meanwhile, again and again, until little is left; only for that the machine is paused.

    copy all that was ever touched  ->  copy what changed  ->  …  ->  | pause: copy what changed, harts, devices,
                                                                        the disks' cut | go on: disks, hashes, name

Whoever migrates a machine does the same with another writer at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import celaje
from celaje.engine.memory import PAGE_SIZE, GuestMemory
from celaje.engine.protocol import Engine
from celaje.errors import GuestError, HostError
from celaje.machine.machine import AtRest, Machine
from celaje.machine.snapshot.file import BLOCK, PIECE, Progress, SnapshotWriter, data_runs, matches
from celaje.machine.snapshot.restore import Restored
from celaje.machine.snapshot.state import DeviceState, DiskState, HartState, MachineState, MemoryState, encode

ROUNDS_MOST = 8
FEW_PAGES = 1024  # pages that are left for the pause: 4 MiB take a few milliseconds
CLUSTER = 4096


class DiskCut(Protocol):
    """A writable disk as it was at the instant of the cut, while the guest goes on writing to it."""

    @property
    def name(self) -> str:
        """What names the disk in the machine."""

    @property
    def size(self) -> int:
        """Bytes of the disk."""

    @property
    def base(self) -> bytes:
        """What the disk was made over, in the owner's words."""

    @property
    def extents(self) -> Sequence[tuple[int, int]]:
        """(first cluster, clusters) of 4 KiB that are not the base's, ascending."""

    def read(self, cluster: int, count: int) -> bytes:
        """`count` clusters from `cluster` as they were, fewer bytes where the disk ends. OSError as the host says."""

    def close(self) -> None:
        """The cut is not needed any more."""


@dataclass(frozen=True, slots=True)
class Taken:
    """How it went: seconds that the guest stood still, rounds of copying, and pages copied in the pause."""

    pause_seconds: float
    rounds: int
    last_pages: int


class _StartedAnew(Exception):
    """The guest was reset while its memory was copied."""


def take(
    machine: Machine,
    path: Path,
    cut: Callable[[], Sequence[DiskCut]] = tuple,
    owner: Callable[[], bytes] = bytes,
    progress: Progress = lambda done, total: None,
    files: Mapping[str, Path] = MappingProxyType({}),
    unchanging: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Taken:
    """Write a snapshot of the running `machine` to `path`, mode 0600. From any thread but a hart's.

    `cut` is called while the machine is at rest and gives its writable disks as they are then, `owner` soon after that.
    `unchanging` is entered before the rest and left after it: no disk comes or goes inside, or the devices would
    speak of others than the cut. `files` travel along, each as the section of its name. GuestError where the machine
    has ended or never stays long enough; HostError where the disk is full; InputError where `path` is taken.
    """
    for _ in range(3):
        try:
            with SnapshotWriter(path) as writer:
                return _take(machine, writer, cut, owner, progress, files, unchanging)
        except _StartedAnew:
            continue
        except OSError as error:
            raise HostError(f"the machine snapshot {path} cannot be written: {error.strerror or error}") from error
    raise GuestError("the machine was reset again and again while its snapshot was taken; try again")


def _take(
    machine: Machine,
    writer: SnapshotWriter,
    cut: Callable[[], Sequence[DiskCut]],
    owner: Callable[[], bytes],
    progress: Progress,
    files: Mapping[str, Path],
    unchanging: Callable[[], AbstractContextManager[object]],
) -> Taken:
    for name, path in files.items():
        content = path.read_bytes()
        writer.write(writer.add(name, len(content)), [content])
    with machine.standing() as board:
        if board is None:
            raise GuestError("the machine does not run, so there is nothing to take a snapshot of")
        ram, engine = board.ram, board.engine
        source = _Source(ram, machine.origin)
        source.note(_take_dirty(engine))
    at = writer.add("memory", ram.size)

    def copy(runs: Iterator[tuple[int, int]]) -> None:
        for start, end in runs:
            with machine.standing() as now:
                if now is None or now.ram is not ram:
                    raise _StartedAnew
                writer.write(at + start, [ram.view[start:end]])

    copy(source.touched())
    rounds = 1
    while rounds < ROUNDS_MOST:
        with machine.standing() as now:
            if now is None or now.ram is not ram:
                raise _StartedAnew
            dirty = _take_dirty(engine)
            source.note(dirty)
        copy(_runs(dirty))
        rounds += 1
        if dirty.count(1) <= FEW_PAGES:
            break
    with ExitStack() as stack:
        with unchanging():
            started = time.perf_counter()
            with machine.at_rest() as rest:
                if rest is None or rest.board.ram is not ram:
                    raise _StartedAnew
                dirty = _take_dirty(engine)
                source.note(dirty)
                source.judge()
                for start, end in _runs(dirty):
                    writer.write(at + start, [ram.view[start:end]])
                harts, devices = _harts(rest), _devices(rest)
                cuts = cut()
                for one in cuts:
                    stack.callback(one.close)
            paused = time.perf_counter() - started
        disks = [_write_disk(writer, number, one, progress) for number, one in enumerate(cuts)]
    board = rest.board
    state = MachineState(
        celaje=celaje.__version__,
        memory=[MemoryState("memory", ram.base, ram.size)],
        harts=harts,
        devices=devices,
        disks=disks,
        isa=board.isa.isa,
        taken_at=time.time_ns(),
        firmware=rest.information is not None,
        information=rest.information or 0,
        htif=None if board.htif is None else (board.htif.tohost, board.htif.fromhost),
        htif_wants_input=board.htif is not None and board.htif.wants_input,
        owner=owner(),
    )
    writer.finish(encode(state), progress)
    return Taken(paused, rounds, dirty.count(1))


class _Source:
    """Memory that is copied. What was mapped from another snapshot's file, and has not changed since, is checked by
    that one's hashes: an altered page would get a hash of its own, and pass for a true one from then on.
    """

    def __init__(self, ram: GuestMemory, origin: Restored | None) -> None:
        self._ram = ram
        self._origin = origin
        self._doubtful: list[int] = []

    def touched(self) -> Iterator[tuple[int, int]]:
        """What can be anything but zero, in pieces."""
        if self._ram.fd is not None:
            yield from data_runs(self._ram.fd, self._ram.size)
            return
        nothing = bytes(BLOCK)
        for start in range(0, self._ram.size, BLOCK):
            end, number = min(start + BLOCK, self._ram.size), start // BLOCK
            data = self._ram.read(self._ram.base + start, end - start)
            origin = None if self._changed(number) else self._origin
            if origin is not None and not matches(data, origin.block_hash(number)):
                self._doubtful.append(number)  # or written in this moment: `judge` knows
            if data != nothing[: end - start]:
                yield start, end

    def note(self, dirty: bytes) -> None:
        """A dirty log was taken."""
        if self._origin is not None:
            for start, end in _page_runs(dirty):
                self._origin.changed[start:end] = b"\x01" * (end - start)

    def judge(self) -> None:
        """With the machine at rest, and its last dirty log noted. InputError where the file was altered."""
        for number in self._doubtful:
            if self._origin is not None and not self._changed(number):
                raise self._origin.altered(number)

    def _changed(self, number: int) -> bool:
        pages = BLOCK // PAGE_SIZE
        return self._origin is None or self._origin.changed.find(1, number * pages, (number + 1) * pages) >= 0


def _take_dirty(engine: Engine) -> bytes:
    (dirty,) = engine.take_dirty_log()
    return dirty


def _runs(dirty: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) in bytes of the stretches of changed pages, in pieces."""
    for start, end in _page_runs(dirty):
        for at in range(start * PAGE_SIZE, end * PAGE_SIZE, PIECE):
            yield at, min(at + PIECE, end * PAGE_SIZE)


def _page_runs(dirty: bytes) -> Iterator[tuple[int, int]]:
    """(first page, last page + 1) of the stretches of changed pages."""
    start = dirty.find(1)
    while start >= 0:
        end = dirty.find(0, start)
        end = len(dirty) if end < 0 else end
        yield start, end
        start = dirty.find(1, end)


def _harts(rest: AtRest) -> list[HartState]:
    held = []
    for hart in rest.board.engine.harts:
        start = rest.states.pending_start(hart.index)
        place = None if start is None else (start.address, start.opaque)
        held.append(HartState(hart.save(), int(rest.states.state(hart.index)), place))
    return held


def _devices(rest: AtRest) -> list[DeviceState]:
    return [DeviceState(base, type(device).__name__, device.save()) for base, device in rest.board.bus.devices]


def _write_disk(writer: SnapshotWriter, number: int, disk: DiskCut, progress: Progress) -> DiskState:
    """Copy the clusters of a cut into a section of their own."""
    extents = [(first, count) for first, count in disk.extents]
    clusters = sum(count for _, count in extents)
    name = f"disk{number}"
    offset = writer.add(name, clusters * CLUSTER)
    done = 0
    for first, count in extents:
        for at in range(0, count, PIECE // CLUSTER):
            some = min(count - at, PIECE // CLUSTER)
            writer.write(offset + done * CLUSTER, [disk.read(first + at, some)])
            done += some
            progress(done * CLUSTER, clusters * CLUSTER)
    return DiskState(name, disk.name, disk.size, disk.base, extents)
