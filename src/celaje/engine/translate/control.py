"""The handlers that are no instruction: decoding, entering pages, events, traps, sleep, and the entry from Python."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from celaje.engine.translate import host_float
from celaje.engine.translate.decoding import LAST_HALFWORD, decode, decode_here, decoded_page, handler_address
from celaje.engine.translate.handlers import ATTRIBUTES, CONVENTION, PARAMETERS, HandlerReading
from celaje.engine.translate.layout import (
    CONTEXT_SUPERVISOR,
    EXIT_BUSY,
    EXIT_FAULT,
    EXIT_IDLE,
    EXIT_INTERRUPTED,
    EXIT_NONE,
    EXIT_SHUTDOWN,
    EXIT_WATCHED,
    FETCH_ENTRIES,
    FETCH_ENTRY,
    FETCH_PART,
    MMIO_NONE,
    OPERATION,
    PAGE_OPERATIONS,
    PAGE_SOURCE,
    QUANTUM,
    REQUEST_EXIT,
    REQUEST_INSTRUCTIONS,
    REQUEST_TRANSLATIONS,
    REQUEST_WATCHED,
)
from celaje.engine.translate.memory import (
    FAILED,
    choose_context,
    context_address,
    forget_instructions,
    forget_translations,
    memory_at,
    note_large,
)
from celaje.engine.translate.reading import LlvmModule
from celaje.engine.translate.routines import use_rounding
from celaje.isa.riscv.csr import csr_access
from celaje.isa.riscv.paging import GLOBAL, translate
from celaje.isa.riscv.pmp import pmp_allows, pmp_is_uniform
from celaje.isa.riscv.privilege import FETCH, FETCH_ACCESS, ILLEGAL, MTI, STCE, STI
from celaje.isa.riscv.state import MACHINE
from celaje.isa.riscv.trap import choose_interrupt, take_trap, update_pending
from celaje.isa.semantics import Value, routine

REGISTER_ACCESS = "access_register"
LEAVING = 1 << 8 * REQUEST_EXIT | 1 << 8 * REQUEST_WATCHED
FUTILE_TRAPS = 64  # so many in a row without one instruction done: the hart will never do another
FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine(), 202)
FUTEX_WAIT, FUTEX_WAKE = 128, 129  # private
TICKS_A_SECOND = 10_000_000
LONGEST_SLEEP = 3600 * TICKS_A_SECOND


@routine(parameters=(64, 8), results=(8, 64, 1, 64))
def resolve_fetch(h: Any, address: Value, size: Value) -> None:
    """(FAILED or not, host address, whether the whole page may be fetched from, its number) of code at an address;
    trap_cause and trap_value are set where it failed."""
    physical, cause, permissions, level = h.call(translate, address, FETCH, h.mode)
    h.trap_value = address
    with h.when(cause.ne(0)):
        h.trap_cause = cause
        h.give(FAILED, 0, 0, 0)
    allowed = h.call(pmp_allows, physical, size.zext(64), FETCH, h.mode)[0]
    host, _, number = h.call(memory_at, physical)
    with h.when(allowed.eq(0) | host.eq(0)):
        h.trap_cause = FETCH_ACCESS
        h.give(FAILED, 0, 0, 0)
    uniform = h.call(pmp_is_uniform, physical & ~4095)[0]
    h.call(note_large, address, level)
    with h.when((permissions & GLOBAL).eq(0) & h.context.eq(CONTEXT_SUPERVISOR)):
        h.supervisor_private = 1
    h.give(1, host, uniform, number)


def undecoded(h: HandlerReading) -> None:
    """An operation that was never reached, or whose code has changed."""
    h.call(decode_here, h.emit(64, "ptrtoint ptr %op to i64"))
    h.dispatch("%op")


def page_end(h: HandlerReading) -> None:
    """The operation after a page's last: go on in the next page."""
    h.write("pc", h.here)
    h.look_up_when_due("@events", "@look_up")


def look_up(h: HandlerReading) -> None:
    """Go on at `pc` in the context in use."""
    h.enter(h.read("pc"))


