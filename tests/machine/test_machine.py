from __future__ import annotations

import signal
import struct
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from celaje.engine.protocol import Exit, Halt, Interrupted, MmioRead, MmioWrite, Shutdown, SystemCall, Watched
from celaje.errors import ImageError, InputError, NotFound, UsageError
from celaje.machine.boot.device_tree import parse
from celaje.machine.boot.firmware import MAGIC
from celaje.machine.config import Disk, MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine
from celaje.machine.verdict import Verdict, VerdictKind
from celaje.machine.virtio.block_backend import RawFile
from tests.engine.fake import FakeEngine, FakeHart, Step, call
from tests.machine.boot.elf_file import X86_64, elf_file
from tests.machine.boot.test_linux_image import image
from tests.machine_processes import wait_until

RAM = 0x80000000
HSM, SRST, DBCN = 0x48534D, 0x53525354, 0x4442434E
POWER_OFF = MmioWrite(0x100000, 4, 0x5555)
RESET = MmioWrite(0x100000, 4, 0x7777)
MEMORY = 16 << 20


class Factory:
    """Makes an engine a start, each with the next set of scripts (the last one again and again)."""

    def __init__(self, *starts: list[Iterable[Step]]) -> None:
        self._starts = list(starts)
        self.engines: list[FakeEngine] = []

    def __call__(self, hart_count: int) -> FakeEngine:
        scripts = self._starts[min(len(self.engines), len(self._starts) - 1)]
        assert hart_count == len(scripts)
        self.engines.append(FakeEngine(*scripts))
        return self.engines[-1]


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "Image"
    path.write_bytes(image(body=5000, size=0x100000))
    return path


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    path = tmp_path / "firmware.bin"
    path.write_bytes(b"\x6f\0\0\0 firmware")
    return path


def run(config: MachineConfig, factory: Factory, console: BufferConsole | None = None) -> Verdict:
    with Machine(config, factory) as machine:
        return machine.run(console or BufferConsole())


def memory(hart: FakeHart, factory: Factory, address: int, length: int) -> bytes:
    (slot,) = (slot for slot in factory.engines[-1].memory if slot.contains(address, length))
    return slot.read(address, length)


def look(at: Callable[[FakeHart], None], then: Exit) -> Step:
    """A step that looks before it leaves."""

    def step(hart: FakeHart) -> Exit:
        at(hart)
        return then

    return step


def test_a_kernel_starts_in_supervisor_mode_with_hart_and_device_tree(kernel: Path) -> None:
    seen: dict[str, int] = {}
    roots = []

    def at(hart: FakeHart) -> None:
        seen.update(pc=hart.get("pc"), mode=hart.get("mode"), a0=hart.get("x", 10), sbi=hart.get("sbi"))
        seen.update(medeleg=hart.get("medeleg"), mideleg=hart.get("mideleg"), menvcfg=hart.get("menvcfg"))
        tree = hart.get("x", 11)
        size = int.from_bytes(memory(hart, factory, tree + 4, 4), "big")
        roots.append(parse(memory(hart, factory, tree, size)))
        assert memory(hart, factory, RAM + 0x200000, 5000) == kernel.read_bytes()[:5000]

    factory = Factory([[look(at, POWER_OFF)]])
    verdict = run(MachineConfig(memory=MEMORY, kernel=kernel, append="quiet"), factory)
    assert verdict == Verdict(VerdictKind.POWER_OFF)
    assert seen == {
        "pc": RAM + 0x200000,
        "mode": 1,
        "a0": 0,
        "sbi": 1,
        "medeleg": 0xB1FF,
        "mideleg": 0x222,
        "menvcfg": 1 << 63 | 0xF0,
    }
    assert roots[0].find("/chosen").properties["bootargs"] == b"quiet\0"
    assert len(roots[0].find("/chosen").properties["rng-seed"]) == 32
    assert factory.engines[0].closed


