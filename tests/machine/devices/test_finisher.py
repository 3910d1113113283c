from __future__ import annotations

import pytest

from celaje.machine.bus import AccessRefused
from celaje.machine.devices.finisher import Finisher
from celaje.machine.verdict import Verdict, VerdictKind


@pytest.fixture
def verdicts() -> list[Verdict]:
    return []


@pytest.fixture
def finisher(verdicts: list[Verdict]) -> Finisher:
    return Finisher(verdicts.append)


@pytest.mark.parametrize(
    ("value", "kind", "number"),
    [
        (0x5555, VerdictKind.POWER_OFF, 0),
        (0x3333, VerdictKind.FAIL, 0),
        (0x3333 | 42 << 16, VerdictKind.FAIL, 42),
        (0x3333 | 0xFFFF << 16, VerdictKind.FAIL, 0xFFFF),
        (0x7777, VerdictKind.REBOOT, 0),
    ],
)
def test_a_command_ends_the_machine(
    finisher: Finisher, verdicts: list[Verdict], value: int, kind: VerdictKind, number: int
) -> None:
    finisher.write(0, 4, value)
    assert [(verdict.kind, verdict.number) for verdict in verdicts] == [(kind, number)]


def test_a_16_bit_store_does_too(finisher: Finisher, verdicts: list[Verdict]) -> None:
    finisher.write(0, 2, 0x7777)
    assert [verdict.kind for verdict in verdicts] == [VerdictKind.REBOOT]


def test_other_values_and_other_offsets_do_nothing(finisher: Finisher, verdicts: list[Verdict]) -> None:
    finisher.write(0, 4, 0x1234)
    finisher.write(4, 4, 0x5555)
    assert verdicts == []
    assert finisher.read(0, 4) == 0


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 8), (1, 2)])
def test_other_accesses_are_refused(finisher: Finisher, verdicts: list[Verdict], offset: int, size: int) -> None:
    with pytest.raises(AccessRefused):
        finisher.write(offset, size, 0x5555)
    with pytest.raises(AccessRefused):
        finisher.read(offset, size)
    assert verdicts == []


def test_a_finisher_keeps_nothing(finisher: Finisher) -> None:
    finisher.restore(finisher.save())
    with pytest.raises(ValueError, match="code"):
        finisher.restore({"code": 1})
