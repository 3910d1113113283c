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