def test_an_initrd_lies_where_the_device_tree_says(kernel: Path, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(range(256)) * 30)

    def at(hart: FakeHart) -> None:
        tree = hart.get("x", 11)
        chosen = parse(memory(hart, factory, tree, 8192)).find("/chosen").properties
        start, end = (int.from_bytes(bytes(chosen[f"linux,initrd-{name}"]), "big") for name in ("start", "end"))  # type: ignore[arg-type]
        assert memory(hart, factory, start, end - start) == initrd.read_bytes()

    factory = Factory([[look(at, POWER_OFF)]])
    assert run(MachineConfig(memory=MEMORY, kernel=kernel, initrd=initrd), factory).kind is VerdictKind.POWER_OFF


def test_firmware_starts_on_every_hart_in_machine_mode(firmware: Path) -> None:
    seen: dict[int, tuple[int, ...]] = {}
    all_seen = threading.Barrier(2, timeout=30)

    def at(hart: FakeHart) -> None:
        seen[hart.index] = (hart.get("pc"), hart.get("mode"), hart.get("x", 10), hart.get("x", 12), hart.get("sbi"))
        assert memory(hart, factory, hart.get("x", 11), 4) == b"\xd0\x0d\xfe\xed"
        all_seen.wait()

    factory = Factory([[look(at, POWER_OFF)], [look(at, POWER_OFF)]])
    run(MachineConfig(memory=MEMORY, cpus=2, firmware=firmware), factory)
    assert seen == {hart: (RAM, 3, hart, 0, 0) for hart in range(2)}


def test_firmware_is_told_where_the_kernel_is(firmware: Path, kernel: Path) -> None:
    def at(hart: FakeHart) -> None:
        information = struct.unpack("<6Q", memory(hart, factory, hart.get("x", 12), 48))
        assert information == (MAGIC, 2, 0x80200000, 1, 0, 0)
        assert memory(hart, factory, 0x80200000, 100) == kernel.read_bytes()[:100]
        assert hart.get("pc") == RAM

    factory = Factory([[look(at, POWER_OFF)]])
    verdict = run(MachineConfig(memory=MEMORY, firmware=firmware, kernel=kernel), factory)
    assert verdict.kind is VerdictKind.POWER_OFF


def test_what_the_guest_writes_to_the_serial_port_is_on_the_console(kernel: Path) -> None:
    console = BufferConsole()
    script = [MmioWrite(0x10000000, 1, byte) for byte in b"Linux version"]
    run(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[*script, POWER_OFF]]), console)
    assert console.output == b"Linux version"


def test_a_load_is_answered_before_the_hart_goes_on(kernel: Path) -> None:
    answers: list[int | None] = []
    script = [
        MmioRead(0x10001000, 4),
        MmioRead(0x666000, 4),
        look(lambda hart: answers.extend(hart.answers), POWER_OFF),
    ]
    run(MachineConfig(memory=MEMORY, kernel=kernel), Factory([script]))
    assert answers == [0x74726976, None]


def test_other_harts_wait_until_the_first_starts_them(kernel: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def at(hart: FakeHart) -> None:
        seen.append((hart.index, hart.get("pc"), hart.get("mode"), hart.get("x", 10), hart.get("x", 11)))

    factory = Factory([[call(HSM, 0, 1, RAM + 0x200010, 77)], [look(at, POWER_OFF)]])
    assert run(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel), factory).kind is VerdictKind.POWER_OFF
    assert seen == [(1, RAM + 0x200010, 1, 1, 77)]


def test_a_hart_that_stops_is_started_again(kernel: Path) -> None:
    seen: list[int] = []
    stopping = threading.Event()

    def stop(hart: FakeHart) -> Exit:
        seen.append(hart.get("pc"))
        stopping.set()
        return made(call(HSM, 1), hart)

    def start_again(hart: FakeHart) -> Exit:
        # The other hart stops on a thread of its own, and until it has a start is refused.
        assert stopping.wait(30)
        time.sleep(0.01)
        return made(call(HSM, 0, 1, RAM + 0x200020, 2), hart)

    first: list[Step] = [call(HSM, 0, 1, RAM + 0x200010, 1), *([start_again] * 6000)]  # as many as a busy host needs
    second: list[Step] = [stop, look(lambda hart: seen.append(hart.get("pc")), POWER_OFF)]
    verdict = run(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel), Factory([first, second]))
    assert verdict.kind is VerdictKind.POWER_OFF
    assert seen == [RAM + 0x200010, RAM + 0x200020]


