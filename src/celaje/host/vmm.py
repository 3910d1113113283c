"""`celaje-vmm`: a machine's process. It makes the machine from its record, runs it, and answers on its control socket.

The main thread runs the machine; a thread a connection serves whoever asks. The process ends when the machine has, and
says how in its outcome file. Whatever else ends it leaves a lock that nobody holds, and no outcome.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

import msgspec

from celaje import bounded_log
from celaje.errors import CelajeError, HostError, UsageError
from celaje.host import messages
from celaje.host.configuration import PRODUCT, configuration, identity
from celaje.host.console_ring import ConsoleRing
from celaje.host.control_server import BACKLOG, Connection, ControlServer
from celaje.host.disks import Disks
from celaje.host.engines import factory
from celaje.host.further_cards import FurtherCards
from celaje.host.interface_file import read_interface
from celaje.host.machine_snapshot import SavedCard, save
from celaje.host.messages import Answer, Description, Done, Ended, Request, Started
from celaje.host.network_card import NetworkCard, attach_request, metadata
from celaje.host.record import MachineDirectory, Outcome, Run
from celaje.host.ring_console import RingConsole
from celaje.machine.boot.smbios import Identity
from celaje.machine.machine import Machine
from celaje.machine.snapshot.restore import Restored
from celaje.machine.verdict import Verdict
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.input import VirtioPowerButton

log = logging.getLogger(__name__)

PROCESS_NAME = b"celaje-vmm"
_PR_SET_NAME = 15
FAILED = "failed"
BEGIN_SECONDS = 0.005  # between two looks whether the guest has begun
PROGRESS_SECONDS = 0.1  # at most so often somebody hears how far a snapshot is
LOOK_SECONDS = 1.0  # between two looks whether somebody who waits is still there
LAST_WORDS_SECONDS = 5.0  # how long those who wait for the end have to hear of it


class MachineProcess:
    """The machine of `directory`, in this process. Made: its files are open, and it answers on its control socket.

    Raises what is wrong with record, files and host; nothing is left behind then. `run` may be called once.
    """

    def __init__(self, directory: MachineDirectory) -> None:
        self.directory = directory
        self._started = time.time()
        self._ended = threading.Event()
        self._end: Ended | None = None
        self._listeners = 0  # connections that have yet to hear of the end
        self._counting = threading.Lock()
        self._paused = False
        self._pausing = threading.Lock()
        self._changing = threading.Lock()  # the record
        self._snapshots = threading.Lock()  # one at a time: there is one dirty log
        with contextlib.ExitStack() as stack:
            lock = directory.lock()
            stack.callback(os.close, lock)
            self.record = directory.record()
            restored = self._restored()
            if restored is not None:
                stack.callback(restored.close)
            self._console = RingConsole(ConsoleRing(directory.ring, write=True))
            stack.callback(self._console.close)
            self._disks = Disks()
            self._card = self._make_card()
            if self._card is not None:
                stack.callback(self._card.close)
            self._cards = FurtherCards(directory, self.record.options.cards)
            stack.callback(self._cards.close)
            self._machine = self._make_machine(restored)
            self._cards.machine = self._machine
            stack.callback(self._machine.close)
            stack.callback(self._disks.rest)
            self._disks.scsi = self._machine.scsi
            self._disks.look_at_sizes = self._machine.look_at_sizes
            self._attach_again()
            directory.write_run(Run(process=os.getpid(), started=self._started))
            listener = _listening(directory)
            stack.callback(_unlink_socket, directory)
            self._server = ControlServer(listener, self._serve)
            stack.callback(self._server.close)
            self._console.start()
            self._server.start()
            if self.record.goes_on:
                with self._changing:  # whoever attaches a disk already must not be forgotten
                    self.record = msgspec.structs.replace(self.record, goes_on=False)
                    directory.write_record(self.record)
            self._stack = stack.pop_all()

    def __enter__(self) -> MachineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _restored(self) -> Restored | None:
        """The snapshot that this run goes on from. It does so once: the next run boots."""
        record = self.record
        if record.restored_from is None:
            return None
        if not record.goes_on:
            self.record = msgspec.structs.replace(record, restored_from=None)
            self.directory.write_record(self.record)
            return None
        return Restored(Path(record.restored_from.path))

    def _attach_again(self) -> None:
        for disk in self.record.attached:
            try:
                self._disks.attach(disk)
            except CelajeError as error:
                raise type(error)(
                    f"{error}; to start without it: celaje vm detach {self.record.name} {disk.source}"
                ) from error

    def _make_card(self) -> NetworkCard | None:
        interface = read_interface(self.directory)
        if interface is not None:
            return NetworkCard(interface, lambda: read_interface(self.directory))
        options = self.record.options.network
        if options is None:
            return None
        record = self.record
        facts = metadata(record.instance, record.name, record.ssh_keys, record.user_data)
        return NetworkCard(
            attach_request(record.name, options, mac=record.mac, address=record.address, metadata=facts)
        )

    def _make_machine(self, restored: Restored | None) -> Machine:
        options = self.record.options
        devices: list[VirtioDevice] = [] if self._card is None else [self._card.device]
        root = None if self.record.root is None else self._disks.root(self.record.root)
        config = configuration(
            options,
            self.record.boot,
            root=root,
            devices=[*devices, VirtioPowerButton()],
            hot_plug=True,
            plugged=self._cards.devices,
            identity=self._identity(),
        )
        return Machine(config, factory(options.engine), restored)

    def _identity(self) -> Identity:
        """What its firmware says that the machine is: the same as its metadata."""
        interface = read_interface(self.directory)
        facts = None if interface is None else interface.metadata
        if facts is None:
            return identity(self.record.instance)
        return identity(facts.instance_id, facts.extra.get("instance-type", PRODUCT))

    def run(self) -> Ended:
        """Run the machine to its end, which is told to whoever waits and written to the outcome file."""
        try:
            ended = _told(self._machine.run(self._console))
        except CelajeError as error:
            ended = Ended(kind=FAILED, reason=str(error))
        except Exception as error:
            log.exception("the machine failed")
            ended = Ended(kind=FAILED, reason=f"a mistake in celaje itself ({type(error).__name__}: {error})")
        outcome = Outcome(
            process=os.getpid(), ended=time.time(), kind=ended.kind, number=ended.number, reason=ended.reason
        )
        try:
            self.directory.write_outcome(outcome)
        finally:
            self._end = ended
            self._ended.set()
            self._console.finish()
            until = time.monotonic() + LAST_WORDS_SECONDS
            while self._listeners and time.monotonic() < until:
                time.sleep(0.001)
        return ended

    @contextlib.contextmanager
    def _attended(self) -> Iterator[None]:
        """The process ends only when what is done inside is done, within reason."""
        with self._counting:
            self._listeners += 1
        try:
            yield
        finally:
            with self._counting:
                self._listeners -= 1

    def leave(self) -> None:
        """Switch the machine off. From any thread."""
        self._machine.leave()

    # Requests.

    def _serve(self, request: Request, connection: Connection) -> Answer | None:
        if isinstance(request, messages.OpenConsole):
            self._converse(request, connection)
            return None
        if isinstance(request, messages.WaitForEnd):
            self._wait_for_end(connection)
            return None
        if isinstance(request, messages.SnapshotVolume):
            return self._snapshot_volume(request, connection)
        if isinstance(request, messages.Snapshot):
            return self._snapshot(request, connection)
        handler = self._HANDLERS.get(type(request))
        if handler is None:
            raise UsageError(f"a machine's process does not answer {type(request).__name__} here")
        return handler(self, request)

    def _describe(self, request: Request) -> Answer:
        return Description(
            name=self.record.name,
            process=os.getpid(),
            state="paused" if self._machine.paused else "running",
            started=self._started,
            starts=self._machine.starts,
            memory=self.record.options.memory,
            cpus=self.record.options.cpus,
            network=None if self._card is None else _description(self._card),
            further_networks={number: _description(card) for number, card in self._cards.cards().items()},
            disks=self._disks.describe(),
        )

    def _pause(self, request: Request) -> Answer:
        with self._pausing:
            if not self._paused:
                self._machine.pause()
                self._paused = True
        return Done()

    def _resume(self, request: Request) -> Answer:
        with self._pausing:
            if self._paused:
                self._paused = False
                self._machine.resume()
        return Done()

    def _press(self, request: Request) -> Answer:
        if self._paused:
            raise UsageError(
                f"the machine {self.record.name} is paused, so its guest hears no button; "
                f"first: celaje vm resume {self.record.name}"
            )
        if not self._machine.power_button():
            raise UsageError(
                f"the guest of {self.record.name} does not listen to its power button; "
                f"switch it off: celaje vm kill {self.record.name}"
            )
        return Done()

    def _reset(self, request: Request) -> Answer:
        self._machine.reset()
        return Done()

    def _kill(self, request: Request) -> Answer:
        self._machine.leave()
        return Done()

    def _attach_disk(self, request: Request) -> Answer:
        assert isinstance(request, messages.AttachDisk)
        target, serial = self._disks.attach(request.disk)
        self._keep_attached()
        return messages.DiskAttached(target=target, serial=serial)

    def _detach_disk(self, request: Request) -> Answer:
        assert isinstance(request, messages.DetachDisk)
        try:
            self._disks.detach(request.source)
        finally:
            self._keep_attached()
        return Done()

    def _keep_attached(self) -> None:
        with self._changing:
            self.record = msgspec.structs.replace(self.record, attached=self._disks.attached())
            self.directory.write_record(self.record)

    def _attach_interface(self, request: Request) -> Answer:
        assert isinstance(request, messages.AttachInterface)
        with self._no_snapshot():
            self._cards.attach(request.number)
        return Done()

    def _detach_interface(self, request: Request) -> Answer:
        assert isinstance(request, messages.DetachInterface)
        with self._no_snapshot():
            self._cards.detach(request.number)
        return Done()

    @contextlib.contextmanager
    def _no_snapshot(self) -> Iterator[None]:
        """A snapshot holds the cards that its machine has: none comes or goes while one is taken."""
        if not self._snapshots.acquire(blocking=False):
            raise UsageError(f"a snapshot of {self.record.name} is being taken; wait until that is done")
        try:
            yield
        finally:
            self._snapshots.release()

    def _grow_volume(self, request: Request) -> Answer:
        assert isinstance(request, messages.GrowVolume)
        self._disks.grow(request.volume, request.size)
        return Done()

    def _set_allowed(self, request: Request) -> Answer:
        assert isinstance(request, messages.SetAllowed)
        with self._changing:
            options = self.record.options
            if read_interface(self.directory) is not None:
                raise UsageError(
                    f"what {self.record.name} admits is not its own affair but that of the cloud that made it; change "
                    "its security groups there"
                )
            if self._card is None or options.network is None:
                raise UsageError(f"{self.record.name} has no network; make it anew without --network none")
            network = dataclasses.replace(options.network, allowed=request.allowed)
            wanted = attach_request(self.record.name, network, mac=self.record.mac)
            cut = self._card.change_groups(wanted.groups)
            self.record = msgspec.structs.replace(self.record, options=dataclasses.replace(options, network=network))
            self.directory.write_record(self.record)
        return messages.RulesChanged(cut=cut)

    def _snapshot_volume(self, request: messages.SnapshotVolume, connection: Connection) -> Answer:
        def told(done: int, total: int) -> None:
            connection.send(messages.Progress(what=request.volume, done=done, total=total))

        taken = self._disks.snapshot(request.volume, told, request.description, request.snapshot)
        return messages.VolumeSnapshot(snapshot=taken)

    def _snapshot(self, request: messages.Snapshot, connection: Connection) -> Answer:
        if self._card is not None and self.record.options.network is None:
            raise UsageError(
                f"{self.record.name} is a machine of a cloud, whose place in its network a snapshot does not hold; "
                "make an image of it there (CreateImage)"
            )
        if not self._snapshots.acquire(blocking=False):
            raise UsageError(f"a snapshot of {self.record.name} is being taken already; wait until that is done")
        try:
            # A message a mebibyte would be thousands.
            told = 0.0

            def tell(done: int, total: int) -> None:
                nonlocal told
                now = time.monotonic()
                if now - told >= PROGRESS_SECONDS or done == total:
                    told = now
                    connection.send(messages.Progress(what=Path(request.path).name, done=done, total=total))

            while not self._machine.starts and not self._ended.wait(BEGIN_SECONDS):
                pass  # it was started in this very moment
            address = None if self._card is None else self._card.attached.address
            cards = [
                SavedCard(
                    number=number,
                    network=one.network,
                    mac=one.mac,
                    address=one.attached.address,
                    bandwidth=one.bandwidth,
                )
                for number, one in self._cards.cards().items()
            ]
            taken = save(self._machine, self.record, address, self._disks, Path(request.path), tell, cards)
            return messages.SnapshotTaken(pause_seconds=taken.pause_seconds)
        finally:
            self._snapshots.release()

    def _measure(self, request: Request) -> Answer:
        engine = {
            name: value for name, value in self._machine.statistics().items() if isinstance(value, int | float)
        }
        used = resource.getrusage(resource.RUSAGE_SELF)
        process: dict[str, int | float] = {
            "user_seconds": used.ru_utime,
            "system_seconds": used.ru_stime,
            "threads": threading.active_count(),
            "private_bytes": private_bytes(),
        }
        console: dict[str, int | float] = {"output_bytes": self._console.count, "lost_bytes": self._console.lost}
        return messages.Statistics(counters={"engine": engine, "process": process, "console": console})

    def _wait_for_end(self, connection: Connection) -> None:
        with self._attended():
            while not self._ended.wait(LOOK_SECONDS):
                if connection.gone:
                    return
            assert self._end is not None
            connection.send(self._end)

    def _converse(self, opened: messages.OpenConsole, connection: Connection) -> None:
        """The connection is a console's until it ends."""
        said, gone = threading.Event(), threading.Event()
        # Whoever hears that the console is open may have the guest speak at once: it is shown from here on, by somebody
        # for whom the process waits at its end.
        position = max(0, self._console.count - max(0, opened.tail))
        reader = None
        if opened.read:
            reader = threading.Thread(
                target=self._show, args=(connection, position, said, gone), name="console reader", daemon=True
            )
            reader.start()
            said.wait()
        else:
            connection.send(Done())
        try:
            while (request := connection.receive()) is not None:
                if isinstance(request, messages.ConsoleInput) and opened.write:
                    self._console.type(request.data)
                else:
                    reason = "a console's connection takes input only, and only where it was opened for that"
                    connection.send(messages.Refused(cause="usage", reason=reason))
        finally:
            gone.set()
            self._console.wake_readers()
            if reader is not None:
                reader.join(LAST_WORDS_SECONDS)

    def _show(
        self, connection: Connection, position: int, said: threading.Event, gone: threading.Event
    ) -> None:
        """Say that the console is open, then what the guest has said from `position` on, until the client has gone or
        the machine has ended and all is sent."""
        with self._attended(), contextlib.suppress(OSError):
            try:
                connection.send(Done())
            finally:
                said.set()
            while (found := self._console.read(position, messages.CONSOLE_PIECE, gone.is_set)) is not None:
                at, data = found
                connection.send(messages.ConsoleOutput(data=data, missed=at - position))
                position = at + len(data)
            if self._end is not None:
                connection.send(self._end)

    _HANDLERS: dict[type, Callable[[MachineProcess, Request], Answer]] = {  # noqa: RUF012  a constant
        messages.Describe: _describe,
        messages.Measure: _measure,
        messages.Pause: _pause,
        messages.Resume: _resume,
        messages.PressPowerButton: _press,
        messages.Reset: _reset,
        messages.Kill: _kill,
        messages.AttachDisk: _attach_disk,
        messages.DetachDisk: _detach_disk,
        messages.AttachInterface: _attach_interface,
        messages.DetachInterface: _detach_interface,
        messages.GrowVolume: _grow_volume,
        messages.SetAllowed: _set_allowed,
    }


