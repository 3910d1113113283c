"""Several harts: atomics, contention, progress, fences from outside; a hart beside Python's threads."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator

import pytest

from celaje.engine.protocol import Interrupted, MmioWrite
from celaje.isa.riscv.atomic import OPERATIONS
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, Trap, word
from tests.engine.translate.page_tables import ALL, PageTables

MASK = (1 << 64) - 1
VIRTUAL = 0x1_4000_0000


# ---- one at a time


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def changed(operation: str, old: int, operand: int, bits: int) -> int:
    pick = {"min": min, "max": max, "minu": min, "maxu": max}
    if operation in ("min", "max"):
        return pick[operation](signed(old, bits), signed(operand, bits)) & (1 << bits) - 1
    values = {
        "swap": operand,
        "add": old + operand,
        "xor": old ^ operand,
        "and": old & operand,
        "or": old | operand,
        "minu": min(old, operand),
        "maxu": max(old, operand),
    }
    return values[operation] & (1 << bits) - 1


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("suffix", "bits"), [("w", 32), ("d", 64)])
def test_each_atomic_operation_does_what_its_model_does(operation: str, suffix: str, bits: int) -> None:
    chance = random.Random(bits)
    edges = [0, 1, MASK, 1 << 31, 1 << 63, (1 << 31) - 1, (1 << 63) - 1, 1 << 32]
    pairs = [(a, b) for a in edges for b in edges]
    pairs += [(chance.getrandbits(64), chance.getrandbits(64)) for _ in range(60)]
    with Guest(
        f"""
        la s0, table
        li s1, {len(pairs)}
    loop:
        ld t1, 8(s0)
        addi t0, s0, 0
        amo{operation}.{suffix} t2, t1, (t0)
        sd t2, 16(s0)
        addi s0, s0, 24
        addi s1, s1, -1
        bnez s1, loop
        {DONE}
        .align 8
    table:
    """
    ) as guest:
        table = guest.labels["table"]
        for index, (old, operand) in enumerate(pairs):
            guest.put(table + 24 * index, old)
            guest.put(table + 24 * index + 8, operand)
        guest.result()
        low = (1 << bits) - 1
        for index, (old, operand) in enumerate(pairs):
            expected = old & ~low | changed(operation, old & low, operand & low, bits)
            assert guest.word(table + 24 * index) == expected, (hex(old), hex(operand))
            assert guest.word(table + 24 * index + 16) == signed(old, bits) & MASK


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        *(("amoadd.w a0, a0, (t0)", 6), ("amoswap.d a0, a0, (t0)", 6), ("sc.w a0, a0, (t0)", 6)),
        *(("lr.w a0, (t0)", 4), ("lr.d a0, (t0)", 4)),
    ],
)
def test_atomics_that_are_misaligned_trap(code: str, cause: int) -> None:
    for offset in (1, 2, 4) if ".d" in code else (1, 2):
        with Guest(f"la t0, data; ld t1, 0(t0); addi t0, t0, {offset}\nat: {code}; .align 8\ndata: .dword 0") as guest:
            guest.load_trap_handler()
            assert guest.trap() == Trap(cause, guest.labels["data"] + offset, guest.labels["at"])
            assert guest.word(guest.labels["data"]) == 0


RESERVATIONS = {
    "held": ("lr.d t1, (s0); sc.d a0, s1, (s0)", 0),
    "never made": ("sc.d a0, s1, (s0)", 1),
    "for another address": ("addi t2, s0, 8; lr.d t1, (t2); sc.d a0, s1, (s0)", 1),
    "used up": ("lr.d t1, (s0); sc.d t2, t1, (s0); sc.d a0, s1, (s0)", 1),
    "used up by a failure": ("addi t2, s0, 8; lr.d t1, (s0); sc.d t1, t1, (t2); sc.d a0, s1, (s0)", 1),
    "lost to a store": ("lr.d t1, (s0); sd s0, 0(s0); sc.d a0, s1, (s0)", 1),
    "lost to a trap": ("lr.d t1, (s0); ecall; sc.d a0, s1, (s0)", 1),
    "through another name": ("lr.d t1, (s2); sc.d a0, s1, (s0)", 0),
}


@pytest.mark.parametrize("kind", RESERVATIONS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_store_succeeds_only_while_its_reservation_holds(kind: str, warm: bool) -> None:
    code, failed = RESERVATIONS[kind]
    with Guest(
        f"""
        la t0, trapped
        csrw mtvec, t0
        la s0, data
        li s1, 77
        {"sd zero, 0(s0); sd zero, 0(s2)" if warm else "nop"}
        {code}
        ld a1, 0(s0)
        li t0, {DEVICES}
        csrr t1, satp
        csrw satp, zero
        sd a0, 0(t0)
        .align 4
    trapped:
        csrr t1, mepc
        addi t1, t1, 4
        csrw mepc, t1
        li t1, 0x1800
        csrs mstatus, t1
        mret
        .align 4096
    data: .dword 0, 0
    """
    ) as guest:
        tables = PageTables(guest, BASE + 0x100000)
        tables.map(BASE, BASE, ALL, level=2)
        tables.map(VIRTUAL, guest.labels["data"], ALL)
        # loads and stores are the supervisor's (MPRV), the rest is done in machine mode
        guest.hart.set("x", VIRTUAL if "name" in kind else guest.labels["data"], 18)
        if "name" in kind:
            guest.hart.set("satp", tables.satp)
            guest.hart.set("mstatus", 1 << 17 | 1 << 11)
            guest.open_protection()
            tables.map(DEVICES, DEVICES)
        assert guest.result() == failed
        if kind != "lost to a store":
            assert guest.x("a1") == (0 if failed else 77)


# ---- contention

LOCKED = """
        li t1, 1
    try:
        amoswap.w t0, t1, (s2)
        bnez t0, try
        fence r, rw
        ld t2, 0(s0)
        addi t2, t2, 1
        sd t2, 0(s0)
        fence rw, w
        amoswap.w zero, zero, (s2)
