"""What is said on the sockets of the template and of a machine's process: one JSON object a message, over AF_UNIX
SOCK_SEQPACKET, where a message is a packet.

    client                                     template
      Start                       ->           forks; the rest of the conversation is the new process's
                                  <-           Progress, again and again, then Started

    client                                     a machine's process
      Describe | Measure          ->
                                  <-           Description | Statistics
      Pause | Resume | PressPowerButton | Reset | Kill | AttachDisk | DetachDisk | GrowVolume | SetAllowed |
      AttachInterface | DetachInterface
                                  ->
                                  <-           Done | DiskAttached | RulesChanged
      Snapshot | SnapshotVolume   ->
                                  <-           Progress, again and again, then SnapshotTaken | VolumeSnapshot
      WaitForEnd                  ->
                                  <-           Ended, when it has; the process closes its sockets after that
      OpenConsole                 ->
                                  <-           Done; from then on
                                  <-           ConsoleOutput
      ConsoleInput                ->           (no answer: what does not fit waits, and so does the sender)

Any request may be answered by Refused instead, also one that is malformed or of another version, and the connection
goes on. Requests on one connection are answered in their order; who wants two things at once opens two connections.
Every message carries `version`, and another one than VERSION is refused before anything else of it is looked at.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from celaje.control_message import MessageCodec
from celaje.errors import CelajeError, GuestError, HostError, InputError, NotFound, UsageError
from celaje.host.network_options import AllowOption
from celaje.network.messages import PublicPort
from celaje.typed_data import json_decoder

VERSION = 1
LONGEST_MESSAGE = 131_072  # bytes; what every Linux lets a socket hold (212,992) leaves room for it
CONSOLE_PIECE = 32_768  # bytes of the guest's in one message


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="message", forbid_unknown_fields=True):
    """A request or an answer; see the module's drawing for which answers which."""

    version: int = VERSION


class AttachedDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk on a machine's SCSI controller: a volume's identifier, or a raw file's absolute path. `target` is where on
    the controller, None the first that is free."""

    source: str
    is_file: bool = False
    read_only: bool = False
    target: int | None = None


# Requests.


class Start(Message, frozen=True, tag="start"):
    """To the template: become the machine whose record is in `directory` (an absolute path).

    `environment` holds the sender's settings of celaje (CELAJE_…, XDG_RUNTIME_DIR): what it lacks is not set.
    """

    directory: str
    environment: dict[str, str] = {}


class Describe(Message, frozen=True, tag="describe"):
    """What the machine is doing."""


class Measure(Message, frozen=True, tag="measure"):
    """The machine's counters."""


class Pause(Message, frozen=True, tag="pause"):
    """Stop it where it is. Done when no guest code is executed; a machine that is paused stays so."""


class Resume(Message, frozen=True, tag="resume"):
    """Let it go on."""


class PressPowerButton(Message, frozen=True, tag="power-button"):
    """Ask the guest to shut down. Refused where it does not listen."""


class Reset(Message, frozen=True, tag="reset"):
    """Start the guest anew, as the button does."""


class Kill(Message, frozen=True, tag="kill"):
    """Switch it off at once; disks keep what the guest has flushed."""


class AttachDisk(Message, frozen=True, tag="attach-disk"):
    """Show the guest one more disk, now and whenever the machine starts."""

    disk: AttachedDisk


class DetachDisk(Message, frozen=True, tag="detach-disk"):
    """Take a disk away that was attached as `source`."""

    source: str


class AttachInterface(Message, frozen=True, tag="attach-interface"):
    """Plug in the card that interface NUMBER's document (interface_file.py) speaks of; done too where that is so. The
    guest has it at once if it looks at its slots then, otherwise from its next start on."""

    number: int


class DetachInterface(Message, frozen=True, tag="detach-interface"):
    """Pull the card of interface NUMBER, whose document is gone already: its cable now, the card itself as soon as the
    guest lets go of it. Done too where there is none."""

    number: int


class SnapshotVolume(Message, frozen=True, tag="snapshot-volume"):
    """Take a snapshot of a volume that the machine has open, by its identifier. `snapshot` is what the snapshot is to
    be called; None: a new identifier."""

    volume: str
    description: str = ""
    snapshot: str | None = None


class SetAllowed(Message, frozen=True, tag="set-allowed"):
    """Ports of the guest that anybody may connect to, instead of those before, beside SSH's and the forwards'."""

    allowed: tuple[AllowOption, ...]


class GrowVolume(Message, frozen=True, tag="grow-volume"):
    """Make a volume that the machine has open `size` bytes large, and tell the guest."""

    volume: str
    size: int


class Snapshot(Message, frozen=True, tag="snapshot"):
    """Write the machine at one instant to `path` (absolute)."""

    path: str


class WaitForEnd(Message, frozen=True, tag="wait"):
    """Tell when the machine has ended."""


class OpenConsole(Message, frozen=True, tag="console"):
    """This connection carries the serial line from now on: first the last `tail` bytes that were said, then what comes.

    `read` and `write` say which ways it does. Who reads too slowly misses some, and is told how much.
    """

    tail: int = 0
    read: bool = True
    write: bool = True


class ConsoleInput(Message, frozen=True, tag="input"):
    """Bytes for the guest."""

    data: bytes