def made(step: Step, hart: FakeHart) -> Exit:
    return step(hart) if callable(step) else step


def test_when_every_hart_has_stopped_the_guest_died(kernel: Path) -> None:
    verdict = run(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel), Factory([[call(HSM, 1)], []]))
    assert verdict.kind is VerdictKind.DIED
    assert "last running hart" in verdict.reason


def test_a_hart_that_cannot_go_on_is_a_guest_that_died(kernel: Path) -> None:
    verdict = run(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[Shutdown("its trap handler traps")]]))
    assert verdict == Verdict(VerdictKind.DIED, reason="its trap handler traps")


def test_a_guest_that_does_nothing_runs_into_the_time_limit(kernel: Path) -> None:
    verdict = run(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel, timeout=0.1), Factory([[], []]))
    assert verdict.kind is VerdictKind.TIMEOUT


def test_a_reset_starts_everything_anew(kernel: Path) -> None:
    spoilt = []

    def spoil(hart: FakeHart) -> None:
        (slot,) = factory.engines[-1].memory
        slot.write(RAM + 0x200000, b"spoilt")
        slot.write(RAM + 0x900000, b"left over")
        hart.set("x", 5, 20)

    def check(hart: FakeHart) -> None:
        spoilt.append(memory(hart, factory, RAM + 0x200000, 6))
        spoilt.append(memory(hart, factory, RAM + 0x900000, 9))
        spoilt.append(hart.get("x", 20))

    first: list[Step] = [MmioWrite(0x0C000004, 4, 7), look(spoil, RESET)]
    second: list[Step] = [MmioRead(0x0C000004, 4), look(check, POWER_OFF)]
    factory = Factory([first], [second])
    with Machine(MachineConfig(memory=MEMORY, kernel=kernel), factory) as machine:
        assert machine.run(BufferConsole()).kind is VerdictKind.POWER_OFF
        assert machine.statistics()["starts"] == 2
    assert spoilt == [kernel.read_bytes()[:6], bytes(9), 0]
    assert factory.engines[1].scripted[0].answers == [0]
    assert [engine.closed for engine in factory.engines] == [True, True]


def test_no_reboot_makes_a_reset_the_end(kernel: Path) -> None:
    factory = Factory([[call(SRST, 0, 1, 0)]])
    assert run(MachineConfig(memory=MEMORY, kernel=kernel, no_reboot=True), factory).kind is VerdictKind.REBOOT
    assert len(factory.engines) == 1


def test_a_guest_that_resets_for_ever_runs_into_the_time_limit(kernel: Path) -> None:
    verdict = run(MachineConfig(memory=MEMORY, kernel=kernel, timeout=0.3), Factory([[RESET]]))
    assert verdict.kind is VerdictKind.TIMEOUT


def test_input_survives_a_reset(kernel: Path) -> None:
    console = BufferConsole()
    listen: list[Step] = [MmioWrite(0x10000002, 1, 1), MmioWrite(0x10000001, 1, 1)]
    console.type(b"abc")
    first = [*listen, MmioRead(0x10000000, 1), RESET]
    second = [*listen, MmioRead(0x10000000, 1), POWER_OFF]
    factory = Factory([first], [second])
    run(MachineConfig(memory=MEMORY, kernel=kernel), factory, console)
    assert [engine.scripted[0].answers for engine in factory.engines] == [[ord("a")], [ord("b")]]