"""


@pytest.mark.parametrize("harts", [2, 4])
@pytest.mark.parametrize(
    ("name", "add"),
    [
        ("lr.w", "again: lr.w t0, (s0); addi t0, t0, 1; sc.w t1, t0, (s0); bnez t1, again"),
        ("lr.d", "again: lr.d t0, (s0); addi t0, t0, 1; sc.d t1, t0, (s0); bnez t1, again"),
        ("amoadd", "li t0, 1; amoadd.d zero, t0, (s0)"),
        ("spin lock", LOCKED),
    ],
)
def test_no_count_is_lost_between_harts(name: str, add: str, harts: int) -> None:
    rounds = 3000 if name == "spin lock" else 20000
    with Guest(
        f"""
        la s0, counter
        addi s2, s0, 64
        li s1, {rounds}
    loop:
        {add}
        addi s1, s1, -1
        bnez s1, loop
        {DONE}
        .align 4096
    counter: .dword 0
    """,
        harts=harts,
    ) as guest:
        assert all(isinstance(one, MmioWrite) for one in guest.run_all())
        assert guest.word(guest.labels["counter"]) == harts * rounds


def test_message_passing_with_fences_never_shows_the_flag_before_the_data() -> None:
    rounds = 20000
    with Guest(
        f"""
        la s0, data
        la s2, flag
        li s1, {rounds}
        li t3, 0
        csrr t0, mhartid
        bnez t0, reader
    writer:
        addi t3, t3, 1
        sd t3, 0(s0)
        fence w, w
        sd t3, 0(s2)
        bne t3, s1, writer
        li a0, 0
        {DONE}
    reader:
        ld t0, 0(s2)
        fence r, r
        ld t1, 0(s0)
        bltu t1, t0, wrong
        bne t0, s1, reader
        li a0, 0
        {DONE}
    wrong:
        li a0, 1
        {DONE}
        .align 64
    data: .dword 0
        .align 64
    flag: .dword 0
    """,
        harts=2,
    ) as guest:
        assert guest.run_all() == [MmioWrite(DEVICES, 8, 0)] * 2


def test_store_buffers_are_emptied_by_a_full_fence() -> None:
    """Dekker: both write, fence, read the other's. Never do both read what was there before."""
    rounds = 3000
    body = """
    loop{me}:
        addi s1, s1, 1
        # wait for the other to come to this round
        sd s1, 0({mine_round})
    wait{me}:
        ld t0, 0({other_round})
        bltu t0, s1, wait{me}
        sd s1, 0({mine})
        fence rw, rw
        ld t1, 0({other})
        slli t2, s1, 3
        add t2, t2, s6
        sd t1, 0(t2)
        bne s1, s3, loop{me}
    """
    with Guest(
        f"""
        la s4, place
        addi s5, s4, 64
        addi s8, s5, 64
        addi s9, s8, 64
        li s1, 0
        li s3, {rounds}
        csrr t0, mhartid
        bnez t0, second
        la s6, seen0
        {body.format(me="0", mine="s4", other="s5", mine_round="s8", other_round="s9")}
        {DONE}
    second:
        la s6, seen1
        {body.format(me="1", mine="s5", other="s4", mine_round="s9", other_round="s8")}
        {DONE}
        .align 4096
    place: .space 256
    seen0: .space {8 * rounds + 8}
    seen1: .space {8 * rounds + 8}
    """,
        harts=2,
    ) as guest:
        assert all(isinstance(one, MmioWrite) for one in guest.run_all())
        for number in range(1, rounds + 1):
            seen = [guest.word(guest.labels[f"seen{hart}"] + 8 * number) for hart in (0, 1)]
            assert max(seen) >= number, (number, seen)


