"""The engine `translate`: RISC-V harts executed by generated code, as `engine.protocol` wants them.

Python's part is small: it lays out a block a hart, fills in addresses, and calls `run`, which comes back with an exit.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from collections.abc import Sequence
from typing import Any

from celaje.engine.memory import PAGE_SIZE, GuestMemory
from celaje.engine.protocol import (
    Exit,
    Fault,
    Hypercall,
    Interrupted,
    MmioRead,
    MmioWrite,
    Recalled,
    Shutdown,
    SystemCall,
    Watched,
)
from celaje.engine.translate.code_cache import LoadedProgram, load_program
from celaje.engine.translate.layout import (
    BLOCK_BYTES,
    CONTEXTS_OFFSET,
    DECODED_PAGE_BYTES,
    EXIT_BUSY,
    EXIT_FAULT,
    EXIT_HYPERCALL,
    EXIT_IDLE,
    EXIT_INTERRUPTED,
    EXIT_MMIO_READ,
    EXIT_MMIO_WRITE,
    EXIT_SHUTDOWN,
    EXIT_SYSTEM_CALL,
    EXIT_WATCHED,
    LARGE_REGIONS,
    MEMORY_SLOTS,
    MMIO_DONE,
    MMIO_FAILED,
    MMIO_NONE,
    PAGE_STRIDE,
    PLACES,
    RECALL_LOOKS,
    REQUEST_EXIT,
    REQUEST_INSTRUCTIONS,
    REQUEST_LINES,
    REQUEST_TRANSLATIONS,
)
from celaje.isa.riscv.saved_state import checked
from celaje.isa.riscv.state import MACHINE, STATE

DECODED_BYTES = 128 << 20  # of decoded code in all harts together; a page of code takes 38 KiB
NANOSECONDS_A_TICK = 100
NO_RESERVATION = (1 << 64) - 1
NO_PAGE = (1 << 64) - 1
YIELDS, LONGER_WAIT = 100, 5e-5  # how often to look for an answer at once; then every so many seconds
READ, WRITE = 0, 1  # of a control register, as celaje.isa.riscv.csr numbers them
# setting one of these changes what addresses mean, or who may use them
TRANSLATION_FIELDS = frozenset({"mode", "mstatus", "satp", "flat", "pmpcfg", "pmpaddr", "pmp_active"})
COUNTERS = {"mcycle": "cycle_offset", "minstret": "instret_offset"}
ALL_MEMORY = 0x1F  # a PMP entry: naturally aligned power of two, read, write, execute
FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine(), 202)
FUTEX_WAKE = 129
_WORDS = {8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_uint64}

_libc = ctypes.CDLL(None)


def _anonymous(size: int) -> tuple[mmap.mmap, int]:
    """Zeroed private memory that costs nothing until it is touched, and its address."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    area = mmap.mmap(-1, size, flags=flags)
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


