"""The keys of the accounts' roots, for the clients of whoever owns this cloud: CELAJE_HOME/cloud/credentials.

A file as the AWS CLI and SDKs read it (AWS_SHARED_CREDENTIALS_FILE), a profile an account by its name; mode 0600.
"""

from __future__ import annotations

import configparser
import io
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje import durable_file
from celaje.cloud.state.accounts import AccessKey, Account

FILE_NAME = "credentials"


def credentials_of(session: Session) -> str:
    """The file's text: the first key of each account's root that is active."""
    parser = configparser.RawConfigParser()
    rows = session.execute(
        select(Account.name, AccessKey.id, AccessKey.secret)
        .join(AccessKey, AccessKey.account == Account.id)
        .where(AccessKey.user == "", AccessKey.active)
        .order_by(Account.created, AccessKey.created)
    )
    for name, key, secret in rows:
        if not parser.has_section(name):
            parser[name] = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def write_credentials(session: Session, directory: Path) -> None:
    """Bring the file up to date. HostError where it cannot be written."""
    path, data = directory / FILE_NAME, credentials_of(session).encode()
    if not path.exists() or path.read_bytes() != data:
        durable_file.replace(path, data)
