"""Where things are in the memory that generated code and Python share.

One block a hart, addressed from one pointer (`st`); Python reads and writes it with the same table. Offsets are bytes.

    0x0000  x registers, f registers, a sink for writes to x0
            the engine's own fields, the architectural state, the memory slots
    0x2000  five translation contexts (user, supervisor, supervisor with SUM, machine, machine with MPRV), each
            512 data entries of 32 bytes  (tag of loads, tag of stores, host minus guest address, unused)
            1024 more for those that gave way, found by a hash
            1024 fetch entries of 16 bytes (tag, address of the page's first decoded operation)

A decoded page holds the operations of one physical page of guest code:

    0x0000  host address of the page, its number, which 64-byte lines were decoded, stores taken so far,
            whether it was entered since the search for a page to evict came by
    0x0100  the code as it was when it was decoded (4096 bytes, 16 more where an instruction runs over the end)
    0x1400  2050 operations of 16 bytes, one for each halfword and two for the end

An operation: handler's address (8), immediate (4), rd as a byte offset (2), rs1 and rs2 as byte offsets (1 each).
"""

from __future__ import annotations

from dataclasses import dataclass

from celaje.isa.riscv.state import STATE
from celaje.isa.semantics import StateField

X, F, SINK = 0, 256, 512

OPERATION = 16
OPERATION_IMMEDIATE, OPERATION_RD, OPERATION_RS1, OPERATION_RS2 = 8, 12, 14, 15

PAGE_STRIDE = 1 << 16  # decoded pages are aligned to it, so that an operation's address gives its page
PAGE_HOST, PAGE_NUMBER, PAGE_LINES, PAGE_STORES, PAGE_ENTERED = 0, 8, 16, 24, 32
PAGE_SOURCE, PAGE_OPERATIONS = 0x100, 0x1400
OPERATIONS_A_PAGE = 2050
DECODED_PAGE_BYTES = PAGE_OPERATIONS + OPERATIONS_A_PAGE * OPERATION

DATA_ENTRIES, SECOND_ENTRIES, FETCH_ENTRIES = 512, 1024, 1024
ALL_DATA_ENTRIES = DATA_ENTRIES + SECOND_ENTRIES
DATA_ENTRY, FETCH_ENTRY = 32, 16
TAG_READ, TAG_WRITE, ADDEND = 0, 8, 16
SECOND_PART = DATA_ENTRIES * DATA_ENTRY
FETCH_PART = ALL_DATA_ENTRIES * DATA_ENTRY
CONTEXT_BYTES = FETCH_PART + FETCH_ENTRIES * FETCH_ENTRY
CONTEXT_USER, CONTEXT_SUPERVISOR, CONTEXT_SUM, CONTEXT_MACHINE, CONTEXT_MIXED = range(5)
CONTEXTS = 5

MEMORY_SLOTS = 8
LARGE_REGIONS = 4
QUANTUM = 8192  # instructions between two looks at the world
RECALL_LOOKS = 4  # after so many a hart that was recalled comes back, however busy

# why `run` came back (field `exit`)
EXIT_NONE, EXIT_MMIO_READ, EXIT_MMIO_WRITE, EXIT_HYPERCALL, EXIT_SYSTEM_CALL = 0, 1, 2, 3, 4
EXIT_FAULT, EXIT_INTERRUPTED, EXIT_SHUTDOWN, EXIT_WATCHED, EXIT_IDLE, EXIT_BUSY = 5, 6, 7, 8, 9, 10

# field `mmio`: nothing; answered; refused
MMIO_NONE, MMIO_DONE, MMIO_FAILED = 0, 1, 2

# bytes of field `request`, set from other threads (the last by the hart itself)
REQUEST_LINES, REQUEST_EXIT, REQUEST_TRANSLATIONS, REQUEST_INSTRUCTIONS, REQUEST_WATCHED = 0, 1, 2, 3, 4

