"""A server of the wire with actions of the tests' own, and clients of botocore for it."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from celaje.cloud.aws.action import Actions, Call, Caller, Registry
from celaje.cloud.aws.application import ApiServer, Application, bound
from celaje.cloud.aws.dispatch import Dispatcher
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.gateway import Gateway
from celaje.cloud.aws.identity import Credential
from celaje.cloud.aws.streams import FileRange, Pieces, RequestBody
from celaje.cloud.settings import Settings
from celaje.cloud.state.accounts import Account
from celaje.cloud.state.database import Database

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ACCOUNT = "123456789012"
TOKEN = "a-session-token"
_SESSION = boto3.session.Session()  # its models are read once
MOMENT = datetime.datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=datetime.UTC)


class Keys:
    """Two keys: a lasting one and a temporary one."""

    def credential(self, access_key: str, token: str | None) -> Credential | None:
        caller = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, access_key)
        if access_key == KEY and token is None:
            return Credential(SECRET, caller)
        if access_key == "ASIATEMPORARY" and token == TOKEN:
            return Credential(SECRET, caller, datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))
        if access_key == "ASIAEXPIRED" and token == TOKEN:
            return Credential(SECRET, caller, MOMENT)
        return None

    def used(self, access_key: str, service: str, region: str, now: datetime.datetime) -> None:
        pass

    def stand_in(self, access_key: str) -> Caller | None:
        account = access_key if access_key.isdigit() and len(access_key) == 12 else ACCOUNT
        return Caller(account, f"arn:aws:iam::{account}:root", account, access_key)


@dataclass
class Served:
    """What the actions of the tests saw and hold."""

    directory: Path
    database: Database
    address: str = "127.0.0.1"
    port: int = 0
    requests: list[tuple[Call, Mapping[str, Any]]] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    clients: dict[str, Any] = field(default_factory=dict)
    gateway: Gateway | None = None
    server: ApiServer | None = None
    application: Application | None = None

    @contextlib.contextmanager
    def patience(self, seconds: float, *, connections: bool = False) -> Iterator[None]:
        """That of the server with bodies and files that it begins while the block runs, and with no others; with heads
        and what is written to `connections` then, too."""
        assert self.application is not None
        assert self.server is not None
        protocol: Any = self.server._server.config.http
        usual = self.application.patience
        self.application.patience = seconds
        if connections:
            protocol.patience = seconds
        try:
            yield
        finally:
            self.application.patience = protocol.patience = usual

    def connections(self) -> int:
        """How many the server has open."""
        assert self.server is not None
        return len(self.server._server.server_state.connections)

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.port}"

    def client(self, service: str, key: str = KEY, secret: str = SECRET, **options: Any) -> Any:
        """A client of boto3's; each is made once, and closed with the server."""
        config = options.pop("config", Config()).merge(Config(retries={"max_attempts": 1}, read_timeout=60))
        arguments = {
            "endpoint_url": options.pop("endpoint", self.endpoint),
            "region_name": options.pop("region", "us-east-1"),
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
            **options,
        }
        name = repr((service, arguments, sorted(config._user_provided_options.items(), key=str)))
        if name not in self.clients:
            self.clients[name] = _SESSION.client(service, config=config, **arguments)
        return self.clients[name]


