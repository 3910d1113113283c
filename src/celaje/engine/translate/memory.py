"""The software MMU: what happens when an access does not find its page in the translation contexts.

Written in the language of the tables' semantics, with host memory in addition, and rendered like them. The fast path
is in `handlers.py`: tag compare, addend, access. Everything here is out of line.
"""

from __future__ import annotations

from typing import Any

from celaje.engine.translate.decoding import code_written
from celaje.engine.translate.layout import (
    ADDEND,
    ALL_DATA_ENTRIES,
    CONTEXT_BYTES,
    CONTEXT_MACHINE,
    CONTEXT_MIXED,
    CONTEXT_SUM,
    CONTEXT_SUPERVISOR,
    CONTEXT_USER,
    CONTEXTS,
    CONTEXTS_OFFSET,
    DATA_ENTRIES,
    DATA_ENTRY,
    EXIT_MMIO_READ,
    EXIT_MMIO_WRITE,
    FETCH_ENTRIES,
    FETCH_ENTRY,
    FETCH_PART,
    LARGE_REGIONS,
    MEMORY_SLOTS,
    MMIO_DONE,
    MMIO_FAILED,
    MMIO_NONE,
    SECOND_ENTRIES,
    SECOND_PART,
    TAG_READ,
    TAG_WRITE,
)
from celaje.isa.riscv.paging import GLOBAL, MAY_READ, MAY_WRITE, access_fault, data_mode, translate
from celaje.isa.riscv.pmp import pmp_allows, pmp_is_uniform
from celaje.isa.riscv.privilege import LOAD, MPRV, MXR_BIT, STORE, SUM
from celaje.isa.riscv.state import MACHINE, USER
from celaje.isa.semantics import Value, routine

PAGE = 4096
OFFSET = PAGE - 1
NO_TAG = -1
NEAR = 1 << 34  # superpages closer than that share a region
NO_PAGE = -1


@routine(parameters=(64,), results=(64, 64, 64))
def memory_at(h: Any, address: Value) -> None:
    """(host address, host address of the page's dirty byte, number of the page among all slots) of a guest-physical
    address; zeros where no memory is."""
    with h.count(MEMORY_SLOTS, 64) as slot:
        offset = address - h.read("slot_base", slot)
        with h.when(offset.below(h.read("slot_size", slot))):
            page = offset >> 12
            h.give(
                h.read("slot_host", slot) + offset,
                h.read("slot_dirty", slot) + page,
                h.read("slot_first_page", slot) + page,
            )
    h.give(0, 0, 0)


# ---- contexts


@routine(parameters=(64,), results=(64,))
def context_address(h: Any, index: Value) -> None:
    """Where context `index` is."""
    h.give(h.block_address() + CONTEXTS_OFFSET + index * CONTEXT_BYTES)


@routine(parameters=(64,), results=(64,))
def second_place(h: Any, address: Value) -> None:
    """Where in a context the page of an address is kept when it has given way to another: pages that are a power of
    two apart, as stacks and page descriptors are, shall not meet here again."""
    number = address >> 12
    h.give(((number ^ (number >> 9)) & (SECOND_ENTRIES - 1)) * DATA_ENTRY + SECOND_PART)


@routine(parameters=(64,), results=())
def forget_data(h: Any, context: Value) -> None:
    """Empty the data entries of the context at an address."""
    with h.count(ALL_DATA_ENTRIES, 64) as index:
        entry = context + index * DATA_ENTRY
        h.host_store(entry + TAG_READ, h.constant(NO_TAG, 64))
        h.host_store(entry + TAG_WRITE, h.constant(NO_TAG, 64))
    h.give()


@routine(parameters=(64,), results=())
def forget_fetch(h: Any, context: Value) -> None:
    """Empty the fetch entries of the context at an address."""
    with h.count(FETCH_ENTRIES, 64) as index:
        h.host_store(context + FETCH_PART + index * FETCH_ENTRY, h.constant(NO_TAG, 64))
    h.give()


