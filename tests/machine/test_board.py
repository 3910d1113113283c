from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from celaje.engine.protocol import MmioRead, MmioWrite
from celaje.machine.board import Board, HtifSymbols
from celaje.machine.boot.device_tree import Node, flatten, parse
from celaje.machine.console import BufferConsole
from celaje.machine.processor import ProcessorDescription
from celaje.machine.verdict import Verdict, VerdictKind
from celaje.machine.virtio.rng import VirtioRng
from tests.engine.fake import FakeEngine

RAM = 0x80000000


class Wired:
    """A board with two harts, a random number generator and what happens on it."""

    def __init__(self, htif: HtifSymbols | None = None) -> None:
        self.engine = FakeEngine([], [])
        self.console = BufferConsole()
        self.verdicts: list[Verdict] = []
        self.woken: list[int] = []
        self.rng = VirtioRng()
        self.board = Board(
            self.engine,
            16 << 20,
            self.console,
            self.verdicts.append,
            wake=self.woken.append,
            virtio=[self.rng],
            htif=htif,
        )

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.board.bus.write(self.engine.scripted[0], MmioWrite(address, size, value))

    def read(self, address: int, size: int = 4) -> int | None:
        self.board.bus.read(self.engine.scripted[0], MmioRead(address, size))
        return self.engine.scripted[0].answers.pop()

    def close(self) -> None:
        self.board.detach()
        self.rng.close()
        self.board.ram.close()


@pytest.fixture
def wired() -> Iterator[Wired]:
    wired = Wired()
    yield wired
    wired.close()


def numbers(node: Node, name: str) -> list[int]:
    data = node.properties[name]
    assert isinstance(data, bytes)
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]


def text(node: Node, name: str) -> list[str]:
    data = node.properties[name]
    assert isinstance(data, bytes)
    return data.decode().rstrip("\0").split("\0")


def told(wired: Wired, **options: object) -> Node:
    return parse(flatten(wired.board.device_tree(**options)))  # type: ignore[arg-type]  # passed on as they are


def test_memory_is_one_slot_of_the_engine(wired: Wired) -> None:
    assert [(slot.base, slot.size) for slot in wired.engine.memory] == [(RAM, 16 << 20)]


def test_the_serial_port_interrupts_through_source_10(wired: Wired) -> None:
    wired.write(0x0C000000 + 4 * 10, 1)
    wired.write(0x0C002080, 1 << 10)  # hart 0, supervisor
    wired.write(0x0C002100, 1 << 10)  # hart 1, machine
    wired.write(0x10000001, 1, size=1)
    wired.console.type(b"a")
    assert wired.engine.scripted[0].lines[9] is True
    assert wired.engine.scripted[1].lines[11] is True
    assert {0, 1} <= set(wired.woken)
    assert wired.read(0x0C201004) == 10
    assert wired.engine.scripted[0].lines[9] is False
    assert wired.read(0x10000000, 1) == ord("a")


def test_the_clock_interrupts_through_source_11(wired: Wired) -> None:
    wired.write(0x00101010, 1)
    wired.write(0x00101008, 1)  # an alarm long ago
    assert wired.read(0x0C001000) == 1 << 11


def test_software_interrupts_are_the_aclints(wired: Wired) -> None:
    wired.write(0x02000004, 1)
    assert wired.engine.scripted[1].lines[3] is True


def test_the_finisher_ends_the_machine(wired: Wired) -> None:
    wired.write(0x00100000, 0x3333 | 3 << 16)
    assert [(verdict.kind, verdict.number) for verdict in wired.verdicts] == [(VerdictKind.FAIL, 3)]


def test_virtio_slots_start_with_what_is_there_and_the_rest_are_empty(wired: Wired) -> None:
    bases = range(0x10001000, 0x10009000, 0x1000)
    assert [wired.read(base) for base in bases] == [0x74726976] * 8
    assert [wired.read(base + 4) for base in bases] == [2] * 8
    assert [wired.read(base + 8) for base in bases] == [4, 0, 0, 0, 0, 0, 0, 0]


def test_where_nothing_is_there_is_an_access_fault(wired: Wired) -> None:
    for address in (0, 0x1000, 0x10000100, 0x10009000, 0x7FFFFFF8, RAM + (16 << 20)):
        assert wired.read(address) is None


def test_tohost_is_watched_where_it_stands_in_memory() -> None:
    wired = Wired(HtifSymbols(RAM + 0x1000, None))
    assert [slot.base for slot in wired.engine.memory] == [RAM]
    assert wired.engine.watched == RAM + 0x1000
    assert wired.board.htif is not None
    wired.board.ram.write(RAM + 0x1000, b"\x01")
    wired.board.htif.look()
    assert [verdict.kind for verdict in wired.verdicts] == [VerdictKind.PASS]
    wired.close()


