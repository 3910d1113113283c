"""A whole machine: from the files that a person gives to the verdict how it ended.

One thread runs each hart and serves its exits; the thread that called `run` waits for the verdict. A reset builds
engine, memory and board anew and reads the files again, so that nothing of the guest's old life is left but its disks.

A machine may be paused from outside: its harts leave guest code where an instruction is finished, then its devices
come to rest. The guest's clock goes on meanwhile, like that of a computer whose processor was stopped: the guest's
idea of the date stays right, and what waits for a time finds it past. Who wants the time back sets it while the machine
rests (`Engine.set_time`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from celaje.engine.protocol import (
    Engine,
    Halt,
    Hart,
    Hypercall,
    Interrupted,
    MmioRead,
    MmioWrite,
    Recalled,
    Shutdown,
    Watched,
)
from celaje.errors import UsageError
from celaje.machine.board import Board
from celaje.machine.boot.files import Files
from celaje.machine.boot.firmware import enter_machine_mode
from celaje.machine.boot.sbi import Sbi
from celaje.machine.boot.supervisor import enter_supervisor_mode
from celaje.machine.config import Disk, MachineConfig, backend_of, check, open_disks
from celaje.machine.console import Console
from celaje.machine.hart_states import HartState, HartStates, StartRequest
from celaje.machine.verdict import Verdict, VerdictKind
from celaje.machine.virtio import scsi_notice
from celaje.machine.virtio.block import VirtioBlock
from celaje.machine.virtio.block_backend import BlockBackend
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.rng import VirtioRng
from celaje.machine.virtio.scsi import VirtioScsi

if TYPE_CHECKING:
    from celaje.machine.snapshot.restore import Restored

# A hart that comes back to Python waits at most this long for a device thread that computes.
SWITCH_SECONDS = 0.0002

# A guest that retires so few instructions in this time is idle (half a percent of a busy one); decoded code beyond what
# its idle loop and timer need is dropped.
IDLE_SECONDS = 5.0
IDLE_INSTRUCTIONS = 10_000_000
IDLE_BYTES = 8 << 20

EngineFactory = Callable[[int], Engine]
"""Makes an engine with that many harts."""
EnterGuest = Callable[[Hart, StartRequest], None]
"""Puts a hart where it was asked to start."""


@runtime_checkable
class PowerButton(Protocol):
    """One of a machine's devices may be its power button."""

    def press(self) -> bool:
        """Press it. False where the guest does not listen. From any thread."""


@dataclass(frozen=True, slots=True)
class AtRest:
    """What a machine at rest consists of: board (with its engine, memory and devices), and the states of its harts.

    `information` is where firmware finds what starts next; None for a machine that starts in supervisor mode.
    """

    board: Board
    states: HartStates
    information: int | None


