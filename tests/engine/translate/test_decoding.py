"""Decoded code is bounded: what does not fit is decoded again; what is not needed is given back."""

from __future__ import annotations

import ctypes
import os
import random
import struct
import threading

import pytest

from celaje.engine.protocol import Interrupted, MmioWrite
from celaje.engine.translate.layout import DECODED_PAGE_BYTES, PAGE_STRIDE
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, word

SMALLEST = 16  # pages that an engine keeps however little it may
PAGE = 4096


def many_pages(count: int, order: list[int], rounds: int) -> str:
    """Functions on pages of their own, called in an order; each adds its number to a0 and stores to its own page."""
    calls = "\n".join(f"la t0, g{number}; jalr ra, 0(t0)" for number in order)
    functions = "\n".join(
        f".align 4096\ng{number}: addi a0, a0, {number}\n"
        f"la t1, d{number}; ld t2, 0(t1); addi t2, t2, 1; sd t2, 0(t1); ret\n"
        f".align 8\nd{number}: .dword 0"
        for number in range(count)
    )
    return f"li s1, {rounds}\nloop:\n{calls}\naddi s1, s1, -1\nbeqz s1, end\nj loop\nend: {DONE}\n{functions}"


def test_a_program_larger_than_what_may_be_kept_is_right_and_evicts() -> None:
    count, rounds = 40, 30
    order = list(range(count)) * 2
    random.Random(3).shuffle(order)
    with Guest(many_pages(count, order, rounds), decoded=1) as guest:
        assert guest.result() == rounds * sum(order)
        for number in range(count):
            assert guest.word(guest.labels[f"d{number}"]) == 2 * rounds
        statistics = guest.engine.statistics()
        assert statistics["evictions"] > count
        assert statistics["decoded_pages"] == SMALLEST
        assert statistics["decoded_bytes"] == SMALLEST * DECODED_PAGE_BYTES


def test_pages_that_are_entered_again_and_again_stay() -> None:
    """Eight functions are called between any two of many others, and after each call all pages are entered anew."""
    hot, count, rounds = 8, 40, 3
    order = [number for cold in range(hot, count) for number in (*range(hot), cold)]
    text = many_pages(count, order, rounds).replace("jalr ra, 0(t0)", "jalr ra, 0(t0); fence.i")
    with Guest(text, decoded=1) as guest:
        assert guest.result() == rounds * sum(order)
        assert guest.engine.statistics()["evictions"] < rounds * (count - hot) + SMALLEST


def test_code_that_is_evicted_is_executed_as_it_then_stands() -> None:
    """Every function is changed while it is not decoded, by the hart itself, without a fence."""
    count = 24
    changes = "\n".join(f"la t0, g{n}; li t1, {word(f'addi a0, a0, {n + 100}')}; sw t1, 0(t0)" for n in range(count))
    again = f"end: bnez s3, over\nli s3, 1\nli s1, 1\n{changes}\nj loop\nover: {DONE}"
    text = many_pages(count, list(range(count)), 1).replace(f"end: {DONE}", again)
    with Guest(text, decoded=1) as guest:
        assert guest.result() == sum(range(count)) + sum(n + 100 for n in range(count))
        assert guest.engine.statistics()["evictions"] > 0


def test_two_harts_share_the_bound() -> None:
    with Guest(decoded=4 << 20, harts=2) as guest:
        assert all(hart.get("arena_pages") == (2 << 20) // DECODED_PAGE_BYTES for hart in guest.engine.harts)


def test_a_page_that_only_takes_stores_any_more_loses_its_code() -> None:
    with Guest(
        f"""
        call function           # decodes the page
        la t0, data
        li t1, 5000
    loop:
        sd t1, 0(t0)
        addi t1, t1, -1
        bnez t1, loop
        csrr a0, minstret
        {DONE}
        .align 4096
    function: ret
        .align 8
    data: .dword 0
    """
    ) as guest:
        guest.result()
        number = (guest.labels["function"] - BASE) // PAGE
        entry = ctypes.c_uint32.from_address(guest.hart.get("page_map") + 4 * number)
        assert entry.value == 0
        assert guest.hart.get("data_misses") < 100  # the rest took the short way


# ---- given back


def resident(area: int, size: int) -> int:
    """Bytes of this process's memory from `area` (a page's start) on that the host keeps in memory.

    By the page map: smaps tells of whole mappings, and the kernel joins neighbours.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        entries = os.pread(file.fileno(), 8 * (size // page), 8 * (area // page))
    return sum(entry >> 63 for (entry,) in struct.iter_unpack("<Q", entries)) * page


def test_trim_gives_memory_back_and_the_guest_goes_on() -> None:
    count, rounds = 30, 4
    text = many_pages(count, list(range(count)), rounds).replace(
        "addi s1, s1, -1", f"li t6, {DEVICES}; sd a0, 64(t6); addi s1, s1, -1"
    )
    with Guest(text) as guest:
        arena = guest.hart.get("arena")
        for number in range(1, rounds):
            assert guest.run() == MmioWrite(DEVICES + 64, 8, number * sum(range(count)))
            assert resident(arena, count * PAGE_STRIDE) >= count * DECODED_PAGE_BYTES
            # what was decoded is wrong from here on, and nobody says so
            guest.put(guest.labels["g1"], word("addi a0, a0, 1"), 4)
            guest.engine.trim()
            assert guest.run() == Interrupted()
            assert guest.engine.statistics()["decoded_pages"] <= 1
            assert resident(arena, count * PAGE_STRIDE) < 6 * DECODED_PAGE_BYTES
        assert guest.run() == MmioWrite(DEVICES + 64, 8, rounds * sum(range(count)))
        assert guest.result() == rounds * sum(range(count))


def test_trim_while_the_guest_runs_changes_no_result() -> None:
    count, rounds = 20, 20_000
    with Guest(many_pages(count, list(range(count)), rounds)) as guest:
        stop = threading.Event()

        def trim() -> None:
            while not stop.wait(0.001):
                guest.engine.trim()

        thread = threading.Thread(target=trim)
        guest.engine.trim()  # once at least, whatever the host is busy with
        thread.start()
        interruptions = 0
        while (came := guest.run()) == Interrupted():
            interruptions += 1
        stop.set()
        thread.join()
        assert came == MmioWrite(DEVICES, 8, rounds * sum(range(count)))
        assert interruptions > 0
        for number in range(count):
            assert guest.word(guest.labels[f"d{number}"]) == rounds


def test_trim_before_anything_ran_is_nothing() -> None:
    with Guest(DONE) as guest:
        guest.engine.trim()
        assert guest.run() == Interrupted()
        assert guest.result() == 0


def test_an_engine_costs_little_until_its_guest_runs() -> None:
    with Guest(DONE, decoded=64 << 20) as guest:
        pages = (64 << 20) // DECODED_PAGE_BYTES
        assert resident(guest.hart.get("arena"), pages * PAGE_STRIDE) < 4 * PAGE_STRIDE


@pytest.mark.parametrize("count", [0, 65])
def test_a_machine_has_1_to_64_harts(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        Guest(harts=count)


def test_sixty_four_harts_run() -> None:
    with Guest(f"csrr a0, mhartid; {DONE}", harts=64) as guest:
        assert [guest.result(index) for index in range(64)] == list(range(64))