@routine(parameters=(64,), results=())
def forget_context(h: Any, index: Value) -> None:
    """Empty context `index`, which costs nothing where nothing was entered."""
    bit = h.constant(1, 64) << index
    with h.when((h.filled & bit).eq(0)):
        h.give()
    h.filled = h.filled & ~bit
    address = h.call(context_address, index)[0]
    h.call(forget_data, address)
    h.call(forget_fetch, address)
    h.give()


@routine(parameters=(), results=())
def forget_translations(h: Any) -> None:
    """Empty every context."""
    with h.count(CONTEXTS, 64) as index:
        h.call(forget_context, index)
    h.supervisor_private = 0
    for region in range(LARGE_REGIONS):
        h.write("large_base", 1, region)
        h.write("large_mask", 0, region)
    h.context_stale = 1
    h.give()


@routine(parameters=(), results=())
def forget_instructions(h: Any) -> None:
    """Empty the fetch entries of every context: code is compared with memory before it is entered again."""
    with h.count(CONTEXTS, 64) as index:
        h.call(forget_fetch, h.call(context_address, index)[0])
    h.context_stale = 1
    h.give()


@routine(parameters=(), results=())
def forget_address_space(h: Any) -> None:
    """satp was written: what the old tables filled goes, but for a supervisor context of global pages alone."""
    h.call(forget_context, CONTEXT_USER)
    h.call(forget_context, CONTEXT_SUM)
    h.call(forget_context, CONTEXT_MIXED)
    with h.when(h.supervisor_private.ne(0)):
        h.call(forget_context, CONTEXT_SUPERVISOR)
        h.supervisor_private = 0
    h.context_stale = 1
    h.give()


@routine(parameters=(64,), results=())
def forget_page(h: Any, address: Value) -> None:
    """sfence.vma of one address."""
    h.context_stale = 1
    large = h.constant(0, 1)
    for region in range(LARGE_REGIONS):
        large = large | (address & h.read("large_mask", region)).eq(h.read("large_base", region))
    with h.when(large):
        h.call(forget_translations)
        h.give()
    data = ((address >> 12) & (DATA_ENTRIES - 1)) * DATA_ENTRY
    second = h.call(second_place, address)[0]
    fetch = ((address >> 12) & (FETCH_ENTRIES - 1)) * FETCH_ENTRY
    with h.count(CONTEXTS, 64) as index:
        context = h.call(context_address, index)[0]
        h.host_store(context + data + TAG_READ, h.constant(NO_TAG, 64))
        h.host_store(context + data + TAG_WRITE, h.constant(NO_TAG, 64))
        h.host_store(context + second + TAG_READ, h.constant(NO_TAG, 64))
        h.host_store(context + second + TAG_WRITE, h.constant(NO_TAG, 64))
        h.host_store(context + FETCH_PART + fetch, h.constant(NO_TAG, 64))
    h.give()


@routine(parameters=(64, 8), results=())
def note_large(h: Any, address: Value, level: Value) -> None:
    """A superpage is about to be entered: have a region hold it. A kernel has superpages in two places far apart, its
    image and all of memory; between them lies what it maps and unmaps by the page."""
    with h.when(level.eq(0)):
        h.give()
    size = h.constant(PAGE, 64) << (level.zext(64) * 9)
    base = address & ~(size - 1)
    with h.count(LARGE_REGIONS, 64) as region:
        mask = h.read("large_mask", region)
        with h.when((base & mask).eq(h.read("large_base", region)) & (mask & (size - 1)).eq(0)):
            h.give()
    chosen = h.variable(0, 64)
    with h.loop():  # the first that is near, or free, or else the last
        region = chosen.get()
        free = h.read("large_mask", region).eq(0) & h.read("large_base", region).ne(0)
        near = (h.read("large_base", region) ^ base).below(NEAR)
        with h.when(free | near | region.eq(LARGE_REGIONS - 1)):
            h.leave()
        chosen.set(region + 1)
    region = chosen.get()
    with h.when(h.read("large_mask", region).eq(0) & h.read("large_base", region).ne(0)):
        h.write("large_base", base, region)
        h.write("large_mask", ~(size - 1), region)
        h.give()
    wider = h.variable(h.read("large_mask", region) & ~(size - 1))
    with h.loop():
        with h.when(((h.read("large_base", region) ^ base) & wider.get()).eq(0)):
            h.leave()
        wider.set(wider.get() << 1)
    h.write("large_mask", wider.get(), region)
    h.write("large_base", h.read("large_base", region) & wider.get(), region)
    h.give()


