"""Key pairs: a name for a public key, which an instance's metadata then has."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state.key_pairs import KeyPair


def find_key_pair(session: Session, account: str, region: str, name: str) -> KeyPair:
    """The account's key pair of that name. AwsError InvalidKeyPair.NotFound."""
    found = session.scalars(
        select(KeyPair).where(KeyPair.account == account, KeyPair.region == region, KeyPair.name == name)
    ).one_or_none()
    if found is None:
        raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return found


def public_key_line(session: Session, account: str, region: str, name: str) -> str:
    """The line of authorized_keys, with the pair's name as its comment. AwsError InvalidKeyPair.NotFound."""
    return f"{find_key_pair(session, account, region, name).public_line} {name}"
