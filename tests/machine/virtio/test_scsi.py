"""The SCSI host device: requests and task management through its queues."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.engine.memory import GuestMemory
from celaje.machine.offers import Offers
from celaje.machine.virtio.scsi import (
    ABORT_TASK,
    ABORT_TASK_SET,
    CLEAR_ACA,
    CONTROL,
    EVENT,
    NEXUS_RESET,
    QUERY_TASK,
    QUERY_TASK_SET,
    REQUEST,
    TARGETS,
    UNIT_RESET,
)
from tests.machine.virtio.driver import BASE, PATIENCE, WRITE, Buffer, Driver, until
from tests.machine.virtio.memory_disk import MemoryDisk, pattern
from tests.machine.virtio.scsi_adapter import (
    ABORTED,
    BAD_TARGET,
    CAPACITY,
    CHECK_CONDITION,
    DATA,
    EVENTS,
    FAILURE,
    FEATURES,
    GOOD,
    HEADERS,
    INCORRECT_LUN,
    INDIRECT_TABLE,
    LUN_0,
    NEEDS_RESET,
    OK,
    OVERRUN,
    REJECTED,
    RESET,
    RESPONSES,
    SECTORS,
    SUCCEEDED,
    SYNCHRONIZE,
    TASKS,
    TEST_UNIT_READY,
    Adapter,
    lun,
    read,
    write,
)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk(SECTORS)


@pytest.fixture
def adapter(memory: GuestMemory, disk: MemoryDisk) -> Iterator[Adapter]:
    adapter = Adapter(memory, disk)
    adapter.start()
    yield adapter
    disk.gate.set()
    adapter.mmio.close()


def test_the_configuration_describes_the_controller(adapter: Adapter) -> None:
    found = struct.unpack("<IIIIIIIHHI", bytes(adapter.mmio.read(0x100 + at, 1) for at in range(36)))
    assert found == (1, 510, 0xFFFF, 128, 16, 96, 32, 0, TARGETS - 1, 0)


def test_a_read_brings_the_blocks_at_once_and_by_the_thread(adapter: Adapter, disk: MemoryDisk) -> None:
    assert adapter.read_sectors(3, 5) == pattern(3, 5)
    assert not disk.entered.is_set()
    disk.at_hand = False
    assert adapter.read_sectors(4, 2) == pattern(4, 2)
    assert disk.entered.is_set()


def test_a_write_is_done_by_the_hart_that_asked_if_it_is_idle(
    adapter: Adapter, disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celaje.machine.virtio.scsi.HART_SECONDS", PATIENCE)  # however busy the host is
    offers = Offers()
    offers.join()
    adapter.mmio.offer = offers.make
    adapter.submit(write(20), [(DATA, 512, 0)])
    adapter.memory.write(DATA, pattern(7))
    adapter.notify(REQUEST)
    adapter.submit(write(21), [(DATA, 512, 0)], slot=1)
    adapter.notify(REQUEST)
    assert not disk.entered.is_set()
    offers.take(idle=True)
    assert disk.data[20 * 512 : 22 * 512] == pattern(7) * 2
    assert len(adapter.complete(REQUEST, 2)) == 2
    assert adapter.response() == adapter.response(1) == (OK, GOOD, 0, b"")


@pytest.mark.parametrize("cdb", [SYNCHRONIZE, bytes([0x2A, 0x08]) + write(20)[2:]], ids=["flush", "durable write"])
def test_what_may_take_its_time_is_no_idle_harts(adapter: Adapter, disk: MemoryDisk, cdb: bytes) -> None:
    offers = Offers()
    offers.join()
    adapter.mmio.offer = offers.make
    assert adapter.do(cdb, [(DATA, 512, 0)] if cdb[0] == 0x2A else []) == (OK, GOOD)
    assert disk.flushes == 1


def test_a_write_that_waits_for_more_than_the_host_is_no_idle_harts(adapter: Adapter, disk: MemoryDisk) -> None:
    offers = Offers()
    offers.join()
    adapter.mmio.offer = offers.make
    disk.writes_wait = True
    assert adapter.do(write(20), [(DATA, 512, 0)]) == (OK, GOOD)
    disk.writes_wait = False
    adapter.submit(write(21), [(DATA, 512, 0)])
    adapter.notify(REQUEST)
    assert offers
    disk.writes_wait = True  # meanwhile
    offers.take(idle=True)
    adapter.complete(REQUEST)
    assert adapter.response() == (OK, GOOD, 0, b"")


@pytest.mark.parametrize("code", [0x4A, 0x6A, 0xCA, 0xEA])
def test_commands_that_only_look_like_writes_wait_behind_one_and_are_refused(adapter: Adapter, code: int) -> None:
    offers = Offers()
    offers.join()
    adapter.mmio.offer = offers.make
    adapter.submit(write(20), [(DATA, 512, 0)])
    adapter.notify(REQUEST)
    adapter.submit(bytes([code]) + bytes(15), [(DATA, 512, 0)], slot=1)
    adapter.notify(REQUEST)
    offers.take(idle=True)
    adapter.complete(REQUEST, 2)
    assert adapter.response()[:2] == (OK, GOOD)
    assert adapter.response(1)[:2] == (OK, CHECK_CONDITION)


def test_a_busy_harts_write_is_its_disks_threads(adapter: Adapter, disk: MemoryDisk) -> None:
    offers = Offers()
    offers.join()
    adapter.mmio.offer = offers.make
    adapter.submit(write(20), [(DATA, 512, 0)])
    adapter.notify(REQUEST)
    offers.take(idle=False)
    adapter.complete(REQUEST)
    assert adapter.do(write(21), [(DATA, 512, 0)]) == (OK, GOOD)  # not offered


def test_a_pause_and_a_detach_do_not_wait_for_a_hart_to_be_idle(adapter: Adapter, disk: MemoryDisk) -> None:
    offers = Offers()
    offers.join()
    adapter.mmio.offer = offers.make
    adapter.submit(write(20), [(DATA, 512, 0)])
    adapter.notify(REQUEST)
    adapter.mmio.pause()
    adapter.complete(REQUEST)
    adapter.mmio.resume()
    adapter.submit(write(21), [(DATA, 512, 0)])
    adapter.notify(REQUEST)
    adapter.scsi.detach(0, patience=0)
    adapter.complete(REQUEST)
    offers.take(idle=True)  # of a disk that is gone


def test_a_read_is_scattered_and_a_write_gathered(adapter: Adapter, disk: MemoryDisk) -> None:
    pieces = [(DATA, 100, WRITE), (DATA + 0x1000, 900, WRITE), (DATA + 0x2000, 24, WRITE)]
    assert adapter.do(read(7, 2), pieces) == (OK, GOOD)
    data = b"".join(adapter.memory.read(address, length) for address, length, _ in pieces)
    assert data == pattern(7, 2)
    assert adapter.do(write(20, 2), [(address, length, 0) for address, length, _ in pieces]) == (OK, GOOD)
    assert disk.data[20 * 512 : 22 * 512] == pattern(7, 2)


def test_the_used_length_covers_response_and_data(adapter: Adapter) -> None:
    for cdb, data, used in [
        (read(0, 2), [(DATA, 1024, WRITE)], 108 + 1024),
        (write(0, 2), [(DATA, 1024, 0)], 108),
        (TEST_UNIT_READY, [], 108),
    ]:
        adapter.submit(cdb, data)
        adapter.notify(REQUEST)
        ((_, length),) = adapter.complete(REQUEST)
        assert length == used
        assert adapter.response() == (OK, GOOD, 0, b"")


def test_what_is_not_transferred_is_the_residual(adapter: Adapter) -> None:
    assert adapter.send(CAPACITY, [(DATA, 100, WRITE)]) == (OK, GOOD, 92, b"")
    assert adapter.send(write(0), [(DATA, 2048, 0)]) == (OK, GOOD, 1536, b"")
    response, status, residual, sense = adapter.send(read(SECTORS), [(DATA, 512, WRITE)])
    assert (response, status, residual) == (OK, CHECK_CONDITION, 512)
    assert (sense[2], sense[12]) == (5, 0x21)


def test_buffers_too_short_for_a_command_are_an_overrun(adapter: Adapter) -> None:
    assert adapter.send(read(0, 2), [(DATA, 1023, WRITE)])[0] == OVERRUN
    assert adapter.send(write(0, 2), [(DATA, 512, 0)])[0] == OVERRUN
    assert adapter.send(CAPACITY, [(DATA, 7, WRITE)])[0] == OVERRUN


def test_data_both_ways_was_not_negotiated(adapter: Adapter) -> None:
    assert adapter.send(write(0), [(DATA, 512, 0), (DATA + 0x1000, 512, WRITE)])[0] == FAILURE


def test_header_response_and_data_may_be_cut_anywhere(adapter: Adapter) -> None:
    adapter.memory.write(HEADERS, LUN_0 + bytes(11) + write(4).ljust(32, b"\0") + b"w" * 512)
    adapter.request([(HEADERS, 5, 0), (HEADERS + 5, 1, 0), (HEADERS + 6, 557, 0), (RESPONSES, 108, WRITE)], REQUEST)
    assert adapter.response()[:2] == (OK, GOOD)
    adapter.memory.write(HEADERS, LUN_0 + bytes(11) + read(4).ljust(32, b"\0"))
    adapter.request([(HEADERS, 51, 0), (DATA, 7, WRITE), (DATA + 7, 613, WRITE)], REQUEST)
    assert adapter.memory.read(DATA, 620) == bytes(108) + b"w" * 512


def test_an_indirect_request_is_served(adapter: Adapter) -> None:
    adapter.memory.write(HEADERS, LUN_0 + bytes(11) + read(1, 14).ljust(32, b"\0"))
    queue = adapter.queues[REQUEST]
    data = [(DATA + 512 * n, 512, WRITE) for n in range(14)]
    queue.offer(queue.indirect(INDIRECT_TABLE, [(HEADERS, 51, 0), (RESPONSES, 108, WRITE), *data]))
    adapter.notify(REQUEST)
    adapter.complete(REQUEST)
    assert adapter.memory.read(DATA, 14 * 512) == pattern(1, 14)


def test_a_target_without_a_disk_is_no_target_and_a_target_has_one_unit(adapter: Adapter) -> None:
    for address in (lun(1), lun(63), lun(255), bytes(8), b"\xc1\x01" + bytes(6), LUN_0[:7] + b"\1"):
        assert adapter.send(TEST_UNIT_READY, [], address)[0] == BAD_TARGET
    response, status, _, sense = adapter.send(TEST_UNIT_READY, [], lun(0, 1))
    assert (response, status, sense[2], sense[12]) == (OK, CHECK_CONDITION, 5, 0x25)
    inquiry = bytes([0x12, 0, 0, 0, 36, 0])
    assert adapter.send(inquiry, [(DATA, 36, WRITE)], lun(0, 1))[:2] == (OK, GOOD)
    assert adapter.memory.read(DATA, 1) == b"\x7f"


def test_both_ways_to_write_a_unit_number_reach_unit_0(adapter: Adapter) -> None:
    assert adapter.send(TEST_UNIT_READY, [], LUN_0)[:2] == (OK, GOOD)
    assert adapter.send(TEST_UNIT_READY, [], lun(0))[:2] == (OK, GOOD)


def test_many_requests_are_served_on_one_notification(adapter: Adapter, disk: MemoryDisk) -> None:
    for at_hand in (True, False):
        disk.at_hand = at_hand
        for slot in range(8):
            adapter.submit(read(20 + slot), [(DATA + 512 * slot, 512, WRITE)], slot=slot)
        adapter.notify(REQUEST)
        assert len(adapter.complete(REQUEST, 8)) == 8
        assert [adapter.response(slot)[:2] for slot in range(8)] == [(OK, GOOD)] * 8
        assert adapter.memory.read(DATA, 8 * 512) == pattern(20, 8)


def test_one_notification_reads_more_than_fits_a_harts_turn(adapter: Adapter) -> None:
    for slot in range(5):
        adapter.submit(read(slot, 192), [(DATA, 192 * 512, WRITE)], slot=slot)
    adapter.notify(REQUEST)
    adapter.complete(REQUEST, 5)
    assert adapter.memory.read(DATA, 192 * 512) == pattern(4, 192)


def test_a_disk_that_waits_holds_up_no_other(memory: GuestMemory) -> None:
    slow, fast = MemoryDisk(SECTORS), MemoryDisk(SECTORS)
    adapter = Adapter(memory, slow, fast)
    adapter.start()
    slow.at_hand = fast.at_hand = False
    slow.gate.clear()
    adapter.submit(read(0), [(DATA, 512, WRITE)], slot=0)
    adapter.submit(read(1), [(DATA + 512, 512, WRITE)], slot=1, address=lun(1))
    adapter.notify(REQUEST)
    ((_, _),) = adapter.complete(REQUEST)
    assert adapter.response(1)[:2] == (OK, GOOD)
    slow.gate.set()
    adapter.complete(REQUEST)
    assert adapter.memory.read(DATA, 1024) == pattern(0, 2)
    adapter.mmio.close()


def test_the_order_of_a_disks_commands_is_kept(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.gate.clear()
    adapter.memory.write(DATA, b"n" * 512)
    adapter.submit(write(5), [(DATA, 512, 0)], slot=0)
    adapter.submit(read(5), [(DATA + 512, 512, WRITE)], slot=1)  # at hand, and yet it waits for its turn
    adapter.notify(REQUEST)
    disk.gate.set()
    adapter.complete(REQUEST, 2)
    assert adapter.memory.read(DATA + 512, 512) == b"n" * 512


def test_a_host_that_fails_gives_sense_and_the_disk_goes_on(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.failure = OSError(errno.ENOSPC, "full")
    response, status, residual, sense = adapter.send(write(0), [(DATA, 512, 0)])
    assert (response, status, residual, sense[2], sense[12], sense[13]) == (OK, CHECK_CONDITION, 512, 7, 0x27, 7)
    disk.failure = None
    assert adapter.read_sectors(0) == pattern(0)


def test_a_mistake_in_a_backend_is_sense_to_the_guest_and_nothing_waits_for_ever(
    adapter: Adapter, disk: MemoryDisk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.failure = ZeroDivisionError("a mistake")
    for _ in range(2):
        response, status, residual, sense = adapter.send(write(0), [(DATA, 512, 0)])
        assert (response, status, residual, sense[2], sense[12]) == (OK, CHECK_CONDITION, 512, 4, 0x44)
    disk.failure = None
    assert adapter.read_sectors(0) == pattern(0)
    adapter.mmio.pause()
    adapter.mmio.resume()
    (line,) = caplog.messages
    assert "ZeroDivisionError: a mistake; the guest gets I/O errors" in line
    caplog.clear()


# --- task management ---


def test_a_command_that_waits_is_aborted(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.gate.clear()
    for slot in range(3):
        adapter.submit(write(slot), [(DATA, 512, 0)], slot=slot, tag=100 + slot)
    adapter.notify(REQUEST)
    assert disk.entered.wait(PATIENCE)
    assert adapter.task(QUERY_TASK, tag=101) == SUCCEEDED
    assert adapter.task(ABORT_TASK, tag=101) == OK
    assert adapter.response(1)[0] == ABORTED
    assert adapter.task(QUERY_TASK, tag=101) == OK
    disk.gate.set()
    adapter.complete(REQUEST, 3)
    assert [adapter.response(slot)[0] for slot in range(3)] == [OK, ABORTED, OK]


def test_an_abort_of_the_command_in_hand_is_answered_when_that_is_done(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.gate.clear()
    adapter.submit(write(0), [(DATA, 512, 0)], tag=100)
    adapter.notify(REQUEST)
    assert disk.entered.wait(PATIENCE)
    adapter.offer_task(ABORT_TASK, tag=100)
    assert adapter.queues[CONTROL].take_used() == []
    disk.gate.set()
    adapter.complete(CONTROL)
    assert adapter.memory.read(TASKS + 24, 1)[0] == OK
    assert adapter.response()[:2] == (OK, GOOD)


@pytest.mark.parametrize(
    ("function", "response", "attention"),
    [(ABORT_TASK_SET, ABORTED, None), (UNIT_RESET, RESET, 3), (NEXUS_RESET, RESET, 7)],
)
def test_a_reset_or_an_abort_of_all_ends_what_waits(
    adapter: Adapter, disk: MemoryDisk, function: int, response: int, attention: int | None
) -> None:
    assert adapter.task(QUERY_TASK_SET) == OK
    disk.gate.clear()
    for slot in range(3):
        adapter.submit(write(slot), [(DATA, 512, 0)], slot=slot)
    adapter.notify(REQUEST)
    assert disk.entered.wait(PATIENCE)
    assert adapter.task(QUERY_TASK_SET) == SUCCEEDED
    adapter.offer_task(function)
    disk.gate.set()
    adapter.complete(CONTROL)
    adapter.complete(REQUEST, 3)
    assert [adapter.response(slot)[0] for slot in range(3)] == [OK, response, response]
    sense = adapter.send(TEST_UNIT_READY, [])[3]
    assert (sense[13] if sense else None) == attention


def test_task_management_of_what_is_not_there_is_refused(adapter: Adapter) -> None:
    assert adapter.task(ABORT_TASK, lun(1)) == BAD_TARGET
    assert adapter.task(UNIT_RESET, lun(0, 1)) == INCORRECT_LUN
    assert adapter.task(NEXUS_RESET, lun(0, 1)) == OK
    assert adapter.task(CLEAR_ACA) == REJECTED
    assert adapter.task(8) == REJECTED
    assert adapter.task(ABORT_TASK, tag=77) == OK


@pytest.mark.parametrize("kind", [1, 2])
def test_there_are_no_asynchronous_notifications_to_ask_for(adapter: Adapter, kind: int) -> None:
    for address, response in ((LUN_0, OK), (lun(9), BAD_TARGET)):
        adapter.memory.write(TASKS, struct.pack("<I8sI", kind, address, 0xFF) + b"\xee" * 5)
        adapter.request([(TASKS, 16, 0), (TASKS + 16, 5, WRITE)], CONTROL)
        assert adapter.memory.read(TASKS + 16, 5) == bytes([0, 0, 0, 0, response])


# --- bad input, life ---


@pytest.mark.parametrize(
    ("index", "buffers"),
    [
        (REQUEST, [(HEADERS, 50, 0), (RESPONSES, 108, WRITE)]),
        (REQUEST, [(HEADERS, 51, 0), (RESPONSES, 107, WRITE)]),
        (REQUEST, [(HEADERS, 51, 0)]),
        (REQUEST, [(HEADERS, 51, 0), (0x1000, 512, WRITE)]),
        (CONTROL, [(TASKS, 3, 0), (TASKS + 64, 1, WRITE)]),
        (CONTROL, [(TASKS, 24, 0)]),
        (CONTROL, [(DATA, 24, 0), (TASKS + 64, 1, WRITE)]),
    ],
    ids=["short header", "short response", "no response", "outside memory", "short", "no answer", "unknown type"],
)
def test_what_is_no_request_stops_the_device_until_a_reset(adapter: Adapter, index: int, buffers: list[Buffer]) -> None:
    adapter.memory.write(DATA, b"\xff" * 24)
    queue = adapter.queues[index]
    queue.offer(queue.chain(buffers))
    adapter.notify(index)
    adapter.line.wait()
    assert adapter.acknowledge() & 2
    assert adapter.status & NEEDS_RESET
    adapter.start()
    assert adapter.read_sectors(5) == pattern(5)


def test_an_event_buffer_that_is_none_stops_the_device(memory: GuestMemory, disk: MemoryDisk) -> None:
    for buffers in ([(EVENTS, 15, WRITE)], [(EVENTS, 16, 0)]):
        adapter = Adapter(memory)
        adapter.start(events=0)
        queue = adapter.queues[EVENT]
        queue.offer(queue.chain(buffers))
        adapter.notify(EVENT)
        assert not adapter.status & NEEDS_RESET
        adapter.scsi.attach(MemoryDisk(8))
        assert adapter.status & NEEDS_RESET
        adapter.mmio.close()


def test_a_driver_cannot_have_more_commands_wait_than_there_are_descriptors(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.gate.clear()
    queue = adapter.queues[REQUEST]
    adapter.memory.write(HEADERS, LUN_0 + bytes(11) + SYNCHRONIZE.ljust(32, b"\0"))
    head = queue.chain([(HEADERS, 51, 0), (RESPONSES, 108, WRITE)])
    for _ in range(10):
        queue.offer(*[head] * 60)
        # A device that stops drops its queue, and waits for the command in hand, and that one for the gate.
        notifying = threading.Thread(target=adapter.notify, args=(REQUEST,))
        notifying.start()
        until(lambda notifying=notifying: not notifying.is_alive() or not adapter.device.queues[REQUEST])  # type: ignore[misc]  # mypy cannot infer it
        if not adapter.device.queues[REQUEST]:
            break
    disk.gate.set()
    notifying.join()
    assert adapter.status & NEEDS_RESET


def test_the_driver_may_choose_sizes_before_it_starts_and_a_reset_undoes_it(
    memory: GuestMemory, disk: MemoryDisk
) -> None:
    adapter = Adapter(memory, disk)
    assert adapter.begin(FEATURES | Driver.FEATURES)
    adapter.mmio.write(0x114, 4, 20)
    adapter.mmio.write(0x118, 4, 16)
    adapter.mmio.write(0x118, 4, 257)
    adapter.mmio.write(0x118, 2, 3)
    assert (adapter.read(0x114), adapter.read(0x118)) == (20, 16)
    adapter.write(0x70, 0)
    adapter.start()
    adapter.mmio.write(0x118, 4, 16)
    assert (adapter.read(0x114), adapter.read(0x118)) == (96, 32)
    adapter.mmio.close()


def test_a_reset_waits_for_the_command_in_hand_and_drops_the_rest(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.at_hand = False
    disk.gate.clear()
    for slot in range(3):
        adapter.submit(read(slot), [(DATA, 512, WRITE)], slot=slot)
    adapter.notify(REQUEST)
    assert disk.entered.wait(PATIENCE)
    hart = threading.Thread(target=lambda: adapter.write(0x70, 0))
    hart.start()
    until(lambda: adapter.device.halting)
    assert adapter.status != 0
    disk.gate.set()
    hart.join(PATIENCE)
    assert adapter.status == 0
    assert len(adapter.queues[REQUEST].take_used()) <= 1
    adapter.initialize(FEATURES, size=64)
    sense = adapter.send(TEST_UNIT_READY, [])[3]
    assert (sense[2], sense[12], sense[13]) == (6, 0x29, 0)
    assert adapter.read_sectors(1) == pattern(1)


def test_a_pause_waits_for_all_that_was_handed_out(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.gate.clear()
    for slot in range(3):
        adapter.submit(write(slot), [(DATA, 512, 0)], slot=slot)
    adapter.notify(REQUEST)
    pausing = threading.Thread(target=adapter.mmio.pause)
    pausing.start()
    until(lambda: adapter.device.halting)
    disk.gate.set()
    pausing.join(PATIENCE)
    assert len(adapter.queues[REQUEST].take_used()) == 3
    adapter.submit(read(0), [(DATA, 512, WRITE)])
    adapter.notify(REQUEST)
    assert adapter.queues[REQUEST].take_used() == []
    adapter.scsi.attach(MemoryDisk(8))
    assert adapter.queues[EVENT].take_used() == []
    adapter.mmio.resume()
    adapter.complete(REQUEST)
    assert adapter.events(1) == [(1, 1, 1)]


def test_a_saved_controller_goes_on_in_another_machine(adapter: Adapter, memory: GuestMemory) -> None:
    adapter.mmio.pause()
    adapter.scsi.attach(MemoryDisk(8))
    adapter.submit(read(2), [(DATA, 512, WRITE)])
    adapter.notify(REQUEST)
    state = adapter.mmio.save()
    adapter.mmio.close()

    other = Adapter(memory, MemoryDisk(SECTORS), MemoryDisk(8))
    other.queues = adapter.queues
    other.mmio.restore(state)
    other.complete(REQUEST)
    assert memory.read(DATA, 512) == pattern(2), "the first disk has no unit attention any more"
    assert other.events(1) == [(1, 1, 1)]
    sense = other.send(TEST_UNIT_READY, [], lun(1))[3]
    assert (sense[2], sense[12]) == (6, 0x29), "the second still has"
    other.mmio.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own_targets": [1]}, "SCSI disks of"),
        ({"own_targets": [0, 1]}, "must be 1 numbers"),
        ({"own_capacities": [5]}, "SCSI disks of"),
        ({"own_attentions": [0, 6]}, "rows of 4"),
        ({"own_attentions": [3, 6, 0x29, 0]}, "targets that do not exist"),
        ({"own_events": [1, 99, 1]}, "targets that do not exist"),
        ({"own_events": [1, 1]}, "rows of 3"),
        ({"own_sense_size": 1 << 20}, "below"),
        ({"own_more": 1}, "unknown fields"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    adapter: Adapter, change: dict[str, int | list[int]], message: str
) -> None:
    state = adapter.mmio.save() | change
    with pytest.raises(ValueError, match=message):
        adapter.mmio.restore(state)
    adapter.start()
    assert adapter.read_sectors(1) == pattern(1)


REQUESTS = st.builds(
    lambda address, cdb, out, lengths: (address + bytes(11) + cdb + out, lengths),
    st.one_of(st.sampled_from([LUN_0, lun(1), lun(0, 1)]), st.binary(min_size=8, max_size=8)),
    st.one_of(
        st.binary(min_size=32, max_size=32),
        st.sampled_from([read(1).ljust(32, b"\0"), write(1).ljust(32, b"\0"), SYNCHRONIZE.ljust(32, b"\0")]),
    ),
    st.binary(max_size=64),
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([HEADERS, DATA, RESPONSES, BASE + 0xFFFFF]), st.integers(0, (1 << 64) - 1)),
            st.one_of(st.sampled_from([1, 16, 108, 512, 513, 4096]), st.integers(0, 0xFFFF_FFFF)),
            st.integers(0, 7),
        ),
        min_size=1,
        max_size=6,
    ),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.sampled_from([CONTROL, EVENT, REQUEST]), requests=st.lists(REQUESTS, min_size=1, max_size=4))
def test_no_request_breaks_the_controller_or_leaves_guest_memory(
    memory: GuestMemory, index: int, requests: list[tuple[bytes, list[Buffer]]]
) -> None:
    adapter = Adapter(memory, MemoryDisk(SECTORS))
    adapter.start()
    queue = adapter.queues[index]
    for contents, buffers in requests:
        memory.write(HEADERS, contents)
        queue.offer(queue.chain([(HEADERS, len(contents), 0), *buffers, (RESPONSES, 108, WRITE)]))
        adapter.notify(index)
    adapter.start()  # waits for what is in hand
    assert adapter.status == 15
    assert len(adapter.read_sectors(1)) == 512
    adapter.mmio.close()


def test_a_hart_that_scribbles_over_the_queues_while_they_are_served_breaks_nothing(memory: GuestMemory) -> None:
    disk = MemoryDisk(SECTORS)
    disk.at_hand = False
    adapter = Adapter(memory, disk)
    random = Random(7)
    for _ in range(20):
        adapter.start()
        queue = adapter.queues[REQUEST]
        for _ in range(50):
            for slot in range(random.randint(0, 5)):
                adapter.submit(read(slot, 8), [(DATA, 4096, WRITE)], slot=slot)
            adapter.notify(REQUEST)
            at = random.randrange(queue.descriptors, queue.end - 8)
            memory.write(at, random.randbytes(random.choice([1, 2, 4, 8])))
            adapter.offer_task(random.randrange(9), tag=random.randrange(5))
            adapter.acknowledge()
    adapter.start()
    assert len(adapter.read_sectors(1)) == 512
    adapter.mmio.close()
