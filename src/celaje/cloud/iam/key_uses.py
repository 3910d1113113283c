"""When keys were last used, and for what: noted in memory with each request, and written down every half a minute.

So a use costs nothing, and what a kill takes away is half a minute's of when, never a key's right.
"""

from __future__ import annotations

import datetime
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state.accounts import AccessKey, Account
from celaje.cloud.state.database import Database
from celaje.cloud.state.roles import User

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

WRITTEN_EVERY = 30.0  # seconds
_GLOBAL = ("iam", "sts", "organizations")  # AWS says us-east-1 of these, wherever they are asked
_NEVER = "N/A"


@dataclass(frozen=True, slots=True)
class Use:
    """A request that a key has signed."""

    moment: datetime.datetime
    service: str
    region: str


class KeyUses:
    """The last use of each key since they were written down. A controller (reconcile/controller.py), which does that.
    Threads may share it."""

    name = "key-uses"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._since: dict[str, Use] = {}
        self._written: dict[str, Use] = {}  # the last time; who began to read before it does not find them in the rows
        self._writing = threading.Lock()
        self._changing = threading.Lock()

    def note(self, access_key: str, use: Use) -> None:
        """A key that lasts has signed a request, which was verified."""
        with self._changing:
            self._since[access_key] = use

    def last(self, access_key: str) -> Use | None:
        """Its last use that is not written down yet."""
        return self._since.get(access_key)

    def step(self) -> float | None:
        """Write down what was noted."""
        with self._writing:
            with self._changing:
                noted = dict(self._since)
            if noted:
                with self._database.write() as session:
                    for identifier, use in noted.items():
                        key = session.get(AccessKey, identifier)
                        if key is not None:
                            key.used, key.used_for, key.used_in = use.moment, use.service, use.region
            self._written = noted
            with self._changing:
                for identifier, use in noted.items():
                    if self._since[identifier] is use:
                        del self._since[identifier]
        return WRITTEN_EVERY

    def get_access_key_last_used(self, call: Call, request: iam.GetAccessKeyLastUsedRequestTypeDef) -> Answer:
        """When a key of the account's last signed a request."""
        key = call.session.get(AccessKey, request["AccessKeyId"])
        if key is None or key.account != call.account:
            raise AwsError(
                "AccessDenied",
                f"User: {call.caller.arn} is not authorized to perform: iam:GetAccessKeyLastUsed on resource: access "
                f"key {request['AccessKeyId']}",
                403,
            )
        user = call.session.get(User, key.user) if key.user else None
        use = self.last(key.id) or self._written.get(key.id)
        if use is None and key.used is not None:
            use = Use(key.used, key.used_for, key.used_in)
        used: dict[str, object] = {"ServiceName": _NEVER, "Region": _NEVER}
        if use is not None:
            region = "us-east-1" if use.service in _GLOBAL else use.region
            used = {"LastUsedDate": use.moment.replace(microsecond=0), "ServiceName": use.service, "Region": region}
        name = user.name if user is not None else call.session.get_one(Account, key.account).name
        return {"UserName": name, "AccessKeyLastUsed": used}


def key_use_actions(uses: KeyUses) -> Actions:
    """The action that tells of them."""
    actions = Actions("iam")
    actions.action(uses.get_access_key_last_used)
    return actions