def fetch(h: HandlerReading) -> None:
    """`pc`'s page has no fetch entry: translate, decode or verify, enter it.

    A page that protection splits is never entered: its instructions are done one by one.
    """
    h.line(f"store i64 %rem, ptr {h.address_of('remaining')}")
    h.write("fetch_misses", h.read("fetch_misses") + 1)
    pc = h.read("pc")
    status, host, uniform, number = h.call(resolve_fetch, pc, 2)
    with h.when(status.eq(FAILED)):
        h.tail("@deliver")
    with h.when(~uniform):
        h.tail("@single")
    page = h.call(decoded_page, number, host & ~4095)[0]
    operations = page + PAGE_OPERATIONS
    virtual = pc & ~4095
    context = h.call(context_address, h.read("context"))[0]
    entry = context + ((pc >> 12) & (FETCH_ENTRIES - 1)) * FETCH_ENTRY + FETCH_PART
    h.host_store(entry, virtual)
    h.host_store(entry + 8, operations)
    h.write("filled", h.read("filled") | (h.constant(1, 64) << h.read("context")))
    h.write("delta", virtual - (operations >> 3))
    h.dispatch(h.pointer(operations + ((pc & 0xFFE) << 3)))


def straddle(h: HandlerReading) -> None:
    """An instruction whose second half is on the next page."""
    h.write("pc", h.here)
    h.tail("@single")


def single(h: HandlerReading) -> None:
    """The instruction at `pc`, decoded into the scratch page and done there, each time anew."""
    h.line(f"store i64 %rem, ptr {h.address_of('remaining')}")
    pc = h.read("pc")
    status, low_at, _, _ = h.call(resolve_fetch, pc, 2)
    with h.when(status.eq(FAILED)):
        h.tail("@deliver")
    low = h.host_load(low_at, 16).zext(32)
    whole = h.variable(low)
    with h.when((low & 3).eq(3)):
        status, high_at, _, _ = h.call(resolve_fetch, pc + 2, 2)
        with h.when(status.eq(FAILED)):
            h.tail("@deliver")
        whole.set(low | (h.host_load(high_at, 16).zext(32) << 16))
    bits = whole.get()
    scratch = h.read("scratch")
    operation = scratch + PAGE_OPERATIONS + LAST_HALFWORD // 2 * OPERATION
    h.host_store(scratch + PAGE_SOURCE + LAST_HALFWORD, bits)
    handler = h.call(decode, bits, LAST_HALFWORD, 0, operation)[0]
    h.host_store(operation, h.call(handler_address, handler)[0])
    h.write("delta", pc - (operation >> 3))
    h.dispatch(h.pointer(operation))


def illegal(h: HandlerReading) -> None:
    """Bits that are no instruction; the immediate holds them."""
    h.write("pc", h.here)
    h.line(f"store i64 %rem, ptr {h.address_of('remaining')}")
    h.write("trap_cause", ILLEGAL)
    h.write("trap_value", h._record(8, 32).zext(64))
    h.tail("@deliver")


def poll(h: HandlerReading) -> None:
    """The count has run out before operation `op`."""
    h.write("pc", h.here)
    h.tail("@events")


@routine(parameters=(), results=(64,))
def honour_requests(h: Any) -> None:
    """Do what other threads asked for; gives the requests (LEAVING) for which the hart is to come back to Python."""
    asked = h.emit(64, f"load atomic i64, ptr {h.address_of('request')} seq_cst, align 8")
    with h.when(asked.eq(0)):
        h.give(0)
    h.line(f"atomicrmw add ptr {h.address_of('honoured')}, i32 1 seq_cst")  # odd: under way
    requests = h.emit(64, f"atomicrmw xchg ptr {h.address_of('request')}, i64 0 seq_cst")
    with h.when(requests.bit(8 * REQUEST_TRANSLATIONS)):
        h.call(forget_translations)
    with h.when(requests.bit(8 * REQUEST_INSTRUCTIONS)):
        h.call(forget_instructions)
    h.line(f"atomicrmw add ptr {h.address_of('honoured')}, i32 1 seq_cst")
    h.give(requests & LEAVING)


