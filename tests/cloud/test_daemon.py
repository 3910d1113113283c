"""The daemon's process: where it says that it answers, for whom, and how it ends."""

from __future__ import annotations

import configparser
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.exceptions import ClientError

from celaje import paths
from celaje.cloud.aws.message import INSIDE
from celaje.cloud.daemon import Daemon, only_one, options
from celaje.cloud.settings import Settings
from celaje.errors import HostError


@pytest.fixture
def directory() -> Path:
    return paths.made(paths.home() / "cloud")


@pytest.fixture
def opened(directory: Path) -> Iterator[Daemon]:
    daemon = Daemon(directory, Settings(port=0, images=()), any_key=True)
    yield daemon
    daemon.close()


def made_up(port: int, address: str = "127.0.0.1") -> object:
    """Who I am, by a key that nobody has."""
    sts = boto3.client(
        "sts",
        endpoint_url=f"http://{address}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    return sts.get_caller_identity()["Arn"]


def test_it_says_where_it_answers_and_no_more_once_it_has_ended(directory: Path) -> None:
    daemon = Daemon(directory, Settings(port=0, images=()))
    said = json.loads((directory / "daemon.json").read_text())
    assert said["port"] == daemon.settings.port != 0
    with pytest.raises(urllib.error.HTTPError) as error:  # S3 answers nobody
        urllib.request.urlopen(f"http://127.0.0.1:{said['port']}/", timeout=60)
    assert error.value.code == 403
    error.value.close()
    assert "[root]" in (directory / "credentials").read_text()
    assert (directory / "credentials").stat().st_mode & 0o777 == 0o600
    daemon.close()
    assert not (directory / "daemon.json").exists()


def test_made_up_keys_are_taken_where_the_owner_says_so_but_never_from_guests(opened: Daemon) -> None:
    assert str(made_up(opened.settings.port)).endswith(":root")
    with pytest.raises(ClientError) as error:
        made_up(opened.settings.port, INSIDE)
    assert error.value.response["Error"]["Code"] == "AccessDenied"


def test_a_key_that_is_taken_away_signs_no_more_at_once(directory: Path) -> None:
    daemon = Daemon(directory, Settings(port=0, images=()))
    profile = configparser.RawConfigParser()
    profile.read(directory / "credentials")
    endpoint = {"endpoint_url": f"http://127.0.0.1:{daemon.settings.port}", "region_name": "us-east-1"}
    root = {name: profile["root"][name] for name in ("aws_access_key_id", "aws_secret_access_key")}
    iam = boto3.client("iam", **endpoint, **root)
    iam.create_user(UserName="guest")
    key = iam.create_access_key(UserName="guest")["AccessKey"]
    sts = boto3.client(
        "sts", **endpoint, aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
    )
    assert sts.get_caller_identity()["Arn"].endswith("user/guest")
    iam.delete_access_key(UserName="guest", AccessKeyId=key["AccessKeyId"])
    with pytest.raises(ClientError) as error:
        sts.get_caller_identity()
    assert error.value.response["Error"]["Code"] == "InvalidClientTokenId"
    daemon.close()


def test_one_daemon_has_a_home(directory: Path) -> None:
    with only_one(directory), pytest.raises(HostError, match="celaje down"), only_one(directory):
        pass
    with only_one(directory):
        pass


def test_a_port_that_is_taken_is_named(opened: Daemon, directory: Path) -> None:
    taken = msgspec.structs.replace(Settings(images=()), port=opened.settings.port)
    with pytest.raises(HostError, match=str(opened.settings.port)):
        Daemon(directory, taken)


def test_options_are_those_of_celaje_up() -> None:
    chosen = options(["--auth", "open", "--port", "4577"])
    assert (chosen.auth, chosen.port) == ("open", 4577)
