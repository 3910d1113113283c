"""Requests that no client of good will sends: every answer is AWS's, none is a mistake of this cloud's."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import Shape

from tests.cloud.belongings import PUBLIC_KEY, belongings
from tests.cloud.served import ServedCloud
from tests.cloud.test_accounts_apart import GIVEN, KINDS, MEMBERS

TEXTS = [
    *("", "x", "-", "*", "?", "\\", "a" * 300, "é☃", "\x00", "0", "-1", "9" * 21, "sg-", "vpc-0123456789abcdef0"),
    *("i-01234567", "127.64.0.1", "10.0.0.0/8", "::/0", "10.0.0.0/99", "default", "tcp", "aws:x", "{}", "[]", "null"),
    *("true", "arn:aws:iam::123456789012:role/x", "arn:", "us-east-1a", "us-east-1z", "t3.micro", "/", "/a/"),
]
NUMBERS = [0, 1, -1, 2, 22, 80, 100, 3600, 65535, 65536, 2**31 - 1, 2**31, 2**63 - 1]
BLOBS = [b"", b"x", b"ssh-rsa AAAA", PUBLIC_KEY, bytes(range(256))]


class Requests:
    """Random requests of the models' shapes, out of an account's identifiers and of nonsense."""

    def __init__(self, seed: int, own: dict[str, str]) -> None:
        self._random = random.Random(seed)
        self._own = own

    def value(self, shape: Shape, name: str = "", depth: int = 0) -> Any:
        """A value for a member of that name. Required members are nearly always there, others now and then."""
        chance = self._random
        match shape.type_name:
            case "structure":
                members = {} if depth > 5 else shape.members
                return {
                    each: self.value(member, each, depth + 1)
                    for each, member in members.items()
                    if each != "DryRun" and chance.random() < (0.97 if each in shape.required_members else 0.3)
                }
            case "list":
                return [self.value(shape.member, name, depth + 1) for _ in range(chance.choice((0, 1, 1, 1, 2, 3)))]
            case "map":
                return {}
            case "integer" | "long":
                return chance.choice(NUMBERS)
            case "float" | "double":
                return chance.choice((0.0, 1.5, -1.0))
            case "boolean":
                return chance.random() < 0.5
            case "blob":
                return chance.choice(BLOBS)
            case "timestamp":
                return "2026-01-01T00:00:00Z"
        return self._text(shape, name)

    def _text(self, shape: Shape, name: str) -> str:
        chance = self._random
        if chance.random() < 0.6:
            if name in KINDS:
                return self._own[KINDS[name]]
            if isinstance(GIVEN.get(name), str):
                return str(GIVEN[name])
        enumeration = getattr(shape, "enum", None)
        if enumeration and chance.random() < 0.8:
            return str(chance.choice(enumeration))
        return chance.choice(TEXTS) if chance.random() < 0.8 else chance.choice(list(self._own.values()))


def ask(cloud: ServedCloud, seed: int, times: int) -> int:
    """Ask every action so many things; how many were asked. AssertionError for an answer that AWS would not give."""
    owner = cloud.owner()
    requests = Requests(seed, belongings(owner, "mine"))
    asked = 0
    for service in MEMBERS:
        client = owner.client(service, config=Config(parameter_validation=False, retries={"max_attempts": 0}))
        model = client.meta.service_model
        names = {xform_name(name): name for name in model.operation_names}
        for action in cloud.registry.actions(service):
            shape = model.operation_model(names[action.name]).input_shape
            for _ in range(times if shape is not None else 0):
                request = requests.value(shape)
                try:
                    getattr(client, action.name)(**request)
                except ClientError as error:
                    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
                    assert status < 500 or code.startswith("Insufficient"), (action.name, request, error.response)
                    assert code, (action.name, request)
                except (BotoCoreError, TypeError, RuntimeError):
                    continue  # botocore itself refuses to write this one, or fails as it writes or signs it
                asked += 1
    return asked


@pytest.mark.parametrize("seed", [1])
def test_requests_without_sense_are_answered_as_aws_would(
    served_cloud: ServedCloud, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR)
    assert ask(served_cloud, seed, 4) > 400
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10, 20))
def test_thousands_of_requests_without_sense_are_answered_as_aws_would(
    served_cloud: ServedCloud, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR)
    assert ask(served_cloud, seed, 15) > 1500
    assert [record.getMessage() for record in caplog.records] == []
