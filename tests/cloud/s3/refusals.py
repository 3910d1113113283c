"""How tests say that S3 is to refuse something."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError


@contextlib.contextmanager
def refused(code: str, status: int | None = None) -> Iterator[None]:
    """What the block does is refused with that code (of a HEAD, which has no body: the status)."""
    with pytest.raises(ClientError) as caught:
        yield
    answer = caught.value.response
    assert answer["Error"]["Code"] == code, answer
    assert status is None or answer["ResponseMetadata"]["HTTPStatusCode"] == status, answer
