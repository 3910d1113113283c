"""Whose keys sign: what verification asks of whoever knows the accounts."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Protocol

from celaje.cloud.aws.action import Caller


@dataclass(frozen=True, slots=True)
class Credential:
    """A key that signs, until `expires` where it is temporary."""

    secret: str
    caller: Caller
    expires: datetime.datetime | None = None

    def __repr__(self) -> str:
        return f"Credential({self.caller.arn})"  # the secret is for no log


class Identities(Protocol):
    """Who has which key. Called on any thread, for each request."""

    def credential(self, access_key: str, token: str | None) -> Credential | None:
        """The key of that id with the session token that came with it; None if there is none any more, or the token
        is not this key's."""
        ...

    def used(self, access_key: str, service: str, region: str, now: datetime.datetime) -> None:
        """A key that lasts has signed a request, which was verified. Never raises."""
        ...

    def stand_in(self, access_key: str) -> Caller | None:
        """Whose a made-up key is where anything goes (`--auth open`): an account's root by its 12 digits, otherwise the
        root account's. None if there is no such account."""
        ...


ANONYMOUS = Caller(account="", arn="", user_id="anonymous", access_key="")
