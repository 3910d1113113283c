from __future__ import annotations

import pytest

from celaje.machine.bus import AccessRefused
from celaje.machine.devices.plic import Plic
from celaje.machine.devices.vmgenid import GenerationIdentifier

SOURCE = 12


def identifier(device: GenerationIdentifier) -> bytes:
    return device.read(0, 8).to_bytes(8, "little") + device.read(8, 8).to_bytes(8, "little")


def test_the_identifier_is_sixteen_bytes_read_in_any_width() -> None:
    device = GenerationIdentifier(lambda level: None, lambda count: bytes(range(1, count + 1)))
    assert identifier(device) == bytes(range(1, 17))
    assert b"".join(device.read(at, 4).to_bytes(4, "little") for at in range(0, 16, 4)) == bytes(range(1, 17))
    assert device.read(15, 1) == 16
    assert device.read(16, 8) == device.read(0xFF8, 8) == 0


def test_a_new_identifier_comes_with_one_interrupt_that_is_not_lost() -> None:
    levels: list[bool] = []
    plic = Plic(16, [levels.append])
    device = GenerationIdentifier(lambda level: plic.set_level(SOURCE, level))
    before = identifier(device)
    plic.write(4 * SOURCE, 4, 1)
    plic.write(0x2000, 4, 1 << SOURCE)
    device.renew()
    assert identifier(device) != before
    assert levels == [True]
    assert plic.read(0x200004, 4) == SOURCE
    plic.write(0x200004, 4, SOURCE)
    assert levels == [True, False]


def test_the_guest_cannot_choose_it() -> None:
    device = GenerationIdentifier(lambda level: None)
    with pytest.raises(AccessRefused):
        device.write(0, 8, 0)


def test_a_saved_identifier_comes_back_and_can_then_be_renewed() -> None:
    device, other = GenerationIdentifier(lambda level: None), GenerationIdentifier(lambda level: None)
    other.restore(device.save())
    assert identifier(other) == identifier(device)
    other.renew()
    assert identifier(other) != identifier(device)


@pytest.mark.parametrize("wrong", [b"short", "text", 5])
def test_a_saved_identifier_of_the_wrong_shape_is_refused(wrong: bytes | str | int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        GenerationIdentifier(lambda level: None).restore({"identifier": wrong})
