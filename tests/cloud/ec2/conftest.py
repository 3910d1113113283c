"""A cloud without its wire: clients like boto3's that call the actions in transactions, as the dispatcher does."""

from __future__ import annotations

import datetime
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import celaje.cloud.ec2
import celaje.cloud.iam
from celaje.cloud.aws.action import Actions, Call, Caller, Registry
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.accounts import ensure_first_state, open_account, root_account
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, 123456, datetime.UTC)
REGION = "us-east-1"


def every_action(*packages: Any) -> Registry:
    """The actions of all modules of these packages."""
    services: dict[str, Actions] = {}
    for package in packages:
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            actions = getattr(importlib.import_module(module.name), "ACTIONS", None)
            if isinstance(actions, Actions):
                services.setdefault(actions.service, Actions(actions.service)).include(actions)
    return Registry(services.values())


class Client:
    """Operations by their names in snake case; refusals are botocore's ClientError."""

    def __init__(self, cloud: Cloud, service: str, account: str, region: str) -> None:
        self._cloud, self._service, self._account, self._region = cloud, service, account, region

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def run(**request: Any) -> Any:
            return self._cloud.run(self._service, operation, self._account, self._region, request)

        return run


class Cloud:
    """A database with its first state, and every action of EC2 and IAM."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings()
        self.database = Database(path)
        self.registry = every_action(celaje.cloud.ec2, celaje.cloud.iam)
        self.database.prepare()
        with self.database.write() as session:
            ensure_first_state(session, self.settings, NOW)
            self.account = root_account(session).id
        self.woken: set[str] = set()
        self.seconds = 0

    def client(self, service: str = "ec2", account: str | None = None, region: str = REGION) -> Client:
        return Client(self, service, account or self.account, region)

    def another_account(self, name: str = "other") -> str:
        with self.database.write() as session:
            return open_account(session, name, self.settings, NOW)[0].id

    def run(self, service: str, operation: str, account: str, region: str, request: dict[str, Any]) -> Any:
        [action] = [each for each in self.registry.actions(service) if each.name == operation]
        self.seconds += 1
        call = Call(
            service=service,
            operation=operation,
            region=region,
            caller=Caller(account, f"arn:aws:iam::{account}:root", account),
            request_id="0",
            now=NOW + datetime.timedelta(seconds=self.seconds),
            session=None,  # type: ignore[arg-type]  # an untransacted action has none
            settings=self.settings,
            transactions=self.database,
        )
        try:
            if not action.transacted:
                answer = action.handler(call, request)
            else:
                transaction = self.database.read if action.reads else self.database.write
                with transaction() as session:
                    call.session = session
                    answer = action.handler(call, request)
        except AwsError as error:
            raise ClientError({"Error": {"Code": error.code, "Message": error.message}}, operation) from error
        self.woken |= call.woken
        return pruned(answer)


def pruned(value: object) -> object:
    """Without the members that are None: they are not on the wire."""
    if isinstance(value, Mapping):
        return {key: pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [pruned(item) for item in value]
    return value


@pytest.fixture
def cloud(tmp_path: Path):
    cloud = Cloud(tmp_path / "state.sqlite3")
    yield cloud
    cloud.database.close()


@pytest.fixture
def ec2(cloud: Cloud) -> Client:
    return cloud.client("ec2")


def refusal(action: Callable[..., Any], **request: Any) -> tuple[str, str]:
    """The code and the message with which an action is refused."""
    with pytest.raises(ClientError) as error:
        action(**request)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]
