"""NAT without a host: sockets that do what the test says, a clock that stands until it is told to go on."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Sequence

import pytest

from celaje.network import bridge, icmp, nat
from celaje.network.destinations import Destinations
from celaje.network.event_loop import READ, WRITE, EventLoop
from celaje.network.guest_stream import HALF_CLOSED_IDLE_SECONDS, IDLE_SECONDS, OPENING_SECONDS
from celaje.network.interface import InterfaceConfig
from celaje.network.nat import Nat
from celaje.network.network import Network, NetworkConfig
from celaje.network.routing_table import RouteType
from celaje.network.security_group import Rule, SecurityGroup
from celaje.network.subnet import Blocks
from tests.network.guest import Guest, Stream

FAR = 0x08080808


class Loop(EventLoop):
    """The real one's timers; descriptors are made ready by the test."""

    def __init__(self) -> None:
        self.time = 1000.0
        super().__init__(lambda: self.time)
        self.watched: dict[int, int] = {}

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        assert descriptor not in self.watched
        self.watched[descriptor] = events
        self._callbacks[descriptor] = callback

    def change(self, descriptor: int, events: int) -> None:
        self.watched[descriptor] = events

    def unwatch(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)
        self._callbacks.pop(descriptor, None)

    def ready(self, descriptor: int, events: int) -> None:
        """These events come, if anybody looks for them."""
        if self.watched.get(descriptor, 0) & events:
            self._callbacks[descriptor](events)


class FakeSocket:
    numbers = itertools.count(1_000_000)

    def __init__(self) -> None:
        self.number = next(self.numbers)
        self.error = 0
        self.connected = False
        self.incoming: list[bytes | OSError] = []
        self.taken = bytearray()
        self.takes = 1 << 30  # bytes that it takes yet
        self.fails: OSError | None = None
        self.shut = False
        self.closed = False
        self.lingers = True

    def fileno(self) -> int:
        return self.number

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        first = self.incoming.pop(0)
        if isinstance(first, OSError):
            raise first
        if len(first) > size:
            self.incoming.insert(0, first[size:])
        return first[:size]

    def sendmsg(self, parts: Sequence[bytes]) -> int:
        if self.fails is not None:
            raise self.fails
        data = b"".join(parts)[: self.takes]
        if not data:
            raise BlockingIOError
        self.takes -= len(data)
        self.taken += data
        return len(data)

    def send(self, data: bytes) -> int:
        return self.sendmsg([data])

    def shutdown(self, how: int) -> None:
        self.shut = True

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.lingers = False

    def getsockopt(self, level: int, option: int) -> int:
        return self.error

    def getpeername(self) -> object:
        if not self.connected:
            raise OSError(errno.ENOTCONN, "not connected")
        return None

    def close(self) -> None:
        self.closed = True


class Sockets:
    """`refuses`: what making a socket raises."""

    def __init__(self) -> None:
        self.made: list[FakeSocket] = []
        self.asked: list[tuple[str, int]] = []
        self.refuses: OSError | None = None

    def connect_tcp(self, address: str, port: int, public: str | None = None) -> FakeSocket:
        self.asked.append((address, port))
        if self.refuses is not None:
            raise self.refuses
        self.made.append(FakeSocket())
        return self.made[-1]

    connect_udp = connect_tcp


class World:
    def __init__(self) -> None:
        self.loop = Loop()
        self.sockets = Sockets()
        config = NetworkConfig()
        destinations = Destinations(Blocks(config.blocks), lambda _: RouteType.UNICAST)
        self.nat = Nat(self.loop, self.sockets, destinations, lambda query, answer: answer(None), config)  # type: ignore[arg-type]
        self.network = Network(config, self.nat, self.loop.clock)
        self.nat.network = self.network
        self.network.set_security_groups([SecurityGroup("g", (Rule(None),))])
        self.heard: list[bytes] = []
        mac = b"\x52\x54\0\0\0\1"
        self.interface = self.network.attach(InterfaceConfig("web", mac, groups=("g",)), self._transmit)
        self.flows = self.nat.attached(self.interface)
        self.guest = Guest(mac, self.interface.address, self._receive, self.loop.clock)

    def _transmit(self, parts: list[bytes]) -> bool:
        self.heard.append(b"".join(parts))
        return True

    def _receive(self, parts: list[bytes]) -> None:
        self.network.receive(self.interface, memoryview(b"".join(parts)))

    def turns(self) -> None:
        """Until nobody has more to say."""
        self.guest.turn()
        while True:
            self.nat.settle()
            self.loop.now = self.loop.time
            self.loop.round(0)
            if not self.heard:
                return
            heard, self.heard = self.heard, []
            for message in heard:
                self.guest.receive(message)
            self.guest.turn()

    def passes(self, seconds: float) -> None:
        self.loop.time += seconds
        self.loop.now = self.loop.time
        self.turns()

    def connect(self) -> tuple[Stream, FakeSocket]:
        """A connection that the far side has not decided about."""
        stream = self.guest.connect(FAR, 80)
        self.turns()
        return stream, self.sockets.made[-1]

    def connected(self) -> tuple[Stream, FakeSocket]:
        stream, far = self.connect()
        far.connected = True
        self.loop.ready(far.number, WRITE)
        self.turns()
        assert stream.established
        return stream, far

    def says(self, far: FakeSocket, *data: bytes | OSError) -> None:
        far.incoming += data
        self.loop.ready(far.number, READ)
        self.turns()