@routine(parameters=(), results=(64,))
def choose_context(h: Any) -> None:
    """The address of the context for the hart's mode and status as they are now."""
    h.context_stale = 0
    mxr = h.mstatus.bit(MXR_BIT).zext(8)
    with h.when(mxr.ne(h.mxr)):
        h.mxr = mxr
        h.call(forget_translations)
        h.context_stale = 0
    mode = h.call(data_mode)[0]
    own = h.mode
    mixed = own.eq(MACHINE) & (h.mstatus & MPRV).ne(0)
    with h.when(mixed & mode.ne(MACHINE)):
        h.call(forget_context, CONTEXT_MIXED)
        h.context = CONTEXT_MIXED
        h.give(h.call(context_address, CONTEXT_MIXED)[0])
    supervisor = (h.mstatus & SUM).ne(0).select(CONTEXT_SUM, CONTEXT_SUPERVISOR, 64)
    index = own.eq(USER).select(CONTEXT_USER, own.eq(MACHINE).select(CONTEXT_MACHINE, supervisor))
    h.context = index
    h.give(h.call(context_address, index)[0])


# ---- data accesses

FAILED, MEMORY, DEVICE = 0, 1, 2


@routine(parameters=(64, 8), results=(8,))
def refuse(h: Any, address: Value, access: Value) -> None:
    """An access fault at `address`; gives FAILED."""
    h.trap_cause = h.call(access_fault, access)[0]
    h.trap_value = address
    h.give(FAILED)


@routine(parameters=(64, 64), results=())
def give_way(h: Any, context: Value, entry: Value) -> None:
    """The entry is about to be another page's: keep it in the second place."""
    tag_read, tag_write = h.host_load(entry + TAG_READ, 64), h.host_load(entry + TAG_WRITE, 64)
    page = tag_read & tag_write  # the one that there is
    with h.when(page.ne(NO_TAG)):
        second = context + h.call(second_place, page)[0]
        h.host_store(second + TAG_READ, tag_read)
        h.host_store(second + TAG_WRITE, tag_write)
        h.host_store(second + ADDEND, h.host_load(entry + ADDEND, 64))
    h.give()