def test_a_disk_keeps_what_was_written_over_a_reset(kernel: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    script: list[Step] = [MmioRead(0x10001008, 4), MmioRead(0x10001100, 4), MmioRead(0x10002008, 4)]
    factory = Factory([[*script, RESET]], [[*script, POWER_OFF]])
    config = MachineConfig(memory=MEMORY, kernel=kernel, disks=[Disk(disk)])
    assert run(config, factory).kind is VerdictKind.POWER_OFF
    for engine in factory.engines:
        assert engine.scripted[0].answers == [2, 2048, 4]


def test_a_scsi_controller_comes_behind_the_random_numbers_and_keeps_its_disks_over_a_reset(
    kernel: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    script: list[Step] = [MmioRead(0x10001008, 4), MmioRead(0x10002008, 4)]
    factory = Factory([[*script, RESET]], [[*script, POWER_OFF]])
    config = MachineConfig(memory=MEMORY, kernel=kernel, scsi_disks=[Disk(disk)])
    with Machine(config, factory) as machine:
        assert machine.scsi is not None
        assert machine.run(BufferConsole()).kind is VerdictKind.POWER_OFF
        assert [backend.size for backend in machine.scsi.targets.values()] == [1 << 20]
    for engine in factory.engines:
        assert engine.scripted[0].answers == [4, 8]


def test_a_machine_without_scsi_disks_has_no_controller_unless_it_is_asked_for(kernel: Path) -> None:
    for wanted, ids in ((None, [4, 0]), ([], [4, 8])):
        factory = Factory([[MmioRead(0x10001008, 4), MmioRead(0x10002008, 4), POWER_OFF]])
        run(MachineConfig(memory=MEMORY, kernel=kernel, scsi_disks=wanted), factory)
        assert factory.engines[0].scripted[0].answers == ids


def test_a_scsi_disk_that_cannot_be_opened_leaves_nothing_open(kernel: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    config = MachineConfig(memory=MEMORY, kernel=kernel, scsi_disks=[Disk(disk), Disk(tmp_path / "none")])
    before = set(threading.enumerate())
    with pytest.raises(NotFound, match="there is no disk"):
        Machine(config, Factory([[]]))
    assert set(threading.enumerate()) <= before
    RawFile(disk).close()  # nobody has it locked


def test_leaving_switches_the_machine_off(kernel: Path) -> None:
    with Machine(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[]])) as machine:
        threading.Timer(0.05, machine.leave).start()
        assert machine.run(BufferConsole()).kind is VerdictKind.LEFT


@pytest.mark.usefixtures("heard")
def test_ctrl_c_switches_the_machine_off_and_goes_on(kernel: Path) -> None:
    factory = Factory([[], []])
    before = set(threading.enumerate())
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_until(lambda: any(thread.name == "hart 1" and thread.ident for thread in threading.enumerate()))
        signal.pthread_kill(main, signal.SIGINT)

    person = threading.Thread(target=interrupt)
    with Machine(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel), factory) as machine:
        person.start()
        with pytest.raises(KeyboardInterrupt):
            machine.run(BufferConsole())
    person.join()
    assert factory.engines[0].closed
    assert set(threading.enumerate()) <= before


def test_a_waiting_hart_goes_on_when_a_line_is_driven(kernel: Path) -> None:
    console = BufferConsole()
    listen: list[Step] = [
        MmioWrite(0x0C000000 + 40, 4, 1),
        MmioWrite(0x0C002080, 4, 1 << 10),
        MmioWrite(0x10000001, 1, 1),
    ]
    threading.Timer(0.1, console.type, (b"x",)).start()

    def awake(hart: FakeHart) -> Exit:
        return POWER_OFF if hart.lines.get(9) else Halt()

    factory = Factory([[*listen, Halt(), *([awake] * 100)]])
    assert run(MachineConfig(memory=MEMORY, kernel=kernel), factory, console).kind is VerdictKind.POWER_OFF


def test_interruptions_of_others_do_not_end_the_machine(kernel: Path) -> None:
    factory = Factory([[Interrupted(), Interrupted(), POWER_OFF]])
    assert run(MachineConfig(memory=MEMORY, kernel=kernel), factory).kind is VerdictKind.POWER_OFF


def test_tohost_ends_a_bare_metal_program(tmp_path: Path) -> None:
    path = tmp_path / "rv64ui-p-add"
    path.write_bytes(elf_file([(RAM, RAM, b"code", 4)], RAM, {"tohost": RAM + 0x1000, "fromhost": RAM + 0x1040}))

    def store(hart: FakeHart) -> Exit:
        factory.engines[0].memory[0].write(factory.engines[0].watched, bytes([5 << 1 | 1]))
        return Watched()

    factory = Factory([[store]])
    verdict = run(MachineConfig(memory=MEMORY, firmware=path), factory)
    assert (verdict.kind, verdict.number) == (VerdictKind.FAIL, 5)


