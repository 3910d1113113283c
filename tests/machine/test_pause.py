"""A machine that is paused, reset and switched from outside, on a scripted engine and on those that execute."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from celaje.engine.evaluate.engine import EvaluateEngine
from celaje.engine.protocol import Exit, Halt, MmioRead
from celaje.engine.translate.engine import TranslateEngine
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import EngineFactory, Machine
from celaje.machine.verdict import Verdict, VerdictKind
from celaje.machine.virtio.rng import VirtioRng
from tests.engine.fake import FakeHart, call
from tests.machine.boot.test_linux_image import image
from tests.machine.test_machine import HSM, MEMORY, POWER_OFF, RESET, Factory

# Sends 'a' to 'z' to the UART, again and again, a byte a store: for ever.
ALPHABET = (
    0x100002B7,  # lui   t0, 0x10000
    0x06100313,  # 1: li t1, 'a'
    0x07B00E13,  # li    t3, 'z' + 1
    0x00628023,  # 2: sb t1, 0(t0)
    0x0052C383,  # lbu   t2, 5(t0)
    0x00130313,  # addi  t1, t1, 1
    0xFFC31AE3,  # bne   t1, t3, 2b
    0xFE5FF06F,  # j     1b
)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "Image"
    path.write_bytes(image(body=5000, size=0x100000))
    return path


@pytest.fixture
def alphabet(tmp_path: Path) -> Path:
    path = tmp_path / "alphabet"
    path.write_bytes(struct.pack(f"<{len(ALPHABET)}I", *ALPHABET))
    return path


@contextmanager
def running(machine: Machine, console: BufferConsole | None = None) -> Iterator[list[Verdict]]:
    """`run` in a thread of its own; the verdict is in the list when the context is left."""
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(machine.run(console or BufferConsole())))
    with machine:
        thread.start()
        try:
            yield verdicts
        finally:
            machine.leave()
            thread.join(60)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def endless(hart: FakeHart) -> Exit:
    """Exits without end, each with a look whether somebody wants the hart."""
    hart.script.append(endless)
    time.sleep(0.0001)
    return MmioRead(0x10000005, 1)


def test_pauses_nest(kernel: Path) -> None:
    factory = Factory([[endless]])
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel), factory)
    with running(machine):
        wait_until(lambda: factory.engines and factory.engines[0].scripted[0].runs > 5)
        hart = factory.engines[0].scripted[0]
        for _ in range(20):
            machine.pause()
            machine.pause()
            machine.resume()
            before = hart.runs
            time.sleep(0.005)
            assert machine.paused
            assert hart.runs == before
            machine.resume()
            wait_until(lambda before=before: hart.runs > before)  # type: ignore[misc]  # mypy cannot infer it
        assert not machine.paused
    with pytest.raises(ValueError, match="resume without pause"):
        machine.resume()


def test_many_threads_may_pause_at_once(kernel: Path) -> None:
    factory = Factory([[endless], []])
    machine = Machine(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel), factory)

    def pauses() -> None:
        for _ in range(30):
            machine.pause()
            before = hart.runs
            time.sleep(0.0005)
            still.append(hart.runs == before)
            machine.resume()

    still: list[bool] = []
    with running(machine):
        wait_until(lambda: factory.engines and factory.engines[0].scripted[0].runs > 5)
        hart = factory.engines[0].scripted[0]
        threads = [threading.Thread(target=pauses) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert still == [True] * 120


def test_a_machine_paused_before_it_runs_waits_for_resume(kernel: Path) -> None:
    factory = Factory([[POWER_OFF]])
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel), factory)
    machine.pause()
    with running(machine) as verdicts:
        wait_until(lambda: machine.statistics()["starts"])
        time.sleep(0.02)
        assert factory.engines[0].scripted[0].runs == 0
        machine.resume()
        wait_until(lambda: verdicts)
    assert verdicts[0].kind is VerdictKind.POWER_OFF


def test_a_paused_machine_can_be_left(kernel: Path) -> None:
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[endless]]))
    with running(machine) as verdicts:
        machine.pause()
        machine.leave()
        wait_until(lambda: verdicts)
    assert verdicts[0].kind is VerdictKind.LEFT


def test_a_pause_lasts_over_a_reset(kernel: Path) -> None:
    factory = Factory([[endless]], [[POWER_OFF]])
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel, no_reboot=True), factory)
    with running(machine) as verdicts:
        wait_until(lambda: factory.engines and factory.engines[0].scripted[0].runs > 5)
        machine.pause()
        machine.reset()
        wait_until(lambda: len(factory.engines) == 2)
        machine.pause()
        time.sleep(0.01)
        assert factory.engines[1].scripted[0].runs == 0
        machine.resume()
        machine.resume()
        wait_until(lambda: verdicts)
    assert verdicts[0].kind is VerdictKind.POWER_OFF


def test_the_reset_button_starts_the_guest_anew_also_where_its_own_resets_end_the_machine(kernel: Path) -> None:
    factory = Factory([[endless]], [[RESET]])
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel, no_reboot=True), factory)
    with running(machine) as verdicts:
        wait_until(lambda: factory.engines and factory.engines[0].scripted[0].runs > 5)
        machine.reset()
        wait_until(lambda: verdicts)
    assert verdicts[0].kind is VerdictKind.REBOOT
    assert len(factory.engines) == 2


class Late(threading.Event):
    """The end of a life, as told by one thread when the next life has already begun, if it waits so long."""

    def __init__(self, begun: Callable[[], bool]) -> None:
        super().__init__()
        self._begun = begun

    def set(self) -> None:
        if threading.current_thread().name == "late":
            until = time.monotonic() + 0.5
            while not self._begun() and time.monotonic() < until:
                time.sleep(0.001)
        super().set()


def test_two_who_press_the_reset_button_at_once_reset_the_machine_and_do_not_end_it(kernel: Path) -> None:
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[endless]]))
    machine._ended = Late(lambda: machine.starts > 1)
    with running(machine) as verdicts:
        wait_until(lambda: machine.starts)
        late = threading.Thread(target=machine.reset, name="late")
        late.start()
        wait_until(lambda: machine._verdict)
        machine.reset()
        late.join(60)
        wait_until(lambda: verdicts or (machine.starts > 1 and not machine._ended.is_set()))
        assert not verdicts


@pytest.mark.parametrize("resting", [[Halt()] * 1000, [call(HSM, 3, 0, 0, 0)] * 1000], ids=["halt", "suspend"])
def test_harts_that_sleep_and_harts_that_never_started_come_to_rest(
    kernel: Path, resting: list[Exit | Callable[[FakeHart], Exit]]
) -> None:
    factory = Factory([list(resting), []])
    machine = Machine(MachineConfig(memory=MEMORY, cpus=2, kernel=kernel), factory)
    with running(machine):
        wait_until(lambda: factory.engines and factory.engines[0].scripted[0].runs)
        for _ in range(5):
            machine.pause()
            assert factory.engines[0].scripted[0].fields.get(("x", 10), 0) == 0  # a suspended hart's call has ended
            before = factory.engines[0].scripted[0].runs
            time.sleep(0.005)
            assert factory.engines[0].scripted[0].runs == before
            machine.resume()


def test_devices_rest_while_the_machine_is_paused(kernel: Path) -> None:
    device = VirtioRng()
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel, devices=[device]), Factory([[endless]]))
    with running(machine):
        machine.pause()
        assert device.at_rest
        machine.resume()
        assert not device.at_rest


def test_at_rest_the_board_stays_and_an_end_comes_after(kernel: Path) -> None:
    factory = Factory([[endless]])
    machine = Machine(MachineConfig(memory=MEMORY, kernel=kernel), factory)
    with running(machine) as verdicts:
        wait_until(lambda: factory.engines and factory.engines[0].scripted[0].runs > 5)
        with machine.at_rest() as found:
            assert found is not None
            machine.leave()
            time.sleep(0.02)
            assert not verdicts
            assert found.board.ram.read(found.board.ram.base, 16) == bytes(16)
        wait_until(lambda: verdicts)
        with machine.at_rest() as found:
            assert found is None


class Button(VirtioRng):
    """A power button as far as the machine is concerned."""

    pressed = 0

    def press(self) -> bool:
        self.pressed += 1
        return True


def test_the_power_button_is_pressed_where_there_is_one(kernel: Path) -> None:
    button = Button()
    with Machine(MachineConfig(memory=MEMORY, kernel=kernel, devices=[button]), Factory([[]])) as machine:
        assert machine.power_button()
        assert button.pressed == 1
    with Machine(MachineConfig(memory=MEMORY, kernel=kernel), Factory([[]])) as machine:
        assert not machine.power_button()


@pytest.mark.parametrize("engine", [EvaluateEngine, TranslateEngine])
def test_harts_at_rest_can_be_saved_and_put_back_between_any_two_device_accesses(
    engine: EngineFactory, alphabet: Path
) -> None:
    console = BufferConsole()
    machine = Machine(MachineConfig(memory=MEMORY, cpus=2, firmware=alphabet), engine)
    with running(machine, console):
        for _ in range(100):
            seen = len(console.output)
            wait_until(lambda seen=seen: len(console.output) > seen + 3)  # type: ignore[misc]  # cannot infer it
            with machine.at_rest() as found:
                assert found is not None
                states = [hart.save() for hart in found.board.engine.harts]
                said = len(console.output)
                for hart, state in zip(found.board.engine.harts, states, strict=True):
                    hart.restore(state)
                assert len(console.output) == said
    # Two harts send the alphabet, so what each says is in order: no byte is lost and none is sent twice.
    counts = [console.output.count(letter) for letter in b"abcdefghijklmnopqrstuvwxyz"]
    assert max(counts) - min(counts) <= 2