ENGINE_FIELDS = (
    StateField("delta", 64),  # guest address of an operation = (its address >> 3) + delta
    StateField("request", 64),
    StateField("wake", 32),  # futex: 1 when a sleeping hart shall look up
    StateField("recall", 64),  # looks at the world until the hart is to come back, or 0: it is not
    StateField("honoured", 32),  # counts the looks at `request`, for those who wait for one
    StateField("retired_base", 64),  # instructions retired = retired_base - remaining
    StateField("remaining", 64),
    StateField("context", 64),  # index of the context in use
    StateField("context_stale", 8),  # mode, status or translation changed since it was chosen
    StateField("mxr", 8),  # the MXR that the contexts were filled under
    StateField("supervisor_private", 8),  # the supervisor contexts hold pages that are not global
    StateField("running", 8),
    StateField("float_ready", 8),  # FS is on and frm is one of the host's modes
    StateField("exit", 64),
    StateField("exit_address", 64),
    StateField("exit_size", 64),
    StateField("exit_value", 64),
    StateField("mmio", 64),
    StateField("mmio_value", 64),
    StateField("mmio_pc", 64),  # the instruction that asked
    StateField("trap_cause", 8),
    StateField("trap_value", 64),
    StateField("last_trap", 64),  # instructions retired at the last trap, and how many since then without any
    StateField("futile_traps", 64),
    StateField("resolved_page", 64),  # number of the page that an access out of line went to, or all ones
    StateField("watch_page", 64),  # number of the page with the watched doubleword, or all ones; its offset there
    StateField("watch_offset", 64),
    StateField("decode_raw", 32, 8),  # operands of the instruction that is being decoded
    StateField("large_base", 64, LARGE_REGIONS),  # regions that hold all superpages which were entered
    StateField("large_mask", 64, LARGE_REGIONS),
    StateField("filled", 64),  # by context: a bit where an entry was made since the context was emptied
    StateField("host_control", 64),
    StateField("handlers", 64),  # address of the table of handlers' addresses
    StateField("decoding", 64),  # address of the decoder's tables
    StateField("page_map", 64),  # address of 32-bit entries: decoded page + 1 of each physical page, or 0
    StateField("patience", 64),  # address of one byte a physical page: how often its code was dropped for its stores
    StateField("arena", 64),  # address of the first decoded page
    StateField("arena_pages", 64),
    StateField("arena_used", 64),
    StateField("arena_next", 64),  # where the search for a page to evict goes on
    StateField("scratch", 64),  # a decoded page for instructions that cross a page's end
    StateField("page_count", 64),  # physical pages in all memory slots
    StateField("clock_gettime", 64),
    StateField("syscall", 64),
    StateField("timespec", 64, 2),
    StateField("clock_offset", 64),  # ticks to add to the host's clock
    StateField("slot_base", 64, MEMORY_SLOTS),
    StateField("slot_size", 64, MEMORY_SLOTS),
    StateField("slot_host", 64, MEMORY_SLOTS),
    StateField("slot_dirty", 64, MEMORY_SLOTS),
    StateField("slot_first_page", 64, MEMORY_SLOTS),
    StateField("data_misses", 64),
    StateField("second_hits", 64),
    StateField("fetch_misses", 64),
    StateField("pages_decoded", 64),
    StateField("pages_evicted", 64),
    StateField("operations_decoded", 64),
    StateField("traps", 64),
    StateField("profile", 64),  # in a program that counts pairs: address of its counters, the handler before
    StateField("profile_last", 64),
    StateField("polls", 64),
)


@dataclass(frozen=True)
class Place:
    """A field and its offset in the block."""

    field: StateField
    offset: int


def _lay_out() -> tuple[dict[str, Place], int]:
    places: dict[str, Place] = {}
    offset = SINK + 8
    for field in (*ENGINE_FIELDS, *STATE):
        if field.name in ("x", "f"):
            places[field.name] = Place(field, X if field.name == "x" else F)
            continue
        size = field.width // 8
        offset = -(-offset // size) * size
        places[field.name] = Place(field, offset)
        offset += size * field.count
    return places, offset


PLACES, _end = _lay_out()
FIELDS = {name: place.field for name, place in PLACES.items()}
CONTEXTS_OFFSET = 0x2000
BLOCK_BYTES = CONTEXTS_OFFSET + CONTEXTS * CONTEXT_BYTES
assert _end <= CONTEXTS_OFFSET