@routine(parameters=(64, 64, 8), results=(8, 64))
def resolve(h: Any, address: Value, size: Value, access: Value) -> None:
    """Translate an access that stays in one page and enter its page: (MEMORY, host address), (DEVICE, guest-physical
    address) or (FAILED, 0) with trap_cause and trap_value set."""
    context = h.call(context_address, h.context)[0]
    entry = context + ((address >> 12) & (DATA_ENTRIES - 1)) * DATA_ENTRY
    page = address & ~OFFSET
    is_store = access.eq(STORE)
    tag = h.host_load(entry + is_store.select(TAG_WRITE, TAG_READ, 64), 64)
    h.resolved_page = NO_PAGE
    with h.when(tag.eq(page)):  # only misaligned, or wider than a register; no code is there
        h.give(MEMORY, address + h.host_load(entry + ADDEND, 64))
    second = context + h.call(second_place, address)[0]
    tag_read, tag_write = h.host_load(second + TAG_READ, 64), h.host_load(second + TAG_WRITE, 64)
    with h.when(is_store.select(tag_write, tag_read).eq(page)):
        addend = h.host_load(second + ADDEND, 64)
        h.call(give_way, context, entry)
        h.host_store(entry + TAG_READ, tag_read)
        h.host_store(entry + TAG_WRITE, tag_write)
        h.host_store(entry + ADDEND, addend)
        h.second_hits = h.second_hits + 1
        h.give(MEMORY, address + addend)
    h.data_misses = h.data_misses + 1
    mode = h.call(data_mode)[0]
    physical, cause, permissions, level = h.call(translate, address, access, mode)
    with h.when(cause.ne(0)):
        h.trap_cause = cause
        h.trap_value = address
        h.give(FAILED, 0)
    allowed = h.call(pmp_allows, physical, size, access, mode)[0]
    with h.when(allowed.eq(0)):
        h.trap_cause = h.call(access_fault, access)[0]
        h.trap_value = address
        h.give(FAILED, 0)
    host, dirty, number = h.call(memory_at, physical)
    with h.when(host.eq(0)):
        with h.when(h.flat.ne(0)):  # no board, so nothing is there
            h.give(h.call(refuse, address, access)[0], 0)
        h.give(DEVICE, physical)
    with h.when(is_store):
        h.host_store(dirty, h.constant(1, 8))
    h.resolved_page = number
    physical_page = physical & ~OFFSET
    uniform = h.call(pmp_is_uniform, physical_page)[0]
    with h.when(uniform.eq(0)):
        h.give(MEMORY, host)
    h.call(note_large, address, level)
    with h.when((permissions & GLOBAL).eq(0) & h.context.eq(CONTEXT_SUPERVISOR)):
        h.supervisor_private = 1

    has_code = h.host_load(h.page_map + number * 4, 32).ne(0) | number.eq(h.watch_page)
    other_mask = is_store.select(MAY_READ, MAY_WRITE, 8)
    with h.when(is_store):
        with h.when(has_code):  # every store to it is looked at
            h.give(MEMORY, host)
        h.call(give_way, context, entry)
        readable = (permissions & other_mask).ne(0) & h.call(pmp_allows, physical_page, PAGE, LOAD, mode)[0]
        h.host_store(entry + TAG_WRITE, page)
        h.host_store(entry + TAG_READ, readable.select(page, NO_TAG))
    with h.otherwise():
        same = h.host_load(entry + TAG_WRITE, 64).eq(page)
        with h.when(~same):
            h.call(give_way, context, entry)
            h.host_store(entry + TAG_WRITE, h.constant(NO_TAG, 64))
        h.host_store(entry + TAG_READ, page)
    h.host_store(entry + ADDEND, host - address)
    h.filled = h.filled | (h.constant(1, 64) << h.context)
    h.give(MEMORY, host)


