"""Windows behave as the list of memoryviews that they stand for, and the host's calls move the same bytes."""

from __future__ import annotations

import errno
import os
import random
import struct
import tempfile
from pathlib import Path

import pytest

from celaje.engine.memory import PAGE_SIZE, GuestMemory
from celaje.scatter import Windows, preadv, pwritev, section, total

BASE = 0x8000_0000


@pytest.fixture
def memory():
    made = GuestMemory(BASE, 64 * PAGE_SIZE)
    made.view[:] = random.Random(3).randbytes(64 * PAGE_SIZE)
    yield made
    made.close()


def columns(seed: int, count: int) -> tuple[list[int], list[int]]:
    chance = random.Random(seed)
    addresses = [BASE + chance.randrange(60) * PAGE_SIZE + chance.randrange(PAGE_SIZE) for _ in range(count)]
    return addresses, [chance.randrange(1, 2 * PAGE_SIZE) for _ in range(count)]


def table(addresses: list[int], lengths: list[int]) -> bytes:
    return b"".join(struct.pack("<QII", *row, 0xFFFF_FFFF) for row in zip(addresses, lengths, strict=True))


def windows_of(memory: GuestMemory, addresses: list[int], lengths: list[int]) -> Windows:
    windows = memory.windows(table(addresses, lengths))
    assert windows is not None
    return windows


def plain(memory: GuestMemory, addresses: list[int], lengths: list[int]) -> list[memoryview]:
    return [memory.slice(address, length) for address, length in zip(addresses, lengths, strict=True)]


def contents(windows: Windows | list[memoryview]) -> list[bytes]:
    return [bytes(window) for window in windows]


@pytest.mark.parametrize("seed", range(30))
def test_any_course_of_changes_leaves_what_it_would_leave_of_a_list(memory: GuestMemory, seed: int) -> None:
    chance = random.Random(seed)
    windows, expected = windows_of(memory, *columns(seed, 12)), plain(memory, *columns(seed, 12))
    while expected:
        match chance.randrange(7):
            case 0:
                assert bytes(windows.pop(0)) == bytes(expected.pop(0))
            case 1:
                assert bytes(windows.pop()) == bytes(expected.pop())
            case 2:
                del windows[0]
                del expected[0]
            case 3:
                start, stop = sorted(chance.sample(range(len(expected) + 1), 2))
                windows, expected = windows[start:stop], expected[start:stop]
            case 4 if chance.randrange(3) == 0:
                place = chance.choice((0, -1))
                windows[place], expected[place] = windows[place][1:], expected[place][1:]
            case 5 if chance.randrange(3) == 0:
                del windows[1:2]
                del expected[1:2]
            case _:
                windows = windows.copy()
        assert len(windows) == len(expected)
        assert windows.total == total(windows) == total(expected)
        if expected:
            index = chance.randrange(-len(expected), len(expected))
            assert bytes(windows[index]) == bytes(expected[index])
            length = chance.randrange(1, total(expected) + 1)
            start = chance.randrange(total(expected) - length + 1)
            assert contents(section(windows[:], start, length)) == contents(section(expected, start, length))
    assert contents(windows) == contents(expected)


def test_a_copy_is_not_changed_by_what_happens_to_the_first(memory: GuestMemory) -> None:
    windows = windows_of(memory, *columns(1, 5))
    copy = windows.copy()
    windows.pop()
    windows[0] = windows[0][:1]
    assert contents(copy) == contents(plain(memory, *columns(1, 5)))


@pytest.mark.parametrize("index", [5, -6])
def test_there_is_no_window_beyond_the_last(memory: GuestMemory, index: int) -> None:
    with pytest.raises(IndexError):
        windows_of(memory, *columns(1, 5))[index]


