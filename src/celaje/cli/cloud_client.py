"""The command as a client of the cloud's API, like any other: botocore, an endpoint, and an account's keys.

Which cloud: AWS_ENDPOINT_URL where it is set, as for every client; otherwise the one that `celaje up` has started here,
whose daemon.json says where it answers. Whose keys: CELAJE_ACCOUNT names an account of it (default: root), whose keys
are in the cloud's `credentials` file, in the form of AWS's own; where AWS_ACCESS_KEY_ID is set, those.
"""

from __future__ import annotations

import configparser
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from celaje import paths
from celaje.errors import CelajeError, HostError, InputError, NotFound
from celaje.typed_data import from_json

if TYPE_CHECKING:
    from botocore.client import BaseClient

DEFAULT_REGION = "us-east-1"
ROOT = "root"
NOT_RUNNING = "no cloud runs here; start it: celaje up --detach"

Result = TypeVar("Result")
# What an API answers is described by its service model and by nothing that a type checker knows.
Shape = dict[str, Any]


# What to type after a refusal, by the first of these that AWS's code begins with.
NEXT_COMMANDS = {
    "InvalidAMIID": "these are there: celaje image ls",
    "InvalidInstanceID": "these are there: celaje ls",
    "InvalidVolume.NotFound": "these are there: celaje volume ls",
    "InvalidVolumeID": "these are there: celaje volume ls",
    "InvalidSnapshot.NotFound": "these are there: celaje snapshot ls",
    "InvalidSnapshotID": "these are there: celaje snapshot ls",
    "InvalidKeyPair.NotFound": "make one of your own key: celaje launch --ssh-key FILE.pub",
    "InvalidKey.Format": "a key that is one of its kinds: ssh-keygen -t ed25519",
    "InvalidGroup.NotFound": "without --group a group that admits SSH is made: celaje launch",
    "InvalidGroupId": "without --group a group that admits SSH is made: celaje launch",
    "InsufficientInstanceCapacity": "what is there: celaje ls",
    "NoSuchBucket": "these are there: celaje bucket ls",
    "NoSuchKey": "these are there: celaje bucket ls BUCKET",
    "InvalidBucketName": "3 to 63 small letters, digits and hyphens are a name: celaje bucket create my-bucket",
    "BucketAlreadyExists": "another name, or see yours: celaje bucket ls",
    "BucketAlreadyOwnedByYou": "yours are: celaje bucket ls",
    "TooManyMultipartUploads": "what was never finished: celaje bucket uploads",
    "BucketNotEmpty": "its objects: celaje bucket ls BUCKET",
    "IncorrectInstanceState": "what state each is in: celaje ls",
    "IncorrectState": "what state each is in: celaje volume ls",
    "VolumeInUse": "where each is attached: celaje volume ls",
    "DuplicateAccount": "these are there: celaje account ls",
    "ConstraintViolation": "these are there: celaje account ls",
    "UnauthorizedOperation": "whose keys are used: celaje account whoami",
    "AccessDenied": "whose keys are used: celaje account whoami",
    "AuthFailure": "whose keys are used: celaje account whoami",
    "InvalidClientTokenId": 'keys that this cloud knows: eval "$(celaje env)"',
    "InvalidAccessKeyId": 'keys that this cloud knows: eval "$(celaje env)"',
    "SignatureDoesNotMatch": 'keys that this cloud knows: eval "$(celaje env)"',
    "InternalError": "what went wrong: celaje logs",
    "InternalFailure": "what went wrong: celaje logs",
}


class Refused(CelajeError):
    """The cloud refused a request: `code` is AWS's. The text ends with `hint`, what to type next, where that is known
    ("" where not: then the command's own help is named)."""

    def __init__(self, code: str, message: str) -> None:
        self.hint = hint = next((text for start, text in NEXT_COMMANDS.items() if code.startswith(start)), "")
        super().__init__(f"{message} ({code})" + (f"; {hint}" if hint else ""))
        self.code = code


class Running(msgspec.Struct):
    """What of daemon.json matters here."""

    process: int
    address: str
    port: int

    @property
    def endpoint(self) -> str:
        """The API's URL."""
        return f"http://{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API is, and with what requests to it are signed."""

    endpoint: str
    key: str
    secret: str
    region: str
    token: str | None = None