def test_what_is_typed_while_the_machine_is_reset_is_the_next_programs(tmp_path: Path) -> None:
    """Also where the last one had asked for it, whose memory is gone."""
    path = tmp_path / "program"
    path.write_bytes(elf_file([(RAM, RAM, b"code", 4)], RAM, {"tohost": RAM + 0x1000, "fromhost": RAM + 0x1040}))
    console = BufferConsole()
    answers: list[bytes] = []

    class Typist(Factory):
        def __call__(self, hart_count: int) -> FakeEngine:
            if self.engines:
                console.type(b"a")
            return super().__call__(hart_count)

    def ask(hart: FakeHart) -> Exit:
        factory.engines[-1].memory[0].write(RAM + 0x1000, (0x0100 << 48).to_bytes(8, "little"))
        return Watched()

    def answered(hart: FakeHart) -> None:
        answers.append(memory(hart, factory, RAM + 0x1040, 2))

    factory = Typist([[ask, RESET]], [[ask, look(answered, POWER_OFF)]])
    assert run(MachineConfig(memory=MEMORY, firmware=path), factory, console).kind is VerdictKind.POWER_OFF
    assert answers == [b"a\1"]


def test_statistics_count_exits_by_cause(kernel: Path) -> None:
    script: list[Step] = [MmioRead(0x10000005, 1), MmioWrite(0x10000000, 1, 65), call(DBCN, 2, 66), POWER_OFF]
    with Machine(MachineConfig(memory=MEMORY, kernel=kernel), Factory([script])) as machine:
        machine.run(BufferConsole())
        statistics = machine.statistics()
    exits = statistics["exits"]
    assert isinstance(exits, dict)
    assert {name: count for name, count in exits.items() if count} == {"mmio_read": 1, "mmio_write": 2, "hypercall": 1}
    assert statistics["instructions"] == 4
    assert statistics["guest_seconds"] == 0.5
    assert isinstance(statistics["python_seconds"], float)


def test_a_mistake_of_ours_is_raised_where_the_machine_was_started(kernel: Path) -> None:
    with pytest.raises(TypeError, match="cannot answer the exit SystemCall"):
        run(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[SystemCall()]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": (16 << 20) + 1}, "whole pages of 4096 bytes, not 16777217"),
        ({"memory": 4096}, "at least 1 MiB"),
        ({"cpus": 0}, "1 to 64 cpus, not 0"),
        ({"cpus": 65}, "1 to 64 cpus, not 65"),
        ({"kernel": None}, "--kernel FILE or --firmware FILE"),
        ({"kernel": None, "firmware": Path("a"), "initrd": Path("b")}, "an initrd is a kernel's"),
        ({"disks": [Disk(Path("a"))] * 8}, "room for 7 disks of bus=virtio"),
        ({"disks": [Disk(Path("a"))] * 7, "scsi_disks": []}, "room for 6 disks of bus=virtio"),
    ],
)
def test_wrong_use_is_one_clear_line(kernel: Path, change: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"memory": MEMORY, "kernel": kernel, **change}
    with pytest.raises(UsageError, match=message) as caught:
        Machine(MachineConfig(**settings), Factory([[]]))  # type: ignore[arg-type]  # what is wrong is the point
    assert "\n" not in str(caught.value)


def test_wrong_files_are_told_before_anything_starts(kernel: Path, tmp_path: Path) -> None:
    factory = Factory([[]])
    foreign = tmp_path / "foreign"
    foreign.write_bytes(elf_file([(RAM, RAM, b"code", 4)], RAM, machine=X86_64))
    with pytest.raises(NotFound, match="there is no kernel"):
        Machine(MachineConfig(memory=MEMORY, kernel=tmp_path / "none"), factory)
    with pytest.raises(ImageError, match="architecture x64"):
        Machine(MachineConfig(memory=MEMORY, firmware=foreign), factory)
    with pytest.raises(NotFound, match="there is no disk"):
        Machine(MachineConfig(memory=MEMORY, kernel=kernel, disks=[Disk(tmp_path / "none")]), factory)
    assert factory.engines == []


def test_a_kernel_that_does_not_fit_says_how_much_memory_would_do(kernel: Path) -> None:
    factory = Factory([[]])
    with pytest.raises(InputError, match="give (more|at least) --memory"):
        run(MachineConfig(memory=2 << 20, kernel=kernel), factory)
    assert factory.engines[0].closed