def test_the_tree_describes_the_harts(wired: Wired) -> None:
    root = told(wired)
    assert numbers(root.find("/cpus"), "timebase-frequency") == [10_000_000]
    for hart in range(2):
        cpu = root.find(f"/cpus/cpu@{hart}")
        assert numbers(cpu, "reg") == [hart]
        assert text(cpu, "riscv,isa") == [
            "rv64imafdc_zicbom_zicboz_zicntr_zicond_zicsr_zifencei_zihpm_zba_zbb_zbs_sstc_svinval"
        ]
        assert text(cpu, "riscv,isa-base") == ["rv64i"]
        assert text(cpu, "riscv,isa-extensions")[:7] == ["i", "m", "a", "f", "d", "c", "zicbom"]
        assert text(cpu, "mmu-type") == ["riscv,sv57"]
        assert numbers(cpu, "riscv,cbom-block-size") == numbers(cpu, "riscv,cboz-block-size") == [64]


def test_the_tree_wires_interrupts_to_the_harts(wired: Wired) -> None:
    root = told(wired)
    controllers = [numbers(root.find(f"/cpus/cpu@{hart}/interrupt-controller"), "phandle")[0] for hart in range(2)]
    plic = root.find("/soc/plic@c000000")
    clint = root.find("/soc/clint@2000000")
    assert numbers(plic, "interrupts-extended") == [
        cell for phandle in controllers for cell in (phandle, 11, phandle, 9)
    ]
    assert numbers(clint, "interrupts-extended") == [
        cell for phandle in controllers for cell in (phandle, 3, phandle, 7)
    ]
    for name, source in (("serial@10000000", 10), ("rtc@101000", 11), ("rng@102000", 12), ("virtio_mmio@10001000", 1)):
        device = root.find(f"/soc/{name}")
        assert numbers(device, "interrupts") == [source]
        assert numbers(device, "interrupt-parent") == numbers(plic, "phandle")


def test_every_phandle_is_given_once(wired: Wired) -> None:
    seen: list[int] = []

    def walk(node: Node) -> None:
        if "phandle" in node.properties:
            seen.extend(numbers(node, "phandle"))
        for child in node.children:
            walk(child)

    walk(told(wired))
    assert len(seen) == len(set(seen)) == 6


def test_the_tree_has_what_a_kernel_is_told(wired: Wired) -> None:
    root = told(wired, arguments="quiet root=/dev/vda", initrd=(0x80E00000, 0x80E12345), seed=bytes(range(32)))
    chosen = root.find("/chosen")
    assert text(chosen, "bootargs") == ["quiet root=/dev/vda"]
    assert text(chosen, "stdout-path") == ["/soc/serial@10000000"]
    assert numbers(chosen, "linux,initrd-start") == [0, 0x80E00000]
    assert numbers(chosen, "linux,initrd-end") == [0, 0x80E12345]
    assert chosen.properties["rng-seed"] == bytes(range(32))
    assert numbers(root.find("/memory@80000000"), "reg") == [0, RAM, 0, 16 << 20]
    assert numbers(root.find("/poweroff"), "value") == [0x5555]
    assert numbers(root.find("/reboot"), "value") == [0x7777]
    assert numbers(root.find("/reboot"), "regmap") == numbers(root.find("/soc/test@100000"), "phandle")


def test_a_kernel_that_is_told_nothing_finds_nothing(wired: Wired) -> None:
    assert set(told(wired).find("/chosen").properties) == {"stdout-path"}


def test_every_device_in_the_tree_answers_on_the_bus(wired: Wired) -> None:
    on_bus = {base for base, _ in wired.board.bus.devices}
    for node in told(wired).find("/soc").children:
        _, base, _, size = numbers(node, "reg")
        assert base in on_bus
        assert size == next(device.size for at, device in wired.board.bus.devices if at == base)


def test_the_processor_is_described_as_the_board_was_told() -> None:
    processor = ProcessorDescription(extensions=("i", "m", "zicsr"), mmu="riscv,sv39", cache_block=32)
    board = Board(FakeEngine([]), 1 << 20, BufferConsole(), lambda verdict: None, wake=lambda hart: None, isa=processor)
    cpu = parse(flatten(board.device_tree())).find("/cpus/cpu@0")
    assert text(cpu, "riscv,isa") == ["rv64im_zicsr"]
    assert text(cpu, "mmu-type") == ["riscv,sv39"]
    board.detach()
    board.ram.close()


def test_dtc_has_nothing_to_say_about_the_tree(wired: Wired, tool: Callable[[str], str]) -> None:
    blob = flatten(wired.board.device_tree("console=ttyS0", (0x80E00000, 0x80E12345), bytes(32)))
    done = subprocess.run(
        [tool("dtc"), "-I", "dtb", "-O", "dtb", "-"], input=blob, capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    assert parse(done.stdout) == parse(blob)
