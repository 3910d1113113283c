"""The dirty log: every page that was changed, and no other one."""

from __future__ import annotations

import threading

import pytest

from celaje.engine.memory import PAGE_SIZE
from tests.engine.translate.assembly import BASE, DONE, Guest
from tests.engine.translate.page_tables import FRAMES, TABLES, VIRTUAL, R, Supervisor, V, W


def pages_of(log: list[bytes], first: int, count: int) -> list[int]:
    start = (first - BASE) // PAGE_SIZE
    return [number for number in range(count) if log[0][start + number]]


@pytest.mark.parametrize(
    "store",
    [
        *("sb t1, 0(t0)", "sd t1, 0(t0)", "sd t1, 3(t0)", "fsd f1, 0(t0)", "cbo.zero 0(t0)"),
        *("amoadd.w t2, t1, (t0)", "lr.d t2, (t0); sc.d t2, t1, (t0)"),
    ],
)
def test_each_kind_of_store_marks_its_page_and_no_other_one(store: str) -> None:
    written = [3, 17, 40, 41]
    with Guest("nop") as guest:
        guest.hart.set("fs", 3)
        guest.engine.start_dirty_log()
        for _ in range(2):
            code = "\n".join(f"li t0, {FRAMES + n * PAGE_SIZE + 64}; ld t3, 0(t0); {store}" for n in written)
            guest.load(f"{code}\n{DONE}")
            guest.hart.set("pc", BASE)
            guest.result()
            assert pages_of(guest.engine.take_dirty_log(), FRAMES, 100) == written
            assert pages_of(guest.engine.take_dirty_log(), FRAMES, 100) == []


def test_a_store_across_pages_marks_both() -> None:
    with Guest(f"li t0, {FRAMES + 8 * PAGE_SIZE - 1}; sh t0, 0(t0); {DONE}") as guest:
        guest.engine.start_dirty_log()
        guest.result()
        assert pages_of(guest.engine.take_dirty_log(), FRAMES, 100) == [7, 8]


def test_tables_whose_entries_are_marked_are_dirty_too() -> None:
    with Supervisor(f"li t0, {VIRTUAL}; sd a0, 0(t0); {DONE}") as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES, V | R | W)
        guest.engine.start_dirty_log()
        guest.result()
        log = guest.engine.take_dirty_log()
        assert pages_of(log, TABLES, 16) == [(entry - TABLES) // PAGE_SIZE]


def test_the_log_misses_nothing_while_harts_and_devices_write() -> None:
    """A copy is kept by the log alone, as a migration keeps one; in the end it is the memory."""
    pages = 64
    with Guest(
        f"""
        csrr s0, mhartid
        slli s0, s0, 3
        li s1, {FRAMES}
        add s1, s1, s0
        la s2, stop
        li s3, {pages}
        li a0, 1
    loop:
        mv t0, s1
        mv t1, s3
    next:
        sd a0, 0(t0)
        li t2, {PAGE_SIZE}
        add t0, t0, t2
        addi t1, t1, -1
        bnez t1, next
        addi a0, a0, 1
        ld t2, 0(s2)
        beqz t2, loop
        {DONE}
        .align 4096
    stop: .dword 0
    """,
        harts=2,
    ) as guest:
        guest.engine.start_dirty_log()
        copy = bytearray(guest.memory.read(FRAMES, pages * PAGE_SIZE))
        threads = [threading.Thread(target=guest.run, args=(index,)) for index in range(2)]
        stop = threading.Event()

        def device() -> None:
            count = 1
            while not stop.is_set():
                for page in range(pages):
                    guest.put(FRAMES + page * PAGE_SIZE + 64, count)
                count += 1

        threads.append(threading.Thread(target=device))
        for thread in threads:
            thread.start()

        def take() -> None:
            log = guest.engine.take_dirty_log()
            for page in pages_of(log, FRAMES, pages):
                at = page * PAGE_SIZE
                copy[at : at + PAGE_SIZE] = guest.memory.read(FRAMES + at, PAGE_SIZE)

        for _ in range(80):
            take()
        while guest.word(FRAMES) <= 1:  # a hart may not have had its turn yet
            take()
        stop.set()
        guest.put(guest.labels["stop"], 1)
        for thread in threads:
            thread.join()
        take()
        assert bytes(copy) == guest.memory.read(FRAMES, pages * PAGE_SIZE)
        assert guest.word(FRAMES) > 1


def test_a_page_that_is_changed_once_is_in_one_of_the_takes() -> None:
    """The hart goes through fresh pages while they are taken as fast as can be: none falls between two takes."""
    pages = 12_000
    with Guest(
        f"""
        li s1, {FRAMES}
        li s2, {PAGE_SIZE}
        li s3, {pages}
    loop:
        sd s1, 0(s1)
        add s1, s1, s2
        addi s3, s3, -1
        bnez s3, loop
        {DONE}
    """,
        size=64 << 20,
    ) as guest:
        for _ in range(3):
            guest.hart.set("pc", BASE)
            guest.engine.start_dirty_log()
            thread = threading.Thread(target=guest.result)
            thread.start()
            takes = []
            while thread.is_alive():
                takes.append(guest.engine.take_dirty_log()[0])
            thread.join()
            takes.append(guest.engine.take_dirty_log()[0])
            start = (FRAMES - BASE) // PAGE_SIZE
            found = 0
            for take in takes:
                found |= int.from_bytes(take[start : start + pages], "little")
            assert found.to_bytes(pages, "little") == b"\x01" * pages
