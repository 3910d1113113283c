"""The disks of a machine, as threads that come and go see them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from celaje.disk.volumes import VolumeStore
from celaje.host.disks import Disks
from celaje.host.messages import AttachedDisk
from celaje.machine.virtio.scsi import PATIENCE, VirtioScsi


class Controller(VirtioScsi):
    """Notes when a disk leaves it, and lets it go only then."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.leaving = threading.Event()
        self.may_leave = threading.Event()
        self.said = said

    def detach(self, target: int, patience: float = PATIENCE) -> None:
        self.leaving.set()
        assert self.may_leave.wait(60)
        super().detach(target, patience)
        self.said.append("detached")


def test_a_disk_that_is_leaving_has_left_before_anybody_looks_at_all_of_them(tmp_path: Path) -> None:
    """A snapshot must not find it in the controller's state, but not among the disks (or the other way round)."""
    said: list[str] = []
    store = VolumeStore(tmp_path)
    identifier = store.create("data", size=1 << 20).id
    disks = Disks(store)
    disks.scsi = controller = Controller(said)

    def look() -> None:
        with disks.unchanging():
            said.append(f"{sorted(controller.targets)}, {len(disks.backends())} disks")

    look()
    disks.attach(AttachedDisk(source=identifier))
    look()
    leaves = threading.Thread(target=disks.detach, args=(identifier,))
    leaves.start()
    assert controller.leaving.wait(60)
    looks = threading.Thread(target=look)
    looks.start()
    time.sleep(0.02)  # for one that looks too early to be found out
    controller.may_leave.set()
    leaves.join()
    looks.join()
    assert said == ["[], 0 disks", "[0], 1 disks", "detached", "[], 0 disks"]
    controller.close()


def test_no_disk_leaves_or_grows_while_all_of_them_are_looked_at(tmp_path: Path) -> None:
    said: list[str] = []
    store = VolumeStore(tmp_path)
    identifier = store.create("data", size=1 << 20).id
    disks = Disks(store)
    disks.scsi = controller = Controller(said)
    controller.may_leave.set()
    disks.attach(AttachedDisk(source=identifier))
    grows = threading.Thread(target=disks.grow, args=(identifier, 2 << 20))
    with disks.unchanging():
        grows.start()
        time.sleep(0.02)
        said.append(f"{disks.describe()[0].size} bytes")
    grows.join()
    leaves = threading.Thread(target=disks.detach, args=(identifier,))
    with disks.unchanging():
        leaves.start()
        time.sleep(0.02)
        said.append(f"{disks.describe()[0].size} bytes")
    leaves.join()
    assert said == ["1048576 bytes", "2097152 bytes", "detached"]
    controller.close()
