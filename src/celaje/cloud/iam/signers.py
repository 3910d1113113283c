"""The keys that the state has, as the wire asks for them."""

from __future__ import annotations

import datetime
import re
import threading
import time

from sqlalchemy import select

from celaje.cloud.aws.action import Caller
from celaje.cloud.aws.identity import Credential
from celaje.cloud.iam.credentials import find_signer
from celaje.cloud.iam.key_uses import KeyUses, Use
from celaje.cloud.state.accounts import Account
from celaje.cloud.state.database import Database

_ACCOUNT = re.compile(r"\d{12}\Z", re.ASCII)
_REMEMBERED_SECONDS = 1.0
_REMEMBERED = 1024


class StoredSigners:
    """Who signs, by the database. What was found is remembered for a second: most requests come with the same key.
    Actions that take keys, roles or accounts away wake `credentials`, and whoever hears that calls `forget`.
    """

    def __init__(self, database: Database, uses: KeyUses) -> None:
        self._database = database
        self._uses = uses
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str | None], tuple[float, Credential]] = {}

    def credential(self, access_key: str, token: str | None) -> Credential | None:
        """The key of that id with its session token; None if there is none, or the token is not its own."""
        now = time.monotonic()
        known = self._known.get((access_key, token))
        if known is not None and known[0] > now:
            return known[1]
        remembered = self._known
        with self._database.read() as session:
            signer = find_signer(session, access_key, token)
        if signer is None:
            return None
        credential = Credential(signer.secret, signer.caller, signer.expiration)
        with self._lock:
            if self._known is not remembered:  # forgotten since it was read
                return credential
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[access_key, token] = (now + _REMEMBERED_SECONDS, credential)
        return credential

    def used(self, access_key: str, service: str, region: str, now: datetime.datetime) -> None:
        """A key that lasts has signed a request, which was verified."""
        self._uses.note(access_key, Use(now, service, region))

    def forget(self) -> None:
        """Something was taken away: look again."""
        with self._lock:
            self._known = {}

    def stand_in(self, access_key: str) -> Caller | None:
        """The root of the account of those 12 digits, of the first account for any other key."""
        with self._database.read() as session:
            if _ACCOUNT.match(access_key):
                found = session.scalar(select(Account.id).where(Account.id == access_key))
            else:
                found = session.scalar(select(Account.id).order_by(Account.created, Account.id).limit(1))
        return None if found is None else Caller(found, f"arn:aws:iam::{found}:root", found, access_key)
