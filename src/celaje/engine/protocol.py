"""The one protocol that every engine speaks.

An engine executes guest instructions. What is around the processor (boards, devices, disks, snapshots, migration)
sees only this: memory slots; a hart that runs until an exit; named, typed state; interrupt lines; a dirty log. It is
shaped after Linux's KVM_RUN, so that an engine made of /dev/kvm and one made of generated code are the same to them.

Threads: each hart is run by one thread of its own. `interrupt`, `set_line`, `flush_translations` and
`flush_instructions` may be called from any thread; `get` and `set` only while the hart is not inside `run`, except for
fields that are documented as shared (`mtimecmp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from celaje.engine.memory import GuestMemory


@dataclass(slots=True)  # not frozen: that would make each exit a microsecond slower
class MmioRead:
    """The guest loads `size` bytes (1, 2, 4, 8) from `address`, where no memory is.

    Answer: `complete_read` or `fail_access`.
    """

    address: int
    size: int


@dataclass(slots=True)  # not frozen: that would make each exit a microsecond slower
class MmioWrite:
    """The guest stored `value` (unsigned, `size` bytes) to `address`, where no memory is.

    May be answered by `fail_access`.
    """

    address: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class PortRead:
    """The guest reads `size` bytes (1, 2, 4) from I/O `port`. Answer: `complete_read`. Only on x86."""

    port: int
    size: int


@dataclass(frozen=True, slots=True)
class PortWrite:
    """The guest wrote `value` to I/O `port`. Only on x86."""

    port: int
    size: int
    value: int


@dataclass(frozen=True, slots=True)
class Hypercall:
    """The guest called what runs it (RISC-V: `ecall` to the SBI).

    Arguments are in the hart's registers; the program counter is already past the call.
    """


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A user-mode hart without a board executed its system call instruction. The program counter is already past it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A user-mode hart without a board trapped, as the architecture numbers `cause` and `value`; an access where no
    memory is, too.

    The program counter is at the instruction.
    """

    cause: int
    value: int


@dataclass(frozen=True, slots=True)
class Halt:
    """The hart waits for an interrupt that nothing here can raise; only `set_line` or `interrupt` will change that."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The hart cannot go on (RISC-V: a handler traps at its own first instruction, for ever).

    `reason` is for a person.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody called `interrupt`."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The hart has stored to the doubleword that `Engine.watch` was given; the store is done, and more may be."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """`recall` was called; `idle` tells whether the hart has nothing to do but to wait for an interrupt."""

    idle: bool


Exit = (
    MmioRead
    | MmioWrite
    | PortRead
    | PortWrite
    | Hypercall
    | SystemCall
    | Fault
    | Halt
    | Shutdown
    | Interrupted
    | Watched
    | Recalled
)


class Hart(Protocol):
    """One virtual processor."""

    @property
    def index(self) -> int:
        """Its number, from 0 (on RISC-V: mhartid)."""

    def run(self) -> Exit:
        """Execute guest instructions until something outside is needed. Releases the GIL while it does."""

    def complete_read(self, value: int) -> None:
        """Give the value that the last MmioRead or PortRead asked for. The next `run` finishes that instruction."""

    def fail_access(self) -> None:
        """Nothing answers at the last MMIO address: the next `run` takes an access fault for it."""

    def interrupt(self) -> None:
        """Make `run` return Interrupted soon (or at its next call, if it is not running)."""

    def recall(self) -> None:
        """Make one of the next `run`s return Recalled: where the hart would wait for an interrupt, or else after some
        ten thousand instructions. By the hart's own thread, between two runs; a second time before that counts as one.
        """

    def set_line(self, line: int, level: bool) -> None:
        """Drive interrupt line `line`; wakes a waiting hart.

        RISC-V: the bit number in mip: 3 MSI, 9 SEI, 11 MEI (the timers are the hart's own); and 1 SSI, which is an
        edge: it sets sip.SSIP, and the guest clears that.
        """

    def flush_translations(self) -> None:
        """Returns when the hart no longer uses any address translation from before the call."""

    def flush_instructions(self) -> None:
        """Returns when the hart will fetch instructions as they stand in memory now."""

    def get(self, field: str, index: int = 0) -> int:
        """State by name (RISC-V: 'pc', 'mode', 'x' and 'f' with index, any CSR's name). KeyError for one it lacks."""

    def set(self, field: str, value: int, index: int = 0) -> None:
        """Set what `get` gets. ValueError for a value wider than the field."""

    def save(self) -> dict[str, list[int]]:
        """The whole architectural state, each field as a list of its elements.

        After an MMIO or port exit the instruction is not finished: call `interrupt` and `run` until Interrupted first.
        """

    def restore(self, state: dict[str, list[int]]) -> None:
        """Put back what `save` gave. ValueError names what is missing or impossible, and nothing is changed then."""


class Engine(Protocol):
    """Executes the harts of one machine."""

    @property
    def harts(self) -> Sequence[Hart]:
        """The machine's harts, hart i at index i. Each starts with its pc at 0, in the most privileged mode."""

    def add_memory(self, memory: GuestMemory) -> None:
        """Make `memory` appear at its guest-physical base. Before the first `run`; slots may not overlap."""

    def watch(self, address: int) -> None:
        """Have harts leave with Watched, soon, after a store to any of the 8 bytes at guest-physical `address`.

        A multiple of 8 in a memory slot that was added before. One address; before the first `run`.
        """

    def time(self) -> int:
        """The guest's clock now, in ticks of its timebase (10 MHz on the virt board); what the guest reads too."""

    def set_time(self, ticks: int) -> None:
        """Let the guest's clock read `ticks` now and go on from there."""

    def start_dirty_log(self) -> None:
        """From now on every page that the guest changes is marked in `GuestMemory.dirty`."""

    def take_dirty_log(self) -> list[bytes]:
        """For each memory slot, one byte a page (1: changed since the last take), cleared as it is taken."""

    def trim(self) -> None:
        """Give back host memory that can be made again (decoded code): soon, from any thread. Harts that run may come
        back with Interrupted for it."""

    def statistics(self) -> dict[str, int | float]:
        """Counters since the start: 'instructions', 'guest_seconds', 'tlb_misses', 'decoded_pages', 'decoded_bytes'."""

    def close(self) -> None:
        """Release everything. No hart may be running."""