def events(h: HandlerReading) -> None:
    """Look at the world, then go on at `pc`: requests from other threads, timers, interrupts."""
    more = h.constant(QUANTUM, 64) - Value(h, 64, "%rem")
    h.write("retired_base", h.read("retired_base") + more)
    h.write("remaining", QUANTUM)
    h.write("polls", h.read("polls") + 1)
    h.write("mmio", MMIO_NONE)  # an answer whose instruction did not come for it is for no other
    h._rem = str(QUANTUM)
    leaving = h.call(honour_requests)[0]
    with h.when(leaving.ne(0)):
        interrupted = leaving.bit(8 * REQUEST_EXIT)
        h.write("exit", interrupted.select(EXIT_INTERRUPTED, EXIT_WATCHED, 64))
        later = (interrupted.select(leaving, 0) & ~(1 << 8 * REQUEST_EXIT)).text  # one reason at a time
        h.line(f"atomicrmw or ptr {h.address_of('request')}, i64 {later} seq_cst")
        h.end("ret void")
    recall = h.read("recall")
    with h.when(recall.ne(0)):
        h.write("recall", recall - 1)
        with h.when(recall.eq(1)):
            h.write("exit", EXIT_BUSY)
            h.end("ret void")
    with h.when(h.read("flat").eq(0)):
        h.call(update_pending)
        take, number = h.call(choose_interrupt)
        with h.when(take):
            h.call(take_trap, 1, number, 0)
    tlb = h.pointer(h.call(choose_context)[0])
    h.tail("@look_up", tlb=tlb)


def resume(h: HandlerReading) -> None:
    """Go on at `pc` after an instruction that may have changed mode, translation or interrupts.

    The count is looked at here too: a loop of traps and returns from them need not jump back in any other way.
    """
    with h.when((h.read("pending") & h.read("mie")).ne(0) | Value(h, 64, "%rem").less(0)):
        h.tail("@events")
    tlb = h.pointer(h.call(choose_context)[0])
    h.tail("@look_up", tlb=tlb)


def resume_after(h: HandlerReading) -> None:
    """The same, at operation `op`, which stays valid unless translation changed."""
    stale = h.read("context_stale").ne(0) | (h.read("pending") & h.read("mie")).ne(0)
    with h.when(stale):
        h.write("pc", h.here)
        h.tail("@resume")
    h.dispatch("%op")


def deliver(h: HandlerReading) -> None:
    """An instruction could not be done: an exit to Python is under way (field `exit`), or a trap is to be taken."""
    h.line(f"store i64 %rem, ptr {h.address_of('remaining')}")
    with h.when(h.read("exit").ne(EXIT_NONE)):
        h.end("ret void")
    with h.when(h.read("flat").ne(0)):
        h.write("exit", EXIT_FAULT)
        h.end("ret void")
    h.write("mmio", MMIO_NONE)
    h.write("traps", h.read("traps") + 1)
    retired = h.retired()
    futile = h.variable(0, 64)
    with h.when(retired.eq(h.read("last_trap"))):
        futile.set(h.read("futile_traps") + 1)
        with h.when(futile.get().above(FUTILE_TRAPS)):
            h.write("exit", EXIT_SHUTDOWN)
            h.end("ret void")
    h.write("futile_traps", futile.get())
    h.write("last_trap", retired)
    h.call(take_trap, 0, h.read("trap_cause"), h.read("trap_value"))
    h.tail("@resume")


@routine(parameters=(), results=(64,))
def ticks_to_sleep(h: Any) -> None:
    """How long until a timer that is enabled is due, in ticks."""
    now = h.clock()
    longest = h.variable(LONGEST_SLEEP, 64)
    machine = h.mie.bit(MTI)
    supervisor = h.mie.bit(STI) & (h.menvcfg & STCE).ne(0)
    for enabled, due in ((machine, h.mtimecmp), (supervisor, h.stimecmp)):
        with h.when(enabled):
            left = due.above(now).select(due - now, 0)
            with h.when(left.below(longest.get())):
                longest.set(left)
    h.give(longest.get())


