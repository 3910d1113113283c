from __future__ import annotations

from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.machine.console import BufferConsole
from celaje.machine.devices.htif import Htif
from celaje.machine.verdict import Verdict, VerdictKind

BASE = 0x80000000
TOHOST, FROMHOST = 0x80001000, 0x80001040


class Host:
    """HTIF in three pages of RAM, its console and the verdicts it came to."""

    def __init__(self) -> None:
        self.ram = GuestMemory(BASE, 3 * 4096)
        self.console = BufferConsole()
        self.verdicts: list[Verdict] = []
        self.htif = Htif(TOHOST, FROMHOST, self.ram, self.console, self.verdicts.append)

    def tohost(self, value: int) -> None:
        self.ram.write(TOHOST, value.to_bytes(8, "little"))
        self.htif.look()

    def fromhost(self) -> int:
        return int.from_bytes(self.ram.read(FROMHOST, 8), "little")


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.ram.close()


def test_one_is_a_pass(host: Host) -> None:
    host.tohost(1)
    assert [verdict.kind for verdict in host.verdicts] == [VerdictKind.PASS]


def test_another_odd_value_is_a_failure_with_its_number(host: Host) -> None:
    host.tohost(13 << 1 | 1)
    assert [(verdict.kind, verdict.number) for verdict in host.verdicts] == [(VerdictKind.FAIL, 13)]


def test_zero_is_no_request(host: Host) -> None:
    host.tohost(0)
    assert host.verdicts == []


def test_characters_reach_the_console(host: Host) -> None:
    for byte in b"hi":
        host.tohost(0x0101 << 48 | byte)
        assert host.ram.read(TOHOST, 8) == bytes(8)
        assert host.fromhost() == 0x0101 << 48
    assert host.console.output == b"hi"


def test_a_request_for_a_character_is_answered_when_there_is_one(host: Host) -> None:
    host.tohost(0x0100 << 48)
    assert host.fromhost() == 0
    host.console.type(b"k")
    assert host.fromhost() == 0x0100 << 48 | 0x100 | ord("k")
    host.console.type(b"l")  # nobody asked for it
    assert host.fromhost() & 0xFF == ord("k")


def test_a_character_that_was_typed_before_is_there_at_once(host: Host) -> None:
    host.console.type(b"e")
    host.tohost(0x0100 << 48)
    assert host.fromhost() & 0xFF == ord("e")


def test_a_write_system_call_writes_to_the_console(host: Host) -> None:
    host.ram.write(BASE + 0x200, b"benchmark\n")
    host.ram.write(BASE + 0x100, b"".join(n.to_bytes(8, "little") for n in (64, 1, BASE + 0x200, 10)))
    host.tohost(BASE + 0x100)
    assert host.console.output == b"benchmark\n"
    assert host.fromhost() == 1
    assert host.ram.read(BASE + 0x100, 8) == (10).to_bytes(8, "little")


def test_an_exit_system_call_ends_with_its_code(host: Host) -> None:
    host.ram.write(BASE + 0x100, b"".join(n.to_bytes(8, "little") for n in (93, 5, 0, 0)))
    host.tohost(BASE + 0x100)
    assert [(verdict.kind, verdict.number) for verdict in host.verdicts] == [(VerdictKind.FAIL, 5)]


def test_a_system_call_that_is_not_there_says_so(host: Host) -> None:
    host.ram.write(BASE + 0x100, (1024).to_bytes(8, "little"))
    host.tohost(BASE + 0x100)
    assert host.ram.read(BASE + 0x100, 8) == (-38).to_bytes(8, "little", signed=True)


@pytest.mark.parametrize("address", [0x1000, BASE + 3 * 4096 - 8, (1 << 48) - 2])
def test_a_system_call_block_outside_memory_is_ignored(host: Host, address: int) -> None:
    host.tohost(address)
    assert host.verdicts == []
    assert host.fromhost() == 0


def test_a_text_outside_memory_is_ignored(host: Host) -> None:
    host.ram.write(BASE + 0x100, b"".join(n.to_bytes(8, "little") for n in (64, 1, (1 << 64) - 8, 1 << 63)))
    host.tohost(BASE + 0x100)
    assert host.console.output == b""


def test_a_program_that_has_ended_gets_no_input_any_more(host: Host) -> None:
    host.tohost(0x0100 << 48)
    host.htif.close()
    host.console.type(b"x")
    assert host.fromhost() == 0
    assert host.console.take(1) == b"x"
