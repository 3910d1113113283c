"""Who a key signs for: keys of the root and of users, and the credentials of role sessions.

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
from dataclasses import dataclass

import msgspec
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Caller
from celaje.cloud.state.accounts import AccessKey
from celaje.cloud.state.roles import Role, User, new_unique_id, session_key

LONGEST_TOKEN = 4096
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
    role: str  # unique id
    role_name: str
    name: str
    expires: int  # seconds since 1970


def role_credentials(
    session: Session, role: Role, now: datetime.datetime, life: datetime.timedelta, name: str
) -> RoleCredentials:
    """Credentials of `role` for `life` from now; `name` is the session's, for an instance its id."""
    expiration = (now + life).replace(microsecond=0)
    access_key = "ASIA" + new_unique_id("")[:16]
    payload = msgspec.json.encode(
        _Session(access_key, role.account, role.id, role.name, name, int(expiration.timestamp()))
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
        return Caller(key.account, f"arn:aws:iam::{key.account}:root", key.account, key.id)
    user = session.get_one(User, key.user)
    return Caller(key.account, f"arn:aws:iam::{key.account}:user{user.path}{user.name}", user.id, key.id)


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
    said = msgspec.json.decode(payload, type=_Session)
    role = session.get(Role, said.role)
    if not secrets.compare_digest(said.access_key.encode(), access_key.encode()) or role is None:
        return None
    expiration = datetime.datetime.fromtimestamp(said.expires, datetime.UTC)
    return Signer(role_caller(role, said.name, access_key), _secret(key, payload), expiration)


def _secret(key: bytes, payload: bytes) -> str:
    return base64.b64encode(_mac(key, b"secret", payload)).decode()[:40]


def _mac(key: bytes, purpose: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + payload, hashlib.sha256)
