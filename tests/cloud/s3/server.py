"""The real application with S3 alone, on a port of loopback: `Served` in this process, or as a process of its own.

Called with a home: says its port on a line, and answers until it is killed.
"""

from __future__ import annotations

import datetime
import sys
import threading
from pathlib import Path
from types import TracebackType

from celaje.cloud.authority.authority import PolicyAuthority
from celaje.cloud.aws.action import Caller, Registry
from celaje.cloud.aws.application import ApiServer, Application, bound
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.gateway import Gateway
from celaje.cloud.aws.identity import Credential
from celaje.cloud.s3.actions import s3_actions
from celaje.cloud.s3.cross_origin import BucketCors
from celaje.cloud.s3.store.object_store import ObjectStore, home_store
from celaje.cloud.settings import Settings
from celaje.cloud.state.accounts import Account
from celaje.cloud.state.database import Database

ACCOUNTS = ("111111111111", "222222222222")
SECRET = "a secret of tests"


class Keys:
    """Each account's number is its access key."""

    def credential(self, access_key: str, token: str | None) -> Credential | None:
        if access_key not in ACCOUNTS:
            return None
        return Credential(SECRET, Caller(access_key, f"arn:aws:iam::{access_key}:root", access_key, access_key))

    def used(self, access_key: str, service: str, region: str, now: datetime.datetime) -> None:
        pass

    def stand_in(self, access_key: str) -> Caller | None:
        return None


class Served:
    """A store at `home`, served while the block runs; `store` instead of the usual one there."""

    def __init__(self, home: Path, store: ObjectStore | None = None, settings: Settings | None = None) -> None:
        self.home = home
        self.store = store or home_store(home)
        self._database = Database(home / "cloud" / "state.sqlite3")
        self._database.prepare()
        with self._database.write() as session:
            for number in ACCOUNTS:
                if session.get(Account, number) is None:
                    now = datetime.datetime.now(datetime.UTC)
                    session.add(Account(id=number, name=number, created=now))
        dispatcher = Dispatcher(self._database, lambda controller: None, PolicyAuthority(self._database))
        gateway = Gateway(
            Registry([s3_actions(self.store)]),
            dispatcher,
            Keys(),
            settings or Settings(),
            cross_origin=BucketCors(self.store),
        )
        listener = bound("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server = ApiServer(Application(gateway), [listener])

    def __enter__(self) -> Served:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._database.close()
        self.store.close()


def main() -> None:
    with Served(Path(sys.argv[1])) as served:
        served.store.sweep_beside()
        print(served.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
