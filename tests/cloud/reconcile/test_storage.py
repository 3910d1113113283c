"""The controllers of volumes and snapshots, on a real store, without machines."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.cloud.ebs.written_blocks import hidden_volume
from celaje.cloud.ec2 import images, snapshot_copies, snapshots, volume_attachments, volumes
from celaje.cloud.reconcile.snapshots import SnapshotsController
from celaje.cloud.reconcile.volumes import GIB, ChunksController, VolumesController
from celaje.cloud.state.database import Database
from celaje.cloud.state.images import Image, rebooted_for
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume, VolumeAttachment
from celaje.disk.files import HostFiles
from celaje.disk.volumes import VolumeStore
from celaje.errors import NotFound
from tests.cloud.ec2.acting import NOW, OWNER, Actor
from tests.cloud.ec2.test_volumes import ZONE, instance, refused

PATIENCE_SECONDS = 60


class World:
    """A database, a store, and the controllers between them."""

    def __init__(self, home: Path) -> None:
        self.database = Database(home / "state.sqlite3")
        self.database.prepare()
        self.store = VolumeStore(home)
        self.act = Actor(self.database)
        self.woken: list[str] = []
        self.again()

    def again(self) -> None:
        """Controllers that know nothing: the daemon was killed."""
        self.volumes = VolumesController(self.database, self.woken.extend, self.store)
        self.snapshots = SnapshotsController(self.database, self.woken.extend, self.store)

    def settle(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not done():
            self.volumes.step()
            self.snapshots.step()
            assert time.monotonic() < until
            time.sleep(0.01)

    def volume(self, **request: object) -> str:
        asked: dict[str, object] = {"AvailabilityZone": ZONE} | ({} if "SnapshotId" in request else {"Size": 1})
        identifier = str(self.act(volumes.create_volume, **(asked | request))["VolumeId"])
        self.settle(lambda: self.state(identifier) != "creating")
        return identifier

    def state(self, volume: str) -> str | None:
        with self.database.read() as session:
            row = session.get(Volume, volume)
            return row and row.state

    def snapshot(self, volume: str) -> str:
        identifier = str(self.act(snapshots.create_snapshot, VolumeId=volume)["SnapshotId"])

        def completed() -> bool:
            with self.database.read() as session:
                return session.get_one(Snapshot, identifier).state == "completed"

        self.settle(completed)
        return identifier

    def content(self, volume: str) -> bytes:
        with contextlib.closing(self.store.open(volume, read_only=True)) as opened:
            found = bytearray(4096)
            opened.readinto([memoryview(found)], 0)
            return bytes(found)

    def write(self, volume: str, data: bytes) -> None:
        with contextlib.closing(self.store.open(volume)) as opened:
            opened.write([memoryview(data.ljust(4096, b"\0"))], 0)
            opened.flush()


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    yield world
    world.database.close()


def test_a_volume_of_a_snapshot_has_what_the_snapshot_had(world: World) -> None:
    first = world.volume()
    assert world.state(first) == "available"
    world.write(first, b"before")
    snapshot = world.snapshot(first)
    world.write(first, b"after")
    second = world.volume(SnapshotId=snapshot, Size=2)
    assert world.content(second).rstrip(b"\0") == b"before"
    assert world.store.describe(second).size == 2 * GIB


class SmallFiles(HostFiles):
    """A host whose file system takes no file of more than two gibibytes, as ext4 takes none of 16 TiB."""

    def truncate(self, fd: int, length: int) -> None:
        if length > 2 * GIB:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        super().truncate(fd, length)


def test_a_volume_for_which_the_host_has_no_files_is_an_error_and_not_creating_for_ever(
    world: World, tmp_path: Path
) -> None:
    world.store = VolumeStore(tmp_path, files=SmallFiles())
    world.again()
    assert world.state(world.volume(Size=3)) == "error"
    assert world.state(world.volume(Size=2)) == "available"


def test_a_file_that_was_made_before_the_kill_is_the_volumes(world: World) -> None:
    identifier = str(world.act(volumes.create_volume, AvailabilityZone=ZONE, Size=1)["VolumeId"])
    world.store.create(size=GIB, identifier=identifier)
    world.write(identifier, b"mine")
    world.again()
    world.settle(lambda: world.state(identifier) == "available")
    assert world.content(identifier).rstrip(b"\0") == b"mine"
    assert world.store.names() == [identifier]


def test_a_snapshot_that_was_published_before_the_kill_is_completed_as_it_is(world: World) -> None:
    volume = world.volume()
    world.write(volume, b"then")
    identifier = str(world.act(snapshots.create_snapshot, VolumeId=volume)["SnapshotId"])
    with contextlib.closing(world.store.open(volume)) as opened:
        world.store.snapshot(opened, identifier=identifier)
    world.write(volume, b"now")
    world.again()

    def completed() -> bool:
        with world.database.read() as session:
            return session.get_one(Snapshot, identifier).state == "completed"

    world.settle(completed)
    assert world.content(world.volume(SnapshotId=identifier)).rstrip(b"\0") == b"then"


def test_an_instance_is_not_kept_off_for_a_snapshot_that_cannot_be_taken_now(world: World) -> None:
    machine, volume = instance(world.act, state="running"), world.volume()
    with world.database.write() as session:
        session.add(
            VolumeAttachment(
                volume=volume, instance=machine, account=OWNER, region="us-east-1", device="/dev/sda1", is_root=True,
                state="attached", since=NOW,
            )
        )  # fmt: skip
        session.get_one(Volume, volume).state = "in-use"
    image = world.act(images.create_image, InstanceId=machine, Name="of a running one")["ImageId"]
    with world.database.write() as session:
        [(snapshot, of)] = rebooted_for(session).items()
        assert of == machine
        assert session.get_one(Instance, machine).reboot_asked == NOW
        session.get_one(Snapshot, snapshot).created = datetime.datetime.now(datetime.UTC)  # it is tried for minutes

    def let_go() -> bool:
        with world.database.read() as session:
            return not rebooted_for(session) and session.get_one(Image, image).state == "pending"

    with contextlib.closing(world.store.open(volume)):  # somebody has it
        world.settle(let_go)
    assert "instances" in world.woken


def test_a_copied_snapshot_has_the_chunks_of_its_source_and_outlives_it(world: World) -> None:
    volume = world.volume()
    world.write(volume, b"shared")
    first = world.snapshot(volume)
    asked = {"SourceRegion": "us-east-1", "SourceSnapshotId": first}
    copied = str(world.act(snapshot_copies.copy_snapshot, **asked)["SnapshotId"])
    world.act(snapshots.delete_snapshot, SnapshotId=first)  # its source goes only when it has been copied

    def settled() -> bool:
        with world.database.read() as session:
            whole = session.get_one(Snapshot, copied).state == "completed"
            return whole and session.get(Snapshot, first) is None

    world.settle(settled)
    assert world.store.snapshots.ids() == [copied]
    swept = world.store.sweep(wait=True)
    assert swept is not None
    assert swept.chunks == 0
    assert world.content(world.volume(SnapshotId=copied)).rstrip(b"\0") == b"shared"


def test_deleted_volumes_and_snapshots_leave_nothing(world: World) -> None:
    volume = world.volume()
    world.write(volume, b"x")
    snapshot = world.snapshot(volume)
    world.act(volumes.delete_volume, VolumeId=volume)
    world.act(snapshots.delete_snapshot, SnapshotId=snapshot)
    world.settle(lambda: world.state(volume) is None and world.store.snapshots.ids() == [])
    assert world.store.names() == []
    assert "chunks" in world.woken
    assert ChunksController(world.store).step() is None
    assert [path for path in world.store.layout.chunks.rglob("*") if path.is_file()] == []


def test_a_volume_stays_until_the_snapshots_that_were_promised_of_it_are_taken(world: World) -> None:
    volume = world.volume()
    world.write(volume, b"kept")
    snapshot = str(world.act(snapshots.create_snapshot, VolumeId=volume)["SnapshotId"])
    world.act(volumes.delete_volume, VolumeId=volume)
    world.volumes.step()
    assert world.store.names() == [volume]
    world.settle(lambda: world.state(volume) is None)
    assert world.content(world.volume(SnapshotId=snapshot)).rstrip(b"\0") == b"kept"


def test_a_snapshot_stays_as_long_as_a_volume_is_to_be_made_of_it(world: World) -> None:
    snapshot = world.snapshot(world.volume())
    identifier = str(world.act(volumes.create_volume, AvailabilityZone=ZONE, SnapshotId=snapshot)["VolumeId"])
    world.act(snapshots.delete_snapshot, SnapshotId=snapshot)
    world.snapshots.step()
    assert world.store.snapshots.ids() == [snapshot]
    world.settle(lambda: world.state(identifier) == "available" and world.store.snapshots.ids() == [])


def test_a_volume_grows_and_says_when_it_has(world: World) -> None:
    volume = world.volume()
    world.act(volumes.modify_volume, VolumeId=volume, Size=3, VolumeType="gp3")
    world.volumes.step()
    (optimizing,) = world.act(volumes.describe_volumes_modifications)["VolumesModifications"]
    assert (optimizing["ModificationState"], optimizing["Progress"]) == ("optimizing", 50)
    assert world.act(volumes.describe_volumes)["Volumes"][0]["Size"] == 3
    with refused("IncorrectModificationState", "OPTIMIZING"):
        world.act(volumes.modify_volume, VolumeId=volume, Size=4)
    world.settle(
        lambda: (
            world.act(volumes.describe_volumes_modifications)["VolumesModifications"][0]["ModificationState"]
            == "completed"
        )
    )
    (shown,) = world.act(volumes.describe_volumes)["Volumes"]
    assert (shown["Size"], shown["VolumeType"], shown["Iops"]) == (3, "gp3", 3000)
    assert world.store.describe(volume).size == 3 * GIB


def test_at_a_stopped_instance_attaching_and_detaching_is_a_matter_of_rows(world: World) -> None:
    machine, volume = instance(world.act, state="stopped"), world.volume()
    world.act(volume_attachments.attach_volume, VolumeId=volume, InstanceId=machine, Device="/dev/sdf")

    def attachment() -> str | None:
        with world.database.read() as session:
            row = session.get(VolumeAttachment, volume)
            return row and row.state

    world.settle(lambda: attachment() == "attached")
    world.act(volume_attachments.detach_volume, VolumeId=volume)
    world.settle(lambda: attachment() is None)
    assert world.state(volume) == "available"


def test_at_an_instance_whose_machine_is_just_being_started_again_nothing_is_noted_before_it_is_asked(
    world: World,
) -> None:
    machine, volume = instance(world.act, state="running"), world.volume()

    def attachment() -> str | None:
        world.volumes.step()
        with world.database.read() as session:
            row = session.get(VolumeAttachment, volume)
            return row and row.state

    def become(state: str) -> None:
        with world.database.write() as session:
            session.get_one(Instance, machine).state = state

    world.act(volume_attachments.attach_volume, VolumeId=volume, InstanceId=machine, Device="/dev/sdf")
    assert attachment() == "attaching", "what is being started may not have it"
    become("stopped")
    assert attachment() == "attached"
    become("running")
    world.act(volume_attachments.detach_volume, VolumeId=volume)
    assert attachment() == "detaching", "what is being started may still have it"
    assert world.state(volume) == "in-use"
    become("stopped")
    assert attachment() is None
    assert world.state(volume) == "available"


def test_the_volume_by_way_of_which_a_snapshot_was_made_before_the_kill_goes(world: World) -> None:
    source = world.snapshot(world.volume())
    asked = {"SourceSnapshotId": source, "SourceRegion": "us-east-1"}
    copied = str(world.act(snapshot_copies.copy_snapshot, **asked)["SnapshotId"])
    world.store.snapshots.copy(source, copied)
    world.store.create(size=GIB, identifier=hidden_volume(copied))
    world.again()

    def completed() -> bool:
        with world.database.read() as session:
            return session.get_one(Snapshot, copied).state == "completed"

    world.settle(completed)
    assert hidden_volume(copied) not in world.store.names()


def test_a_volume_of_a_snapshot_whose_manifest_is_gone_is_an_error_and_no_hang(world: World) -> None:
    snapshot = world.snapshot(world.volume())
    world.store.snapshots.remove(snapshot)
    broken = world.volume(SnapshotId=snapshot)
    assert world.state(broken) == "error"
    with pytest.raises(NotFound):
        world.store.describe(broken)
    world.act(volumes.delete_volume, VolumeId=broken)
    world.settle(lambda: world.state(broken) is None)


def test_a_snapshot_of_a_volume_that_is_deleted_first_ends_in_an_error(world: World) -> None:
    volume = world.volume()
    snapshot = str(world.act(snapshots.create_snapshot, VolumeId=volume)["SnapshotId"])
    with world.database.write() as session:
        session.delete(session.get_one(Volume, volume))
    world.store.remove(volume)

    def failed() -> bool:
        with world.database.read() as session:
            return session.get_one(Snapshot, snapshot).state == "error"

    world.settle(failed)
