"""The credentials of instances' roles: given out, and given anew long before they expire."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.iam.credentials import role_credentials
from celaje.cloud.reconcile.metadata_facts import HeldCredentials
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.roles import InstanceProfile, Role
from celaje.cloud.sts.trust import trusts

LIFE = datetime.timedelta(hours=6)
RENEWED = datetime.timedelta(hours=2)  # before they expire; SDKs ask again in the last quarter of an hour
_SERVICE = "ec2.amazonaws.com"


class RoleSessions:
    """What each instance holds. Threads may share it. Sessions are kept nowhere: a daemon that starts anew gives
    others, and those before are good until they expire."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, HeldCredentials]] = {}  # instance: (role's id, what it holds)
        self._changing = threading.Lock()

    def of(self, session: Session, instances: Iterable[Instance], now: datetime.datetime) -> dict[str, HeldCredentials]:
        """By instance; one without a profile, or whose profile has no role that trusts EC2, holds none."""
        wanted = {row.id: row for row in instances if row.profile_id}
        profiles = {row.profile_id for row in wanted.values()}
        query = (
            select(InstanceProfile.id, Role)
            .join(Role, Role.id == InstanceProfile.role)
            .where(InstanceProfile.id.in_(profiles))
        )
        found = [(row[0], row[1]) for row in session.execute(query)] if profiles else []
        roles = {profile: role for profile, role in found if trusts(role.trust, _SERVICE)}
        with self._changing:
            return {
                identifier: self._current(session, row, roles[row.profile_id], now)
                for identifier, row in wanted.items()
                if row.profile_id in roles
            }

    def _current(self, session: Session, row: Instance, role: Role, now: datetime.datetime) -> HeldCredentials:
        role_id, held = self._held.get(row.id, ("", None))
        current = held is not None and role_id == role.id and held.profile == row.profile
        if held is not None and current and held.keys.expiration - now > RENEWED:
            return held
        keys = role_credentials(session, role, now, LIFE, row.id)
        held = HeldCredentials(role.name, row.profile, row.profile_id, keys, now)
        self._held[row.id] = (role.id, held)
        return held

    def next(self, now: datetime.datetime) -> float | None:
        """In how many seconds the first must be given anew; None if nobody holds any."""
        with self._changing:
            due = [held.keys.expiration - RENEWED for _, held in self._held.values()]
        return max(1.0, (min(due) - now).total_seconds()) if due else None

    def keep(self, instances: Iterable[str]) -> None:
        """Forget those of others: their instances are gone."""
        kept = set(instances)
        with self._changing:
            for identifier in self._held.keys() - kept:
                del self._held[identifier]