class Machine:
    """Made of `config` and an engine. Everything wrong with the files is raised here: UsageError, InputError, NotFound.

    `run` may be called once; `close` (or leaving it as a context) gives disks and devices back. With `restored` it goes
    on where that snapshot was taken (InputError where it is not this machine's); only after a reset it reads its files.
    """

    def __init__(self, config: MachineConfig, engine_factory: EngineFactory, restored: Restored | None = None) -> None:
        self._hold_lock = threading.RLock()
        self._config = config
        self._engine_factory = engine_factory
        check(config)
        self._restored = restored
        self._origin: Restored | None = None
        if restored is not None:
            restored.judge(config.memory, config.cpus, config.processor)
        self._files: Files | None = Files.read(config) if restored is None else None
        self._devices: list[VirtioDevice] = [*open_disks(config.disks), VirtioRng()]
        self.scsi: VirtioScsi | None = None
        """The controller that disks are attached to and detached from, also while the machine runs."""
        if config.scsi_disks is not None:
            self.scsi = VirtioScsi()
            self._devices.append(self.scsi)
            self._attach(config.scsi_disks)
        self._devices += config.devices
        self._plugged: dict[int, VirtioDevice] = dict(config.plugged)
        self._leaving: set[VirtioDevice] = set()
        self._standing = tuple(self._devices)
        self._devices += self._plugged.values()
        for slot in self._plugged:
            self._notice(slot, True)
        self._end_lock = threading.Lock()
        self._ended = threading.Event()
        self._verdict: Verdict | None = None
        self._failure: BaseException | None = None
        self._exits: Counter[str] = Counter()
        self._engine_statistics: Counter[str] = Counter()
        self._engine_seconds: dict[str, float] = {}
        self._python_seconds = [0.0] * config.cpus
        self._boots = 0
        self._holds = 0
        self._reset_pressed = False
        # While it is held the board stays what it is; the thread in `run` has it while it makes one or takes one apart.
        self._board_lock = threading.RLock()
        self._running: AtRest | None = None
        self._wall_seconds = 0.0

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _attach(self, disks: Sequence[Disk | BlockBackend]) -> None:
        assert self.scsi is not None
        try:
            for disk in disks:
                backend = backend_of(disk)
                try:
                    self.scsi.attach(backend)
                except BaseException:
                    backend.close()
                    raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give disks and devices back."""
        with self._hold_lock:
            devices, self._devices = self._devices, []
        for device in devices:
            device.close()

    def plug(self, device: VirtioDevice, slot: int) -> None:
        """A device comes into a slot, also while the guest runs, which finds it when it looks there. UsageError where
        there is no such slot, or something is in it. The machine closes the device."""
        with self._hold_lock, self._board_lock:
            if not 0 <= slot < self._config.slots or self.taken(slot):
                free = [number for number in range(self._config.slots) if not self.taken(number)]
                raise UsageError(
                    f"there is no free slot {slot} for a device in this machine (free: {free or 'none'}); where a "
                    "guest holds on to one that has left, reset it"
                )
            if self._holds:
                device.pause()
            self._devices.append(device)
            self._plugged[slot] = device
            if self._running is not None:
                self._running.board.slots[slot].plug(device)
        self._notice(slot, True)

    def _notice(self, slot: int, there: bool) -> None:
        """Have the guest hear of a device in a slot, where it has a way to."""
        if self.scsi is not None:
            self.scsi.set_notice(scsi_notice.FIRST + slot, there)

    def unplug(self, slot: int) -> None:
        """The device in a slot leaves, and the machine closes it: when the guest has let go of it, at the latest with
        the machine's next reset. Does nothing where there is none."""
        with self._hold_lock, self._board_lock:
            device = self._plugged.pop(slot, None)
            if device is None:
                return
            self._leaving.add(device)
            if self._running is not None:
                self._running.board.slots[slot].unplug()
            else:
                self._left(device)
        self._notice(slot, False)

    def taken(self, slot: int) -> bool:
        """Whether a device is in the slot, or has yet to leave it."""
        with self._board_lock:
            if slot in self._plugged:
                return True
            return self._running is not None and self._running.board.slots[slot].window is not None

    def _left(self, device: VirtioDevice) -> None:
        """Called by the thread that let go of it, perhaps a hart's: closing a device may take a moment."""
        threading.Thread(target=self._close_one, args=(device,), name="celaje-unplug", daemon=True).start()

    def _close_one(self, device: VirtioDevice) -> None:
        with self._hold_lock:
            if device not in self._leaving:
                return
            self._leaving.discard(device)
            if device not in self._devices:
                return  # the machine was closed meanwhile
            self._devices.remove(device)
        device.close()

    def leave(self) -> None:
        """Switch the machine off from outside. From any thread."""
        self._end(Verdict(VerdictKind.LEFT))

    def reset(self) -> None:
        """Press the reset button: the guest starts anew, also on a machine that ends where its guest asks for that. A
        machine that is paused is reset and stays paused. Does nothing to one that has ended. From any thread."""
        with self._end_lock:
            self._reset_pressed = True
            self._decide(Verdict(VerdictKind.REBOOT))

    def power_button(self) -> bool:
        """Press the power button. False where there is none, or the guest does not listen to it. From any thread."""
        return any(device.press() for device in tuple(self._devices) if isinstance(device, PowerButton))

    def look_at_sizes(self) -> None:
        """Tell the guest of virtio disks whose backends have another size now. From any thread."""
        for device in tuple(self._devices):
            if isinstance(device, VirtioBlock):
                device.capacity_changed()

    def pause(self) -> None:
        """When this returns no guest code is executed and no virtio device touches memory or backend, until `resume`.

        Every hart is where its state is whole (`Hart.save`). May nest; may come before `run`, which then waits, and
        lasts over resets. From any thread but a hart's.
        """
        with self._hold_lock:
            self._holds += 1
            if self._holds > 1:
                return
            with self._board_lock:
                running = self._running
                if running is not None:
                    running.states.hold()
                    for hart in running.board.engine.harts:
                        hart.interrupt()
                    running.states.wait_until_at_rest()
            for device in self._devices:
                device.pause()

    def resume(self) -> None:
        """Undo one `pause`. ValueError if there was none."""
        with self._hold_lock:
            if not self._holds:
                raise ValueError("resume without pause")
            self._holds -= 1
            if self._holds:
                return
            for device in self._devices:
                device.resume()
            with self._board_lock:
                if self._running is not None:
                    self._running.states.release()

    @property
    def paused(self) -> bool:
        """Whether there are more pauses than resumes."""
        return self._holds > 0

    @contextmanager
    def at_rest(self) -> Iterator[AtRest | None]:
        """Paused inside, and the board stays: a reset or an end comes after. None where the guest has not begun, has
        asked for a reset, or has ended."""
        self.pause()
        try:
            with self._board_lock:
                yield self._running if self._verdict is None else None
        finally:
            self.resume()

    @property
    def origin(self) -> Restored | None:
        """What the memory is mapped from; None for a guest that has started here. As `standing` says."""
        return self._origin

    @contextmanager
    def standing(self) -> Iterator[Board | None]:
        """The board stays inside, and the guest goes on: a reset or an end comes after. None where there is none."""
        with self._board_lock:
            yield None if self._running is None else self._running.board

    def run(self, console: Console) -> Verdict:
        """Run until the machine ends. Raises InputError where the files do not fit into memory; an exception of the
        calling thread (KeyboardInterrupt) switches the machine off and goes on."""
        started = time.monotonic()
        deadline = None if self._config.timeout is None else started + self._config.timeout
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            while True:
                verdict = self._run_until_reset(console, deadline)
                if verdict.kind is not VerdictKind.REBOOT or (self._config.no_reboot and not self._reset_pressed):
                    return verdict
                with self._end_lock:
                    self._reset_pressed = False
                    if self._verdict is verdict and deadline is not None and time.monotonic() >= deadline:
                        self._verdict = Verdict(VerdictKind.TIMEOUT)  # a guest may never let it come to a wait
                        return self._verdict
                    if self._verdict is verdict:
                        self._verdict = None
                        self._ended.clear()
        finally:
            sys.setswitchinterval(interval)
            self._wall_seconds += time.monotonic() - started

    @property
    def starts(self) -> int:
        """How often the guest has started: once, and again for each reset."""
        return self._boots

    def statistics(self) -> dict[str, object]:
        """Over all resets: the engine's counters, exits by cause, seconds that each hart spent in Python. Of a machine
        that runs, exits and seconds are those before its last reset."""
        with self._board_lock:
            counters, seconds = self._engine_statistics.copy(), dict(self._engine_seconds)
            if self._running is not None:
                _add(self._running.board.engine, counters, seconds)
        return {
            **counters,
            **seconds,
            "wall_seconds": self._wall_seconds,
            "python_seconds": sum(self._python_seconds),
            "python_seconds_by_hart": list(self._python_seconds),
            "exits": dict(self._exits),
            "starts": self._boots,
        }

    def _end(self, verdict: Verdict) -> None:
        """The first verdict counts, but a person who leaves has the last word over a reset."""
        with self._end_lock:
            self._decide(verdict)

    def _decide(self, verdict: Verdict) -> None:
        """With the end lock held: told later, a life's end could be taken for that of the life after a reset."""
        if self._verdict is None or (self._verdict.kind is VerdictKind.REBOOT and verdict.kind is VerdictKind.LEFT):
            self._verdict = verdict
        self._ended.set()

    def _run_until_reset(self, console: Console, deadline: float | None) -> Verdict:
        states = HartStates(self._config.cpus)
        with self._board_lock:
            board, sbi, information = self._make_board(console, states)
            self._boots += 1
            self._running = AtRest(board, states, information)
            enter = _entry(information)
            if self._holds:
                states.hold()
        try:
            self._run_harts(board, states, sbi, enter, deadline)
        finally:
            with self._board_lock:
                self._running = None
                self._take_apart(board.engine, board)
        if self._failure is not None:
            raise self._failure
        assert self._verdict is not None
        return self._verdict

    def _make_board(self, console: Console, states: HartStates) -> tuple[Board, Sbi, int | None]:
        """A board whose harts are about to start or to go on, and where firmware finds what starts next."""
        engine = self._engine_factory(self._config.cpus)
        board = None
        restored, self._restored = self._restored, None
        self._origin = restored
        try:
            files = None
            if restored is None:
                files, self._files = self._files or Files.read(self._config), None
            begun = files if restored is None else restored
            assert begun is not None
            board = Board(
                engine,
                self._config.memory,
                console,
                self._end,
                wake=states.wake,
                virtio=self._standing,
                slots=self._config.slots,
                plugged=self._plugged,
                left=self._left,
                htif=begun.htif,
                isa=self._config.processor,
                contents=None if restored is None else restored.memory(),
            )
            if files is not None:
                information = files.load(self._config, board, states)
            elif restored is not None:
                restored.put_back(board, states)
                information = restored.information
            sbi = Sbi(engine, states, board.ram, console, board.set_line, self._end, self._config.processor)
        except BaseException:
            self._take_apart(engine, board)
            raise
        return board, sbi, information

    def _take_apart(self, engine: Engine, board: Board | None) -> None:
        """Give back everything that a reset makes anew."""
        if board is not None:
            board.detach()
        _add(engine, self._engine_statistics, self._engine_seconds)
        engine.close()
        if board is not None:
            board.ram.close()

    def _run_harts(
        self,
        board: Board,
        states: HartStates,
        sbi: Sbi,
        enter: EnterGuest,
        deadline: float | None,
    ) -> None:
        harts = board.engine.harts
        threads = [
            threading.Thread(target=self._run_hart, args=(hart, board, states, sbi, enter), name=f"hart {hart.index}")
            for hart in harts
        ]
        try:
            for thread in threads:
                thread.daemon = True
                thread.start()
            idleness = Idleness(board.engine)
            while not self._ended.wait(_until(deadline, IDLE_SECONDS)):
                if deadline is not None and time.monotonic() >= deadline:
                    self._end(Verdict(VerdictKind.TIMEOUT))
                else:
                    idleness.look()
        finally:
            # Also when the waiting thread was interrupted: no hart may be running when memory goes.
            if self._verdict is None:
                self._end(Verdict(VerdictKind.LEFT))
            states.close()
            for hart in harts:
                hart.interrupt()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _run_hart(
        self,
        hart: Hart,
        board: Board,
        states: HartStates,
        sbi: Sbi,
        enter: EnterGuest,
    ) -> None:
        try:
            if states.goes_on(hart.index):
                self._serve(hart, board, states, sbi)
            while (request := states.wait_for_start(hart.index)) is not None:
                enter(hart, request)
                self._serve(hart, board, states, sbi)
        except BaseException as error:  # a mistake of ours: the thread that waits for the verdict raises it
            self._failure = error
            self._end(Verdict(VerdictKind.DIED, reason="celaje failed"))
        finally:
            states.leave(hart.index)

    def _serve(self, hart: Hart, board: Board, states: HartStates, sbi: Sbi) -> None:
        """Run `hart` and answer its exits until it stops or the machine ends."""
        bus, index, offers = board.bus, hart.index, board.offers
        offers.join()
        clock = time.perf_counter
        reads = writes = calls = recalls = halts = interruptions = watched = 0
        outside = 0.0
        left = clock()
        while self._verdict is None:
            outside += clock() - left
            event = hart.run()
            left = clock()
            if isinstance(event, MmioWrite):
                writes += 1
                bus.write(hart, event)
                if offers:
                    hart.recall()
            elif isinstance(event, MmioRead):
                reads += 1
                bus.read(hart, event)
            elif isinstance(event, Hypercall):
                calls += 1
                if offers:
                    offers.take(idle=False)  # the call may wait: a hart suspends itself by one
                sbi.call(hart)
                if states.state(index) is HartState.STOPPED:
                    break
            elif isinstance(event, Recalled):
                recalls += 1
                offers.take(event.idle)
            elif isinstance(event, Halt):
                halts += 1
                states.wait_for_wake(index, None)
                states.expect_wake(index)
                left = clock()
            elif isinstance(event, Interrupted):
                interruptions += 1
                states.rest(index)
                left = clock()
            elif isinstance(event, Watched):
                watched += 1
                if board.htif is not None:
                    board.htif.look()
            elif isinstance(event, Shutdown):
                self._exits["shutdown"] += 1
                self._end(Verdict(VerdictKind.DIED, reason=event.reason))
            else:
                raise TypeError(f"a board cannot answer the exit {event!r}")
        offers.leave()
        counted = {"mmio_write": writes, "mmio_read": reads, "hypercall": calls, "recalled": recalls, "halt": halts}
        counted |= {"interrupted": interruptions, "watched": watched}
        with self._end_lock:
            self._exits.update(counted)
            self._python_seconds[index] += outside


