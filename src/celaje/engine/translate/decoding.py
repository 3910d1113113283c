"""Decoding guest code into pages of operations, and keeping them true to memory.

Each hart has decoded pages of its own, so no hart ever changes what another executes. They stay true so:

* Entering a page (a miss in the fetch entries) compares every 64-byte line that was decoded with memory; lines that
  differ are decoded again. fence.i, sfence.vma and satp empty the fetch entries. So whatever another hart or a device
  wrote is seen after the fences that the architecture asks for, without a word between harts.
* A hart's own stores to a page with decoded code never take the fast path; they undo the operations that they touch
  at once, so that even code without fence.i runs as on hosts with coherent instruction caches. A page that is only
  stored to any more loses its decoded code after a while; how long doubles each time, for pages that are both.

The tables that drive the decoder are built in `decoder_tables.py`.
"""

from __future__ import annotations

from typing import Any

from celaje.engine.translate.decoder_tables import (
    BACKWARD,
    BUCKETS_16,
    BUCKETS_32,
    ENTRIES,
    ENTRY_BYTES,
    FIELD_BYTES,
    FIELDS_AT,
    FORMATS_AT,
    FUSED_AT,
    FUSED_PAIRS_AT,
    HANDLER_ILLEGAL,
    HANDLER_PAGE_END,
    HANDLER_STRADDLE,
    HANDLER_UNDECODED,
    IMMEDIATE_ZERO,
    IN_PAGE,
    INSTRUCTIONS_AT,
    OF_STATUS,
    RD_IS_RS1,
    RD_ZERO,
    RELATIVE,
    ROUNDING_DYNAMIC,
    ROUNDING_TO_EVEN,
    ROUNDING_TO_ZERO,
    RS1_ZERO,
    RS2_ZERO,
    SHORT,
    VARIANTS_AT,
)
from celaje.engine.translate.layout import (
    ADDEND,
    ALL_DATA_ENTRIES,
    CONTEXT_BYTES,
    CONTEXTS,
    CONTEXTS_OFFSET,
    DATA_ENTRY,
    FETCH_ENTRIES,
    FETCH_ENTRY,
    FETCH_PART,
    OPERATION,
    OPERATION_IMMEDIATE,
    OPERATION_RD,
    OPERATION_RS1,
    OPERATION_RS2,
    OPERATIONS_A_PAGE,
    PAGE_ENTERED,
    PAGE_HOST,
    PAGE_LINES,
    PAGE_NUMBER,
    PAGE_OPERATIONS,
    PAGE_SOURCE,
    PAGE_STORES,
    PAGE_STRIDE,
    REQUEST_WATCHED,
    SINK,
    TAG_WRITE,
)
from celaje.isa.riscv.privilege import SSTATUS
from celaje.isa.semantics import Value, routine

LINE = 64
LAST_HALFWORD = 4094
LONGEST_SEQUENCE = 3  # operations that one handler does
LONGEST_REACH = 4 * LONGEST_SEQUENCE - 2  # how far before a halfword a sequence that it belongs to may begin
FIRST_PATIENCE = 32


@routine(parameters=(16,), results=(64,))
def handler_address(h: Any, index: Value) -> None:
    """Where handler `index` is."""
    h.give(h.host_load(h.handlers + index.zext(64) * 8, 64))