# ---- progress


@pytest.fixture
def one_processor() -> Iterator[None]:
    """This process, and every thread that it starts from here on, on one of the host's processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


SPIN = "loop: addi a0, a0, 1; j loop"


def test_four_spinning_harts_on_one_processor_progress_alike(one_processor: None) -> None:
    with Guest(SPIN, harts=4) as guest:
        harts = guest.engine.harts
        threads = [threading.Thread(target=guest.run, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        began, until = time.process_time(), time.monotonic() + 120
        while time.process_time() < began + 3:  # of the processor, however many others want it
            assert time.monotonic() < until
            time.sleep(0.1)
        for hart in harts:
            hart.interrupt()
        for thread in threads:
            thread.join()
        counts = [hart.get("x", 10) for hart in harts]
        assert max(counts) - min(counts) <= 0.1 * max(counts), counts


def test_spinning_harts_do_not_starve_a_device_thread(one_processor: None) -> None:
    """On one processor with two harts that never come back to Python, a Python thread does a thousand things."""
    with Guest(SPIN, harts=2) as guest:
        threads = [threading.Thread(target=guest.run, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        done = []
        event = threading.Event()

        def device() -> None:
            for number in range(100):
                guest.put(BASE + 0x8000, number)
                time.sleep(0.0001)
                done.append(number)
            event.set()

        worker = threading.Thread(target=device)
        worker.start()
        assert event.wait(60)
        worker.join()
        for hart in guest.engine.harts:
            hart.interrupt()
        for thread in threads:
            thread.join()
        assert done == list(range(100))
        assert all(hart.get("x", 10) > 0 for hart in guest.engine.harts)


# ---- from outside


@pytest.mark.parametrize(
    "loop",
    [
        SPIN,
        # no jump back: page after page, and then by the address in a register
        "start: la t0, start\n" + "nop\n" * 3000 + "jr t0",
        # no jump at all: traps and returns from them
        """
            la t0, handler
            csrw mtvec, t0
            li t0, 0x1800
            csrs mstatus, t0
            la t1, again
        again:
            ecall
            .align 4
        handler:
            csrw mepc, t1
            li t0, 0x1800
            csrs mstatus, t0
            mret
        """,
        "wfi; loop: wfi; j loop",
    ],
    ids=["a loop", "pages", "traps", "sleep"],
)
def test_whatever_a_guest_does_it_can_be_interrupted(loop: str) -> None:
    with Guest(loop) as guest:
        for _ in range(5):
            threading.Timer(0.01, guest.hart.interrupt).start()
            assert guest.hart.run() == Interrupted()


def test_an_interruption_before_a_run_ends_it_at_its_beginning() -> None:
    with Guest(SPIN) as guest:
        guest.hart.interrupt()
        assert guest.hart.run() == Interrupted()
        assert guest.x("a0") == 0
        assert guest.hart.get("pc") == BASE


def test_a_trap_whose_handler_traps_for_ever_is_a_shutdown() -> None:
    with Guest("li t0, 0x1000; csrw mtvec, t0; ecall") as guest:
        came = guest.hart.run()
        assert type(came).__name__ == "Shutdown"
        assert "0x1000" in getattr(came, "reason", "")


def test_old_translations_are_gone_when_a_flush_from_another_thread_returns() -> None:
    """The hart loads through one page all the time. After each change and flush it may read the new frame only."""
    frames = [BASE + 0x200000, BASE + 0x201000]
    with Guest(
        f"""
        li s0, {VIRTUAL}
        la s1, seen
    loop:
        ld t0, 0(s0)
        sd t0, 0(s1)
        addi a0, a0, 1
        sd a0, 8(s1)
        j loop
        .align 64
    seen: .dword 0, 0
    """
    ) as guest:
        tables = PageTables(guest, BASE + 0x100000)
        tables.map(BASE, BASE, ALL, level=2)
        entry = tables.map(VIRTUAL, frames[0])
        for frame in frames:
            guest.put(frame, frame)
        guest.open_protection()
        guest.hart.set("mode", 1)
        guest.hart.set("satp", tables.satp)
        thread = threading.Thread(target=guest.run)
        # requests of another kind come all the time, so that flushes fall together with them
        busy = threading.Event()

        def lines() -> None:
            while not busy.is_set():
                guest.hart.flush_instructions()
                guest.hart.set_line(9, True)
                guest.hart.flush_translations()

        other = threading.Thread(target=lines)
        thread.start()
        other.start()
        seen = guest.labels["seen"]
        try:
            for number in range(250):
                frame = frames[number & 1]
                guest.put(entry, frame >> 2 | ALL)
                guest.hart.flush_translations()
                turn = guest.word(seen + 8)
                deadline = time.monotonic() + 60
                while guest.word(seen + 8) < turn + 2 and time.monotonic() < deadline:
                    pass  # two more rounds: a load that began before the flush was stored by now
                assert guest.word(seen) == frame
        finally:
            busy.set()
            guest.hart.interrupt()
            thread.join()
            other.join()


def test_a_flush_waits_for_the_look_that_took_it_and_not_for_the_one_before() -> None:
    """What the hart does, step by step: a look that began before the request says nothing about it."""
    with Guest() as guest:
        hart = guest.hart
        running, honoured, request = hart._arrays["running"], hart._arrays["honoured"], hart._request
        running[0] = 1
        honoured[0] = 1  # a look is under way, with what was asked before
        flush = threading.Thread(target=hart.flush_translations)
        flush.start()
        while not any(request):
            time.sleep(0)
        honoured[0] = 2  # it is done
        flush.join(0.1)
        assert flush.is_alive()
        honoured[0] = 3  # the next one begins, takes the request,
        request[:] = [0] * 8
        flush.join(0.1)
        assert flush.is_alive()
        honoured[0] = 4  # and has done it
        flush.join(60)
        assert not flush.is_alive()
        running[0] = 0


def test_old_code_is_gone_when_a_flush_from_another_thread_returns() -> None:
    with Guest(
        """
        la s1, seen
    loop:
        call function
        sd t0, 0(s1)
        addi a0, a0, 1
        sd a0, 8(s1)
        j loop
        .align 4096
    seen: .dword 0, 0
        .align 4096
    function:
        addi t0, zero, 0
        ret
    """
    ) as guest:
        thread = threading.Thread(target=guest.run)
        thread.start()
        seen = guest.labels["seen"]
        try:
            for number in range(1, 150):
                guest.put(guest.labels["function"], word(f"addi t0, zero, {number}"), 4)
                guest.hart.flush_instructions()
                turn = guest.word(seen + 8)
                deadline = time.monotonic() + 60
                while guest.word(seen + 8) < turn + 2 and time.monotonic() < deadline:
                    pass
                assert guest.word(seen) == number
        finally:
            guest.hart.interrupt()
            thread.join()


def test_a_sleeping_hart_answers_a_flush() -> None:
    with Guest("loop: wfi; j loop") as guest:
        thread = threading.Thread(target=guest.run)
        thread.start()
        for _ in range(100):
            guest.hart.flush_translations()
            guest.hart.flush_instructions()
        guest.hart.interrupt()
        thread.join()


def test_harts_that_flush_each_other_from_python_do_not_wait_for_ever() -> None:
    """As remote fences do it: each hart's own thread asks all others, again and again."""
    with Guest(f"li t6, {DEVICES}; loop: sd a0, 0(t6); j loop", harts=4) as guest:
        harts = guest.engine.harts

        def serve(index: int) -> None:
            for _ in range(60):
                guest.run(index)
                for other in harts:
                    if other.index != index:
                        other.flush_translations()

        threads = [threading.Thread(target=serve, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
