from __future__ import annotations

import math
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.device import FEATURE_RING_INDIRECT, FEATURE_VERSION_1
from celaje.machine.virtio.net import FEATURES, VirtioNet
from celaje.machine.virtio.net_backend import SocketBackend
from celaje.machine.virtio.segmentation import LARGEST_MESSAGE
from tests.machine.virtio.driver import BASE, MEMORY_SIZE, PATIENCE, WRITE, Buffer, Driver, until
from tests.machine.virtio.frames import Segment, header, ipv4, large4

MAC = bytes.fromhex("020000000001")
RECEIVE, TRANSMIT, CONTROL = 0, 1, 2
CSUM, GUEST_CSUM, MTU, ANNOUNCE, CTRL_VQ, GUEST_TSO4, MRG_RXBUF = (1 << n for n in (0, 1, 3, 21, 17, 7, 15))
NEEDS_RESET = 64
TABLE, OUT, DATA = BASE + 0x8000, BASE + 0x10000, BASE + 0x40000
SMALL = ipv4(17, bytes(range(200)))


class Wire:
    """The other end: link messages, as the network has them."""

    def __init__(self) -> None:
        self.end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(PATIENCE)
        self.backend = SocketBackend(other)

    def send(self, message: bytes) -> None:
        self.end.send(message)

    def receive(self) -> bytes:
        return self.end.recv(LARGEST_MESSAGE)

    @property
    def silent(self) -> bool:
        return not select.select([self.end], [], [], 0)[0]

    def fill(self) -> int:
        """Send small frames until there is no room; how many."""
        self.end.setblocking(False)
        count = 0
        try:
            while True:
                self.end.send(header() + SMALL)
                count += 1
        except BlockingIOError:
            self.end.settimeout(PATIENCE)
            return count


class Card(Driver):
    """A driver of a network card that is plugged into `wire`."""

    def __init__(self, memory: GuestMemory, wire: Wire | None, **options: int) -> None:
        self.lost = threading.Event()
        self.net = VirtioNet(MAC, wire.backend if wire else None, lost=self.lost.set, **options)
        super().__init__(self.net, memory)

    def put(self, message: bytes, *cuts: int, at: int = OUT) -> list[Buffer]:
        """`message` in guest memory, in buffers that end at `cuts`."""
        self.memory.write(at, message)
        edges = [0, *cuts, len(message)]
        return [(at + start, end - start, 0) for start, end in pairwise(edges)]

    def transmit(self, message: bytes, *cuts: int) -> None:
        assert self.request(self.put(message, *cuts), TRANSMIT)[1] == 0

    def offer_buffers(self, count: int, size: int, start: int = 0) -> None:
        queue = self.queues[RECEIVE]
        queue.offer(*(queue.chain([(DATA + size * (start + number), size, WRITE)]) for number in range(count)))
        self.notify(RECEIVE)

    def received(self, chains: int, size: int, start: int = 0) -> bytes:
        """What is in so many chains made by `offer_buffers`, when they have come back in that order."""
        lengths = [length for _, length in self.complete(RECEIVE, chains)]
        return b"".join(self.memory.read(DATA + size * (start + n), length) for n, length in enumerate(lengths))

    @property
    def link(self) -> int:
        return self.mmio.read(0x106, 2)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.end.close()


@pytest.fixture
def card(memory: GuestMemory, wire: Wire) -> Iterator[Card]:
    card = Card(memory, wire)
    card.initialize(FEATURES, 64)
    yield card
    card.mmio.close()


def test_the_configuration_has_address_link_and_mtu(memory: GuestMemory, wire: Wire) -> None:
    card = Card(memory, wire, mtu=9001)
    assert bytes(card.mmio.read(0x100 + index, 1) for index in range(6)) == MAC
    assert card.link == 1
    assert card.mmio.read(0x108, 2) == 1
    assert card.mmio.read(0x10A, 2) == 9001
    assert card.offered() & FEATURES == FEATURES
    card.mmio.close()


@pytest.mark.parametrize("mac", [b"\x02\0\0\0\0", b"\x03\0\0\0\0\0"])
def test_an_address_that_is_none_is_refused(mac: bytes) -> None:
    with pytest.raises(ValueError, match="6 bytes"):
        VirtioNet(mac)


@pytest.mark.parametrize("cuts", [(), (12,), (5, 12, 13, 100)])
def test_a_frame_to_send_reaches_the_wire_with_its_header(card: Card, wire: Wire, cuts: tuple[int, ...]) -> None:
    card.transmit(header(1, 0, 0, 34, 6) + SMALL, *cuts)
    assert wire.receive() == header(1, 0, 0, 34, 6) + SMALL
    assert card.net.sent == 1