def _description(card: NetworkCard) -> messages.NetworkDescription:
    return messages.NetworkDescription(
        network=card.network,
        mac=card.mac,
        address=card.attached.address,
        public_address=card.public_address,
        ports=card.attached.ports,
    )


def _told(verdict: Verdict) -> Ended:
    return Ended(kind=verdict.kind.value, number=verdict.number, reason=verdict.reason)


def _listening(directory: MachineDirectory) -> socket.socket:
    """The machine's control socket. Whatever has its name is of a process that has gone: the lock is ours."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _unlink_socket(directory)
        with directory.socket_path() as path:
            listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(
            f"cannot make a socket in {directory.path}: {error.strerror}; set CELAJE_HOME to a file system of this host"
        ) from error
    return listener


def _unlink_socket(directory: MachineDirectory) -> None:
    (directory.path / "control").unlink(missing_ok=True)


def private_bytes(process: str = "self") -> int:
    """Memory that a process shares with no other, in bytes, guest memory apart. OSError where it cannot be asked."""
    text = Path(f"/proc/{process}/smaps").read_text(encoding="ascii", errors="replace")
    total, guest = 0, False
    for line in text.splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            guest = "memfd:celaje-guest-memory" in line
        elif first in ("Private_Clean:", "Private_Dirty:") and not guest:
            total += int(line.split()[1]) << 10
    return total


def serve(directory: MachineDirectory, reply: socket.socket) -> int:
    """Be the machine's process; `reply` hears when it is up, or why it is not. Returns the exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME, 0, 0, 0)
    bounded_log.begin(directory.log)
    try:
        process = MachineProcess(directory)
    except Exception as error:  # the edge: whoever asked for the machine is told
        answer = messages.refusal(error)
        if answer.cause == "mistake":
            log.exception("the machine could not be made")
        reply.send(messages.encoded(answer))
        return 1
    with process:

        def end(number: int, frame: FrameType | None) -> None:
            # Not here: this thread may hold the very lock.
            threading.Thread(target=process.leave, name="termination").start()

        signal.signal(signal.SIGTERM, end)
        with contextlib.suppress(OSError):  # whoever asked may have gone; the machine lives on
            reply.send(messages.encoded(Started(process=os.getpid())))
        reply.close()
        ended = process.run()
    return int(ended.kind == FAILED)
