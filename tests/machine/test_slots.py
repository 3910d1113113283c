"""The board's slots: where a guest finds them, and devices that come and go in a machine that runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.engine.evaluate.engine import EvaluateEngine
from celaje.errors import UsageError
from celaje.machine.board import SLOTS_MOST, Board
from celaje.machine.boot.device_tree import flatten, parse
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.rng import VirtioRng
from tests.engine.fake import FakeEngine
from tests.machine.test_board import numbers, text
from tests.machine_processes import wait_until
from tests.system.test_vm_run import ECHO


class Closed(VirtioRng):
    """Says when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def board(slots: int, plugged: dict[int, VirtioDevice] | None = None) -> Board:
    return Board(
        FakeEngine([]),
        16 << 20,
        BufferConsole(),
        lambda verdict: None,
        wake=lambda hart: None,
        virtio=[VirtioRng()],
        slots=slots,
        plugged=plugged or {},
    )


def test_the_guest_is_told_of_slots_behind_all_other_virtio_devices() -> None:
    made = board(2, {1: VirtioRng()})
    soc = next(node for node in parse(flatten(made.device_tree())).children if node.name == "soc")
    found = [(numbers(node, "reg")[1], numbers(node, "interrupts")) for node in soc.children if "virtio" in node.name]
    assert found == [(0x10001000, [1]), (0x10010000, [16]), (0x10011000, [17])]
    assert all(text(node, "compatible") == ["virtio,mmio"] for node in soc.children if "virtio" in node.name)
    assert [slot.read(8, 4) for slot in made.slots] == [0, 4]
    made.detach()
    made.ram.close()


@pytest.mark.parametrize("slots", [-1, SLOTS_MOST + 1])
def test_a_board_has_room_for_so_many_slots(slots: int) -> None:
    with pytest.raises(ValueError, match="up to 14 slots"):
        board(slots)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """One that runs, with two slots and a SCSI controller; its guest drives nothing."""
    firmware = tmp_path / "firmware"
    firmware.write_bytes(ECHO)
    config = MachineConfig(memory=16 << 20, firmware=firmware, slots=2, scsi_disks=[])
    with Machine(config, EvaluateEngine) as machine:
        thread = threading.Thread(target=machine.run, args=(BufferConsole(),))
        thread.start()
        wait_until(lambda: machine.starts)
        yield machine
        machine.leave()
        thread.join()


def there(machine: Machine) -> list[int]:
    with machine.standing() as board:
        assert board is not None
        return [int(slot.window is not None) for slot in board.slots]


def test_a_device_comes_into_a_machine_that_runs_and_leaves_it_again(machine: Machine) -> None:
    device = Closed()
    machine.plug(device, 1)
    assert there(machine) == [0, 1]
    assert machine.scsi is not None
    with pytest.raises(UsageError, match=r"no free slot 1 .*free: \[0\]"):
        machine.plug(VirtioRng(), 1)
    machine.unplug(1)
    assert device.closed.wait(60)
    assert there(machine) == [0, 0]
    machine.unplug(1)
    with pytest.raises(UsageError, match="no free slot 2"):
        machine.plug(VirtioRng(), 2)


def test_a_device_that_a_driver_holds_on_to_keeps_its_slot_until_the_machine_is_reset(machine: Machine) -> None:
    device = Closed()
    machine.plug(device, 0)
    with machine.standing() as board:
        assert board is not None
        board.slots[0].write(0x70, 4, 1)  # a driver acknowledges it
    machine.unplug(0)
    assert not device.closed.is_set()
    assert machine.taken(0)
    with pytest.raises(UsageError, match="reset it"):
        machine.plug(VirtioRng(), 0)
    machine.reset()
    assert device.closed.wait(60)
    wait_until(lambda: machine.starts == 2)
    assert not machine.taken(0)


def test_what_is_plugged_in_stays_over_a_reset_and_comes_while_the_machine_is_paused(machine: Machine) -> None:
    machine.pause()
    device = Closed()
    machine.plug(device, 0)
    machine.resume()
    machine.reset()
    wait_until(lambda: machine.starts == 2)
    assert there(machine) == [1, 0]
    assert not device.closed.is_set()
