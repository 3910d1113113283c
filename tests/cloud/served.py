"""The API as clients meet it: the real application on loopback with every service, and boto3. Nothing reconciles."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from sqlalchemy import select

from celaje.cloud.authority.authority import PolicyAuthority
from celaje.cloud.aws.application import ApiServer, Application, bound
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.gateway import Gateway
from celaje.cloud.iam.accounts import CREDENTIALS, ensure_first_state, open_account, root_account
from celaje.cloud.iam.key_uses import KeyUses
from celaje.cloud.iam.signers import StoredSigners
from celaje.cloud.s3.cross_origin import BucketCors
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.services import registry
from celaje.cloud.settings import Settings
from celaje.cloud.state.accounts import AccessKey
from celaje.cloud.state.database import Database

REGION = "us-east-1"
_SESSION = boto3.session.Session()  # its models are read once
_NUMBERS = itertools.count()


class ServedCloud:
    """A cloud that answers on `port`. `woken` are the controllers that actions have woken since it was cleared."""

    def __init__(self, directory: Path, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.store = ObjectStore(directory / "s3")
        self.database = Database(directory / "state.sqlite3")
        self.uses = KeyUses(self.database)
        self.registry = registry(self.store, self.uses)  # imports whatever has tables
        self.database.prepare()
        with self.database.write() as session:
            ensure_first_state(session, self.settings, datetime.datetime.now(datetime.UTC))
            root = root_account(session).id
            key = session.scalars(select(AccessKey).where(AccessKey.account == root)).one()
        self.root = Owner(self, root, key.id, key.secret)
        self.woken: set[str] = set()
        self._signers = StoredSigners(self.database, self.uses)
        gateway = Gateway(
            self.registry,
            Dispatcher(self.database, self._wake, PolicyAuthority(self.database)),
            self._signers,
            self.settings,
            token_key=b"k" * 32,
            cross_origin=BucketCors(self.store),
        )
        listener = bound("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self._server = ApiServer(Application(gateway), [listener])
        self._server.start()

    def _wake(self, controller: str) -> None:
        self.woken.add(controller)
        if controller == CREDENTIALS:
            self._signers.forget()

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()
        self.store.close()
        self.database.close()

    def owner(self) -> Owner:
        """A new account, without anything but what it is born with."""
        with self.database.write() as session:
            account, key = open_account(
                session, f"account-{next(_NUMBERS)}", self.settings, datetime.datetime.now(datetime.UTC)
            )
            return Owner(self, account.id, key.id, key.secret)


class Owner:
    """Who signs for an account."""

    def __init__(self, cloud: ServedCloud, account: str, key: str, secret: str, token: str | None = None) -> None:
        self.cloud = cloud
        self.account = account
        self.key, self.secret, self.token = key, secret, token

    def client(self, service: str = "ec2", region: str = REGION, config: Config | None = None) -> Any:
        """A client of boto3's, unchanged."""
        return _SESSION.client(  # type: ignore[call-overload]  # the service's name is no literal
            service,
            endpoint_url=f"http://127.0.0.1:{self.cloud.port}",
            region_name=region,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            aws_session_token=self.token,
            config=config or Config(retries={"max_attempts": 1}, read_timeout=60),
        )


class User(Owner):
    """A user of an account with a key, who may do `actions` to everything."""

    def __init__(self, owner: Owner, name: str, *actions: str) -> None:
        iam = owner.client("iam")
        self.arn: str = iam.create_user(UserName=name)["User"]["Arn"]
        if actions:
            statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        super().__init__(owner.cloud, owner.account, key["AccessKeyId"], key["SecretAccessKey"])
        self.name, self._iam = name, iam

    def delete(self) -> None:
        """Nobody signs for it any more, and the name is free."""
        for policy in self._iam.list_user_policies(UserName=self.name)["PolicyNames"]:
            self._iam.delete_user_policy(UserName=self.name, PolicyName=policy)
        self._iam.delete_access_key(UserName=self.name, AccessKeyId=self.key)
        self._iam.delete_user(UserName=self.name)


def refusal(action: Callable[..., Any], **request: Any) -> tuple[str, str]:
    """The code and the message with which an action is refused."""
    with pytest.raises(ClientError) as error:
        action(**request)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]
