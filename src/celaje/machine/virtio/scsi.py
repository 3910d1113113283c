"""The SCSI host device (virtio 1.2, 5.6): disks that come and go while the guest runs.

Every disk is a target of its own with the one logical unit 0. So a disk's place in the guest (host:0:target:0) tells
which it is, a scan finds every disk with one INQUIRY a target, and Linux, which is told of one that came or went, scans
or removes that target and nothing else.

    request    | lun 8 | id le64 | attribute, priority, crn 3 | cdb cdb_size | data out ... |       device reads
               | sense length le32 | residual le32 | status qualifier le16 | status | response |
               | sense sense_size | data in ... |                                                device writes
    control    | type le32 | subtype le32 | lun 8 | id le64 |, answered by | response |             0, task management
               | type le32 | lun 8 | events le32 |, answered by | events le32 | response |          1 and 2
    lun        | 1 | target | 0 or 0x40 | unit | 0 0 0 0 |

Where commands are performed. Each disk has a thread of its own, so that one that waits for its storage holds up nobody
else, and takes one command at a time. A notification comes on a hart's thread, which hands the commands out; those that
touch no storage, and reads which the backend promises not to wait for, end there and then if the disk has nothing else
to do (the reasons and figures are those of `block`), and writes where the hart has nothing else to do.

Locks. Queues, events and who does what are kept under the device's lock; a command is performed outside of it. A pause,
a reset and `detach` wait on a condition of that lock until no command is in hand.

A disk that is taken away keeps answering for a moment after the guest was told so: Linux then writes what it holds for
the disk, and flushes; the flush, or PATIENCE, ends it. From then on the target does not exist: BAD_TARGET.

A request that breaks the rules of SCSI is refused in SCSI's terms; one without room for its header or response is no
request at all and stops the device, as a malformed queue does.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from celaje.errors import InputError, NotFound
from celaje.machine.bus import SavedState
from celaje.machine.offers import HART_SECONDS
from celaje.machine.virtio import scsi_command as scsi
from celaje.machine.virtio.block_backend import BlockBackend, total
from celaje.machine.virtio.device import VirtioDevice, refuse_unknown, saved_number, saved_numbers
from celaje.machine.virtio.framing import cut_front, cut_front_windows, scatter
from celaje.machine.virtio.queue import Chain, MalformedQueue, Queue
from celaje.machine.virtio.scsi_command import Overrun, Sense
from celaje.machine.virtio.scsi_disk import Outcome, ScsiDisk, perform_absent
from celaje.machine.virtio.scsi_events import (
    EVENT_PARAMETER_CHANGE,
    EVENT_SIZE,
    EVENT_TRANSPORT_RESET,
    MAX_EVENTS,
    REASON_CAPACITY,
    RESET_REMOVED,
    RESET_RESCAN,
    Events,
)
from celaje.machine.virtio.scsi_notice import perform_notice
from celaje.machine.virtio.scsi_unit import Request, Task, Unit

log = logging.getLogger(__name__)

FEATURE_HOTPLUG = 1 << 1
FEATURE_CHANGE = 1 << 2

CONTROL, EVENT, REQUEST = 0, 1, 2
QUEUE_SIZE = 512  # a mebibyte of 256 pages that are nowhere adjacent is one command, not two
TARGETS = 64

TASK_MANAGEMENT, QUERY_EVENTS, SUBSCRIBE_EVENTS = 0, 1, 2
(ABORT_TASK, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, NEXUS_RESET, UNIT_RESET, QUERY_TASK, QUERY_TASK_SET) = range(8)

RESPONSE_OK = 0
RESPONSE_OVERRUN = 1
RESPONSE_ABORTED = 2
RESPONSE_BAD_TARGET = 3
RESPONSE_RESET = 4
RESPONSE_FAILURE = 9
RESPONSE_SUCCEEDED = 10
RESPONSE_REJECTED = 11
RESPONSE_INCORRECT_LUN = 12

CDB_SIZE = 32
SENSE_SIZE = 96
SIZE_LIMIT = 256
SENSE_SIZE_OFFSET, CDB_SIZE_OFFSET = 20, 24
HEADER = 19
RESPONSE = 12
COMMANDS_PER_UNIT = 128
MAX_SECTORS = 0xFFFF

INLINE_BYTES = 1 << 20
"""Bytes that one notification may read on the hart\'s own thread: a mebibyte is 150 µs of copying, and to wake the
disk's thread and be interrupted by it costs a guest that waits more."""
PATIENCE = 1.0
"""Seconds for which a disk that leaves waits for the guest to flush it."""