END = BASE + 64 * PAGE_SIZE


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (BASE - 1, 2), (END - 1, 2), (END, 1), (0, 1), (BASE, 0), (BASE, 64 * PAGE_SIZE + 1), (BASE, 0xFFFF_FFFF),
        (1 << 47, 9), (1 << 48, 9), (1 << 63, 9), ((1 << 64) - 1, 1), (BASE + (1 << 48), 1), (BASE + (1 << 63), 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_table_with_a_range_that_is_empty_or_outside_memory_gives_no_windows(
    memory: GuestMemory, address: int, length: int, place: int
) -> None:
    good = [(BASE, 64 * PAGE_SIZE), (END - 1, 1)]
    assert memory.windows(table(*map(list, zip(*good, strict=True)))) is not None
    good.insert(place, (address, length))
    assert memory.windows(table(*map(list, zip(*good, strict=True)))) is None


@pytest.mark.parametrize("seed", range(200))
def test_a_table_gives_windows_if_and_only_if_each_range_would_by_itself(memory: GuestMemory, seed: int) -> None:
    chance = random.Random(seed)
    edges = (0, BASE, END, 1 << 32, 1 << 48, 1 << 63, 1 << 64)
    addresses = [(chance.choice(edges[1:3]) + chance.randrange(-9, 9)) % (1 << 64) for _ in range(3)]
    if seed % 3 == 0:
        addresses[seed % 2] = (chance.choice(edges) + chance.randrange(-9, 9)) % (1 << 64)
    lengths = [
        chance.choice((0, 1, 8, 64 * PAGE_SIZE, 0xFFFF_FFFF)) + chance.randrange(2) & 0xFFFF_FFFF for _ in addresses
    ]
    inside = all(
        length and memory.contains(address, length) for address, length in zip(addresses, lengths, strict=True)
    )
    windows = memory.windows(table(addresses, lengths))
    assert (windows is not None) == inside
    if windows is not None:
        assert contents(windows) == contents(plain(memory, addresses, lengths))


def test_tables_with_the_same_ranges_between_other_ends_give_their_own_windows(memory: GuestMemory) -> None:
    inner = [BASE + page * PAGE_SIZE for page in (5, 9, 2, 7)]
    for first, last, change in [(0, 1, None), (3, 1, None), (3, 8, None), (3, 8, BASE), (0, 1, None)]:
        addresses = [BASE + 16 * first, *inner, BASE + 16 * last]
        if change is not None:
            addresses[2] = change
        lengths = [16, *[PAGE_SIZE] * 4, 1]
        windows = windows_of(memory, addresses, lengths)
        assert windows.total == sum(lengths)
        assert windows[1:].total == sum(lengths[1:])
        del windows[0]
        assert contents(windows) == contents(plain(memory, addresses, lengths)[1:])
    for _ in range(2):
        assert memory.windows(table([BASE, END, BASE], [1, 1, 1])) is None


@pytest.mark.parametrize("count", [1, 7, 300])
def test_what_is_written_and_read_back_is_what_a_list_would_have_moved(memory: GuestMemory, count: int) -> None:
    chance = random.Random(count)
    addresses = [BASE + page * PAGE_SIZE + 512 * chance.randrange(8) for page in chance.choices(range(64), k=count)]
    lengths = [chance.randrange(1, 512) for _ in addresses]
    with tempfile.TemporaryFile() as file:
        windows = windows_of(memory, addresses, lengths)
        assert pwritev(file.fileno(), windows[1:], 100) == sum(lengths[1:])
        written = b"".join(plain(memory, addresses, lengths)[1:])
        assert os.pread(file.fileno(), len(written) + 1, 100) == written
        memory.view[:] = bytes(len(memory.view))
        assert preadv(file.fileno(), windows[1:], 100) == len(written)
        expected = GuestMemory(BASE, memory.size)
        os.preadv(file.fileno(), plain(expected, addresses, lengths)[1:], 100) if count > 1 else None
        assert bytes(memory.view) == bytes(expected.view)
        expected.close()


def test_the_hosts_refusal_is_an_oserror(memory: GuestMemory, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    os.close(fd)
    for call in (preadv, pwritev):
        number = 0
        try:
            call(fd, windows_of(memory, [BASE], [1]), 0)
        except OSError as error:  # by hand: an exception that is kept keeps its frames, and they the window
            number = error.errno or 0
        assert number == errno.EBADF
    assert not any(memory.dirty)


@pytest.mark.parametrize("seed", range(5))
def test_all_pages_of_all_ranges_are_marked_and_no_others(memory: GuestMemory, seed: int) -> None:
    addresses, lengths = columns(seed, 9)
    memory.mark_windows(windows_of(memory, addresses, lengths))
    touched = {
        (address + byte - BASE) // PAGE_SIZE
        for address, length in zip(addresses, lengths, strict=True)
        for byte in range(length)
    }
    assert {page for page, mark in enumerate(memory.dirty) if mark} == touched
    memory.mark_windows(windows_of(memory, addresses, lengths)[9:])


def test_whole_pages_are_marked_and_no_others(memory: GuestMemory) -> None:
    pages = [5, 63, 0, 7]
    memory.mark_windows(
        windows_of(memory, [BASE + page * PAGE_SIZE for page in pages], [PAGE_SIZE, 1, 9, PAGE_SIZE])[:3]
    )
    assert {page for page, mark in enumerate(memory.dirty) if mark} == {5, 63, 0}
