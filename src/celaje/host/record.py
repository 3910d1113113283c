"""A machine's directory, CELAJE_HOME/machines/NAME/: what it is, whether it runs, and how it ended last.

    machine.json   what the machine is; written aside, synced and renamed
    kernel, initrd, firmware    the image's, linked, so that they stay when it goes or is built anew
    lock           locked by the machine's process as long as it lives; the kernel unlocks it however that ends
    control        the socket on which that process is asked
    run.json       that process: its identifier, and when it began
    outcome.json   how the last run ended, written by the machine's process
    exit.json      how the last process ended, written by the template that reaped it
    console.ring   what the guest said last (console_ring.py)
    log, log.1     what the process says about itself, at most a mebibyte each (bounded_log.py)

The lock is one of an open file description (F_OFD_SETLK), and the file says whose: who asks for its holder takes
nothing, so looking at a machine never keeps it from starting, nor does a look by the process that has the lock drop it.
Its first byte is locked to have the machine, its second one when the file says by whom: what it says before that is of
a process that has gone.

The socket lies here, and not with the others in the runtime directory, because it must be found as long as the machine
runs, also by somebody with another XDG_RUNTIME_DIR and after a logout that has taken that directory away. It is reached
through a descriptor of the directory, so that its path is short however long the directory's is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from celaje import durable_file, paths
from celaje.errors import HostError, InputError, NotFound, UsageError
from celaje.host.machine_options import Boot, MachineOptions
from celaje.host.messages import AttachedDisk
from celaje.typed_data import from_json

FORMAT = 1
NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,26}[a-z0-9])?"
INSTANCE_PATTERN = r"\Ai-[0-9a-f]{17}\Z"  # it goes into an ssh_config, also from a snapshot that anybody made
LINGERING_SECONDS = 0.3  # for which a process that ends may still have its lock
_FLOCK = struct.Struct("hhqqi4x")  # Linux's struct flock where long has 64 bits
_HAD, _SAID, _ANY = (0, 1), (1, 1), (0, 0)  # of the lock file: where from, how many bytes (0: all)

StructType = TypeVar("StructType", bound=msgspec.Struct)


class RestoredFrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The snapshot that a machine's memory is mapped from, copy-on-write: it must stay whole as long as that runs."""

    path: str
    size: int


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine is. `mac` and `instance`, by which the guest knows whether it is a new machine, never change.

    `root` is the volume that is its root disk; `attached` disks are on its SCSI controller behind those of the options.
    `brought` are volumes that a restore made for it: they go with it, unless they are detached before.
    `address` is the one that it wants in its network. A machine that `goes_on` begins where the snapshot that it is
    `restored_from` was taken; a machine that is started again boots.
    """

    format: int = FORMAT
    name: str
    created: float
    options: MachineOptions
    boot: Boot
    mac: str
    instance: Annotated[str, msgspec.Meta(pattern=INSTANCE_PATTERN)]
    root: str | None = None
    attached: tuple[AttachedDisk, ...] = ()
    brought: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    user_data: bytes | None = None
    address: str | None = None
    restored_from: RestoredFrom | None = None
    goes_on: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process that runs the machine, or ran it last. `started` is in seconds since 1970."""

    process: int
    started: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run of process `process` ended: a verdict's kind, number and reason; or kind `failed`: celaje's mistake, or
    the host's."""

    process: int
    ended: float
    kind: str
    number: int = 0
    reason: str = ""


class ProcessExit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`status` is the exit status, or minus the signal's number."""

    process: int
    status: int


class _Format(msgspec.Struct):
    format: int


def checked_name(name: str) -> str:
    """`name`, if a machine may be called so: it is a host name, and a directory's. UsageError otherwise."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            "a machine's name has up to 28 lower-case letters, digits and hyphens, and neither starts nor ends with a "
            f"hyphen; {name!r} does not: choose another"
        )
    return name


def generated_mac() -> str:
    """A random MAC address, locally administered and of one station."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *secrets.token_bytes(5)))


def new_instance() -> str:
    """What tells a guest that it is another machine than any before, written as EC2 does."""
    return f"i-{secrets.token_hex(9)[:17]}"


def machines_directory() -> Path:
    """Where this user's machines are; it need not exist yet."""
    return paths.home() / "machines"