class Idleness:
    """Has an engine give back what it can make again once its guest has had nothing to do for a while."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._instructions = 0

    def look(self) -> None:
        """Called every IDLE_SECONDS."""
        counters = self._engine.statistics()
        done = int(counters["instructions"]) - self._instructions
        self._instructions += done
        if done < IDLE_INSTRUCTIONS and counters["decoded_bytes"] > IDLE_BYTES:
            self._engine.trim()


def _entry(information: int | None) -> EnterGuest:
    """How a hart begins, in supervisor mode or (with what firmware is told) in machine mode."""
    if information is None:
        return lambda hart, request: enter_supervisor_mode(hart, request.address, request.opaque)
    return lambda hart, request: enter_machine_mode(hart, request.address, request.opaque, information)


def _add(engine: Engine, counters: Counter[str], seconds: dict[str, float]) -> None:
    """Add an engine's counts to `counters` and its times to `seconds`."""
    for name, value in engine.statistics().items():
        if isinstance(value, int):
            counters[name] += value
        else:
            seconds[name] = seconds.get(name, 0.0) + value


def _until(deadline: float | None, longest: float) -> float:
    """Seconds to wait: `longest`, or less where the deadline is nearer."""
    return longest if deadline is None else max(0.0, min(longest, deadline - time.monotonic()))