@routine(parameters=(64, 64), results=(8, 64))
def load_slowly(h: Any, address: Value, size: Value) -> None:
    """(MEMORY, value zero-extended) or FAILED: a trap, or an exit to Python (field `exit`), which answers and has the
    instruction executed again."""
    in_page = (address & OFFSET) + size
    with h.when(in_page.above(PAGE)):
        second_page = (address & ~OFFSET) + PAGE
        in_first = second_page - address
        status, first = h.call(resolve, address, in_first, LOAD)
        with h.when(status.eq(FAILED)):
            h.give(FAILED, 0)
        status_2, second = h.call(resolve, second_page, size - in_first, LOAD)
        with h.when(status_2.eq(FAILED)):
            h.give(FAILED, 0)
        with h.when(status.ne(MEMORY) | status_2.ne(MEMORY)):
            h.give(h.call(refuse, address, LOAD)[0], 0)
        value = h.variable(0, 64)
        with h.count(size, 64) as index:
            from_first = index.below(in_first)
            source = from_first.select(first + index, second + index - in_first)
            value.set(value.get() | (h.host_load(source, 8).zext(64) << (index * 8)))
        h.give(MEMORY, value.get())
    status, where = h.call(resolve, address, size, LOAD)
    with h.when(status.eq(FAILED)):
        h.give(FAILED, 0)
    with h.when(status.eq(DEVICE)):
        state = h.mmio_pc.eq(h.pc).select(h.mmio, MMIO_NONE)  # the answer is for the instruction that asked
        h.mmio = MMIO_NONE
        with h.when((where & (size - 1)).ne(0) | state.eq(MMIO_FAILED)):
            h.give(h.call(refuse, address, LOAD)[0], 0)
        with h.when(state.eq(MMIO_DONE)):
            h.give(MEMORY, h.mmio_value)
        h.exit = EXIT_MMIO_READ
        h.mmio_pc = h.pc
        h.exit_address = where
        h.exit_size = size
        h.give(FAILED, 0)
    for width in (8, 16, 32):
        with h.when(size.eq(width // 8)):
            h.give(MEMORY, h.host_load(where, width).zext(64))
    h.give(MEMORY, h.host_load(where, 64))


@routine(parameters=(64, 64, 64), results=(8,))
def store_slowly(h: Any, address: Value, size: Value, value: Value) -> None:
    """MEMORY when done, or FAILED as for `load_slowly`."""
    in_page = (address & OFFSET) + size
    with h.when(in_page.above(PAGE)):
        second_page = (address & ~OFFSET) + PAGE
        in_first = second_page - address
        status, first = h.call(resolve, address, in_first, STORE)
        with h.when(status.eq(FAILED)):
            h.give(FAILED)
        first_number = h.resolved_page
        status_2, second = h.call(resolve, second_page, size - in_first, STORE)
        with h.when(status_2.eq(FAILED)):
            h.give(FAILED)
        with h.when(status.ne(MEMORY) | status_2.ne(MEMORY)):
            h.give(h.call(refuse, address, STORE)[0])
        with h.count(size, 64) as index:
            from_first = index.below(in_first)
            target = from_first.select(first + index, second + index - in_first)
            h.host_store(target, (value >> (index * 8)).trunc(8))
        h.call(code_written, first_number, address & OFFSET, in_first)
        h.call(code_written, h.resolved_page, 0, size - in_first)
        h.give(MEMORY)
    status, where = h.call(resolve, address, size, STORE)
    with h.when(status.eq(FAILED)):
        h.give(FAILED)
    with h.when(status.eq(DEVICE)):
        state = h.mmio_pc.eq(h.pc).select(h.mmio, MMIO_NONE)  # the answer is for the instruction that asked
        h.mmio = MMIO_NONE
        with h.when((where & (size - 1)).ne(0) | state.eq(MMIO_FAILED)):
            h.give(h.call(refuse, address, STORE)[0])
        with h.when(state.eq(MMIO_DONE)):
            h.give(MEMORY)
        h.exit = EXIT_MMIO_WRITE
        h.mmio_pc = h.pc
        h.exit_address = where
        h.exit_size = size
        h.exit_value = value
        h.give(FAILED)
    for width in (8, 16, 32, 64):
        with h.when(size.eq(width // 8)):
            h.host_store(where, value.trunc(width))
    h.call(code_written, h.resolved_page, address & OFFSET, size)
    h.give(MEMORY)


@routine(parameters=(64, 64), results=(8,))
def zero_slowly(h: Any, address: Value, size: Value) -> None:
    """Zero `size` bytes at an address aligned to it (16 to 4096); MEMORY, or FAILED with a trap."""
    status, where = h.call(resolve, address, size, STORE)
    with h.when(status.eq(DEVICE)):
        h.give(h.call(refuse, address, STORE)[0])
    with h.when(status.eq(FAILED)):
        h.give(FAILED)
    with h.count(size >> 4, 64) as index:
        h.host_store(where + index * 16, h.constant(0, 128))
    h.call(code_written, h.resolved_page, address & OFFSET, size)
    h.give(MEMORY)


@routine(parameters=(64, 64), results=(8,))
def check_slowly(h: Any, address: Value, size: Value) -> None:
    """Whether a cache block may be managed: it must be open to loads or to stores; the fault is a store's."""
    status = h.call(resolve, address, size, LOAD)[0]
    with h.when(status.ne(FAILED)):
        h.give(MEMORY)
    h.give(h.call(resolve, address, size, STORE)[0])


@routine(parameters=(64, 64, 8, 8), results=(8, 64))
def resolve_atomic(h: Any, address: Value, size: Value, access: Value, misaligned_cause: Value) -> None:
    """(MEMORY, host address) for an atomic instruction, which wants memory and natural alignment; or FAILED."""
    with h.when((address & (size - 1)).ne(0)):
        h.trap_cause = misaligned_cause
        h.trap_value = address
        h.give(FAILED, 0)
    status, where = h.call(resolve, address, size, access)
    with h.when(status.eq(DEVICE)):
        h.give(h.call(refuse, address, access)[0], 0)
    h.give(status, where)