def test_a_large_frame_is_sent_whole_through_an_indirect_table(card: Card, wire: Wire) -> None:
    message = large4(Random(1).randbytes(65_000), 1448)
    buffers = card.put(message, *range(4096, len(message), 4096))
    queue = card.queues[TRANSMIT]
    queue.offer(queue.indirect(TABLE, buffers))
    card.notify(TRANSMIT)
    assert wire.receive() == message
    assert card.complete(TRANSMIT) == [(0, 0)]


def test_several_frames_are_sent_with_one_notification_and_one_interrupt(card: Card, wire: Wire) -> None:
    queue = card.queues[TRANSMIT]
    for number in range(10):
        message = header() + SMALL + bytes([number])
        queue.offer(queue.chain(card.put(message, at=OUT + 1024 * number)))
    card.notify(TRANSMIT)
    assert [wire.receive()[-1] for _ in range(10)] == list(range(10))
    assert len(card.complete(TRANSMIT, 10)) == 10
    assert card.line.rises == 1


def test_an_old_driver_has_a_header_of_ten_bytes_both_ways(memory: GuestMemory, wire: Wire) -> None:
    card = Card(memory, wire)
    card.initialize(0, 64, transport=0)
    for cuts in ((), (10,), (3, 8, 30)):
        card.transmit(header()[:10] + SMALL, *cuts)
        assert wire.receive() == header() + SMALL
    card.offer_buffers(1, 2048)
    wire.send(header() + SMALL)
    assert card.received(1, 2048) == header()[:10] + SMALL
    card.mmio.close()


@pytest.mark.parametrize("size", [0, 13, LARGEST_MESSAGE - 12 + 1])
def test_a_frame_of_no_size_for_one_is_dropped(card: Card, wire: Wire, size: int) -> None:
    card.transmit(header() + bytes(size), 12)
    card.transmit(header() + SMALL)
    assert wire.receive() == header() + SMALL
    assert card.net.dropped == 1


def test_what_the_wire_has_no_room_for_is_sent_by_the_devices_thread(card: Card, wire: Wire) -> None:
    queue = card.queues[TRANSMIT]
    message = header() + bytes(60_000)
    card.memory.write(OUT, message)
    sent = received = 0
    while True:  # until the wire is full
        queue.offer(queue.chain([(OUT, len(message), 0)]))
        card.notify(TRANSMIT)
        sent += 1
        if not queue.take_used():
            break
        queue.set_used_event(queue.seen_used)
    while received < sent:
        assert wire.receive() == message
        received += 1
    card.complete(TRANSMIT)
    assert card.net.sent == sent
    card.transmit(header() + SMALL)
    assert wire.receive() == header() + SMALL


def test_a_frame_that_comes_goes_into_the_buffer_that_waits(card: Card, wire: Wire) -> None:
    card.offer_buffers(2, 2048)
    wire.send(header(1, 0, 0, 34, 6) + SMALL)
    message = card.received(1, 2048)
    assert message == header(1, 0, 0, 34, 6)[:10] + struct.pack("<H", 1) + SMALL
    assert card.net.received == 1