def cloud_directory() -> Path:
    """Where the cloud of this host keeps its state."""
    return paths.home() / "cloud"


def running() -> Running | None:
    """The cloud that has said where it answers, None if none has or its process has gone: it locks a file as long as it
    lives, and the kernel unlocks that however it ends."""
    directory = cloud_directory()
    try:
        found = from_json((directory / "daemon.json").read_bytes(), Running)
        os.kill(found.process, 0)
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, msgspec.MsgspecError):
        return None
    except PermissionError:  # the number is another's process's now
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return found
    finally:
        os.close(descriptor)
    return None


def credentials(account: str) -> tuple[str, str]:
    """(access key, secret) of an account of this host's cloud, by name. NotFound."""
    path = cloud_directory() / "credentials"
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        section = parser[account]
        return section["aws_access_key_id"], section["aws_secret_access_key"]
    except FileNotFoundError:
        raise HostError(NOT_RUNNING) from None
    except KeyError:
        known = ", ".join(parser.sections())
        raise NotFound(
            f"there are no keys of an account {account!r} in {path}; there are: {known}; "
            "make one: celaje account create"
        ) from None
    except (OSError, configparser.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); restart the cloud: celaje down, celaje up") from error


def access(account: str | None = None, region: str | None = None) -> Access:
    """Where and how to ask. HostError if no cloud runs, NotFound for an account without keys here."""
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    given = os.environ.get("AWS_ENDPOINT_URL")
    if given is None:
        found = running()
        if found is None:
            raise HostError(NOT_RUNNING)
        given = found.endpoint
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    account = account or os.environ.get("CELAJE_ACCOUNT")
    if account is None and key and secret:
        return Access(given, key, secret, region, os.environ.get("AWS_SESSION_TOKEN"))
    return Access(given, *credentials(account or ROOT), region)


class Client:
    """One service of the cloud. Methods are asked by name: `ec2("describe_volumes", Filters=[…])`."""

    def __init__(self, service: str, how: Access | None = None) -> None:
        import botocore.session
        from botocore.config import Config

        how = how or access()
        self.access = how
        self.botocore: BaseClient = botocore.session.Session().create_client(
            service,
            endpoint_url=how.endpoint,
            region_name=how.region,
            aws_access_key_id=how.key,
            aws_secret_access_key=how.secret,
            aws_session_token=how.token,
            config=Config(
                retries={"max_attempts": 1},
                s3={"addressing_style": "path"},
                parameter_validation=False,
                connect_timeout=5,
            ),
        )

    def __call__(self, method: str, **request: object) -> Shape:
        """The answer. Refused as the cloud refuses; HostError where it does not answer."""
        return _told(lambda: getattr(self.botocore, method)(**_without_none(request)))

    def all(self, method: str, member: str, **request: object) -> Iterator[Shape]:
        """Every item of a listing, page after page."""
        paginator = self.botocore.get_paginator(method)
        pages = iter(paginator.paginate(**_without_none(request)))
        while (page := _told(lambda: next(pages, None))) is not None:
            yield from page.get(member, ())

    def pieces(self, body: Iterator[bytes]) -> Iterator[bytes]:
        """A body that streams. HostError where the cloud does not answer to its end."""
        while (piece := _told(lambda: next(body, None))) is not None:
            yield piece


def _without_none(request: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in request.items() if value is not None}


def _told(ask: Callable[[], Result]) -> Result:
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NotReached

    try:
        return ask()
    except ClientError as error:
        told = error.response.get("Error", {})
        raise Refused(str(told.get("Code")), str(told.get("Message"))) from error
    except (HTTPClientError, NotReached) as error:
        raise HostError(f"the cloud does not answer ({error}); look at it: celaje status") from error
    except BotoCoreError as error:
        raise InputError(str(error)) from error


def ec2() -> Client:
    """EC2 of this host's cloud."""
    return Client("ec2")


def name_of(item: Shape) -> str:
    """A resource's Name tag, "" without one."""
    return next((str(tag["Value"]) for tag in item.get("Tags", ()) if tag["Key"] == "Name"), "")


def named(name: str | None, resource_type: str) -> list[Shape] | None:
    """A tag specification that names a resource."""
    if name is None:
        return None
    return [{"ResourceType": resource_type, "Tags": [{"Key": "Name", "Value": name}]}]