def sleep(h: HandlerReading) -> None:
    """wfi: sleep on the host until an interrupt is pending that mie enables, or somebody asks for something."""
    h.line(f"store i64 %rem, ptr {h.address_of('remaining')}")
    with h.loop():
        h.line(f"atomicrmw xchg ptr {h.address_of('wake')}, i32 0 seq_cst")
        request = h.emit(64, f"load atomic i64, ptr {h.address_of('request')} seq_cst, align 8")
        h.call(update_pending)
        with h.when(request.ne(0) | (h.read("pending") & h.read("mie")).ne(0)):
            h.tail("@events")
        with h.when(h.read("recall").ne(0)):
            h.write("recall", 0)
            h.write("exit", EXIT_IDLE)
            h.end("ret void")
        ticks = h.call(ticks_to_sleep)[0]
        h.write("timespec", ticks.divided_unsigned(TICKS_A_SECOND), 0)
        h.write("timespec", ticks.remainder_unsigned(TICKS_A_SECOND) * 100, 1)
        function = h.emit(-1, f"load ptr, ptr {h.address_of('syscall')}").text
        h.line(
            f"call i64 (i64, ...) {function}(i64 {FUTEX}, ptr {h.address_of('wake')}, i64 {FUTEX_WAIT}, i64 0,"
            f" ptr {h.address_of('timespec')}, i64 0, i64 0)"
        )


SPECIAL: dict[str, Callable[[HandlerReading], None]] = {
    function.__name__: function
    for function in (
        undecoded,
        page_end,
        illegal,
        straddle,
        single,
        look_up,
        fetch,
        poll,
        events,
        resume,
        resume_after,
        deliver,
        sleep,
    )
}


def render_special(module: LlvmModule, name: str) -> str:
    """One of the handlers above as the text of a function."""
    reading = HandlerReading(module, full=True)
    SPECIAL[name](reading)
    if not reading.ended:
        reading.end("unreachable")
    return function_text(name, reading)


def function_text(name: str, reading: HandlerReading) -> str:
    """A handler's text around its body."""
    head = f'define hidden {CONVENTION} void @"{name}"({PARAMETERS}) #0 {{'
    return "\n".join([head, *reading.body(), "}"])


def render_entry(module: LlvmModule) -> str:
    """`run(st)`, which Python calls: go on at `pc` until `exit` is set. The host's floating-point control comes back
    as it was."""
    h = HandlerReading(module, full=True)
    h.write("exit", EXIT_NONE)
    saved = host_float.save_host(h)
    host_float.clear_host_flags(h)
    h.call(use_rounding)
    # An access that Python has answered is finished before anything else may happen, then the world is looked at: after
    # an instruction that is done by itself the count, which has run out, is always looked at.
    answered = h.read("mmio").ne(MMIO_NONE)
    with h.when(answered):
        leaving = h.call(honour_requests)[0]
        h.line(f"atomicrmw or ptr {h.address_of('request')}, i64 {leaving.text} seq_cst")
        h.write("retired_base", h.retired())
        h.write("remaining", 0)
        tlb = h.pointer(h.call(choose_context)[0])
        h.line(f"call {CONVENTION} void @single(ptr %st, ptr null, ptr {tlb}, i64 0)")
    with h.otherwise():
        remaining = h.read("remaining")
        h.line(f"call {CONVENTION} void @events(ptr %st, ptr null, ptr null, i64 {remaining.text})")
    h.write("fflags", h.float_flags())
    host_float.restore_host(h, saved)
    h.end("ret void")
    return "\n".join(["define void @run(ptr %st) #0 {", *h.body(), "}"])


def render_register_access(module: LlvmModule) -> str:
    """`access_register(st, number, operation, operand)`: a control register for Python, as from machine mode. The old
    value goes to `exit_value`, whether it was refused to `exit`."""
    h = HandlerReading(module, full=True)
    number, operation, operand = (Value(h, 64, name) for name in ("%number", "%operation", "%operand"))
    # Python's own floating-point flags are not the guest's, nor is the guest's rounding Python's.
    saved = host_float.save_host(h)
    host_float.clear_host_flags(h)
    before = h.read("mode")
    h.write("mode", MACHINE)
    old, refused = h.call(csr_access, number.trunc(16), operation.trunc(8), operand)
    h.write("mode", before)
    h.write("exit_value", old)
    h.write("exit", refused.zext(64))
    host_float.restore_host(h, saved)
    h.end("ret void")
    head = f"define void @{REGISTER_ACCESS}(ptr %st, i64 %number, i64 %operation, i64 %operand) #0 {{"
    return "\n".join([head, *h.body(), "}"])


__all__ = ["ATTRIBUTES", "REGISTER_ACCESS", "SPECIAL", "function_text", "render_entry", "render_special"]
