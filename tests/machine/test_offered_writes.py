"""A write that a disk has offered to a hart, when the hart suspends itself, and when the machine is paused, is taken a
snapshot of, is reset or is switched off: what the guest waits for is done, and done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from celaje.engine.protocol import Exit, MmioRead, MmioWrite, Recalled
from celaje.machine.board import SEI, UART_BASE, VIRTIO_BASE, VIRTIO_STRIDE, Board
from celaje.machine.config import MachineConfig
from celaje.machine.machine import Machine
from celaje.machine.snapshot.capture import DiskCut, take
from celaje.machine.snapshot.restore import Restored
from celaje.machine.verdict import VerdictKind
from celaje.machine.virtio.scsi import REQUEST
from tests.engine.fake import FakeHart, call
from tests.machine.boot.test_linux_image import image
from tests.machine.test_machine import HSM, MEMORY, Factory
from tests.machine.test_pause import running, wait_until
from tests.machine.virtio import test_block, test_scsi
from tests.machine.virtio.memory_disk import MemoryDisk

NEW = b"\xa5" * 512
NOTIFY = 0x50
LOOK = MmioRead(UART_BASE + 5, 1)
Order = Exit | Callable[[FakeHart], Exit]


class Guest:
    """A hart that does what it is told, and looks at its serial port meanwhile."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[Order] = SimpleQueue()

    def __call__(self, hart: FakeHart) -> Exit:
        hart.script.append(self)
        try:
            order = self._orders.get(timeout=0.001)
        except Empty:
            return LOOK
        return order(hart) if callable(order) else order

    def order(self, order: Order) -> None:
        self._orders.put(order)

    def obey(self, order: Order) -> None:
        """Return when it has done that, and whoever runs it has answered."""
        self._orders.put(order)
        self._orders.put(LOOK)
        wait_until(self._orders.empty)


def suspend(hart: FakeHart) -> Exit:
    hart.set("sie", 1 << SEI)
    hart.set("stimecmp", (1 << 64) - 1)
    step = call(HSM, 3, 0, 0, 0)
    assert callable(step)
    return step(hart)


class BlockWriter(test_block.Disk):
    """Drives a board's first virtio device, a block device, but for notifications."""

    index, window = 0, VIRTIO_BASE

    def __init__(self, board: Board) -> None:
        self.memory, self.mmio = board.ram, board.virtio[0]
        self.device = self.mmio.device

    def set_up(self) -> None:
        self.initialize(test_block.FLUSH)

    def submit_write(self, sector: int) -> None:
        self.memory.write(test_block.DATA, NEW)
        queue = self.queues[self.index]
        queue.offer(queue.chain(self.buffers(test_block.OUT, sector, [(test_block.DATA, 512, 0)])))


class ScsiWriter(test_scsi.Adapter):
    """Drives the second, a SCSI controller behind the random numbers."""

    index, window = REQUEST, VIRTIO_BASE + VIRTIO_STRIDE

    def __init__(self, board: Board) -> None:
        self.memory, self.mmio = board.ram, board.virtio[1]
        self.device = self.mmio.device

    def set_up(self) -> None:
        self.initialize(size=64)
        self.submit(test_scsi.TEST_UNIT_READY, [])
        self.notify(REQUEST)

    def submit_write(self, sector: int) -> None:
        self.memory.write(test_scsi.DATA, NEW)
        self.submit(test_scsi.write(sector), [(test_scsi.DATA, 512, 0)])


Writer = BlockWriter | ScsiWriter


