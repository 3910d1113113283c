"""A machine's process is killed while its guest writes: what the guest was told is durable is there afterwards."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from celaje.disk.volumes import VolumeStore
from celaje.host import record, starting
from celaje.host.configuration import resolved
from celaje.host.console_ring import ConsoleRing
from celaje.host.control import wait_until_off
from celaje.host.machine_options import MachineOptions
from celaje.host.record import MachineDirectory
from tests.machine_processes import Machines, wait_until

GUEST = Path(__file__).parent / "guest"
SECTORS = 1024
SECTOR = 512

Repetitions = Callable[[int, int], int]


@pytest.fixture
def program(tool: Callable[[str], str], tmp_path: Path) -> Path:
    """The guest that writes numbered records (records.c)."""
    built = tmp_path / "records"
    options = ["-march=rv64imac_zicsr", "-mabi=lp64", "-mcmodel=medany", "-O1", "-ffreestanding", "-fno-builtin"]
    options += ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-Ttext=0x80000000", "-o", str(built)]
    sources = [str(GUEST / "start.S"), str(GUEST / "records.c")]
    subprocess.run([tool("riscv64-linux-gnu-gcc"), *options, *sources], check=True, timeout=60)
    return built


def said(directory: MachineDirectory) -> list[bytes]:
    """The whole lines that the guest has said in its last lives, as far as the ring has them."""
    with ConsoleRing(directory.ring) as ring:
        return ring.tail(ring.capacity).split(b"\n")[:-1]


def sectors(volume: str) -> list[int]:
    """The number of the record in each sector; fails for one that is half a record."""
    opened = VolumeStore().open(volume)
    try:
        content = bytearray(SECTORS * SECTOR)
        opened.readinto([memoryview(content)], 0)
    finally:
        opened.close()
    found = []
    for at in range(0, len(content), SECTOR):
        numbers = set(struct.unpack_from("<64Q", content, at))
        assert len(numbers) == 1, f"sector {at // SECTOR} is torn"
        found.append(numbers.pop())
    return found


def test_every_acknowledged_record_is_there_after_a_kill(
    machines: Machines, program: Path, repetitions: Repetitions
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    options = MachineOptions(firmware=str(program), memory=16 << 20)
    for number in range(repetitions(20, 500)):
        volume = VolumeStore().create(f"v{number}", size=SECTORS * SECTOR)
        new = msgspec.structs.replace(record.new_record(f"m{number}", options, resolved(options)), root=volume.id)
        directory = record.create(new)
        process = starting.start(directory)
        wait_until(lambda directory=directory: len(said(directory)) > 1)  # type: ignore[misc]  # mypy cannot infer it
        time.sleep(moments.expovariate(1 / 0.2))
        os.kill(process, signal.SIGKILL)
        assert wait_until_off(directory, 60)
        lines = said(directory)
        assert b"E" not in lines
        last = int(lines[-1])
        for sector, found in enumerate(sectors(volume.id)):
            acknowledged = max(0, last - (last - sector) % SECTORS)
            # What was written after the last line that got out may be there too.
            assert found == acknowledged or (found > last and found % SECTORS == sector), (sector, found, last)
        directory.remove()
        VolumeStore().remove(volume.id)
