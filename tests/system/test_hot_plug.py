"""Disks that come, go and grow in a running Linux guest, which sees them as a kernel of its time does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje.host.engines import factory
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import Machine
from celaje.machine.virtio.block_backend import RawFile
from celaje.machine.virtio.scsi import VirtioScsi

PROMPT = "# "
BOOT_SECONDS = 240.0
ANSWER_SECONDS = 120.0
DISK_BYTES = 4 << 20
TIMES = 100

# What the guest does with each disk: waits for it, says its serial number and size, writes the number to its first
# block, and waits until it is gone. It makes the device's node itself: busybox's mdev may still be removing the last
# one's when the next disk of that name is there. The kernel shows a disk a moment before it lets anybody open it.
WATCH = (
    "n=0; while [ $n -lt %d ]; do "
    "until [ -e /sys/block/sda/device/vpd_pg80 ]; do usleep 20000; done; "
    "serial=$(tail -c +5 /sys/block/sda/device/vpd_pg80); mknod /dev/mine b 8 0; "
    "until { true < /dev/mine; } 2>/dev/null; do usleep 20000; done; "
    "echo $serial | dd of=/dev/mine conv=fsync,notrunc 2>/dev/null; echo seen $serial $(cat /sys/block/sda/size).; "
    "rm /dev/mine; while [ -e /sys/block/sda ]; do usleep 20000; done; echo gone $serial.; n=$((n+1)); done"
)


class Guest:
    """debian-mini's kernel, in its initrd, with a SCSI controller that has no disks yet."""

    def __init__(self, image: Path) -> None:
        self.console = BufferConsole()
        config = MachineConfig(
            kernel=image / "kernel", initrd=image / "initrd", append="console=ttyS0 quiet", scsi_disks=[], timeout=600
        )
        self.machine = Machine(config, factory("auto"))
        self._read = 0
        self._thread = threading.Thread(target=self.machine.run, args=(self.console,))
        self._thread.start()

    @property
    def scsi(self) -> VirtioScsi:
        assert self.machine.scsi is not None
        return self.machine.scsi

    def wait_for(self, text: str, seconds: float = ANSWER_SECONDS) -> str:
        """What was printed before `text`."""
        end = time.monotonic() + seconds
        while (at := self.console.output.find(text.encode(), self._read)) < 0:
            assert time.monotonic() < end, self.console.output[self._read :][-2000:]
            assert self._thread.is_alive(), self.console.output[-2000:]
            time.sleep(0.01)
        before = self.console.output[self._read : at].decode(errors="replace")
        self._read = at + len(text)
        return before

    def type(self, line: str) -> None:
        self.console.type(line.encode() + b"\n")

    def answer(self, command: str) -> str:
        """What `command` prints. The word that ends it is not in the echo of what is typed."""
        self.type(f"{command}; echo the''end")
        return self.wait_for("theend").rpartition("the''end")[2].replace("\r", "").strip()

    def close(self) -> None:
        self.machine.leave()
        self._thread.join()
        self.machine.close()


@pytest.fixture
def guest(built_image: Callable[[str], Path]) -> Iterator[Guest]:
    guest = Guest(built_image("debian-mini"))
    try:
        guest.wait_for(PROMPT, BOOT_SECONDS)
        yield guest
    finally:
        guest.close()


@pytest.fixture
def disk(tmp_path: Path) -> Callable[[str], RawFile]:
    def make(serial: str) -> RawFile:
        path = tmp_path / serial
        if not path.exists():
            path.write_bytes(bytes(DISK_BYTES))
        return RawFile(path, serial=serial.encode())

    return make


def test_a_hundred_disks_come_and_go_with_what_was_written_to_them(
    guest: Guest, disk: Callable[[str], RawFile], tmp_path: Path
) -> None:
    guest.type(WATCH % TIMES)
    for number in range(TIMES):
        serial = f"vol{number:08x}"
        target = guest.scsi.attach(disk(serial), number % 64)
        guest.wait_for(f"seen {serial} {DISK_BYTES // 512}.")
        guest.scsi.detach(target)
        guest.wait_for(f"gone {serial}.")
        assert (tmp_path / serial).read_bytes().startswith(serial.encode() + b"\n")
    assert guest.scsi.targets == {}
    assert "error" not in guest.answer("dmesg | grep -i -e 'I/O error' -e 'oops' -e 'warning:'").lower()


def test_a_file_system_moves_with_its_disk_and_grows_with_it(guest: Guest, disk: Callable[[str], RawFile]) -> None:
    wait = "until [ -b /dev/sda ]; do usleep 20000; done; "
    first = disk("vol-moving")
    guest.scsi.attach(first, 7)
    # The node is there before the kernel has looked for partitions, and who claims the disk meanwhile is refused.
    guest.answer(wait + "until mke2fs /dev/sda >/dev/null 2>&1; do usleep 20000; done")
    assert guest.answer("mount -t ext4 /dev/sda /mnt || mount -t ext2 /dev/sda /mnt") == ""
    digest = guest.answer("dd if=/dev/urandom of=/mnt/noise bs=64k count=20 2>/dev/null; sha256sum < /mnt/noise")
    assert len(digest.split()[0]) == 64
    guest.answer("umount /mnt")
    guest.scsi.detach(7)
    guest.answer("while [ -b /dev/sda ]; do usleep 20000; done")

    again = disk("vol-moving")
    guest.scsi.attach(again)
    guest.answer(wait + "until mount /dev/sda /mnt 2>/dev/null; do usleep 20000; done")
    assert guest.answer("sha256sum < /mnt/noise") == digest
    again.grow(2 * DISK_BYTES)
    guest.scsi.capacity_changed(0)
    size = guest.answer(
        f"until [ $(cat /sys/block/sda/size) = {2 * DISK_BYTES // 512} ]; do usleep 20000; done; echo ok"
    )
    assert size == "ok"
    assert guest.answer("sha256sum < /mnt/noise") == digest
    guest.answer("umount /mnt")


def test_many_disks_at_once_are_told_apart_by_their_serial_numbers(
    guest: Guest, disk: Callable[[str], RawFile]
) -> None:
    for number in range(12):
        guest.scsi.attach(disk(f"vol{number}"))
    # They are looked at side by side: the last one may be there before another.
    guest.answer("until [ $(ls -d /sys/block/sd? 2>/dev/null | wc -l) = 12 ]; do usleep 20000; done")
    shown = guest.answer("for d in /sys/block/sd?; do echo $(tail -c +5 $d/device/vpd_pg80); done")
    assert sorted(shown.split()) == sorted(f"vol{number}" for number in range(12))
    for target in range(12):
        guest.scsi.detach(target)
    guest.answer("while ls /sys/block/sd? >/dev/null 2>&1; do usleep 20000; done")