def test_a_large_frame_is_spread_over_buffers_that_come_back_together(card: Card, wire: Wire) -> None:
    message = large4(Random(2).randbytes(65_000), 1448)
    card.offer_buffers(50, 1536)
    wire.send(message)
    chains = -(-len(message) // 1536)
    card.line.wait()
    assert card.queues[RECEIVE].used_index == chains
    assert card.received(chains, 1536) == message[:10] + struct.pack("<H", chains) + message[12:]


def test_a_frame_waits_until_there_are_buffers_for_all_of_it(card: Card, wire: Wire) -> None:
    message = header() + ipv4(17, bytes(5000))
    card.offer_buffers(2, 1536)
    wire.send(message)
    wire.send(header() + SMALL)
    assert card.queues[RECEIVE].used_index == 0
    card.offer_buffers(3, 1536, start=2)
    assert card.received(5, 1536)[12:] == message[12:] + header()[:10] + struct.pack("<H", 1) + SMALL


def test_frames_that_come_before_the_driver_wait_on_the_wire(memory: GuestMemory, wire: Wire) -> None:
    card = Card(memory, wire)
    wire.send(header() + SMALL)
    card.initialize(FEATURES, 64)
    card.offer_buffers(1, 2048)
    assert card.received(1, 2048)[12:] == SMALL
    card.mmio.close()


def test_a_guest_without_buffers_fills_the_wire_and_hinders_neither_reset_nor_pause(card: Card, wire: Wire) -> None:
    assert wire.fill() > 10
    card.mmio.pause()
    state = card.mmio.save()
    card.mmio.resume()
    assert state["own_mac"] == MAC
    card.initialize(FEATURES, 64)
    card.transmit(header() + SMALL)
    assert wire.receive() == header() + SMALL


def test_several_frames_come_with_few_interrupts(card: Card, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they take to come: no silence is long enough, and the driver wants every interrupt there is."""
    monkeypatch.setattr("celaje.machine.virtio.net.SILENCE_SECONDS", math.inf)
    card.initialize(FEATURES, 64, transport=FEATURE_VERSION_1 | FEATURE_RING_INDIRECT)
    interrupts: list[None] = []
    monkeypatch.setattr(card.mmio, "interrupt", lambda: interrupts.append(None))
    card.mmio.pause()
    for _ in range(20):
        wire.send(header() + SMALL)
    card.offer_buffers(20, 2048)
    card.mmio.resume()
    until(lambda: card.queues[RECEIVE].used_index == 20)
    card.mmio.pause()  # the last interrupt is out, too
    assert len(interrupts) == 4, "two batches, each with one for its first frame and one for the others"


def test_a_driver_without_offloads_gets_segments_with_checksums(memory: GuestMemory, wire: Wire) -> None:
    card = Card(memory, wire)
    card.initialize(0, 64)
    data = Random(4).randbytes(20_000)
    card.offer_buffers(20, 2048)
    wire.send(large4(data, 1448))
    used = card.complete(RECEIVE, 14)
    frames = [card.memory.read(DATA + 2048 * n, length) for n, (_, length) in enumerate(used)]
    assert b"".join(Segment(frame[12:]).data for frame in frames) == data
    assert all(Segment(frame[12:]).complete for frame in frames)
    assert {frame[:12] for frame in frames} == {bytes(10) + b"\x01\x00"}
    card.mmio.close()


def test_segments_wait_for_buffers_too(memory: GuestMemory, wire: Wire) -> None:
    card = Card(memory, wire)
    card.initialize(GUEST_CSUM | CSUM, 64)
    data = Random(5).randbytes(4000)
    wire.send(large4(data, 1448))
    found = b""
    for number in range(3):
        card.offer_buffers(1, 2048, start=number)
        found += Segment(card.received(1, 2048, start=number)[12:]).data
    assert found == data
    card.mmio.close()


def test_a_buffer_too_small_for_a_frame_loses_the_frame_and_keeps_the_buffer(memory: GuestMemory, wire: Wire) -> None:
    card = Card(memory, wire)
    card.initialize(0, 64)
    card.offer_buffers(1, 300)
    wire.send(header() + ipv4(17, bytes(400)))
    wire.send(header() + SMALL)
    assert card.received(1, 300)[12:] == SMALL
    assert card.net.dropped == 1
    card.mmio.close()


@pytest.mark.parametrize(
    "message", [header(), header() + bytes(5), b"x", header(64) + SMALL, header() + bytes(LARGEST_MESSAGE)]
)
def test_a_message_of_the_wire_that_makes_no_sense_is_dropped(card: Card, wire: Wire, message: bytes) -> None:
    card.offer_buffers(2, 2048)
    wire.send(message)
    wire.send(header() + SMALL)
    assert card.received(1, 2048)[12:] == SMALL
    assert card.net.dropped == 1


@pytest.mark.parametrize(
    ("index", "buffers"),
    [
        (RECEIVE, [(DATA, 2048, 0)]),
        (RECEIVE, [(DATA, 11, WRITE)]),
        (RECEIVE, []),
        (TRANSMIT, [(OUT, 11, 0)]),
        (TRANSMIT, [(OUT, 100, 0), (OUT, 100, WRITE)]),
        (TRANSMIT, [(0x1000, 100, 0)]),
        (CONTROL, [(OUT, 2, 0)]),
        (CONTROL, [(OUT, 1, 0), (DATA, 1, WRITE)]),
    ],
)
def test_a_chain_that_is_no_packet_stops_the_device_until_a_reset(
    card: Card, wire: Wire, index: int, buffers: list[Buffer]
) -> None:
    queue = card.queues[index]
    queue.offer(queue.chain(buffers) if buffers else 99)
    card.notify(index)
    if index == RECEIVE:
        wire.send(header() + SMALL)
    card.line.wait()  # who holds the device's lock as the driver notifies does the driver's work, too
    assert card.status & NEEDS_RESET
    card.initialize(FEATURES, 64)
    card.transmit(header() + SMALL)
    assert wire.receive() == header() + SMALL


def test_a_wire_that_ends_is_noticed_also_while_no_driver_listens_and_after_a_pause() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lost = threading.Event()
    card = VirtioNet(bytes.fromhex("020000000001"), SocketBackend(ours), lost=lost.set)
    card.pause()
    theirs.close()
    assert not lost.wait(0.2)
    card.resume()
    assert lost.wait(PATIENCE)
    assert not card.link_is_up
    card.close()


def test_a_cable_that_is_pulled_and_plugged_in_again_is_announced(card: Card, wire: Wire) -> None:
    card.net.set_link(False)
    assert card.acknowledge() == 2
    assert card.link == 0
    card.transmit(header() + SMALL)
    assert wire.silent
    assert card.net.dropped == 1
    card.acknowledge()
    card.net.set_link(True)
    assert card.acknowledge() == 2
    assert card.link == 3, "up, and asked to announce itself"
    card.memory.write(OUT, b"\x03\x00")
    assert card.request([(OUT, 2, 0), (DATA, 1, WRITE)], CONTROL)[1] == 1
    assert card.memory.read(DATA, 1) == b"\0"
    assert card.link == 1


@pytest.mark.parametrize("command", [b"\x00\x00\x01", b"\x04\x00\x01\x00", b"\xff\xff", b"\x03\x01"])
def test_a_command_that_is_not_offered_is_answered_with_an_error(card: Card, command: bytes) -> None:
    card.memory.write(OUT, command)
    card.memory.write(DATA, b"\xee" * 4)
    assert card.request([(OUT, 1, 0), (OUT + 1, len(command) - 1, 0), (DATA, 1, WRITE)], CONTROL)[1] == 1
    assert card.memory.read(DATA, 2) == b"\x01\xee"


@pytest.mark.parametrize(
    "busy", [lambda card: card.notify(CONTROL), lambda card: card.net.announce()], ids=["command", "announce"]
)
def test_what_a_hart_sends_while_another_has_the_card_is_sent(
    card: Card, wire: Wire, busy: Callable[[Card], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is taken when the notification comes, and the card's thread sleeps: no frame comes to wake it."""
    queue = card.queues[TRANSMIT]
    queue.offer(queue.chain(card.put(header() + SMALL)))
    command = card.queues[CONTROL]
    command.offer(command.chain([(TABLE, 2, 0), (DATA, 1, WRITE)]))
    changed = card.mmio.interrupt, card.mmio.configuration_changed

    def meanwhile(tell: Callable[[], None]) -> None:
        monkeypatch.undo()
        assert card.net.lock.locked()
        hart = threading.Thread(target=card.notify, args=(TRANSMIT,))
        hart.start()
        hart.join()
        tell()

    monkeypatch.setattr(card.mmio, "interrupt", lambda: meanwhile(changed[0]))
    monkeypatch.setattr(card.mmio, "configuration_changed", lambda: meanwhile(changed[1]))
    busy(card)
    assert wire.receive() == header() + SMALL


def test_the_end_of_the_wire_is_told_and_another_can_be_plugged_in(card: Card, wire: Wire) -> None:
    card.offer_buffers(4, 2048)
    wire.send(header() + SMALL)
    wire.end.close()
    assert card.received(1, 2048)[12:] == SMALL
    assert card.lost.wait(PATIENCE)
    assert card.link == 0
    card.transmit(header() + SMALL)

    other = Wire()
    card.net.reattach(other.backend)
    assert card.link == 3
    card.transmit(header() + SMALL)
    assert other.receive() == header() + SMALL
    other.send(header() + SMALL)
    assert card.received(1, 2048, start=1)[12:] == SMALL
    other.end.close()


def test_who_sends_into_a_wire_that_has_ended_is_not_held_up(card: Card, wire: Wire) -> None:
    wire.end.close()
    for _ in range(3):
        card.transmit(header() + SMALL)
    assert card.lost.wait(PATIENCE)
    assert not card.status & NEEDS_RESET


def test_a_card_may_be_plugged_in_before_there_is_a_board(memory: GuestMemory, wire: Wire) -> None:
    net = VirtioNet(MAC)
    assert not net.link_is_up
    net.reattach(wire.backend)
    driver = Driver(net, memory)
    driver.initialize(FEATURES, 64)
    driver.memory.write(OUT, header() + SMALL)
    driver.request([(OUT, 12 + len(SMALL), 0)], TRANSMIT)
    assert wire.receive() == header() + SMALL
    driver.mmio.close()


def test_a_machine_that_is_restored_goes_on_where_it_was(card: Card, wire: Wire, memory: GuestMemory) -> None:
    card.offer_buffers(3, 2048)
    wire.send(header() + SMALL)
    card.received(1, 2048)
    card.mmio.pause()
    queue = card.queues[TRANSMIT]
    queue.offer(queue.chain(card.put(header() + SMALL)))
    card.notify(TRANSMIT)
    state = card.mmio.save()
    card.mmio.reset()

    again = Wire()
    other = Card(memory, again)
    other.mmio.restore(state)
    other.queues = card.queues
    assert again.receive() == header() + SMALL, "what was offered before is sent after"
    again.send(header() + SMALL)
    assert other.received(1, 2048, start=1)[12:] == SMALL
    assert other.link == 3, "it announces itself in its new place"
    other.mmio.close()
    again.end.close()


@pytest.mark.parametrize("wrong", [{"own_mac": b"\x02" * 6}, {"own_mtu": 9000}, {"own_mtu": "x"}, {"own_more": 1}])
def test_a_saved_state_of_another_card_is_refused(card: Card, wrong: dict[str, int]) -> None:
    state = card.mmio.save()
    with pytest.raises(ValueError, match="saved"):
        card.mmio.restore(state | wrong)
    card.initialize(FEATURES, 64)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0, FEATURES, GUEST_CSUM | CSUM, GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF]),
    st.lists(
        st.tuples(
            st.sampled_from([RECEIVE, TRANSMIT, CONTROL]),
            st.lists(
                st.tuples(
                    st.integers(BASE - 64, BASE + MEMORY_SIZE), st.integers(0, 3000), st.sampled_from([0, WRITE])
                ),
                min_size=1,
                max_size=4,
            ),
        ),
        max_size=8,
    ),
    st.lists(st.binary(max_size=200) | st.just(large4(bytes(9000), 1000)) | st.just(header() + SMALL), max_size=4),
)
def test_no_driver_and_no_wire_brings_the_device_down_for_good(
    features: int, chains: list[tuple[int, list[Buffer]]], messages: list[bytes]
) -> None:
    memory, wire = GuestMemory(BASE, MEMORY_SIZE), Wire()
    card = Card(memory, wire)
    card.initialize(features, 64)
    for index, buffers in chains:
        queue = card.queues[index]
        queue.offer(queue.chain(buffers))
        card.notify(index)
    for message in messages:
        wire.send(message or b"-")
    card.mmio.pause()
    card.mmio.save()
    card.mmio.resume()
    card.initialize(FEATURES, 64)
    card.transmit(header() + SMALL)
    while wire.receive() != header() + SMALL:  # before it came what the chains above made
        pass
    card.mmio.close()
    wire.end.close()
    memory.close()