def actions_of(served: Served) -> list[Actions]:
    """Actions that remember and echo, enough of each protocol."""
    ec2, sts, iam, ssm, ebs, s3 = (Actions(name) for name in ("ec2", "sts", "iam", "ssm", "ebs", "s3"))

    def note(call: Call, request: Mapping[str, Any]) -> None:
        served.requests.append((call, request))

    @ec2.action
    def describe_volumes(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {
            "Volumes": [
                {
                    "VolumeId": "vol-1",
                    "Size": 8,
                    "Encrypted": False,
                    "SnapshotId": "",
                    "CreateTime": MOMENT,
                    "Attachments": [],
                    "Tags": [{"Key": "Name", "Value": 'a <b> & "c"'}],
                    "KmsKeyId": None,
                }
            ]
        }

    @ec2.action
    def create_volume(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        name = f"volume-{len(served.requests)}"
        if request.get("SnapshotId") == "snap-refused":
            raise AwsError("InvalidSnapshot.NotFound", "The snapshot 'snap-refused' does not exist.")
        call.session.add(Account(id=name, name=name, created=call.now))
        call.wake("volumes")
        return {"VolumeId": name, "Size": request.get("Size"), "CreateTime": call.now}

    @ec2.action
    def delete_volume(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {}

    @ec2.action
    def describe_regions(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        raise ZeroDivisionError("a mistake")

    @sts.action
    def get_caller_identity(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        return {"Account": call.caller.account, "Arn": call.caller.arn, "UserId": call.caller.user_id}

    @iam.action
    def create_role(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {
            "Role": {
                "Path": "/",
                "RoleName": request["RoleName"],
                "RoleId": "AROA",
                "Arn": "arn",
                "CreateDate": MOMENT,
                "Tags": request.get("Tags", []),
            }
        }

    @iam.action
    def delete_role(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        return {}

    @ssm.action
    def get_parameter(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        if request["Name"] == "none":
            raise AwsError("ParameterNotFound", "There is no parameter none")
        return {"Parameter": {"Name": request["Name"], "Value": "x", "Version": 3, "LastModifiedDate": MOMENT}}

    @ebs.action
    def start_snapshot(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {"SnapshotId": "snap-1", "VolumeSize": request["VolumeSize"], "StartTime": MOMENT, "BlockSize": 524288}

    @ebs.action
    def put_snapshot_block(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        body = request["BlockData"]
        assert isinstance(body, RequestBody)
        data = body.all(1 << 20)
        note(call, {**request, "BlockData": data})
        return {"Checksum": request["Checksum"], "ChecksumAlgorithm": "SHA256"}

    @ebs.action
    def get_snapshot_block(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {"BlockData": b"b" * 1000, "DataLength": 1000, "Checksum": "c", "ChecksumAlgorithm": "SHA256"}

    def path_of(request: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(f"{request['Bucket']}/{request['Key']}".encode()).hexdigest()
        return served.directory / name

    @s3.untransacted
    def put_object(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        body = request["Body"]
        assert isinstance(body, RequestBody)
        md5 = body.checksum("MD5")
        path = path_of(request)
        with open(path.with_suffix(".new"), "wb") as file:
            for piece in body:
                file.write(piece)
        os.replace(path.with_suffix(".new"), path)
        note(call, {**request, "Body": None, "claimed": body.claimed})
        with call.reading() as session:
            assert session.is_active
        return {
            "ETag": f'"{md5.digest().hex()}"',
            **{f"Checksum{name}": text for name, text in body.claimed.items() if name != "MD5"},
        }

    @s3.untransacted
    def get_object(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        path = path_of(request)
        if not path.exists():
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404, {"Key": request["Key"]})
        size = path.stat().st_size
        if request.get("Range") == "pieces":
            return {"Body": Pieces(iter([b"one", b"", b"two"]), None), "ContentType": "text/plain"}
        if request.get("Range") == "endless":
            return {"Body": Pieces(itertools.repeat(bytes(100_000)), None)}
        if request.get("Range") == "whole":
            return {"Body": path.read_bytes()}
        answer: dict[str, object] = {"ETag": '"e"', "LastModified": MOMENT, "Metadata": {"colour": "blau und grün"}}
        if request.get("Range"):
            return {
                **answer,
                "Body": FileRange(os.open(path, os.O_RDONLY), 1, 3),
                "ContentRange": f"bytes 1-3/{size}",
                "ContentLength": 3,
            }
        return {**answer, "Body": FileRange(os.open(path, os.O_RDONLY), 0, size), "ContentLength": size}

    @s3.untransacted
    def head_object(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        path = path_of(request)
        if not path.exists():
            raise AwsError("NotFound", "Not Found", 404)
        return {"ContentLength": path.stat().st_size, "ETag": '"e"', "LastModified": MOMENT}

    @s3.action
    def list_objects_v2(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {
            "Name": request["Bucket"],
            "KeyCount": 2,
            "MaxKeys": request.get("MaxKeys", 1000),
            "Contents": [{"Key": "a&b", "Size": 1, "LastModified": MOMENT}, {"Key": "c", "Size": 2}],
            "CommonPrefixes": [{"Prefix": "d/"}],
        }

    @s3.action
    def create_bucket(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {"Location": f"/{request['Bucket']}"}

    @s3.action
    def get_bucket_location(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        return {"LocationConstraint": None if request["Bucket"] == "here" else "eu-west-1"}

    @s3.action
    def delete_objects(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {"Deleted": [{"Key": each["Key"]} for each in request["Delete"]["Objects"]]}

    @s3.action
    def put_bucket_tagging(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {}

    @s3.action
    def list_buckets(call: Call, request: Mapping[str, Any]) -> dict[str, object]:
        note(call, request)
        return {"Buckets": [{"Name": "one", "CreationDate": MOMENT}], "Owner": {"ID": "o"}}

    return [ec2, sts, iam, ssm, ebs, s3]


@contextlib.contextmanager
def serving(
    directory: Path, change: Callable[[dict[str, Any]], None] = lambda options: None, address: str = "127.0.0.1"
) -> Iterator[Served]:
    database = Database(directory / "state.sqlite3")
    database.prepare()
    served = Served(directory, database, address)
    options: dict[str, Any] = {}
    change(options)
    patience = options.pop("patience", 60.0)
    gateway = Gateway(
        Registry(actions_of(served)), Dispatcher(database, served.woken.append), Keys(), Settings(), **options
    )
    served.gateway = gateway
    listener = bound(address, 0)
    served.port = listener.getsockname()[1]
    served.application = Application(gateway, patience=patience)
    server = ApiServer(served.application, [listener])
    served.server = server
    server.start()
    try:
        yield served
    finally:
        for client in served.clients.values():
            client.close()
        server.stop()
        database.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server
