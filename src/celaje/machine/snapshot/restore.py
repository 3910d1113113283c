"""Putting a snapshot back: memory is mapped copy-on-write and read as the guest touches it, so a machine of any size
goes on at once; harts and devices judge what they are given, as it may come from anybody.

The guest's clock goes on from where it stood, so nothing that waits finds its time long past. The date is the
real-time clock's, which is right at once; a guest that listens to the generation identifier sets its own by it.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from celaje.engine.memory import PAGE_SIZE
from celaje.errors import InputError
from celaje.machine.board import RAM_BASE, Board, HtifSymbols
from celaje.machine.devices.plic import Plic
from celaje.machine.hart_states import HartState, HartStates, StartRequest
from celaje.machine.processor import ProcessorDescription
from celaje.machine.snapshot.file import HASH_BYTES, SnapshotFile, map_section
from celaje.machine.snapshot.state import MachineState, decode

_STATES = (HartState.STARTED, HartState.STOPPED, HartState.START_PENDING)


class Restored:
    """What a machine begins with. NotFound or InputError where the file at `path` is no whole snapshot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = SnapshotFile(path)
        try:
            self.state: MachineState = decode(self.file.state)
            self._check()
            self.changed = bytearray(self.memory_size // PAGE_SIZE)
            """A byte for each page that dirty logs taken since have told of: those are not the file's any more."""
        except ValueError as error:
            self.file.close()
            raise InputError(f"the machine snapshot {path} cannot be restored: {error}") from error
        except BaseException:
            self.file.close()
            raise

    def _check(self) -> None:
        slots = self.state.memory
        if len(slots) != 1 or slots[0].base != RAM_BASE or slots[0].size <= 0 or slots[0].size % PAGE_SIZE:
            raise ValueError(f"its memory is not whole pages from {RAM_BASE:#x}: {slots}")
        self.file.section(slots[0].section, slots[0].size)

    @property
    def memory_size(self) -> int:
        """Bytes of the guest's memory."""
        return self.state.memory[0].size

    @property
    def cpus(self) -> int:
        """How many harts there are."""
        return len(self.state.harts)

    @property
    def htif(self) -> HtifSymbols | None:
        """The doublewords of a bare-metal program."""
        return None if self.state.htif is None else HtifSymbols(*self.state.htif)

    @property
    def information(self) -> int | None:
        """Where firmware finds what starts next; None for a machine that was not started in machine mode."""
        return self.state.information if self.state.firmware else None

    def judge(self, memory: int, cpus: int, processor: ProcessorDescription) -> None:
        """Refuse a machine that is not what the snapshot is of. InputError names the difference."""
        for what, saved, here in (
            ("bytes of memory", self.memory_size, memory),
            ("harts", self.cpus, cpus),
            ("the instruction set", self.state.isa, processor.isa),
        ):
            if saved != here:
                raise InputError(
                    f"the machine snapshot {self.path} has {what} {saved}, and this machine {here}; restore it "
                    "with a celaje and options that give the same"
                )

    def memory(self) -> mmap.mmap:
        """The guest's memory, to be written at will."""
        return map_section(self.file, self.file.section(self.state.memory[0].section))

    def put_back(self, board: Board, states: HartStates) -> None:
        """Let harts and devices hold what they held. Nothing may run yet. InputError says what does not fit."""
        windows = [*board.virtio, *(slot.window for slot in board.slots if slot.window is not None)]
        for window in windows:
            window.pause()
        try:
            self._put_back(board, states)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(f"the machine snapshot {self.path} cannot be restored: {error}") from error
        finally:
            for window in windows:
                window.resume()

    def _put_back(self, board: Board, states: HartStates) -> None:
        devices = board.bus.devices
        saved = [(one.base, one.kind) for one in self.state.devices]
        here = [(base, type(device).__name__) for base, device in devices]
        if saved != here:
            wrong = sorted(set(saved) ^ set(here))
            raise ValueError(f"its devices are not this machine's: {', '.join(f'{k} at {b:#x}' for b, k in wrong)}")
        at_rest: list[tuple[HartState, StartRequest | None]] = []
        for hart, held in zip(board.engine.harts, self.state.harts, strict=True):
            if held.state not in _STATES or (held.state == HartState.START_PENDING) != (held.start is not None):
                raise ValueError(f"hart {hart.index} cannot be in state {held.state}")
            hart.restore(held.registers)
            at_rest.append((HartState(held.state), None if held.start is None else StartRequest(*held.start)))
        states.restore(at_rest)

        # The interrupt controller comes first: a device that is put back drives its line as it was, which changes
        # nothing then, and one that has something new to say (a network card announces itself) is heard.
        pairs = [(one.state, device) for one, (_, device) in zip(self.state.devices, devices, strict=True)]
        for state, device in sorted(pairs, key=lambda pair: not isinstance(pair[1], Plic)):
            device.restore(state)
        if board.htif is not None:
            board.htif.resume(self.state.htif_wants_input)
        board.generation.renew()

    def block_hash(self, number: int) -> bytes:
        """What the index says of a block of 64 KiB of memory."""
        hashes = self.file.section(self.state.memory[0].section).hashes
        return hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]

    def altered(self, number: int) -> InputError:
        """The error for a block of memory that is not what its hash says."""
        return self.file.altered(self.file.section(self.state.memory[0].section), number)

    def close(self) -> None:
        """Close the file; the mapping of its memory stays."""
        self.file.close()