class Bench:
    """A machine with a disk. `begin` has its hart be offered the write of NEW to sector 3."""

    def __init__(self, writer: type[Writer], kernel: Path, restored: Restored | None = None) -> None:
        self.writer = writer
        self.disk = MemoryDisk(16)
        self.guest = Guest()
        on_block, on_scsi = ([self.disk], None) if writer is BlockWriter else ([], [self.disk])
        config = MachineConfig(memory=MEMORY, kernel=kernel, disks=on_block, scsi_disks=on_scsi)
        self.machine = Machine(config, Factory([[self.guest]]), restored)
        self.driver: Writer
        self.before = 0

    def find(self) -> None:
        """The device of the machine that runs by now."""
        wait_until(lambda: self.machine.statistics()["starts"])
        self.driver = self.writer(self.board)

    def begin(self) -> None:
        self.find()
        self.driver.set_up()
        done = self.given
        self.write(1)  # a block device offers what comes after a write
        self.guest.order(Recalled(idle=True))
        # A block device's thread looks for more while it holds the lock, and would take what is offered next.
        wait_until(lambda: self.given == done + 1 and not self.driver.device.lock.locked())
        self.before = self.given
        self.write(3)
        assert self.board.offers
        assert (self.given, self.has(3)) == (self.before, False)

    @property
    def board(self) -> Board:
        with self.machine.standing() as board:
            assert board is not None
            return board

    def write(self, sector: int) -> None:
        """Have the hart notify the disk of a write."""
        self.driver.submit_write(sector)
        self.guest.obey(MmioWrite(self.driver.window + NOTIFY, 4, self.driver.index))

    @property
    def given(self) -> int:
        """How many requests the disk has given back."""
        return self.driver.queues[self.driver.index].used_index

    def has(self, sector: int) -> bool:
        """Whether the disk has what was written there."""
        return bytes(self.disk.data[512 * sector : 512 * sector + 512]) == NEW

    def finish(self) -> None:
        """The write is done, and once; and so is another, of a hart that is idle."""
        wait_until(lambda: self.given == self.before + 1)
        assert self.has(3)
        self.guest.obey(Recalled(idle=True))
        assert self.given == self.before + 1
        self.write(5)
        self.guest.order(Recalled(idle=True))
        wait_until(lambda: self.given == self.before + 2)
        assert self.has(5)


@pytest.fixture(autouse=True)
def _recalls_that_wait_for_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """And disks that go on offering, however busy the host is."""
    monkeypatch.setattr(FakeHart, "recall", lambda hart: None)
    monkeypatch.setattr("celaje.machine.offers.HART_SECONDS", 60.0)
    monkeypatch.setattr("celaje.machine.virtio.scsi.HART_SECONDS", 60.0)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "Image"
    path.write_bytes(image(body=5000, size=0x100000))
    return path


@pytest.fixture(params=[BlockWriter, ScsiWriter], ids=["virtio-blk", "virtio-scsi"])
def bench(request: pytest.FixtureRequest, kernel: Path) -> Bench:
    return Bench(request.param, kernel)


def test_in_a_pause_it_is_done_before_or_after_and_not_meanwhile(bench: Bench) -> None:
    with running(bench.machine):
        bench.begin()
        bench.machine.pause()
        rest = bench.given, bench.has(3)
        assert rest[1] == (bench.given == bench.before + 1)
        time.sleep(0.02)
        assert (bench.given, bench.has(3)) == rest
        bench.machine.resume()
        bench.finish()


def test_a_hart_that_suspends_itself_leaves_it_to_the_disks_thread(bench: Bench) -> None:
    with running(bench.machine):
        bench.begin()
        bench.guest.order(suspend)
        wait_until(lambda: bench.given == bench.before + 1)
        assert bench.has(3)
        bench.board.set_line(0, SEI, True)
        bench.finish()


def test_a_snapshot_has_it_as_done_or_as_still_to_be_done_and_the_machine_goes_on(
    bench: Bench, kernel: Path, tmp_path: Path
) -> None:
    cuts: list[bytes] = []

    def cut() -> Sequence[DiskCut]:
        cuts.append(bytes(bench.disk.data))
        return ()

    with running(bench.machine):
        bench.begin()
        take(bench.machine, tmp_path / "machine.snap", cut)
        bench.finish()
        queues = bench.driver.queues
    restored = Restored(tmp_path / "machine.snap")
    second = Bench(bench.writer, kernel, restored)
    second.disk.data[:] = cuts[0]
    second.before = bench.before
    with running(second.machine):
        second.find()
        second.driver.queues = queues
        for queue in queues:
            queue.memory = second.board.ram
        queues[second.driver.index].next_available -= 1  # the write that came after the snapshot
        second.finish()
    restored.close()


def test_a_reset_forgets_it_and_the_disk_serves_the_guest_that_comes_after(bench: Bench) -> None:
    with running(bench.machine):
        bench.begin()
        bench.machine.reset()
        wait_until(lambda: bench.machine.statistics()["starts"] == 2)
        bench.find()
        bench.driver.set_up()
        assert not bench.board.offers
        for sector in range(5, 16):
            done = bench.given
            bench.write(sector)
            wait_until(lambda done=done: bench.given == done + 1)  # type: ignore[misc]  # mypy cannot infer it
            assert bench.has(sector)


def test_a_machine_that_is_switched_off_does_not_wait_for_it(bench: Bench) -> None:
    with running(bench.machine) as verdicts:
        bench.begin()
        bench.machine.leave()
        wait_until(lambda: verdicts)
    assert verdicts[0].kind is VerdictKind.LEFT
    assert bench.disk.closed
