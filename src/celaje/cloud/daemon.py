"""The daemon: the cloud's one process, with its API, its database and its controllers.

    python -m celaje.cloud.daemon [--auth signed|open] [--port PORT]

    CELAJE_HOME/cloud/
      lock           locked (flock) by the daemon as long as it lives: one a CELAJE_HOME
      daemon.json    where it answers; there while it does
      log, log.1     what it says, once it answers (bounded_log.py); before, that goes to whoever started it
      credentials    keys of the accounts' roots (credentials_file.py)

It answers first, and looks at machines, disks and networks then: what controllers import takes longer than all that the
API needs. SIGTERM (or SIGINT) ends it in order. Machines and networks are processes of their own and run on; killed at
any moment, the next daemon goes on from what the database says and from what it sees.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import gc
import hmac
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from celaje import __version__, bounded_log, durable_file, paths
from celaje.cloud.authority.authority import PolicyAuthority
from celaje.cloud.aws.application import ApiServer, Application, bound
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.gateway import Gateway
from celaje.cloud.aws.message import INSIDE
from celaje.cloud.credentials_file import write_credentials
from celaje.cloud.iam.accounts import CREDENTIALS, ensure_first_state
from celaje.cloud.iam.key_uses import KeyUses
from celaje.cloud.iam.signers import StoredSigners
from celaje.cloud.reconcile.host_capacity import note_host
from celaje.cloud.s3.cross_origin import BucketCors
from celaje.cloud.s3.store.object_store import ObjectStore, home_store
from celaje.cloud.services import registry
from celaje.cloud.settings import Settings, cloud_directory, read_settings
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import Image
from celaje.cloud.state.roles import session_key
from celaje.errors import CelajeError, HostError

if TYPE_CHECKING:
    from celaje.cloud.reconcile.controllers import Reconciliation

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0  # in which a busy host gets to its own first question
_COLLECTED = (50_000, 20, 50)  # objects made until the youngest are looked at, and how often that till the older are
DATABASE, LOCK, DAEMON, LOG = "state.sqlite3", "lock", "daemon.json", "log"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What daemon.json says: the process, where it answers, and which celaje it is."""

    process: int
    address: str
    port: int
    version: str
    auth: str


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """This process is the only daemon of `directory` inside. HostError if there is one already."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "?"
            raise HostError(
                f"a cloud runs in {directory} already (process {process}); see `celaje status`, or end it: celaje down"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def opened_database(directory: Path, settings: Settings) -> Database:
    """The cloud's database with its first state: a root account, its keys, default VPCs, what this host has, and what
    images there will be: who asks first of all shall find the one to wait for."""
    database = Database(directory / DATABASE)
    database.prepare()
    with database.write() as session:
        now = datetime.datetime.now(datetime.UTC)
        ensure_first_state(session, settings, now)
        note_host(session, settings, now)
        session.flush()
        if session.scalars(select(Image.id).where(Image.revision != "")).first() is None:
            # Later starts leave it to the controller: the import takes longer than most of a start.
            from celaje.cloud.reconcile.public_images import register

            register(session, settings.images, settings.regions, now)
        write_credentials(session, directory)
    return database


class Daemon:
    """The cloud in `directory`. Made: it answers. `close` ends it in order."""

    def __init__(self, directory: Path, settings: Settings, *, any_key: bool = False) -> None:
        self._directory = directory
        self._reconciliation: Reconciliation | None = None
        with contextlib.ExitStack() as stack:
            listener = bound(settings.address, settings.port)
            stack.callback(listener.close)
            address, port = listener.getsockname()[:2]
            self.settings = msgspec.structs.replace(settings, port=port)
            listeners = [listener]
            if not ipaddress.ip_address(address).is_unspecified:  # otherwise it listens there already
                listeners.append(bound(INSIDE, port))
                stack.callback(listeners[1].close)
            self._database = opened_database(directory, self.settings)
            stack.callback(self._database.close)
            self._store: ObjectStore = home_store(paths.home())
            stack.callback(self._store.close)
            with self._database.read() as session:
                token_key = hmac.digest(session_key(session), b"page tokens", "sha256")
            self._uses = KeyUses(self._database)
            self._signers = StoredSigners(self._database, self._uses)
            gateway = Gateway(
                registry(self._store, self._uses),
                Dispatcher(self._database, self._wake_one, PolicyAuthority(self._database)),
                self._signers,
                self.settings,
                any_key=any_key,
                token_key=token_key,
                cross_origin=BucketCors(self._store),
            )
            self._server = ApiServer(Application(gateway), listeners)
            self._server.start()
            stack.callback(self._server.stop)
            _await_answer(address, port)
            running = Running(
                process=os.getpid(),
                address=address,
                port=port,
                version=__version__,
                auth="open" if any_key else "signed",
            )
            durable_file.replace(directory / DAEMON, msgspec.json.encode(running) + b"\n")
            stack.callback((directory / DAEMON).unlink, missing_ok=True)
            self._stack = stack.pop_all()

    def reconcile(self) -> None:
        """Bring the world to what the database says, from now on."""
        self._store.sweep_beside()
        from celaje.cloud.reconcile.controllers import Reconciliation

        self._reconciliation = Reconciliation(
            self._database, self.settings, self._directory, self._store, self._uses
        )
        self._reconciliation.start()
        # An answer about a thousand instances makes so many objects that collections would take a third of its time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTED)

    def _wake_one(self, controller: str) -> None:
        if controller == CREDENTIALS:
            self._signers.forget()
        if self._reconciliation is not None:  # one that starts looks at everything anyway
            self._reconciliation.wake((controller,))

    def close(self) -> None:
        """Take no more requests, let controllers finish the step that each is in, close what is open."""
        with self._stack:
            if self._reconciliation is not None:
                self._reconciliation.close()
            try:
                self._uses.step()
            except SQLAlchemyError as error:  # a full disk, say
                log.warning("when keys were last used is not written down: %s", error)


def _await_answer(address: str, port: int) -> None:
    """Until a request is answered, by whatever. HostError if none is."""
    host = "127.0.0.1" if address == "0.0.0.0" else "::1" if address == "::" else address
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            answered = bool(connection.recv(1))
    except OSError as error:
        raise HostError(f"the API at {host}:{port} does not answer: {error}") from error
    if not answered:
        raise HostError(f"the API at {host}:{port} closed a connection without an answer; see its log")


def _to_log(directory: Path) -> None:
    """Standard output and error are the log from here on."""
    descriptor = bounded_log.opened(directory / LOG)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    bounded_log.begin(directory / LOG)


def _until_ended() -> Callable[[], None]:
    """What waits for SIGTERM or SIGINT, which from now on end nothing by themselves."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ended.set())

    def wait() -> None:
        ended.wait()

    return wait