class TranslateHart:
    """One hart. See `engine.protocol.Hart`."""

    def __init__(self, engine: TranslateEngine, index: int, program: LoadedProgram, arena_pages: int) -> None:
        self.index = index
        self._engine = engine
        self._area, self._block = _anonymous(BLOCK_BYTES)
        self._arrays: dict[str, ctypes.Array[Any]] = {
            name: (_WORDS[place.field.width] * place.field.count).from_address(self._block + place.offset)
            for name, place in PLACES.items()
        }
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(program.run)
        self._access = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_uint64] * 3)(
            program.handlers[program.names.index("access_register")]
        )
        self._exit = self._scalar("exit")
        self._address = self._scalar("exit_address")
        self._size = self._scalar("exit_size")
        self._value = self._scalar("exit_value")
        self._mmio = self._scalar("mmio")
        self._mmio_value = self._scalar("mmio_value")
        self._running = self._scalar("running")
        self._wake = self._scalar("wake")
        self._recall = self._scalar("recall")
        self._wake_address = ctypes.c_void_p(self._block + PLACES["wake"].offset)
        self._request = (ctypes.c_uint8 * 8).from_address(self._block + PLACES["request"].offset)
        self._arena_area, arena = _anonymous((arena_pages + 2) * PAGE_STRIDE)
        aligned = -(-arena // PAGE_STRIDE) * PAGE_STRIDE
        self._page_area: mmap.mmap | None = None
        self._seconds = 0.0
        self._trim_wanted = False
        end = program.handlers[program.names.index("page_end")]
        for slot in (2048, 2049):  # what follows an instruction in the scratch page
            ctypes.c_uint64.from_address(aligned + 0x1400 + slot * 16).value = end
        values = {
            "handlers": engine.handler_table,
            "decoding": program.tables,
            "scratch": aligned,
            "arena": aligned + PAGE_STRIDE,
            "arena_pages": arena_pages,
            "clock_gettime": ctypes.cast(_libc.clock_gettime, ctypes.c_void_p).value or 0,
            "syscall": ctypes.cast(_libc.syscall, ctypes.c_void_p).value or 0,
            "mode": MACHINE,
            "mhartid": index,
            "reservation": NO_RESERVATION,
            "mtimecmp": NO_RESERVATION,
            "stimecmp": NO_RESERVATION,
            "watch_page": NO_PAGE,
        }
        for name, value in values.items():
            self._arrays[name][0] = value
        self._arrays["large_base"][:] = [1] * LARGE_REGIONS
        ctypes.memset(self._block + CONTEXTS_OFFSET, 0xFF, BLOCK_BYTES - CONTEXTS_OFFSET)

    def _scalar(self, name: str) -> ctypes.c_uint64:
        place = PLACES[name]
        # every width has the same `value`, which is all that is used
        return _WORDS[place.field.width].from_address(self._block + place.offset)  # type: ignore[return-value]

    def _attach(self, slots: Sequence[GuestMemory]) -> None:
        pages = 0
        for number, memory in enumerate(slots):
            for name, value in (
                ("slot_base", memory.base),
                ("slot_size", memory.size),
                ("slot_host", memory.host_address),
                ("slot_dirty", memory.dirty_address),
                ("slot_first_page", pages),
            ):
                self._arrays[name][number] = value
            pages += memory.size // PAGE_SIZE
        self._page_area, address = _anonymous(5 * pages)
        self._arrays["page_map"][0] = address
        self._arrays["patience"][0] = address + 4 * pages
        self._arrays["page_count"][0] = pages

    # ---- the protocol

    def run(self) -> Exit:
        """Execute until an exit. See `engine.protocol.Hart.run`."""
        if self._trim_wanted:
            self._trim()
        self._running.value = 1
        started = time.perf_counter()
        self._call(self._block)
        self._seconds += time.perf_counter() - started
        self._running.value = 0
        reason = self._exit.value
        if reason == EXIT_MMIO_WRITE:
            self._mmio.value = MMIO_DONE
            return MmioWrite(self._address.value, self._size.value, self._value.value)
        if reason == EXIT_MMIO_READ:
            return MmioRead(self._address.value, self._size.value)
        if reason == EXIT_HYPERCALL:
            return Hypercall()
        if reason in (EXIT_IDLE, EXIT_BUSY):
            return Recalled(reason == EXIT_IDLE)
        if reason == EXIT_INTERRUPTED:
            return Interrupted()
        if reason == EXIT_SYSTEM_CALL:
            return SystemCall()
        if reason == EXIT_WATCHED:
            return Watched()
        if reason == EXIT_FAULT:
            return Fault(self.get("trap_cause"), self.get("trap_value"))
        assert reason == EXIT_SHUTDOWN, reason
        return Shutdown(
            f"hart {self.index} traps without end at pc {self.get('pc'):#x}: cause {self.get('trap_cause')},"
            f" value {self.get('trap_value'):#x}"
        )

    def complete_read(self, value: int) -> None:
        """Answer a read."""
        self._mmio_value.value = value
        self._mmio.value = MMIO_DONE

    def fail_access(self) -> None:
        """Refuse the last access."""
        self._mmio.value = MMIO_FAILED

    def _ask(self, what: int) -> None:
        self._request[what] = 1
        if self._running.value:
            self._wake.value = 1
            _libc.syscall(FUTEX, self._wake_address, FUTEX_WAKE, 1, None)

    def interrupt(self) -> None:
        """Make `run` return Interrupted."""
        self._ask(REQUEST_EXIT)

    def recall(self) -> None:
        """Come back when idle, or soon."""
        if not self._recall.value:  # counting anew, a hart that stores to devices all the time would never come back
            self._recall.value = 1 + RECALL_LOOKS

    def set_line(self, line: int, level: bool) -> None:
        """Drive an interrupt line."""
        self._arrays["lines"][line] = level
        self._ask(REQUEST_LINES)

    def _ask_and_wait(self, what: int) -> None:
        # The hart makes `honoured` odd, takes the requests, does them, makes it even again. So one that is taken is
        # done as soon as the count is even, or another one than it was once after.
        honoured = self._arrays["honoured"]
        self._ask(what)
        patience = iter(range(YIELDS))
        while self._running.value and self._request[what]:
            time.sleep(0 if next(patience, None) is not None else LONGER_WAIT)
        before = honoured[0]
        while self._running.value and before & 1 and honoured[0] == before:
            time.sleep(0)

    def flush_translations(self) -> None:
        """Returns when no old translation is in use."""
        self._ask_and_wait(REQUEST_TRANSLATIONS)

    def flush_instructions(self) -> None:
        """Returns when code will be fetched as memory has it now."""
        self._ask_and_wait(REQUEST_INSTRUCTIONS)

    def get(self, field: str, index: int = 0) -> int:
        """A state field, else a control register by name."""
        if field not in PLACES:
            return self._control(field, READ, 0)
        return int(self._arrays[field][index])

    def _control(self, name: str, operation: int, operand: int) -> int:
        """Access a control register as machine mode would."""
        # Imported here: starting a machine needs no tables.
        from celaje.isa.riscv.csr import NUMBERS

        self._access(self._block, NUMBERS[name], operation, operand)
        if self._exit.value and operation == READ:
            raise KeyError(name)
        if self._exit.value:
            raise ValueError(f"{name} cannot be written")
        if operation == WRITE and name in COUNTERS:
            # csr.py takes it for an instruction, which would be counted after its write
            offset = self._arrays[COUNTERS[name]]
            offset[0] = offset[0] + 1
        return self._value.value

    def set(self, field: str, value: int, index: int = 0) -> None:
        """Set a state field, else a control register by name."""
        width = PLACES[field].field.width if field in PLACES else 64
        if not 0 <= value < 1 << width:
            raise ValueError(f"{field} has {width} bits; {value:#x} does not fit")
        if field not in PLACES:
            self._control(field, WRITE, value)
            self._request[REQUEST_TRANSLATIONS] = 1
            return
        if field == "x" and index == 0:
            return
        self._arrays[field][index] = value
        if field == "pc":
            self._mmio.value = MMIO_NONE  # an instruction that was answered is not the next one any more
        if field == "mtimecmp":
            self._ask(REQUEST_LINES)
        elif field in TRANSLATION_FIELDS:
            self._request[REQUEST_TRANSLATIONS] = 1
        if field == "pmpcfg":
            active = [number for number, entry in enumerate(self._arrays["pmpcfg"]) if entry & 0x18]
            self._arrays["pmp_active"][0] = max(active, default=-1) + 1
        if field == "flat" and value:
            self.set("pmpaddr", (1 << 54) - 1)
            self.set("pmpcfg", ALL_MEMORY)
            self.set("mode", 0)

    def save(self) -> dict[str, list[int]]:
        """The whole architectural state."""
        state = {field.name: [int(value) for value in self._arrays[field.name]] for field in STATE}
        state["reservation"] = [NO_RESERVATION]
        retired = self._retired()
        for name in ("cycle_offset", "instret_offset"):  # counts go on from here in a hart that has retired nothing
            state[name] = [(state[name][0] + retired) % (1 << 64)]
        return state

    def restore(self, state: dict[str, list[int]]) -> None:
        """Put back what `save` gave."""
        state = checked(state, xlen=64)
        retired = self._retired()
        for name, values in state.items():
            for index, value in enumerate(values):
                self._arrays[name][index] = value
        for name in ("cycle_offset", "instret_offset"):
            self._arrays[name][0] = (state[name][0] - retired) % (1 << 64)
        self._mmio.value = MMIO_NONE
        self._request[REQUEST_TRANSLATIONS] = 1
        self._request[REQUEST_INSTRUCTIONS] = 1

    def _retired(self) -> int:
        return (self.get("retired_base") - self.get("remaining")) % (1 << 64)

    def trim(self) -> None:
        """Have the hart's own thread forget all decoded code, now or before it goes on."""
        self._trim_wanted = True
        self.interrupt()

    def _trim(self) -> None:
        self._trim_wanted = False
        for name in ("arena_used", "arena_next"):
            self._arrays[name][0] = 0
        if self._page_area is not None:
            self._page_area.madvise(mmap.MADV_DONTNEED)
        self._request[REQUEST_INSTRUCTIONS] = 1
        first = self.get("arena") - ctypes.addressof(ctypes.c_char.from_buffer(self._arena_area))
        self._arena_area.madvise(mmap.MADV_DONTNEED, first)


class TranslateEngine:
    """The harts of one machine. See `engine.protocol.Engine`."""

    def __init__(
        self, hart_count: int = 1, decoded_bytes: int = DECODED_BYTES, program: LoadedProgram | None = None
    ) -> None:
        if not 1 <= hart_count <= 64:
            raise ValueError(f"a machine has 1 to 64 harts, not {hart_count}")
        self._program = program or load_program()
        table = (ctypes.c_uint64 * len(self._program.handlers))(*self._program.handlers)
        self._handler_table = table
        self.handler_table = ctypes.addressof(table)
        self._slots: list[GuestMemory] = []
        pages = max(16, decoded_bytes // hart_count // DECODED_PAGE_BYTES)
        self._harts = [TranslateHart(self, index, self._program, pages) for index in range(hart_count)]
        self.set_time(0)

    @property
    def harts(self) -> Sequence[TranslateHart]:
        """The machine's harts."""
        return self._harts

    def add_memory(self, memory: GuestMemory) -> None:
        """Make memory appear to the guest."""
        if len(self._slots) == MEMORY_SLOTS:
            raise ValueError(f"a machine has at most {MEMORY_SLOTS} memory slots")
        if any(memory.base < s.base + s.size and s.base < memory.base + memory.size for s in self._slots):
            raise ValueError(f"memory at {memory.base:#x} overlaps another slot")
        self._slots.append(memory)
        for hart in self._harts:
            hart._attach(self._slots)

    def watch(self, address: int) -> None:
        """Have harts leave after stores to a doubleword."""
        first = 0
        for memory in self._slots:
            if memory.contains(address, 8) and address % 8 == 0:
                for hart in self._harts:
                    hart.set("watch_page", first + (address - memory.base) // PAGE_SIZE)
                    hart.set("watch_offset", address % PAGE_SIZE)
                return
            first += memory.size // PAGE_SIZE
        raise ValueError(f"{address:#x} is no doubleword in a memory slot")

    def time(self) -> int:
        """Ticks of the guest's clock."""
        return (time.monotonic_ns() // NANOSECONDS_A_TICK + self._offset) % (1 << 64)

    def set_time(self, ticks: int) -> None:
        """Set the guest's clock."""
        self._offset = (ticks - time.monotonic_ns() // NANOSECONDS_A_TICK) % (1 << 64)
        for hart in self._harts:
            hart._arrays["clock_offset"][0] = self._offset
            hart._ask(REQUEST_LINES)  # one that sleeps until a timer is due looks at the clock again

    def start_dirty_log(self) -> None:
        """From now on, changed pages are marked."""
        self.take_dirty_log()

    def take_dirty_log(self) -> list[bytes]:
        """Which pages changed since the last take."""
        taken = []
        for memory in self._slots:
            changed = bytes(memory.dirty)
            taken.append(changed)
            # Only what is in the copy may be cleared: harts and devices mark pages meanwhile.
            start = changed.find(1)
            while start >= 0:
                end = changed.find(0, start)
                ctypes.memset(memory.dirty_address + start, 0, (len(changed) if end < 0 else end) - start)
                start = changed.find(1, end) if end >= 0 else -1
        # Entries filled before still store without marking. Their pages are in what was just taken, and stay to be
        # copied by whoever took it until this returns.
        for hart in self._harts:
            hart.flush_translations()
        return taken

    def trim(self) -> None:
        """Give decoded code back to the host. Harts that run come back with Interrupted for it."""
        for hart in self._harts:
            hart.trim()

    def statistics(self) -> dict[str, int | float]:
        """Counters since the start."""
        harts = self._harts
        decoded = sum(hart.get("arena_used") for hart in harts)
        return {
            "instructions": sum(hart._retired() for hart in harts),
            "guest_seconds": sum(hart._seconds for hart in harts),
            "tlb_misses": sum(hart.get("data_misses") + hart.get("fetch_misses") for hart in harts),
            "data_misses": sum(hart.get("data_misses") for hart in harts),
            "fetch_misses": sum(hart.get("fetch_misses") for hart in harts),
            "traps": sum(hart.get("traps") for hart in harts),
            "decoded_pages": decoded,
            "decoded_bytes": decoded * DECODED_PAGE_BYTES,
            "decodings": sum(hart.get("operations_decoded") for hart in harts),
            "evictions": sum(hart.get("pages_evicted") for hart in harts),
        }

    def close(self) -> None:
        """Release the harts. The areas go when nothing refers to them."""
        self._harts = []
        self._slots = []
