"""Clients of two accounts, unchanged, at the real application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config

from tests.cloud.s3.server import ACCOUNTS, SECRET, Served

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def client_of(endpoint: str, account: str = ACCOUNTS[0], region: str = "us-east-1", **config: object) -> S3Client:
    """boto3's client, as a user makes it."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=account,
        aws_secret_access_key=SECRET,
        config=Config(retries={"max_attempts": 1}, **config),  # type: ignore[arg-type]  # a test says what it says
    )


def name_the_source(client: S3Client, source: str) -> None:
    """The client's copies are of `source` as it stands here; boto3 would encode it once more."""

    def written(request: AWSRequest, **_: object) -> None:
        del request.headers["x-amz-copy-source"]
        request.headers["x-amz-copy-source"] = source

    client.meta.events.register("before-sign.s3.CopyObject", written)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("home")) as serving:
        yield serving


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[S3Client]:
    made = client_of(served.endpoint)
    yield made
    made.close()


@pytest.fixture(scope="session")
def stranger(served: Served) -> Iterator[S3Client]:
    made = client_of(served.endpoint, ACCOUNTS[1])
    yield made
    made.close()


_count = 0


@pytest.fixture
def bucket(client: S3Client) -> str:
    """A new bucket."""
    global _count
    _count += 1
    name = f"bucket-{_count}"
    client.create_bucket(Bucket=name)
    return name