Request = (
    Start
    | Describe
    | Measure
    | Pause
    | Resume
    | PressPowerButton
    | Reset
    | Kill
    | AttachDisk
    | DetachDisk
    | AttachInterface
    | DetachInterface
    | SnapshotVolume
    | GrowVolume
    | SetAllowed
    | Snapshot
    | WaitForEnd
    | OpenConsole
    | ConsoleInput
)


# Answers.


class Started(Message, frozen=True, tag="started"):
    """The machine's process is up: its files are open, its control socket answers, its guest begins."""

    process: int


class Done(Message, frozen=True, tag="done"):
    """That is done."""


class Progress(Message, frozen=True, tag="progress"):
    """`done` of `total` units of `what` so far; more follows."""

    what: str
    done: int
    total: int


class NetworkDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the machine is in its network, as it was told when it attached."""

    network: str
    mac: str
    address: str
    public_address: str | None = None
    ports: tuple[PublicPort, ...] = ()  # those known already; the network knows of those that the guest opens later


class DiskDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk that the guest sees: `source` is a volume's identifier or a file's path, `size` in bytes; `target` of the
    SCSI controller, None for the root."""

    source: str
    size: int
    read_only: bool
    target: int | None = None


class Description(Message, frozen=True, tag="description"):
    """What the machine is doing. `started` is in seconds since 1970, `memory` in bytes; `starts` counts the guest's."""

    name: str
    process: int
    state: Literal["running", "paused"]
    started: float
    starts: int
    memory: int
    cpus: int
    further_networks: dict[int, NetworkDescription]
    network: NetworkDescription | None = None
    disks: tuple[DiskDescription, ...] = ()


class DiskAttached(Message, frozen=True, tag="disk-attached"):
    """The guest is told of it: the SCSI controller's target, and the disk's serial number."""

    target: int
    serial: str


class SnapshotTaken(Message, frozen=True, tag="snapshot-taken"):
    """The machine's snapshot is whole and durable. The guest stood still for `pause_seconds`."""

    pause_seconds: float


class RulesChanged(Message, frozen=True, tag="rules-changed"):
    """The network has the rules. `cut` flows ended because nothing admits them any more."""

    cut: int


class VolumeSnapshot(Message, frozen=True, tag="volume-snapshot"):
    """The snapshot that was taken is published."""

    snapshot: str


class Statistics(Message, frozen=True, tag="statistics"):
    """Counters by name, by what they count (`engine`, `process`, `console`, …). They grow until the process ends."""

    counters: dict[str, dict[str, int | float]]


class Ended(Message, frozen=True, tag="ended"):
    """How the machine ended: the verdict's kind, number and reason."""

    kind: str
    number: int = 0
    reason: str = ""


class ConsoleOutput(Message, frozen=True, tag="output"):
    """What the guest said next; `missed` bytes before it were overwritten before this reader came to them."""

    data: bytes
    missed: int = 0


Cause = Literal["malformed", "version", "usage", "input", "host", "not-found", "guest", "state", "mistake"]


class Refused(Message, frozen=True, tag="refused"):
    """`reason` is for a person, and ends with what to do. `cause` says what kind of error it is; "state": not as the
    machine is now."""

    cause: Cause
    reason: str


Answer = (
    Started
    | Done
    | Progress
    | Description
    | DiskAttached
    | SnapshotTaken
    | VolumeSnapshot
    | RulesChanged
    | Statistics
    | Ended
    | ConsoleOutput
    | Refused
)


_CAUSES: tuple[tuple[type[CelajeError], Cause], ...] = (
    (HostError, "host"),
    (InputError, "input"),
    (UsageError, "usage"),
    (NotFound, "not-found"),
    (GuestError, "guest"),
)
_ERRORS: dict[Cause, type[CelajeError]] = {cause: error for error, cause in _CAUSES}
_ERRORS |= {"malformed": InputError, "state": UsageError}


class Unreadable(InputError):
    """What came is no message of this version; `answer` is what its sender is told."""

    def __init__(self, answer: Refused) -> None:
        super().__init__(answer.reason)
        self.answer = answer


_codec: MessageCodec[Request, Answer] = MessageCodec(
    json_decoder(Request),
    json_decoder(Answer),
    VERSION,
    LONGEST_MESSAGE,
    "a machine",
    "the machine was started by another version of celaje; stop it with that version, then start it with this one",
    lambda cause, reason: Unreadable(Refused(cause=cause, reason=reason)),
    lambda text: UsageError(f"{text}; send less at once"),
)

encoded = _codec.encoded
"""The message as it is sent. UsageError if it is longer than a control socket carries."""
decoded_request = _codec.request
"""The request in some bytes. Unreadable if it is none, or one of another version."""
decoded_answer = _codec.answer
"""The answer in some bytes. Unreadable if it is none, or one of another version."""


def refusal(error: BaseException) -> Refused:
    """What whoever asked is told about `error`."""
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return Refused(cause=cause, reason=str(error))
    if isinstance(error, CelajeError):
        return Refused(cause="state", reason=str(error))
    if isinstance(error, OSError):
        return Refused(cause="host", reason=f"{error.filename or 'a system call'}: {error.strerror or error}")
    return Refused(cause="mistake", reason=f"a mistake in celaje itself ({type(error).__name__}: {error})")


def error_of(refused: Refused) -> CelajeError:
    """What to raise where a request was refused."""
    return _ERRORS.get(refused.cause, HostError)(refused.reason)
