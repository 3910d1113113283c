from __future__ import annotations

from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from tests.machine.virtio.driver import BASE, MEMORY_SIZE


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """One mebibyte of guest memory. Closing it fails if a device has not let go of it."""
    memory = GuestMemory(BASE, MEMORY_SIZE)
    yield memory
    memory.close()


@pytest.fixture(autouse=True)
def _no_mistakes(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A disk answers a mistake of ours as it does a failure of the host's, so the log is where one is found."""
    yield
    assert not [record for record in caplog.get_records("call") if "Traceback" in record.getMessage()]
