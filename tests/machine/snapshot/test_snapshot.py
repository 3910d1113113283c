"""A machine's snapshot, taken while the guest runs, and the machine that goes on from it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from celaje.engine.evaluate.engine import EvaluateEngine
from celaje.engine.memory import PAGE_SIZE
from celaje.engine.translate.engine import TranslateEngine
from celaje.errors import GuestError, InputError
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import EngineFactory, Machine
from celaje.machine.processor import ProcessorDescription
from celaje.machine.snapshot.capture import CLUSTER, DiskCut, take
from celaje.machine.snapshot.file import SnapshotFile
from celaje.machine.snapshot.restore import Restored
from celaje.machine.snapshot.state import MachineState, decode, encode
from celaje.machine.virtio.rng import VirtioRng
from tests.machine.test_pause import ALPHABET, running, wait_until

MEMORY = 16 << 20
LETTERS = bytes(range(ord("a"), ord("z") + 1))

# Checks itself: fills 8 pages with a counter, checks that all of them hold it, sends a letter (or, if they do not, '!'
# for ever), and counts on.
CHECKER = (
    0x100002B7,  # lui   t0,0x10000
    0x40200437,  # lui   s0,0x40200
    0x00141413,  # sll   s0,s0,0x1
    0x00000493,  # li    s1,0
    0x00008937,  # lui   s2,0x8
    0x01240933,  # add   s2,s0,s2
    0x00148493,  # add   s1,s1,1
    0x00040313,  # mv    t1,s0
    0x00933023,  # sd    s1,0(t1)
    0x04030313,  # add   t1,t1,64
    0xFF231CE3,  # bne   t1,s2,20
    0x00040313,  # mv    t1,s0
    0x00033383,  # ld    t2,0(t1)
    0x00939E63,  # bne   t2,s1,50
    0x04030313,  # add   t1,t1,64
    0xFF231AE3,  # bne   t1,s2,30
    0x00F4F393,  # and   t2,s1,15
    0x04138393,  # add   t2,t2,65
    0x00728023,  # sb    t2,0(t0) # 10000000
    0xFCDFF06F,  # j     18
    0x02100393,  # li    t2,33
    0x00728023,  # sb    t2,0(t0)
    0xFF9FF06F,  # j     50
)
SIXTEEN = bytes(range(ord("A"), ord("A") + 16))

ENGINES = pytest.mark.parametrize("engine", [TranslateEngine, EvaluateEngine])


def program(path: Path, words: Sequence[int]) -> Path:
    path.write_bytes(struct.pack(f"<{len(words)}I", *words))
    return path


@pytest.fixture
def alphabet(tmp_path: Path) -> MachineConfig:
    return MachineConfig(memory=MEMORY, firmware=program(tmp_path / "alphabet", ALPHABET))


@pytest.fixture
def checker(tmp_path: Path) -> MachineConfig:
    return MachineConfig(memory=MEMORY, firmware=program(tmp_path / "checker", CHECKER))


@pytest.fixture
def restored() -> Iterator[Callable[[Path], Restored]]:
    with ExitStack() as stack:

        def open_it(path: Path) -> Restored:
            found = Restored(path)
            stack.callback(found.close)
            return found

        yield open_it


def follows(output: bytes | bytearray, letters: bytes) -> bool:
    """Whether `output` is `letters` again and again, from any of them on."""
    start = letters.find(output[0])
    return start >= 0 and bytes(output) == (letters * (len(output) // len(letters) + 2))[start : start + len(output)]


@ENGINES
def test_a_restored_machine_goes_on_where_the_snapshot_was_taken(
    engine: EngineFactory, alphabet: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    first, second = BufferConsole(), BufferConsole()
    path = tmp_path / "machine.snap"
    machine = Machine(alphabet, engine)
    with running(machine, first):
        wait_until(lambda: len(first.output) > 100)
        take(machine, path)
        with machine.at_rest():
            sent = len(first.output)
        wait_until(lambda: len(first.output) > sent + 100)
    assert follows(first.output, LETTERS)
    with running(Machine(alphabet, engine, restored(path)), second):
        wait_until(lambda: len(second.output) > 100)
    assert follows(second.output, LETTERS)


@ENGINES
def test_a_snapshot_of_one_engine_goes_on_in_the_other(
    engine: EngineFactory, alphabet: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    other: EngineFactory = EvaluateEngine if engine is TranslateEngine else TranslateEngine
    console = BufferConsole()
    path = tmp_path / "machine.snap"
    machine = Machine(alphabet, engine)
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, path)
    console = BufferConsole()
    with running(Machine(alphabet, other, restored(path)), console):
        wait_until(lambda: len(console.output) > 100)
    assert follows(console.output, LETTERS)


def test_a_guest_that_checks_its_memory_finds_it_whole_through_many_generations(
    checker: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    machine = Machine(checker, TranslateEngine)
    for generation in range(10):
        console = BufferConsole()
        path = tmp_path / f"{generation}.snap"
        with running(machine, console):
            wait_until(lambda console=console: len(console.output) > 200)  # type: ignore[misc]  # a bound default
            taken = take(machine, path)
            assert taken.rounds > 1
        assert follows(console.output, SIXTEEN)
        restored(path).file.verify()
        machine = Machine(checker, TranslateEngine, restored(path))
    machine.close()


def test_a_page_that_was_altered_under_a_restored_machine_is_not_copied_into_the_next_snapshot(
    checker: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    console = BufferConsole()
    path = tmp_path / "machine.snap"
    machine = Machine(checker, TranslateEngine)
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, path)
    console = BufferConsole()
    machine = Machine(checker, TranslateEngine, restored(path))
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, tmp_path / "whole.snap")
        with open(path, "r+b") as file:  # the last page, which the guest has not touched
            file.seek(MEMORY)
            file.write(b"altered")
        with pytest.raises(InputError, match=r"block 255 of its section memory was altered"):
            take(machine, tmp_path / "altered.snap")
        assert not (tmp_path / "altered.snap").exists()
        machine.reset()  # from here on the file is nobody's
        wait_until(lambda: machine.statistics()["starts"] == 2)
        take(machine, tmp_path / "anew.snap")


def test_a_machine_that_is_paused_can_be_taken_and_the_restored_one_runs(
    alphabet: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    console = BufferConsole()
    path = tmp_path / "machine.snap"
    machine = Machine(alphabet, TranslateEngine)
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        machine.pause()
        sent = len(console.output)
        take(machine, path)
        assert len(console.output) == sent
        second = BufferConsole()
        with running(Machine(alphabet, TranslateEngine, restored(path)), second):
            wait_until(lambda: len(second.output) > 10)
        # To the letter: the first one of the second machine comes after the last one of the first.
        assert follows(console.output + second.output, LETTERS)
        machine.resume()


def test_a_restored_machine_that_is_paused_before_it_runs_waits(
    alphabet: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    path = tmp_path / "machine.snap"
    machine = Machine(alphabet, TranslateEngine)
    console = BufferConsole()
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, path)
    console = BufferConsole()
    machine = Machine(alphabet, TranslateEngine, restored(path))
    machine.pause()
    with running(machine, console):
        with machine.at_rest() as rest:
            assert rest is None or not console.output
        machine.resume()
        wait_until(lambda: len(console.output) > 100)
    assert follows(console.output, LETTERS)


def test_a_reset_of_a_restored_machine_reads_its_files_again(
    alphabet: MachineConfig, tmp_path: Path, restored: Callable[[Path], Restored]
) -> None:
    path = tmp_path / "machine.snap"
    machine = Machine(alphabet, TranslateEngine)
    console = BufferConsole()
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, path)
    console = BufferConsole()
    machine = Machine(alphabet, TranslateEngine, restored(path))
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        machine.reset()
        wait_until(lambda: machine.statistics()["starts"] == 2)
        wait_until(lambda: len(console.output) > 500)


class Cut:
    """A disk of four clusters, two of which are its own."""

    name, size, base = "root", 4 * CLUSTER, b"what it was made over"
    extents: Sequence[tuple[int, int]] = ((1, 1), (3, 1))

    def __init__(self) -> None:
        self.closed = False

    def read(self, cluster: int, count: int) -> bytes:
        return b"".join(bytes([0x40 + number]) * CLUSTER for number in range(cluster, cluster + count))

    def close(self) -> None:
        self.closed = True


def test_disks_are_cut_while_the_machine_is_at_rest_and_travel_with_it(alphabet: MachineConfig, tmp_path: Path) -> None:
    console = BufferConsole()
    path = tmp_path / "machine.snap"
    machine = Machine(alphabet, TranslateEngine)
    disk = Cut()
    resting: list[bool] = []

    def cut() -> list[DiskCut]:
        resting.append(machine.paused)
        return [disk]

    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, path, cut, owner=lambda: b"the machine's record")
    assert resting == [True]
    assert disk.closed
    with SnapshotFile(path) as file:
        state = decode(file.state)
        (saved,) = state.disks
        assert state.owner == b"the machine's record"
        assert (saved.name, saved.size, saved.base) == (disk.name, disk.size, disk.base)
        assert saved.extents == [(1, 1), (3, 1)]
        assert b"".join(file.blocks(file.section(saved.section))) == b"A" * CLUSTER + b"C" * CLUSTER


def test_a_machine_that_does_not_run_is_refused(alphabet: MachineConfig, tmp_path: Path) -> None:
    with (
        Machine(alphabet, TranslateEngine) as machine,
        pytest.raises(GuestError, match="does not run, so there is nothing to take a snapshot of"),
    ):
        take(machine, tmp_path / "machine.snap")
    assert os.listdir(tmp_path) == ["alphabet"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("snapshot")
    config = MachineConfig(memory=MEMORY, firmware=program(directory / "alphabet", ALPHABET))
    console = BufferConsole()
    machine = Machine(config, TranslateEngine)
    with running(machine, console):
        wait_until(lambda: len(console.output) > 100)
        take(machine, directory / "machine.snap")
    return directory / "machine.snap"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 2 * MEMORY}, "bytes of memory 16777216, and this machine 33554432"),
        ({"cpus": 2}, "harts 1, and this machine 2"),
        ({"processor": ProcessorDescription(extensions=("i", "m", "a"))}, "the instruction set rv64imafdc.* rv64ima"),
    ],
)
def test_another_machine_is_refused_by_what_differs(
    snapshot: Path, change: dict[str, object], message: str, restored: Callable[[Path], Restored]
) -> None:
    config = msgspec_replace(MachineConfig(memory=MEMORY, firmware=snapshot.with_name("alphabet")), change)
    with pytest.raises(InputError, match=message):
        Machine(config, TranslateEngine, restored(snapshot))


def msgspec_replace(config: MachineConfig, change: dict[str, object]) -> MachineConfig:
    import dataclasses

    return dataclasses.replace(config, **change)  # type: ignore[arg-type]  # the test's own table


def test_other_devices_are_refused_by_their_place(snapshot: Path, restored: Callable[[Path], Restored]) -> None:
    config = MachineConfig(memory=MEMORY, firmware=snapshot.with_name("alphabet"), devices=[VirtioRng()])
    with (
        Machine(config, TranslateEngine, restored(snapshot)) as machine,
        pytest.raises(InputError, match=r"devices are not this machine's: .*VirtioMmio at 0x10002000"),
    ):
        machine.run(BufferConsole())


def altered(path: Path, place: Path, change: Callable[[MachineState], MachineState]) -> Path:
    """A copy of a snapshot with another state and hashes that fit it: what somebody hostile would give."""
    from celaje.machine.snapshot.file import SnapshotWriter

    with SnapshotFile(path) as file, SnapshotWriter(place) as writer:
        for section in file.sections.values():
            at = writer.add(section.name, section.length)
            for number, block in enumerate(file.blocks(section)):
                if any(block):
                    writer.write(at + number * len(block), [block])
        writer.finish(encode(change(decode(file.state))))
    return place


numbers = st.integers(0, (1 << 64) - 1)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_hostile_state_is_refused_or_taken_and_nothing_else(data: st.DataObject, snapshot: Path) -> None:
    """Whatever stands in the state of harts and devices: InputError, or a machine that runs (and may well die)."""
    found = Restored(snapshot)
    try:
        plain = msgspec.to_builtins(found.state, builtin_types=(bytes,))
        target = data.draw(st.sampled_from(["harts", "devices"]))
        entry = data.draw(st.sampled_from(plain[target]))
        fields = entry["registers" if target == "harts" else "state"]
        name = data.draw(st.sampled_from(sorted(fields) or ["nothing"]))
        value = fields.get(name)
        if isinstance(value, list) and value:
            value = list(value)
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(numbers)
            if data.draw(st.booleans()):
                value = value[:-1]
        elif isinstance(value, bytes):
            value = data.draw(st.binary(max_size=40))
        else:
            value = data.draw(numbers | st.just([1, 2]) | st.just(b"text"))
        fields[name] = value
        found.state = msgspec.convert(plain, MachineState)
        config = MachineConfig(memory=MEMORY, firmware=snapshot.with_name("alphabet"), timeout=0.02)
        with Machine(config, TranslateEngine, found) as machine:
            try:
                machine.run(BufferConsole())
            except InputError as error:
                assert "cannot be restored" in str(error)
    finally:
        found.close()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x81\xa8" + bytes(7) + b"\x80")  # a name that is no text
@example(b"\x81\xa5harts" + b"\x91" * 100_000)  # nested without end
@example(b"\x81\xa5other" + b"\x91" * 100_000)
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        decode(data)


def test_memory_that_a_snapshot_does_not_have_is_refused(snapshot: Path, tmp_path: Path) -> None:
    def elsewhere(state: MachineState) -> MachineState:
        return msgspec.structs.replace(
            state, memory=[msgspec.structs.replace(state.memory[0], base=0x9000_0000, size=PAGE_SIZE)]
        )

    with pytest.raises(InputError, match="its memory is not whole pages from 0x80000000"):
        Restored(altered(snapshot, tmp_path / "elsewhere", elsewhere))

    def longer(state: MachineState) -> MachineState:
        return msgspec.structs.replace(state, memory=[msgspec.structs.replace(state.memory[0], size=2 * MEMORY)])

    with pytest.raises(InputError, match="there is no section memory of 33554432 bytes"):
        Restored(altered(snapshot, tmp_path / "longer", longer))
