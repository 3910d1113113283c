"""A store on a disk in memory (`crash.py`)."""

from __future__ import annotations

import pytest

from celaje.disk.volumes import VolumeStore
from tests.disk.crash import Disk
from tests.disk.promises import HOME


@pytest.fixture
def disk() -> Disk:
    found = Disk()
    found.mkdir(HOME.parent)
    found.mkdir(HOME)
    return found


@pytest.fixture
def store(disk: Disk) -> VolumeStore:
    return VolumeStore(HOME, files=disk, threads=0)