# num_queues, seg_max, max_sectors, cmd_per_lun, event_info_size, sense_size, cdb_size, max_channel, max_target, max_lun
_configuration = struct.Struct("<IIIIIIIHHI").pack
_response = struct.Struct("<IIHBB").pack
_task = struct.Struct("<I8s8s").unpack


class VirtioScsi(VirtioDevice):
    """A host adapter with room for TARGETS disks. What is attached is closed at its end, or when it is detached."""

    device_id = 8
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE)

    def __init__(self) -> None:
        super().__init__()
        self.features = FEATURE_HOTPLUG | FEATURE_CHANGE
        self._units: dict[int, Unit] = {}
        self._notices: set[int] = set()
        self._threads: dict[int, threading.Thread] = {}
        self._gone: list[Unit] = []
        """Disks that no target leads to any more, until the last of their commands is done."""
        self._changed = threading.Condition(self.lock)
        """A disk came to rest, or was flushed, or the driver is gone."""
        self._to_wake: list[Unit] = []
        """Disks that were handed commands and sleep; woken when a notification is served, and the lock free."""
        self._expecting: Unit | None = None
        """The disk whose thread served the last command that was handed to an idle one."""
        self._events = Events()
        self._set_sizes(CDB_SIZE, SENSE_SIZE)

    def _set_sizes(self, cdb: int, sense: int) -> None:
        self._cdb_size, self._sense_size = cdb, sense
        self._good = bytes(RESPONSE + sense)

    # --- configuration (5.6.4) ---

    def configuration(self) -> bytes:
        """The configuration space as it stands now."""
        return _configuration(
            1, QUEUE_SIZE - 2, MAX_SECTORS, COMMANDS_PER_UNIT, EVENT_SIZE,
            self._sense_size, self._cdb_size, 0, TARGETS - 1, 0,
        )  # fmt: skip

    def write_configuration(self, offset: int, data: bytes) -> None:
        """The driver may choose how long CDB and sense data are, each in one piece and before it starts."""
        value = int.from_bytes(data, "little")
        with self.lock:
            if len(data) != 4 or any(self.queues):
                return
            if offset == SENSE_SIZE_OFFSET and value <= SIZE_LIMIT:
                self._set_sizes(self._cdb_size, value)
            elif offset == CDB_SIZE_OFFSET and value <= SIZE_LIMIT:
                self._set_sizes(value, self._sense_size)

    # --- disks come and go ---

    @property
    def targets(self) -> dict[int, BlockBackend]:
        """The disks that are attached, by target."""
        with self.lock:
            return {target: unit.disk.backend for target, unit in self._units.items()}

    def attach(self, backend: BlockBackend, target: int | None = None) -> int:
        """Add a disk, at the lowest free target if none is given, and tell the guest. Returns the target.

        InputError if the target is taken or there is none left; the backend is the caller's still then.
        """
        with self.lock:
            free = [number for number in range(TARGETS) if number not in self._units and number not in self._notices]
            if not free or (target is not None and target not in free):
                raise InputError(
                    f"the SCSI controller takes {TARGETS} disks, at targets 0 to {TARGETS - 1}, and "
                    f"{'all are taken' if target is None else f'target {target} is not free'}; detach a disk first"
                )
            target = free[0] if target is None else target
            unit = Unit(target, ScsiDisk(backend))
            if self.queues[REQUEST] is not None:
                unit.disk.attend(scsi.LUNS_CHANGED)
            self._units[target] = unit
            thread = threading.Thread(target=self._work, args=(unit,), name=f"celaje-scsi-{target}", daemon=True)
            self._threads[target] = thread
            thread.start()
            self._tell(FEATURE_HOTPLUG, EVENT_TRANSPORT_RESET, target, RESET_RESCAN)
        return target

    def detach(self, target: int, patience: float = PATIENCE) -> None:
        """Take a disk away: tell the guest, let what is in hand end, flush and close the backend.

        Waits up to `patience` seconds for the guest's own flush. NotFound if there is no such disk; OSError if the host
        fails to make durable what was written: the disk is gone all the same.
        """
        with self.lock:
            unit = self._units.get(target)
            if unit is None or unit.leaving:
                raise NotFound(f"the SCSI controller has no disk at target {target}; it has {sorted(self._units)}")
            unit.leaving = True
            told = self._tell(FEATURE_HOTPLUG, EVENT_TRANSPORT_RESET, target, RESET_REMOVED)
            if told and not unit.disk.backend.read_only:
                self._changed.wait_for(lambda: unit.flushed or self.queues[REQUEST] is None, patience)
            if self._units.get(target) is not unit:
                raise NotFound(f"the SCSI controller was closed while its disk at target {target} was to leave it")
            del self._units[target]
            thread = self._threads.pop(target)
            self._gone.append(unit)
            unit.doorbell.ring()  # what waits for a hart to be idle waits no longer
            self._changed.wait_for(lambda: unit.idle)
            self._gone.remove(unit)
        _end(unit, thread)
        backend = unit.disk.backend
        try:
            if not backend.read_only:
                backend.flush()
        finally:
            backend.close()

    def set_notice(self, target: int, there: bool) -> None:
        """Whether there is a target that says no more than that (scsi_notice.py); the guest is told. InputError where a
        disk has it."""
        with self.lock:
            if target in self._units:
                raise InputError(f"the SCSI controller has a disk at target {target}; detach it first")
            if there == (target in self._notices):
                return
            (self._notices.add if there else self._notices.discard)(target)
            reason = RESET_RESCAN if there else RESET_REMOVED
            self._tell(FEATURE_HOTPLUG, EVENT_TRANSPORT_RESET, target, reason)

    def capacity_changed(self, target: int) -> None:
        """Look at the size of a disk's backend again, and tell the guest if it has changed. NotFound as `detach`."""
        with self.lock:
            unit = self._units.get(target)
            if unit is None:
                raise NotFound(f"the SCSI controller has no disk at target {target}; it has {sorted(self._units)}")
            if unit.disk.look_at_size():
                self._tell(FEATURE_CHANGE, EVENT_PARAMETER_CHANGE, target, REASON_CAPACITY)

    # --- events (5.6.6.3) ---

    def _tell(self, feature: int, event: int, target: int, reason: int) -> bool:
        """Have the driver know, if there is one that negotiated `feature`; whether there is. With the lock held."""
        queue = self.queues[EVENT]
        if queue is None or not self.negotiated & feature:
            return False
        self._events.note(event, target, reason)
        self.serve_guarded(EVENT)
        return True

    # --- what the driver asks ---

    def notify(self, index: int) -> None:
        """Buffers were made available in queue `index`. On a hart's thread."""
        expecting, self._expecting = self._expecting, None
        if expecting is not None:
            expecting.doorbell.ring()  # most likely it is this disk's turn again: its thread wakes up meanwhile
        with self.lock:
            self.serve_guarded(index)
            woken = [(unit, self._worth_offering(unit)) for unit in self._to_wake]
            self._to_wake.clear()
        for unit, offered in woken:
            if not (offered and self.transport.offer(partial(self._take_up, unit))):
                unit.doorbell.ring()
                self._expecting = unit

    def _worth_offering(self, unit: Unit) -> bool:
        """Whether a disk that was handed commands offers them to the hart, for when it is idle. With the lock held."""
        short = len(unit.waiting) == 1 and unit.waiting[0].is_write_of(INLINE_BYTES, unit.disk)
        return short and unit.experience.worth_offering()

    def _take_up(self, unit: Unit, idle: bool) -> None:
        """What became of the offer, on a hart's thread."""
        if not idle:
            unit.experience.was_busy()
            unit.doorbell.ring()
            return
        before = time.perf_counter()
        ends = before + HART_SECONDS

        def takes(request: Request) -> bool:
            return request.is_write_of(INLINE_BYTES, unit.disk) and time.perf_counter() < ends

        self._serve_waiting(unit, takes)
        unit.experience.took(time.perf_counter() - before)
        if unit.waiting:
            unit.doorbell.ring()

    def serve(self, index: int, queue: Queue) -> None:
        if index == REQUEST:
            self._hand_out(queue)
        elif index == CONTROL:
            for chain in queue.chains():
                self._control(queue, chain)
        else:
            self._events.send(queue)
        if queue.interrupt_due():
            self.transport.interrupt()

    def _hand_out(self, queue: Queue) -> None:
        budget = INLINE_BYTES
        for chain in queue.chains():
            request = self._unwrap(queue, chain)
            unit = self._addressed(request.lun)
            if unit is None:
                self._without_unit(request)
            elif chain.readable and chain.writable:
                self._give_back(request, RESPONSE_FAILURE)  # both ways: FEATURE_INOUT is not offered
            elif not _is_first_unit(request.lun):
                self._finish(request, request.perform(None))
            elif not unit.idle:
                self._enqueue(unit, request)
            elif unit.disk.at_once(request.cdb):
                self._finish(request, request.perform(unit.disk))
            elif 0 < request.length <= budget and unit.disk.read_at_once(request.cdb, chain.writable):
                budget -= request.length
                self._give_back(request, RESPONSE_OK, transferred=request.length)
            else:
                self._enqueue(unit, request)
            if self.halting:
                return

    def _without_unit(self, request: Request) -> None:
        """A request for a target that has no disk."""
        lun = request.lun
        if lun[0] != 1 or any(lun[4:]) or lun[1] not in self._notices or request.chain.readable:
            self._give_back(request, RESPONSE_BAD_TARGET)
            return
        perform = perform_notice if _is_first_unit(lun) else perform_absent
        try:
            self._finish(request, perform(request.cdb, request.chain.writable))
        except Overrun:
            self._finish(request, None)

    def _unwrap(self, queue: Queue, chain: Chain) -> Request:
        """Take header and response off `chain`, so that the data is left. What is no request raises MalformedQueue."""
        header = cut_front(chain.readable, HEADER + self._cdb_size)
        response = cut_front_windows(chain.writable, RESPONSE + self._sense_size)
        length = total(chain.readable or chain.writable)
        return Request(queue, chain, header[:8], header[8:16], header[HEADER:].ljust(16, b"\0"), response, length)

    def _enqueue(self, unit: Unit, request: Request) -> None:
        if len(unit.waiting) >= QUEUE_SIZE:
            raise MalformedQueue(f"more than {QUEUE_SIZE} commands wait, and the queue has no more descriptors")
        if unit.idle:
            self._to_wake.append(unit)
        unit.waiting.append(request)

    def _finish(self, request: Request, outcome: Outcome | None) -> None:
        """Give a request back that was performed; None: its buffers were too short."""
        if outcome is None:
            self._give_back(request, RESPONSE_OVERRUN)
        else:
            self._give_back(request, RESPONSE_OK, outcome.status, outcome.sense, outcome.transferred)

    def _give_back(
        self, request: Request, response: int, status: int = scsi.GOOD, sense: bytes = b"", transferred: int = 0
    ) -> None:
        """With the lock held; the interrupt is the caller's to raise."""
        residual = request.length - transferred
        if response or status or residual:
            sense = sense[: self._sense_size]
            data = _response(len(sense), residual, 0, status, response) + sense.ljust(self._sense_size, b"\0")
        else:
            data = self._good
        scatter(request.response, data)
        chain = request.chain
        request.queue.push(chain, len(data) if chain.readable else len(data) + transferred)

    # --- the disks' threads ---

    def _work(self, unit: Unit) -> None:
        """A disk's thread."""
        while True:
            unit.doorbell.wait()
            self._serve_waiting(unit, lambda request: True)
            if unit.ended:
                return

    def _serve_waiting(self, unit: Unit, takes: Callable[[Request], bool]) -> None:
        """Perform the commands that wait, up to one that `takes` does not. A thread that finds another at it returns:
        the other will look for more."""
        with self.lock:
            if unit.current is not None:
                return
            request = self._next(unit, takes)
        while request is not None:
            outcome = request.perform(unit.disk)
            with self.lock:
                following = self._next(unit, takes)
                self._performed(unit, request, outcome)
                request = following

    def _next(self, unit: Unit, takes: Callable[[Request], bool]) -> Request | None:
        """Put the next command in hand. With the lock held."""
        unit.current = unit.waiting.popleft() if unit.waiting and takes(unit.waiting[0]) else None
        if unit.current is None:
            self._changed.notify_all()
        return unit.current

    def _performed(self, unit: Unit, request: Request, outcome: Outcome | None) -> None:
        """Give back the command in hand, unless its queue is gone, and what waited for it. With the lock held."""
        if unit.leaving and request.cdb[0] in (scsi.SYNCHRONIZE_CACHE_10, scsi.SYNCHRONIZE_CACHE_16):
            unit.flushed = True
            self._changed.notify_all()
        queue = request.queue
        if queue is self.queues[REQUEST]:
            self._finish(request, outcome)
            if queue.interrupt_due():
                self.transport.interrupt()
        if unit.tasks:
            for task in unit.tasks:
                task.response[0] = RESPONSE_OK
                task.queue.push(task.chain, 1)
            queue = unit.tasks[0].queue
            unit.tasks.clear()
            if queue.interrupt_due():
                self.transport.interrupt()

    # --- task management (5.6.6.2; SAM-5, 7) ---

    def _control(self, queue: Queue, chain: Chain) -> None:
        kind = int.from_bytes(cut_front(chain.readable, 4), "little")
        if kind in (QUERY_EVENTS, SUBSCRIBE_EVENTS):
            # Of the asynchronous events that a driver may ask for (media change and the like) there are none.
            lun = cut_front(chain.readable, 12)[:8]
            found = RESPONSE_OK if self._addressed(lun) else RESPONSE_BAD_TARGET
            scatter(cut_front_windows(chain.writable, 5), bytes([0, 0, 0, 0, found]))
            queue.push(chain, 5)
            return
        if kind != TASK_MANAGEMENT:
            raise MalformedQueue(f"a control request of type {kind}")
        function, lun, tag = _task(cut_front(chain.readable, 20))
        task = Task(queue, chain, cut_front_windows(chain.writable, 1)[0])
        result = self._manage(function, lun, tag, task)
        if result is not None:
            task.response[0] = result
            queue.push(chain, 1)

    def _addressed(self, lun: bytes) -> Unit | None:
        """The disk of the target that `lun` names, whichever unit of it."""
        return self._units.get(lun[1]) if lun[0] == 1 and not any(lun[4:]) else None

    def _manage(self, function: int, lun: bytes, tag: bytes, task: Task) -> int | None:
        """Do a task management function. None: `task` is answered when the command in hand is done."""
        unit = self._addressed(lun)
        if unit is None:
            return RESPONSE_BAD_TARGET
        if not _is_first_unit(lun) and function != NEXUS_RESET:
            return RESPONSE_INCORRECT_LUN
        if function in (QUERY_TASK, QUERY_TASK_SET):
            known = {request.tag for request in (*unit.waiting, unit.current) if request is not None}
            return RESPONSE_SUCCEEDED if (tag in known if function == QUERY_TASK else known) else RESPONSE_OK
        if function == ABORT_TASK:
            self._cancel(unit, [request for request in unit.waiting if request.tag == tag], RESPONSE_ABORTED)
            if unit.current is None or unit.current.tag != tag:
                return RESPONSE_OK
        elif function in (ABORT_TASK_SET, CLEAR_TASK_SET):
            self._cancel(unit, list(unit.waiting), RESPONSE_ABORTED)
        elif function in (UNIT_RESET, NEXUS_RESET):
            self._cancel(unit, list(unit.waiting), RESPONSE_RESET)
            unit.disk.attend(scsi.DEVICE_RESET if function == UNIT_RESET else scsi.NEXUS_LOSS)
        else:
            return RESPONSE_REJECTED
        if unit.current is None:
            return RESPONSE_OK
        if len(unit.tasks) >= QUEUE_SIZE:
            raise MalformedQueue(f"more than {QUEUE_SIZE} task management functions are waiting")
        unit.tasks.append(task)
        return None

    def _cancel(self, unit: Unit, requests: list[Request], response: int) -> None:
        for request in requests:
            unit.waiting.remove(request)
            self._give_back(request, response)
        queue = self.queues[REQUEST]
        if queue is not None and queue.interrupt_due():
            self.transport.interrupt()

    # --- lifecycle ---

    def pause(self) -> None:
        """When this returns no command is waiting or in hand, until `resume`. May nest."""
        super().pause()
        with self.lock:
            for unit in self._units.values():
                unit.doorbell.ring()  # what waits for a hart to be idle waits no longer
            self._changed.wait_for(lambda: all(unit.idle for unit in self._with_commands()))

    def forget_queue(self, index: int) -> None:
        """Drop what came from the queue, but for what is in hand: that uses the guest's memory and is waited for."""
        if index == CONTROL:
            for unit in self._with_commands():
                unit.tasks.clear()
        elif index == EVENT:
            self._events.forget()
        else:
            for unit in self._with_commands():
                unit.waiting.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: all(unit.current is None for unit in self._with_commands()))

    def _with_commands(self) -> list[Unit]:
        """The disks that may have commands, also those that are leaving. With the lock held."""
        return [*self._units.values(), *self._gone]

    def forget(self) -> None:
        """A reset: sizes as at power-on, and every disk has been reset."""
        self._set_sizes(CDB_SIZE, SENSE_SIZE)
        for unit in self._units.values():
            unit.disk.attentions.clear()
            unit.disk.attend(scsi.POWER_ON)

    def close(self) -> None:
        """End the threads, close all backends."""
        with self.lock:
            units, self._units = self._units, {}
            threads, self._threads = self._threads, {}
        for target, unit in units.items():
            _end(unit, threads[target])
            unit.disk.backend.close()

    def save(self) -> SavedState:
        """Which disks of which size there are, and what they and the events still have to say."""
        units = [unit for _, unit in sorted(self._units.items())]
        return {
            "sense_size": self._sense_size,
            "cdb_size": self._cdb_size,
            "targets": [unit.target for unit in units],
            "capacities": [unit.disk.capacity for unit in units],
            "attentions": [
                number
                for unit in units
                for sense in unit.disk.attentions
                for number in (unit.target, sense.key, sense.code, sense.qualifier)
            ],
            "events": [number for event in self._events.waiting for number in event],
            "events_missed": int(self._events.missed),
        }

    def restore(self, state: SavedState) -> None:
        """Put back what `save` gave; the same disks are attached already. ValueError names what does not fit."""
        names = {"sense_size", "cdb_size", "targets", "capacities", "attentions", "events", "events_missed"}
        refuse_unknown(state, names)
        units = dict(sorted(self._units.items()))
        targets = saved_numbers(state, "targets", len(units), TARGETS)
        capacities = saved_numbers(state, "capacities", len(units), 1 << 64)
        here = [unit.disk.capacity for unit in units.values()]
        if targets != list(units) or capacities != here:
            raise ValueError(
                f"the saved machine has SCSI disks of {capacities} sectors at {targets}, "
                f"this one of {here} at {list(units)}"
            )
        attentions = _rows(state, "attentions", 4, 8 * TARGETS, 1 << 8)
        events = _rows(state, "events", 3, MAX_EVENTS, 1 << 32)
        if any(target not in units for target, *_ in attentions) or any(not 0 <= row[1] < TARGETS for row in events):
            raise ValueError("saved SCSI events name targets that do not exist")
        self._set_sizes(
            saved_number(state, "cdb_size", SIZE_LIMIT + 1), saved_number(state, "sense_size", SIZE_LIMIT + 1)
        )
        for unit in units.values():
            unit.disk.attentions.clear()
        for target, key, code, qualifier in attentions:
            units[target].disk.attend(Sense(key, code, qualifier))
        self._events.waiting = deque((event, target, reason) for event, target, reason in events)
        self._events.missed = bool(saved_number(state, "events_missed", 2))


def _is_first_unit(lun: bytes) -> bool:
    """Whether a LUN structure of a known target names unit 0, by peripheral or by flat addressing (SAM-5, 4.7)."""
    return lun[2] in (0, 0x40) and not lun[3]


def _end(unit: Unit, thread: threading.Thread) -> None:
    unit.ended = True
    unit.doorbell.ring()
    thread.join()


def _rows(state: SavedState, name: str, width: int, most: int, limit: int) -> list[list[int]]:
    """Field `name` of a saved state, rows of `width` numbers, at most `most` of them. ValueError if it is not that."""
    values = state[name]
    if not isinstance(values, list) or len(values) % width or len(values) > width * most:
        raise ValueError(f"saved field {name!r} must be at most {most} rows of {width} numbers, not {values!r}")
    numbers = saved_numbers(state, name, len(values), limit)
    return [numbers[at : at + width] for at in range(0, len(numbers), width)]