@pytest.fixture
def world() -> World:
    return World()


def test_the_guest_waits_until_the_far_side_is_connected(world: World) -> None:
    stream, far = world.connect()
    assert world.sockets.asked == [("8.8.8.8", 80)]
    assert not stream.established
    far.connected = True
    world.loop.ready(far.number, WRITE)
    world.turns()
    assert stream.established


def test_the_same_syn_again_makes_no_second_connection(world: World) -> None:
    world.connect()
    for _ in range(4):
        world.passes(1.0)
    assert len(world.sockets.made) == 1


def test_an_event_of_a_former_descriptor_connects_nothing(world: World) -> None:
    stream, far = world.connect()
    world.loop.ready(far.number, WRITE)
    world.turns()
    assert not stream.established
    assert world.loop.watched[far.number] == WRITE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errno.ECONNREFUSED, None),
        (errno.ECONNRESET, None),
        (errno.ENETUNREACH, icmp.NET_UNREACHABLE),
        (errno.EHOSTUNREACH, icmp.HOST_UNREACHABLE),
        (errno.ETIMEDOUT, icmp.HOST_UNREACHABLE),
        (errno.EACCES, icmp.ADMINISTRATIVELY_PROHIBITED),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_the_far_side_says_is_said_to_the_guest(world: World, error: int, code: int | None, at_once: bool) -> None:
    if at_once:
        world.sockets.refuses = OSError(error, "said at once")
        stream = world.guest.connect(FAR, 80)
        world.turns()
    else:
        stream, far = world.connect()
        far.error = error
        world.loop.ready(far.number, WRITE)
        world.turns()
        assert far.closed
    if code is None:
        assert stream.reset
    else:
        assert [(one.kind, one.code) for one in world.guest.icmp] == [(icmp.UNREACHABLE, code)]
    assert not world.flows.streams
    assert not world.loop.watched


def test_a_far_side_that_never_answers_is_unreachable(world: World) -> None:
    _, far = world.connect()
    world.passes(OPENING_SECONDS + nat.STREAM_SWEEP_SECONDS + 1)
    world.turns()
    assert far.closed
    assert (icmp.UNREACHABLE, icmp.HOST_UNREACHABLE) in [(one.kind, one.code) for one in world.guest.icmp]


def test_without_descriptors_the_guest_is_refused_and_the_log_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.sockets.refuses = OSError(errno.EMFILE, "Too many open files")
    for _ in range(3):
        stream = world.guest.connect(FAR, 80)
        world.turns()
        assert stream.reset
    assert world.nat.counters["TCP connections without a socket"] == 3
    assert caplog.text.count("TCP connections without a socket") == 1


def test_a_socket_that_takes_little_gets_everything_in_order(world: World) -> None:
    stream, far = world.connected()
    far.takes = 10
    stream.write(b"0123456789abcdefghij")
    world.turns()
    assert far.taken == b"0123456789"
    assert world.loop.watched[far.number] == READ | WRITE
    far.takes = 5
    world.loop.ready(far.number, WRITE)
    far.takes = 100
    world.loop.ready(far.number, WRITE)
    world.turns()
    assert far.taken == b"0123456789abcdefghij"
    assert world.loop.watched[far.number] == READ


def test_the_guests_end_waits_for_its_last_bytes(world: World) -> None:
    stream, far = world.connected()
    far.takes = 0
    stream.write(b"last words")
    stream.close()
    world.turns()
    assert not far.shut
    far.takes = 100
    world.loop.ready(far.number, WRITE)
    world.turns()
    assert far.taken == b"last words"
    assert far.shut


@pytest.mark.parametrize("error", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE])
def test_a_socket_that_breaks_resets_the_guest(world: World, error: int) -> None:
    stream, far = world.connected()
    world.says(far, OSError(error, "broken"))
    assert stream.reset
    assert far.closed
    assert not world.loop.watched


def test_a_socket_that_breaks_while_it_is_written_to_resets_the_guest(world: World) -> None:
    stream, far = world.connected()
    far.fails = OSError(errno.EPIPE, "broken")
    stream.write(b"x")
    world.turns()
    assert stream.reset
    assert far.closed


def test_a_guests_reset_is_passed_on_as_one(world: World) -> None:
    stream, far = world.connected()
    stream.abort()
    world.turns()
    assert far.closed
    assert not far.lingers