@routine(parameters=(64, 64, 64), results=())
def undo(h: Any, page: Value, offset: Value, length: Value) -> None:
    """Have every operation decoded again that depends on the `length` bytes at `offset` of the page."""
    first = h.variable(offset & ~1)
    with h.when(first.get().at_least(LONGEST_REACH)):
        first.set(first.get() - LONGEST_REACH)
    with h.otherwise():
        first.set(0)
    undecoded = h.call(handler_address, HANDLER_UNDECODED)[0]
    end = offset + length
    with h.loop():
        now = first.get()
        with h.when(now.at_least(end) | now.above(LAST_HALFWORD)):
            h.give()
        h.host_store(page + PAGE_OPERATIONS + now * (OPERATION // 2), undecoded)
        first.set(now + 2)


@routine(parameters=(64,), results=(64,))
def page_of_number(h: Any, number: Value) -> None:
    """The decoded page of a physical page, or 0."""
    index = h.host_load(h.page_map + number * 4, 32).zext(64)
    h.give(index.eq(0).select(0, h.arena + (index - 1) * PAGE_STRIDE))


@routine(parameters=(64,), results=())
def drop_page(h: Any, page: Value) -> None:
    """Forget a decoded page: no fetch entry and no map entry leads to it any more."""
    operations = page + PAGE_OPERATIONS
    with h.count(CONTEXTS, 64) as context, h.when((h.filled >> context).bit(0)):
        entries = h.block_address() + CONTEXTS_OFFSET + FETCH_PART + context * CONTEXT_BYTES
        with h.count(FETCH_ENTRIES, 64) as index:
            entry = entries + index * FETCH_ENTRY
            with h.when(h.host_load(entry + 8, 64).eq(operations)):
                h.host_store(entry, h.constant(-1, 64))
    number = h.host_load(page + PAGE_NUMBER, 64)
    h.host_store(h.page_map + number * 4, h.constant(0, 32))
    h.give()


@routine(parameters=(64, 64), results=())
def look_at_watched(h: Any, offset: Value, length: Value) -> None:
    """Ask for an exit if a store to the watched page touched the watched doubleword."""
    with h.when(offset.below(h.watch_offset + 8) & (offset + length).above(h.watch_offset)):
        h.line(f"atomicrmw or ptr {h.address_of('request')}, i64 {1 << 8 * REQUEST_WATCHED} seq_cst")
    h.give()


@routine(parameters=(64, 64, 64), results=())
def code_written(h: Any, number: Value, offset: Value, length: Value) -> None:
    """This hart has stored to `length` bytes of a physical page, out of line."""
    with h.when(number.at_least(h.page_count)):
        h.give()
    with h.when(number.eq(h.watch_page)):
        h.call(look_at_watched, offset, length)
    page = h.call(page_of_number, number)[0]
    with h.when(page.eq(0)):
        h.give()
    stores = h.host_load(page + PAGE_STORES, 64) + 1
    h.host_store(page + PAGE_STORES, stores)
    patience = h.host_load(h.patience + number, 8)
    executing = (h.pc - h.delta) << 3  # the operation that stores: its own page must stay
    exhausted = stores.above(h.constant(FIRST_PATIENCE, 64) << patience.zext(64))
    with h.when(exhausted & (executing & ~(PAGE_STRIDE - 1)).ne(page)):
        h.host_store(h.patience + number, patience.below(20).select(patience + 1, patience))
        h.call(drop_page, page)
        h.give()
    source = page + PAGE_SOURCE + offset
    memory = h.host_load(page + PAGE_HOST, 64) + offset
    with h.count(length, 64) as index:
        h.host_store(source + index, h.host_load(memory + index, 8))
    h.call(undo, page, offset, length)
    h.give()


@routine(parameters=(64,), results=())
def verify_page(h: Any, page: Value) -> None:
    """Compare what was decoded with memory, and undo what has changed."""
    lines = h.variable(h.host_load(page + PAGE_LINES, 64))
    memory = h.host_load(page + PAGE_HOST, 64)
    with h.loop():
        rest = lines.get()
        with h.when(rest.eq(0)):
            h.give()
        line = rest.trailing_zeros() * LINE
        lines.set(rest & (rest - 1))
        now = h.host_load(memory + line, 8 * LINE)
        with h.when(now.ne(h.host_load(page + PAGE_SOURCE + line, 8 * LINE))):
            h.host_store(page + PAGE_SOURCE + line, now)
            h.call(undo, page, line, LINE)


@routine(parameters=(64, 64), results=(64,))
def decoded_page(h: Any, number: Value, host: Value) -> None:
    """The decoded page of physical page `number` at host address `host`, made or verified."""
    known = h.call(page_of_number, number)[0]
    with h.when(known.ne(0)):
        h.host_store(known + PAGE_STORES, h.constant(0, 64))
        h.host_store(known + PAGE_ENTERED, h.constant(1, 64))
        h.call(verify_page, known)
        h.give(known)
    index = h.variable(h.arena_used)
    with h.when(index.get().below(h.arena_pages)):
        h.arena_used = index.get() + 1
    with h.otherwise():
        with h.loop():  # round the arena, past those that were entered since the last time: each of them once
            victim = h.arena_next
            index.set(victim)
            h.arena_next = (victim + 1).eq(h.arena_pages).select(0, victim + 1)
            entered = h.arena + victim * PAGE_STRIDE + PAGE_ENTERED
            with h.when(h.host_load(entered, 64).eq(0)):
                h.leave()
            h.host_store(entered, h.constant(0, 64))
        h.pages_evicted = h.pages_evicted + 1
        old = h.arena + index.get() * PAGE_STRIDE
        with h.when(h.call(page_of_number, h.host_load(old + PAGE_NUMBER, 64))[0].eq(old)):
            h.call(drop_page, old)
    page = h.arena + index.get() * PAGE_STRIDE
    h.host_store(page + PAGE_HOST, host)
    h.host_store(page + PAGE_NUMBER, number)
    h.host_store(page + PAGE_LINES, h.constant(0, 64))
    h.host_store(page + PAGE_STORES, h.constant(0, 64))
    h.host_store(page + PAGE_ENTERED, h.constant(0, 64))
    undecoded = h.call(handler_address, HANDLER_UNDECODED)[0]
    with h.count(OPERATIONS_A_PAGE - 2, 64) as operation:
        h.host_store(page + PAGE_OPERATIONS + operation * OPERATION, undecoded)
    end = h.call(handler_address, HANDLER_PAGE_END)[0]
    for slot in (OPERATIONS_A_PAGE - 2, OPERATIONS_A_PAGE - 1):
        h.host_store(page + PAGE_OPERATIONS + slot * OPERATION, end)
    h.host_store(h.page_map + number * 4, (index.get() + 1).trunc(32))
    h.pages_decoded = h.pages_decoded + 1
    for context in range(CONTEXTS):  # from now on this hart's stores to the page are looked at
        with h.when(h.filled.bit(context)):
            entries = h.block_address() + CONTEXTS_OFFSET + context * CONTEXT_BYTES
            with h.count(ALL_DATA_ENTRIES, 64) as index:
                entry = entries + index * DATA_ENTRY
                with h.when((h.host_load(entry + TAG_WRITE, 64) + h.host_load(entry + ADDEND, 64)).eq(host)):
                    h.host_store(entry + TAG_WRITE, h.constant(-1, 64))
    h.give(page)


# ---- one instruction


@routine(parameters=(32, 64, 1, 64), results=(16,))
def decode(h: Any, bits: Value, offset: Value, may_stay: Value, operation: Value) -> None:
    """The handler for instruction `bits` at `offset` of its page; fills the operation's operands (not its handler).

    `may_stay`: whether a jump may be one from operation to operation in this page.
    """
    tables = h.decoding
    full = (bits & 3).eq(3)
    word = full.select(bits, bits & 0xFFFF)
    index_32 = ((word >> 2) & 31) | ((word >> 7) & 0xE0)
    index_16 = (word & 3) | ((word >> 11) & 0x1C)
    bucket = tables + full.select((index_32 * 4).zext(64) + BUCKETS_32, (index_16 * 4).zext(64) + BUCKETS_16)
    entry = h.variable(tables + ENTRIES + h.host_load(bucket, 16).zext(64) * ENTRY_BYTES)
    left = h.variable(h.host_load(bucket + 2, 16))
    with h.loop():
        with h.when(left.get().eq(0)):
            h.host_store(operation + OPERATION_IMMEDIATE, word)
            h.give(HANDLER_ILLEGAL)
        here = entry.get()
        with h.when((word & h.host_load(here, 32)).eq(h.host_load(here + 4, 32))):
            refused = h.call(take_operands, word, here, operation)[0]
            with h.when(refused.eq(0)):
                h.leave()
        entry.set(entry.get() + ENTRY_BYTES)
        left.set(left.get() - 1)
    instruction = h.host_load(entry.get() + 10, 16).zext(64)
    about = tables + INSTRUCTIONS_AT + instruction * 8
    immediate = h.host_load(operation + OPERATION_IMMEDIATE, 32)
    rd = h.host_load(operation + OPERATION_RD, 16)
    rs1 = h.host_load(operation + OPERATION_RS1, 8)
    rs2 = h.host_load(operation + OPERATION_RS2, 8)
    target = offset + immediate.sext(64)
    relative = (h.host_load(about + 4, 16) & RELATIVE).ne(0)
    stays = relative & may_stay & target.below(4096)
    rounding = (immediate >> 8) & 7
    conditions = (
        rd.eq(SINK).select(RD_ZERO, 0, 16)
        | rs1.eq(0).select(RS1_ZERO, 0, 16)
        | rs2.eq(0).select(RS2_ZERO, 0, 16)
        | immediate.eq(0).select(IMMEDIATE_ZERO, 0, 16)
        | rd.eq(rs1.zext(16)).select(RD_IS_RS1, 0, 16)
        | stays.select(IN_PAGE, 0, 16)
        | immediate.less(1).select(BACKWARD, 0, 16)
        | full.select(0, SHORT, 16)
        | rounding.eq(7).select(ROUNDING_DYNAMIC, 0, 16)
        | rounding.eq(1).select(ROUNDING_TO_ZERO, 0, 16)
        | rounding.eq(0).select(ROUNDING_TO_EVEN, 0, 16)
        | immediate.eq(SSTATUS).select(OF_STATUS, 0, 16)
    )
    with h.when(stays):
        h.host_store(operation + OPERATION_IMMEDIATE, immediate << 3)
    variant = h.variable(tables + VARIANTS_AT + h.host_load(about, 16).zext(64) * 8)
    with h.loop():  # the last variant of an instruction and length has no conditions, so this ends
        here = variant.get()
        with h.when((conditions & h.host_load(here, 16)).eq(h.host_load(here + 2, 16))):
            h.give(h.host_load(here + 4, 16))
        variant.set(here + 8)


@routine(parameters=(32, 64, 64), results=(1,))
def take_operands(h: Any, word: Value, entry: Value, operation: Value) -> None:
    """Fill an operation's operands by the format of a table entry; set if the entry does not mean these bits."""
    tables = h.decoding
    h.host_store(operation + OPERATION_IMMEDIATE, h.constant(0, 64))
    format_at = tables + FORMATS_AT + h.host_load(entry + 8, 16).zext(64) * 4
    field_at = h.variable(tables + FIELDS_AT + h.host_load(format_at, 16).zext(64) * FIELD_BYTES)
    with h.count(h.host_load(format_at + 2, 16).zext(64), 64) as number:
        here = field_at.get()
        value = h.variable(0, 32)
        with h.count(h.host_load(here + 3, 8).zext(64), 64) as index:
            piece = here + 8 + index * 4
            low = h.host_load(piece, 8).zext(32)
            mask = (h.constant(1, 32) << h.host_load(piece + 1, 8).zext(32)) - 1
            value.set(value.get() | (((word >> low) & mask) << h.host_load(piece + 2, 8).zext(32)))
        unused = h.host_load(here + 2, 8).zext(32)  # 32 - width of a signed field, else 0
        plain = (value.get() << unused).sra(unused) + h.host_load(here + 4, 32)
        h.write("decode_raw", plain, number)
        shifted = plain << h.host_load(here + 1, 8).zext(32)
        kind = h.host_load(here, 8)
        with h.when(kind.eq(0)):
            h.host_store(operation + OPERATION_RD, shifted.eq(0).select(SINK, shifted).trunc(16))
        with h.when(kind.eq(1)):
            h.host_store(operation + OPERATION_RS1, shifted.trunc(8))
        with h.when(kind.eq(2)):
            h.host_store(operation + OPERATION_RS2, shifted.trunc(8))
        with h.when(kind.eq(3)):
            old = h.host_load(operation + OPERATION_IMMEDIATE, 32)
            h.host_store(operation + OPERATION_IMMEDIATE, old | shifted)
        with h.when(kind.eq(4)):
            h.host_store(operation + OPERATION_RD, shifted.trunc(16))
        field_at.set(here + FIELD_BYTES)
    with h.count(h.host_load(entry + 12, 16).zext(64), 64) as index:
        condition = entry + 16 + index * 8
        field = h.host_load(condition, 16).zext(64)
        with h.when(h.read("decode_raw", field).eq(h.host_load(condition + 4, 32))):
            h.give(1)
    h.give(0)


@routine(parameters=(64, 64, 64), results=(16,))
def decode_operation(h: Any, page: Value, offset: Value, operation: Value) -> None:
    """Decode what stands at `offset` of a page into `operation`: its operands; gives its handler."""
    h.call(have_line, page, offset)
    source = page + PAGE_SOURCE + offset
    low = h.host_load(source, 16).zext(32)
    bits = h.variable(low)
    with h.when((low & 3).eq(3)):
        with h.when(offset.eq(LAST_HALFWORD)):
            h.give(HANDLER_STRADDLE)
        h.call(have_line, page, offset + 2)
        bits.set(low | (h.host_load(source + 2, 16).zext(32) << 16))
    h.operations_decoded = h.operations_decoded + 1
    h.give(h.call(decode, bits.get(), offset, 1, operation)[0])


@routine(parameters=(64, 64), results=())
def have_line(h: Any, page: Value, offset: Value) -> None:
    """Keep the line of code at `offset` as it is now, if it is not kept yet."""
    line = offset >> 6
    lines = h.host_load(page + PAGE_LINES, 64)
    with h.when((lines >> line).bit(0)):
        h.give()
    start = offset & ~(LINE - 1)
    h.host_store(page + PAGE_SOURCE + start, h.host_load(h.host_load(page + PAGE_HOST, 64) + start, 8 * LINE))
    h.host_store(page + PAGE_LINES, lines | (h.constant(1, 64) << line))
    h.give()


@routine(parameters=(64,), results=())
def decode_here(h: Any, operation: Value) -> None:
    """Give an undecoded operation its operands and handler, which does the next instruction too where one can."""
    page = operation & ~(PAGE_STRIDE - 1)
    offset = (operation - page - PAGE_OPERATIONS) >> 3
    chosen = h.variable(h.call(decode_operation, page, offset, operation)[0])
    last = h.variable(offset)  # where the last operation stands that `chosen` does
    with h.loop():
        known = h.decoding + FUSED_AT + chosen.get().zext(64) * 4
        count = h.host_load(known + 2, 16).zext(64)
        low = h.host_load(page + PAGE_SOURCE + last.get(), 16)
        next_offset = last.get() + (low & 3).eq(3).select(4, 2, 64)
        with h.when(count.eq(0) | next_offset.above(LAST_HALFWORD)):
            h.leave()
        following = page + PAGE_OPERATIONS + next_offset * (OPERATION // 2)
        handler = h.call(decode_operation, page, next_offset, following)[0]
        before = chosen.get()
        pair = h.decoding + FUSED_PAIRS_AT + h.host_load(known, 16).zext(64) * 4
        with h.count(count, 64) as index, h.when(h.host_load(pair + index * 4, 16).eq(handler)):
            chosen.set(h.host_load(pair + index * 4 + 2, 16))
        with h.when(chosen.get().eq(before)):
            h.leave()
        last.set(next_offset)
    h.host_store(operation, h.call(handler_address, chosen.get())[0])
    h.give()