def options(words: Iterable[str]) -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(prog="python -m celaje.cloud.daemon", description="The cloud's own process.")
    parser.add_argument("--auth", choices=("signed", "open"), default="signed")
    parser.add_argument("--port", type=int)
    return parser.parse_args(list(words))


def main(words: list[str]) -> int:
    """Be the daemon until it is ended."""
    chosen = options(words)
    try:
        directory = paths.made(cloud_directory())
        with only_one(directory):
            settings = read_settings(directory)
            if settings.images != Settings().images:  # otherwise there is nothing to import them for yet
                from celaje.cloud.reconcile.public_images import check_recipes

                check_recipes(settings.images)
            if chosen.port is not None:
                settings = msgspec.structs.replace(settings, port=chosen.port)
            (directory / DAEMON).unlink(missing_ok=True)  # of one that was killed
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # connections, and files of S3 beside them
            wait = _until_ended()
            daemon = Daemon(directory, settings, any_key=chosen.auth == "open")
            _to_log(directory)
            log.info("celaje %s answers at %s:%d", __version__, daemon.settings.address, daemon.settings.port)
            try:
                daemon.reconcile()
                wait()
                log.info("shutting down; instances run on")
            finally:
                daemon.close()
            log.info("down")
    except CelajeError as error:
        print(f"celaje: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