@dataclasses.dataclass(frozen=True, slots=True)
class MachineDirectory:
    """The directory of one machine; it need not exist."""

    path: Path

    @classmethod
    def of(cls, name: str) -> MachineDirectory:
        """The directory of the machine `name`. UsageError for what is no name."""
        return cls(machines_directory() / checked_name(name))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def ring(self) -> Path:
        return self.path / "console.ring"

    @property
    def log(self) -> Path:
        return self.path / "log"

    # What the machine is.

    def exists(self) -> bool:
        """Whether there is such a machine."""
        return (self.path / "machine.json").exists()

    def record(self) -> Record:
        """NotFound if there is none, InputError if it is not what it must be."""
        where = self.path / "machine.json"
        try:
            data = where.read_bytes()
        except FileNotFoundError:
            raise self.not_found() from None
        try:
            found = from_json(data, _Format).format
            if found != FORMAT:
                raise InputError(
                    f"{where} has format {found}, and this celaje knows format {FORMAT}; use the celaje that made it, "
                    f"or remove the machine: celaje vm rm {self.name}"
                )
            record = from_json(data, Record)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UsageError) as error:
            raise InputError(
                f"{where} is no record of a machine ({error}); remove the machine: celaje vm rm {self.name}"
            ) from error
        return msgspec.structs.replace(record, name=self.name)

    def not_found(self) -> NotFound:
        """The error for a machine that there is not."""
        have = ", ".join(names())
        known = f"there are: {have}" if have else f"make it: celaje vm start {self.name} debian-mini"
        return NotFound(f"there is no machine {self.name!r}; {known}")

    def write_record(self, record: Record) -> None:
        """Replace the record, durably. HostError where the host cannot."""
        self._write("machine.json", record)

    # Whether it runs.

    def holder(self) -> int | None:
        """The process that runs the machine, None if none does."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            while _is_locked(descriptor, _ANY):
                if _is_locked(descriptor, _SAID):
                    with contextlib.suppress(ValueError):  # that one has gone meanwhile, and the next one is there
                        return int(os.pread(descriptor, 20, 0))
                time.sleep(0.001)  # whoever has it is about to say so
            return None
        finally:
            os.close(descriptor)

    def lock(self, patience: float = LINGERING_SECONDS) -> int:
        """Have the machine for this process, until the descriptor that is returned is closed. HostError if another has
        it and does not let go within `patience` seconds (one that ends has it for a moment more), or removes it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range(_HAD))
                    break
                except BlockingIOError as error:
                    if time.monotonic() > until:
                        raise HostError(
                            f"the machine {self.name} runs already, or is being changed; see celaje vm ls, "
                            f"or stop it: celaje vm stop {self.name}"
                        ) from error
                    time.sleep(0.005)
            if not self._names(descriptor):
                raise HostError(f"the machine {self.name} was removed, or made anew, just now; see celaje vm ls")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range(_SAID))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _names(self, descriptor: int) -> bool:
        """Whether a lock is this directory's still: who waited for it may have got that of a machine that is gone."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path / "lock"))
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def socket_path(self) -> Iterator[str]:
        """A short path of the control socket, inside the context."""
        try:
            descriptor = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.not_found() from None
        try:
            yield f"/proc/self/fd/{descriptor}/control"
        finally:
            os.close(descriptor)

    # How it went.

    def run(self) -> Run | None:
        """The run that goes on, or the last."""
        return self._read("run.json", Run)

    def write_run(self, run: Run) -> None:
        """A run begins. Not durable, so that no start waits for the disk: a loss of power ends the run too."""
        self._write("run.json", run, durably=False)

    def outcome(self) -> Outcome | None:
        """How the last run ended, if anybody could say so: None for one that goes on, or whose process was killed."""
        run, outcome = self.run(), self._read("outcome.json", Outcome)
        return outcome if run is not None and outcome is not None and outcome.process == run.process else None

    def write_outcome(self, outcome: Outcome) -> None:
        """A run ends."""
        self._write("outcome.json", outcome)

    def process_exit(self) -> ProcessExit | None:
        """How the last run's process ended, if somebody saw it."""
        run, seen = self.run(), self._read("exit.json", ProcessExit)
        return seen if run is not None and seen is not None and seen.process == run.process else None

    def write_process_exit(self, seen: ProcessExit) -> None:
        """A process has been reaped. Not durable either."""
        self._write("exit.json", seen, durably=False)

    def _read(self, name: str, kind: type[StructType]) -> StructType | None:
        """None where it is missing, or is not what it must be: what these files say is for a person to read."""
        try:
            return from_json((self.path / name).read_bytes(), kind)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def _write(self, name: str, content: msgspec.Struct, durably: bool = True) -> None:
        data = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
        durable_file.replace(self.path / name, data, durably)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[MachineDirectory]:
        """There is no such machine any more; inside the context, what was its directory is locked. What then is still
        there, `removal.sweep` takes away. HostError if the machine runs."""
        descriptor = self.lock()
        try:
            doomed = _hidden(self.path)
            os.replace(self.path, doomed)
            durable_file.sync_directory(self.path.parent)
            yield MachineDirectory(doomed)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Take the directory away with everything in it. HostError if the machine runs."""
        with self.hidden() as doomed:
            shutil.rmtree(doomed.path)


def _range(part: tuple[int, int]) -> bytes:
    start, length = part
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)


def _is_locked(descriptor: int, part: tuple[int, int]) -> bool:
    """Whether another has locked some of it."""
    found: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _range(part)))[0]
    return found != fcntl.F_UNLCK


def _hidden(path: Path) -> Path:
    """Another name for a machine's directory, which is none of a machine."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def names() -> list[str]:
    """The names of this user's machines, sorted."""
    try:
        entries = sorted(machines_directory().iterdir())
    except FileNotFoundError:
        return []
    return [entry.name for entry in entries if not entry.name.startswith(".") and MachineDirectory(entry).exists()]


