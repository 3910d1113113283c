"""Accounts from their first day: a key for the root, and a default VPC in every region."""

from __future__ import annotations

import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.ec2.vpcs import ensure_default_vpc
from celaje.cloud.settings import Settings
from celaje.cloud.state.accounts import AccessKey, Account, new_account
from celaje.cloud.state.roles import ensure_session_key

ROOT_NAME = "root"
# The controller that is woken when keys, roles or accounts have changed: it writes the owner's file of credentials.
CREDENTIALS = "credentials"


def root_account(session: Session) -> Account:
    """The account that the cloud was born with; it alone makes others."""
    return session.scalars(select(Account).where(Account.name == ROOT_NAME)).one()


def open_account(session: Session, name: str, settings: Settings, now: datetime.datetime) -> tuple[Account, AccessKey]:
    """A new account, with a key of its root and default VPCs. Whoever calls has checked the name."""
    account, key = new_account(session, name, now)
    _give_default_vpcs(session, account.id, settings, now)
    return account, key


def ensure_first_state(session: Session, settings: Settings, now: datetime.datetime) -> None:
    """At every start of the cloud, before it answers: the session key, the root account with its key, and default VPCs
    in regions that the settings have since the last start. What is there stays."""
    ensure_session_key(session)
    accounts = session.scalars(select(Account.id)).all()
    if not accounts:
        open_account(session, ROOT_NAME, settings, now)
    for account in accounts:
        _give_default_vpcs(session, account, settings, now)


def _give_default_vpcs(session: Session, account: str, settings: Settings, now: datetime.datetime) -> None:
    for region, zones in settings.regions.items():
        ensure_default_vpc(session, account, region, zones, now)
