"""Calling an action as the dispatcher does: in one transaction, for one account, with an answer that can be written."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from celaje.cloud.aws import model
from celaje.cloud.aws.action import Answer, Call, Caller
from celaje.cloud.aws.codec import codec
from celaje.cloud.aws.model import snake_case
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, 0, datetime.UTC)
OWNER, OTHER = "111111111111", "222222222222"
OPERATIONS = {snake_case(name): name for name in model.service("ec2").operations}


class Actor:
    """An account in a region. `woken` are the controllers that its actions have woken."""

    def __init__(self, database: Database, account: str = OWNER, region: str = "us-east-1") -> None:
        self.database = database
        self.account = account
        self.region = region
        self.woken: set[str] = set()

    def __call__(self, action: Callable[..., Answer], **request: object) -> Mapping[str, Any]:
        """The answer; what the action raises has changed nothing."""
        with self.database.write() as session:
            call = Call(
                service="ec2",
                operation=action.__name__,
                region=self.region,
                caller=Caller(self.account, f"arn:aws:iam::{self.account}:root", self.account),
                request_id="test",
                now=NOW,
                session=session,
                settings=Settings(),
            )
            answer = action(call, request)
            if action.__name__ in OPERATIONS:  # not a test's own; what the model has not fails
                codec("ec2", OPERATIONS[action.__name__]).write(answer, "test")
            self.woken |= call.woken
            return answer
