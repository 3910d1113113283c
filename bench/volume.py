"""A hydrated volume over a snapshot beside a raw file, both as SCSI disks of celaje's: the workloads of `disk`."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench import boot, disk
from celaje.disk.volume import Volume
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.host.engines import factory
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine
from celaje.machine.virtio.block_backend import BlockBackend, RawFile

RESULT = re.compile(rb"RESULT (\S+) \d+ (\d+) (\d+)")
PREFIX = "volume_speed_"
_MIB = 1 << 20


def _fill(volume: Volume) -> None:
    """Bytes that neither compress nor repeat, so that every chunk is one of its own."""
    for number in range(disk.MEBIBYTES):
        volume.write([memoryview(os.urandom(_MIB))], number * _MIB)


@contextmanager
def store_with_snapshot(directory: Path) -> Iterator[tuple[VolumeStore, str]]:
    """A store of volumes, and a snapshot in it of MEBIBYTES."""
    store = VolumeStore(directory)
    store.create("first", size=disk.MEBIBYTES * _MIB, fill=_fill)
    with closing(store.open("first")) as volume:
        snapshot = store.snapshot(volume).id
    yield store, snapshot


def once(guest: disk.Guest, backend: BlockBackend) -> dict[str, int]:
    """Workload -> ticks; the backend is closed then. RuntimeError where one is missing."""
    settings = f"celaje_device=/dev/sda celaje_mebibytes={disk.MEBIBYTES} celaje_operations={disk.OPERATIONS}"
    config = MachineConfig(
        kernel=guest.kernel,
        initrd=guest.initrd,
        append=f"{disk.APPEND} {settings}",
        scsi_disks=[backend],
        no_reboot=True,
        timeout=300,
    )
    console = BufferConsole()
    with Machine(config, factory("auto")) as machine:
        machine.run(console)
    found = {name.decode(): int(ticks) for name, ticks, _ in RESULT.findall(console.output)}
    if found.keys() != disk.KINDS.keys():
        raise RuntimeError(f"results for {sorted(found)} only: {bytes(console.output[-300:])!r}")
    return found


def measures(files: boot.Files, repeats: int) -> dict[str, float]:
    """The volume's speed over the raw file's, by the names of report.MEASURES: medians over alternating pairs."""
    ratios: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        store_with_snapshot(Path(directory)) as (store, snapshot),
        disk.guest(files.kernel, files.initrd, ["disk"], disk.INIT) as guest,
        disk.raw_file() as raw,
    ):
        for number in range(repeats):
            name = f"copy{number}"
            store.create(name, source=SnapshotSource(snapshot))
            volume = store.open(name)
            volume.hydrate()
            of_volume, of_raw = once(guest, volume), once(guest, RawFile(raw))
            store.remove(name)
            for workload, ticks in of_volume.items():
                ratios.setdefault(PREFIX + workload, []).append(of_raw[workload] / ticks)
    return {name: statistics.median(found) for name, found in ratios.items()}