def test_frames_both_ways_at_once_under_pauses_and_resets_arrive_whole(memory: GuestMemory, wire: Wire) -> None:
    """A guest that echoes everything, while another thread pauses the device again and again."""
    card = Card(memory, wire)
    card.initialize(MRG_RXBUF, 64, transport=FEATURE_VERSION_1 | FEATURE_RING_INDIRECT)
    done = threading.Event()

    def pause_and_resume() -> None:
        while not done.is_set():
            card.mmio.pause()
            card.mmio.resume()

    def send() -> None:
        for number in range(500):
            wire.send(header() + SMALL + struct.pack("<I", number))

    threads = [threading.Thread(target=pause_and_resume), threading.Thread(target=send)]
    for thread in threads:
        thread.start()
    receive, transmit = card.queues[RECEIVE], card.queues[TRANSMIT]
    size = 12 + len(SMALL) + 4
    try:
        card.offer_buffers(32, 512)
        arrived = 0
        for number in range(500):
            if arrived == number:
                arrived += len(card.complete(RECEIVE))
            at = DATA + 512 * (number % 32)
            memory.write(OUT, header() + memory.read(at + 12, size - 12))
            card.request([(OUT, size, 0)], TRANSMIT)
            assert wire.receive()[-4:] == struct.pack("<I", number)
            receive.offer(receive.chain([(at, 512, WRITE)]))
            card.notify(RECEIVE)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        card.mmio.close()
    assert transmit.used_index == 500