def test_an_idle_connection_ends_after_a_day_on_both_sides(world: World) -> None:
    stream, far = world.connected()
    world.flows.streams[next(iter(world.flows.streams))].active -= IDLE_SECONDS
    world.passes(nat.STREAM_SWEEP_SECONDS + 1)
    assert far.closed
    assert stream.reset


def test_a_half_closed_connection_may_be_idle_for_an_hour(world: World) -> None:
    stream, far = world.connected()
    world.says(far, b"")
    assert stream.eof
    bridge = next(iter(world.flows.streams.values()))
    bridge.active -= HALF_CLOSED_IDLE_SECONDS - 100
    world.passes(nat.STREAM_SWEEP_SECONDS + 1)
    assert not far.closed
    bridge.active -= 100
    world.passes(nat.STREAM_SWEEP_SECONDS + 1)
    assert far.closed


def test_a_machine_that_does_not_read_its_link_is_fetched_nothing(world: World) -> None:
    stream, far = world.connected()
    world.flows.congested = True
    world.says(far, b"x" * 1000)
    assert far.number not in world.loop.watched  # a hang-up would be reported over and over
    assert not stream.received
    world.flows.relieve()
    world.turns()
    assert world.loop.watched[far.number] == READ
    world.says(far)
    assert stream.received == b"x" * 1000


def test_a_table_that_is_full_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat, "MOST_STREAMS", 3)
    streams = [world.connected()[0] for _ in range(3)]
    more = world.guest.connect(FAR, 80)
    world.turns()
    assert more.reset
    streams[0].abort()
    world.turns()
    world.connected()


def test_too_many_that_are_being_opened_are_put_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat, "MOST_OPENING", 3)
    waiting = [world.connect()[1] for _ in range(3)]
    late = world.guest.connect(FAR, 80)
    world.turns()
    assert len(world.sockets.made) == 3
    waiting[0].connected = True
    world.loop.ready(waiting[0].number, WRITE)
    world.turns()
    for _ in range(4):
        world.passes(1.0)  # the guest asks again
    assert len(world.sockets.made) == 4
    assert not late.closed


def test_connections_beside_many_others_hold_less_of_what_the_guest_does_not_take(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nat, "MOST_AMPLE", 1)
    ample, frugal = world.connected()[1], world.connected()[1]
    for far, capacity in ((ample, 512 << 10), (frugal, 64 << 10)):
        far.incoming += [bytes(1000)] * 1000
        for _ in range(1000):  # rounds in which the guest says nothing
            world.loop.ready(far.number, READ)
            world.nat.settle()
        taken = 1_000_000 - sum(len(one) for one in far.incoming if isinstance(one, bytes))
        assert capacity // 2 < taken <= capacity


def test_what_guests_leave_behind_for_readers_that_do_not_read_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "MOST_REMAINDERS", 2)
    left = []
    for _ in range(3):
        stream, far = world.connected()
        far.takes = 0
        world.says(far, b"")
        stream.write(b"last")
        stream.close()
        world.turns()
        world.passes(5.0)
        left.append(far)
    assert [far.closed for far in left] == [False, False, True]
    assert not left[2].lingers
    assert world.nat.counters["TCP remainders beyond the limit"] == 1
    for far in left[:2]:
        far.takes = 100
        world.loop.ready(far.number, WRITE)
        assert far.taken == b"last"
        assert far.closed
    assert sum(world.nat.tables().values()) == 0


def test_a_client_that_the_rules_refuse_takes_no_flows_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat, "MOST_DATAGRAM_FLOWS", 8)
    for port in range(8):
        world.guest.datagram(FAR, 1000 + port, b"x")
    world.network.set_security_groups([SecurityGroup("g", ())])
    world.nat.datagram_inward(world.flows, b"x", (FAR, 5000), 53, lambda data: None, {})
    assert world.nat.counters["clients refused"] == 1
    assert len(world.flows.datagrams) == 8


def test_a_detached_machine_leaves_nothing(world: World) -> None:
    sockets = [world.connected()[1] for _ in range(3)] + [world.connect()[1]]
    world.nat.detached(world.interface)
    world.network.detach(world.interface)
    assert all(one.closed for one in sockets)
    assert not world.loop.watched
    assert sum(world.nat.tables().values()) == 0
    world.passes(100.0)


def test_ports_that_are_used_again_make_a_new_connection(world: World) -> None:
    stream = world.guest.connect(FAR, 80, 4000)
    world.turns()
    first = world.sockets.made[-1]
    first.connected = True
    world.loop.ready(first.number, WRITE)
    world.turns()
    world.says(first, b"")
    stream.close()
    world.turns()
    assert first.closed
    world.passes(0.5)  # the network's end is in TIME_WAIT, or was just there
    again = world.guest.connect(FAR, 80, 4000)
    world.turns()
    second = world.sockets.made[-1]
    assert second is not first
    second.connected = True
    world.loop.ready(second.number, WRITE)
    world.turns()
    assert again.established
