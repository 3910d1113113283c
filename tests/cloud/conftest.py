"""One served cloud for all tests; a test has an account of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud.served import Owner, ServedCloud


@pytest.fixture(scope="session")
def served_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedCloud]:
    """The cloud that tests share."""
    cloud = ServedCloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.close()


@pytest.fixture
def owner(served_cloud: ServedCloud) -> Owner:
    """A new account."""
    served_cloud.woken.clear()
    return served_cloud.owner()


@pytest.fixture
def ec2(owner: Owner) -> Any:
    """The new account's client of EC2 in us-east-1."""
    return owner.client("ec2")