def hidden() -> list[MachineDirectory]:
    """What is being made or removed just now, and what is left where that was killed."""
    try:
        entries = sorted(machines_directory().iterdir())
    except FileNotFoundError:
        return []
    return [MachineDirectory(entry) for entry in entries if re.fullmatch(r"\.[a-z0-9-]+\.[0-9a-f]{16}", entry.name)]


def _nothing(directory: Path) -> None:
    pass


def create(record: Record, prepare: Callable[[Path], None] = _nothing) -> MachineDirectory:
    """Make the directory of a new machine, whole and at once, with the image's files linked into it.

    `prepare` makes what belongs to the machine, such as the volumes that the record names, before there is one; it gets
    the directory that is going to be the machine's. What it made is its caller's to take away where something is
    raised, and the next sweep's (removal.py) where the process is killed. UsageError if there is one of that name,
    HostError where the host cannot.
    """
    directory = MachineDirectory.of(record.name)
    parent = paths.made(machines_directory())
    aside = _hidden(directory.path)
    with contextlib.ExitStack() as stack:
        try:
            with _as_host_error(directory):
                aside.mkdir(mode=0o700)
                stack.callback(os.close, MachineDirectory(aside).lock())  # nobody takes it for left over
                boot = _kept(record.boot, record.options, aside, directory.path)
                MachineDirectory(aside).write_record(msgspec.structs.replace(record, boot=boot))
            prepare(aside)
            with _as_host_error(directory):
                os.rename(aside, directory.path)  # refuses a directory with something in it
                durable_file.sync_directory(parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return directory


@contextlib.contextmanager
def _as_host_error(directory: MachineDirectory) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise taken(directory.name) from error
        raise HostError(
            f"cannot make the machine's directory {directory.path}: {error.strerror}; make room there, "
            "or set CELAJE_HOME elsewhere"
        ) from error


def taken(name: str) -> UsageError:
    """The error for a name that another machine has."""
    return UsageError(
        f"there is a machine {name} already; start it with `celaje vm start {name}`, "
        f"or remove it first: celaje vm rm {name}"
    )


def new_record(name: str, options: MachineOptions, boot: Boot) -> Record:
    """A record with a MAC address and an identifier of its own. UsageError for what is no name."""
    return Record(
        name=checked_name(name),
        created=time.time(),
        options=options,
        boot=boot,
        mac=generated_mac(),
        instance=new_instance(),
    )


def _kept(boot: Boot, options: MachineOptions, aside: Path, directory: Path) -> Boot:
    """`boot` with the image's files linked into `aside`, which will be `directory`. Files that the person gave are used
    where they are, so that a kernel that was built anew is what starts next."""
    given = {"kernel": options.kernel, "initrd": options.initrd, "firmware": options.firmware}
    linked: dict[str, str] = {}
    for role in given:
        path = getattr(boot, role)
        if path is not None and given[role] is None:
            try:
                os.link(os.path.realpath(path), aside / role)  # a link to a link would lead nowhere from here
            except OSError:  # another file system
                shutil.copyfile(path, aside / role)
            linked[role] = str(directory / role)
    return dataclasses.replace(boot, **linked)
