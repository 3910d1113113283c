"""Who a key signs for: keys of the root and of users, and the credentials of sessions.

A session is kept nowhere. Its token says who it is and until when, signed with a key of the cloud's own; its secret
follows from that key and the token. A role that was deleted ends its sessions: the token names the role's unique id.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Caller, Narrowing
from celaje.cloud.state.accounts import AccessKey, Account
from celaje.cloud.state.roles import Role, User, new_unique_id, session_key
from celaje.typed_data import from_json

LONGEST_TOKEN = 16_384
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """What the holder of a role signs with until `expiration`."""

    access_key: str
    secret: str
    token: str
    expiration: datetime.datetime


@dataclass(frozen=True, slots=True)
class Signer:
    """Who a key signs for, and the secret that it does so with. `expiration` is None for keys that last."""

    caller: Caller
    secret: str
    expiration: datetime.datetime | None = None


class _Session(msgspec.Struct, frozen=True, array_like=True):
    access_key: str
    account: str
    holder: str  # unique id of a role or a user, the account itself for its root
    role_name: str
    name: str
    expires: int  # seconds since 1970
    documents: tuple[str, ...] | None = None  # what it was narrowed to, None for not at all
    managed: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    issued: int = 0  # seconds since 1970; 0 in tokens that are older than this was kept


def role_credentials(
    session: Session,
    role: Role,
    now: datetime.datetime,
    life: datetime.timedelta,
    name: str,
    narrowing: Narrowing | None = None,
    tags: tuple[tuple[str, str], ...] = (),
) -> RoleCredentials:
    """Credentials of `role` for `life` from now; `name` is the session's, for an instance its id."""
    documents = narrowing.documents if narrowing is not None else None
    managed = narrowing.managed if narrowing is not None else ()
    return _made(session, now, life, (role.account, role.id, role.name, name), documents, managed, tags)


def own_credentials(
    session: Session, caller: Caller, now: datetime.datetime, life: datetime.timedelta
) -> RoleCredentials:
    """Credentials of a user or an account's root for a while."""
    return _made(session, now, life, (caller.account, caller.user_id, "", ""))


def _made(
    session: Session,
    now: datetime.datetime,
    life: datetime.timedelta,
    whose: tuple[str, str, str, str],
    documents: tuple[str, ...] | None = None,
    managed: tuple[str, ...] = (),
    tags: tuple[tuple[str, str], ...] = (),
) -> RoleCredentials:
    expiration = (now + life).replace(microsecond=0)
    access_key = "ASIA" + new_unique_id("")[:16]
    payload = msgspec.json.encode(
        _Session(access_key, *whose, int(expiration.timestamp()), documents, managed, tags, int(now.timestamp()))
    )
    key = session_key(session)
    token = base64.b64encode(_mac(key, b"token", payload) + payload).decode()
    return RoleCredentials(access_key, _secret(key, payload), token, expiration)


def find_signer(session: Session, access_key: str, token: str | None = None) -> Signer | None:
    """Who signs with `access_key`, with the session token that came with it, if one did; None if nobody does. Whoever
    asks compares the expiration with the time."""
    if token:
        return _session_signer(session, access_key, token)
    key = session.get(AccessKey, access_key)
    if key is None or not key.active:
        return None
    return Signer(_caller_of(session, key), key.secret)


def role_caller(role: Role, name: str, access_key: str = "") -> Caller:
    """A session of a role, as a caller."""
    arn = f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}"
    return Caller(role.account, arn, f"{role.id}:{name}", access_key)


def _caller_of(session: Session, key: AccessKey) -> Caller:
    if not key.user:
        return _root(key.account, key.id)
    return _user(session.get_one(User, key.user), key.id)


def _root(account: str, access_key: str) -> Caller:
    return Caller(account, f"arn:aws:iam::{account}:root", account, access_key)


def _user(user: User, access_key: str) -> Caller:
    return Caller(user.account, f"arn:aws:iam::{user.account}:user{user.path}{user.name}", user.id, access_key)


def _session_signer(session: Session, access_key: str, token: str) -> Signer | None:
    if len(token) > LONGEST_TOKEN:
        return None
    key = session_key(session)
    try:
        content = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        return None
    payload = content[_MAC_BYTES:]
    if not hmac.compare_digest(content[:_MAC_BYTES], _mac(key, b"token", payload)):
        return None
    said = from_json(payload, _Session)
    caller = _caller_in_session(session, said)
    if not secrets.compare_digest(said.access_key.encode(), access_key.encode()) or caller is None:
        return None
    expiration = datetime.datetime.fromtimestamp(said.expires, datetime.UTC)
    return Signer(caller, _secret(key, payload), expiration)


def _caller_in_session(session: Session, said: _Session) -> Caller | None:
    """Whose session it is, None if that is gone."""
    issued = said.issued
    if said.holder == said.account:
        account = session.get(Account, said.account)
        return None if account is None else replace(_root(account.id, said.access_key), temporary=True, issued=issued)
    if not said.role_name:
        user = session.get(User, said.holder)
        return None if user is None else replace(_user(user, said.access_key), temporary=True, issued=issued)
    role = session.get(Role, said.holder)
    if role is None:
        return None
    narrowing = None if said.documents is None else Narrowing(said.documents, said.managed)
    caller = role_caller(role, said.name, said.access_key)
    return replace(caller, temporary=True, narrowing=narrowing, tags=said.tags, issued=issued)


def _secret(key: bytes, payload: bytes) -> str:
    return base64.b64encode(_mac(key, b"secret", payload)).decode()[:40]


def _mac(key: bytes, purpose: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + payload, hashlib.sha256)
