"""EBS's direct APIs through boto3, over a real store of chunks: a volume reads what was written block by block."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from celaje.cloud.ebs import written_blocks
from celaje.cloud.reconcile.snapshots import SnapshotsController
from celaje.cloud.state.snapshots import Snapshot
from celaje.disk.volumes import SnapshotSource, VolumeStore
from tests.cloud.served import REGION, Owner, ServedCloud, refusal

BLOCK = 512 << 10
PATIENCE_SECONDS = 60
UNKNOWN = "snap-00000000000000000"


def checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def block(word: bytes) -> bytes:
    return (word * (BLOCK // len(word) + 1))[:BLOCK]


class Direct:
    """A client of EBS, and the controller that makes snapshots of what it wrote."""

    def __init__(self, cloud: ServedCloud, owner: Owner, home: Path) -> None:
        self.cloud = cloud
        self.ebs, self.ec2 = owner.client("ebs"), owner.client()
        self.store = VolumeStore(home)
        self.again()

    def again(self) -> None:
        """As after a kill: nothing of the process's own is left but what is on the disk."""
        for known in list(written_blocks._BY_HOME.values()):
            for identifier in list(known._open):
                known.close(identifier)
        written_blocks._BY_HOME.clear()
        self.controller = SnapshotsController(self.cloud.database, lambda names: None, self.store)

    def start(self, **request: Any) -> str:
        return str(self.ebs.start_snapshot(**({"VolumeSize": 1} | request))["SnapshotId"])

    def put(self, snapshot: str, index: int, content: bytes, **changed: Any) -> None:
        asked = {
            "SnapshotId": snapshot, "BlockIndex": index, "BlockData": content, "DataLength": BLOCK,
            "Checksum": checksum(content), "ChecksumAlgorithm": "SHA256",
        }  # fmt: skip
        self.ebs.put_snapshot_block(**(asked | changed))

    def complete(self, snapshot: str, count: int, **request: Any) -> None:
        answer = self.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=count, **request)
        assert answer["Status"] == "pending"
        until = time.monotonic() + PATIENCE_SECONDS
        while self.shown(snapshot)["State"] == "pending":
            self.controller.step()
            assert time.monotonic() < until
            time.sleep(0.01)

    def shown(self, snapshot: str) -> dict[str, Any]:
        return dict(self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0])

    def blocks(self, snapshot: str, **request: Any) -> dict[int, str]:
        found: dict[int, str] = {}
        pages = self.ebs.list_snapshot_blocks(SnapshotId=snapshot, **request)
        found |= {one["BlockIndex"]: one["BlockToken"] for one in pages["Blocks"]}
        while token := pages.get("NextToken"):
            pages = self.ebs.list_snapshot_blocks(SnapshotId=snapshot, NextToken=token, **request)
            found |= {one["BlockIndex"]: one["BlockToken"] for one in pages["Blocks"]}
        return found

    def volume(self, snapshot: str, offset: int, length: int) -> bytes:
        """What a volume of it has there."""
        described = self.store.create(size=None, source=SnapshotSource(snapshot))
        found = bytearray(length)
        with contextlib.closing(self.store.open(described.id, read_only=True)) as opened:
            opened.readinto([memoryview(found)], offset)
        self.store.remove(described.id)
        return bytes(found)

    def written(self, *blocks: tuple[int, bytes], **request: Any) -> str:
        snapshot = self.start(**request)
        for index, content in blocks:
            self.put(snapshot, index, content)
        self.complete(snapshot, len({index for index, _ in blocks}))
        return snapshot


@pytest.fixture
def direct(served_cloud: ServedCloud, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Direct:
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path))
    return Direct(served_cloud, owner, tmp_path)


def test_what_is_written_in_blocks_is_what_a_volume_reads(direct: Direct) -> None:
    snapshot = direct.start(Description="by blocks", Tags=[{"Key": "a", "Value": "b"}])
    assert direct.shown(snapshot)["State"] == "pending"
    direct.put(snapshot, 0, block(b"first"))
    direct.put(snapshot, 2047, block(b"last"))
    direct.put(snapshot, 0, block(b"again"))
    sums = hashlib.sha256(block(b"again")).digest() + hashlib.sha256(block(b"last")).digest()
    asked = {"Checksum": checksum(sums), "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    direct.complete(snapshot, 2, **asked)
    shown = direct.shown(snapshot)
    assert (shown["State"], shown["VolumeSize"], shown["Description"]) == ("completed", 1, "by blocks")
    assert shown["Tags"] == [{"Key": "a", "Value": "b"}]
    assert direct.volume(snapshot, 0, BLOCK) == block(b"again")
    assert direct.volume(snapshot, 2047 * BLOCK, BLOCK) == block(b"last")
    assert direct.volume(snapshot, BLOCK, 4096) == bytes(4096)
    assert direct.store.names() == []
    assert not list((direct.store.layout.home / "cloud" / "blocks").iterdir())


def test_blocks_are_listed_and_read_back(direct: Direct) -> None:
    snapshot = direct.written((3, block(b"three")), (9, block(b"nine")), (5, bytes(BLOCK)))
    tokens = direct.blocks(snapshot)
    assert list(tokens) == [3, 9]
    assert list(direct.blocks(snapshot, StartingBlockIndex=4)) == [9]
    answer = direct.ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=9, BlockToken=tokens[9])
    content = answer["BlockData"].read()
    assert content == block(b"nine")
    assert (answer["Checksum"], answer["DataLength"]) == (checksum(content), BLOCK)


def test_long_lists_come_in_pages(direct: Direct) -> None:
    snapshot = direct.written(*((index, block(b"%d" % index)) for index in range(0, 230, 2)))
    assert list(direct.blocks(snapshot, MaxResults=100)) == list(range(0, 230, 2))
    first = direct.ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100)
    assert len(first["Blocks"]) == 100
    other = direct.written((0, block(b"other")))
    asked = {"SnapshotId": other, "NextToken": first["NextToken"]}
    assert refusal(direct.ebs.list_snapshot_blocks, **asked)[0] == "ValidationException"


def test_an_incremental_snapshot_has_its_parents_blocks_and_its_own(direct: Direct) -> None:
    parent = direct.written((0, block(b"kept")), (1, block(b"old")), (2, block(b"gone")))
    child = direct.written((1, block(b"new")), (2, bytes(BLOCK)), (7, block(b"more")), ParentSnapshotId=parent)
    changed = direct.ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)["ChangedBlocks"]
    assert [(one["BlockIndex"], "FirstBlockToken" in one, "SecondBlockToken" in one) for one in changed] == [
        (1, True, True),
        (2, True, False),
        (7, False, True),
    ]
    direct.ec2.delete_snapshot(SnapshotId=parent)
    direct.controller.step()
    assert direct.volume(child, 0, BLOCK) == block(b"kept")
    assert direct.volume(child, BLOCK, BLOCK) == block(b"new")
    assert direct.volume(child, 2 * BLOCK, 4096) == bytes(4096)


def test_acknowledged_blocks_are_there_after_a_kill(direct: Direct) -> None:
    snapshot = direct.start()
    direct.put(snapshot, 4, block(b"before"))
    direct.again()
    with open(direct.store.layout.home / "cloud" / "blocks" / snapshot, "ab") as records:
        records.write(b"torn")  # a record that was being written
    direct.put(snapshot, 6, block(b"after"))
    direct.again()
    direct.complete(snapshot, 2)
    assert list(direct.blocks(snapshot)) == [4, 6]
    assert direct.volume(snapshot, 4 * BLOCK, BLOCK) == block(b"before")


def test_a_snapshot_to_which_nothing_comes_ends_in_error(direct: Direct) -> None:
    snapshot = direct.start(Timeout=10)
    direct.put(snapshot, 0, block(b"x"))
    direct.controller.step()
    assert direct.shown(snapshot)["State"] == "pending"
    with direct.cloud.database.write() as session:
        row = session.get_one(Snapshot, snapshot)
        row.created -= datetime.timedelta(hours=1)
        row.timeout = 0
    direct.controller.step()
    shown = direct.shown(snapshot)
    assert (shown["State"], shown["StateMessage"]) == ("error", "nothing was written for 0 minutes")
    assert direct.store.names() == []
    assert refusal(direct.put, snapshot=snapshot, index=0, content=block(b"x"))[0] == "ValidationException"


def test_time_in_which_no_daemon_ran_is_not_counted(direct: Direct) -> None:
    snapshot = direct.start(Timeout=10)
    direct.put(snapshot, 0, block(b"x"))
    now = time.time() + 3600  # an hour without a daemon

    def clock() -> float:
        return now

    direct.again()
    direct.controller = SnapshotsController(direct.cloud.database, lambda names: None, direct.store, clock)
    direct.controller.step()
    assert direct.shown(snapshot)["State"] == "pending"
    now += 9 * 60
    direct.controller.step()
    assert direct.shown(snapshot)["State"] == "pending"
    now += 61
    direct.controller.step()
    assert direct.shown(snapshot)["State"] == "error"


def test_a_block_that_comes_in_the_last_moment_is_not_lost(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = direct.start(Timeout=10)
    now = time.time()
    direct.controller = SnapshotsController(direct.cloud.database, lambda names: None, direct.store, lambda: now)
    written = direct.controller._written
    real = written.held

    def held(identifier: str) -> contextlib.AbstractContextManager[None]:
        """While the controller waits for its turn, whose turn it is writes."""
        monkeypatch.setattr(written, "held", real)
        direct.put(identifier, 0, block(b"x"))
        os.utime(direct.store.layout.home / "cloud" / "blocks" / identifier, (now, now))
        return real(identifier)

    monkeypatch.setattr(written, "held", held)
    now += 601
    direct.controller.step()
    assert direct.shown(snapshot)["State"] == "pending"
    now += 601
    direct.controller.step()
    assert direct.shown(snapshot)["State"] == "error"


def test_a_snapshot_that_is_deleted_while_it_is_written_leaves_nothing(direct: Direct) -> None:
    snapshot = direct.start()
    direct.put(snapshot, 0, block(b"x"))
    direct.ec2.delete_snapshot(SnapshotId=snapshot)
    direct.controller.step()
    assert direct.store.names() == []
    assert refusal(direct.put, snapshot=snapshot, index=0, content=block(b"x"))[0] == "ResourceNotFoundException"


def test_blocks_that_are_not_what_they_say_are_refused(direct: Direct) -> None:
    snapshot = direct.start()
    good = {"snapshot": snapshot, "index": 0, "content": block(b"x")}
    wrong: list[dict[str, Any]] = [
        {"Checksum": checksum(b"other")},
        {"Checksum": "no base64"},
        {"content": b"short"},
        {"index": 2048},
        {"DataLength": 4096},
    ]
    for changed in wrong:
        assert refusal(direct.put, **(good | changed))[0] == "ValidationException", changed
    assert refusal(direct.ebs.complete_snapshot, SnapshotId=snapshot, ChangedBlocksCount=1)[0] == "ValidationException"
    direct.complete(snapshot, 0)
    assert direct.blocks(snapshot) == {}
    assert refusal(direct.put, **good)[0] == "ValidationException"


def test_tokens_are_for_one_block_of_one_account_until_they_expire(direct: Direct, served_cloud: ServedCloud) -> None:
    snapshot = direct.written((0, block(b"zero")), (1, block(b"one")))
    tokens = direct.blocks(snapshot)
    other = served_cloud.owner()
    direct.ec2.modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"UserId": other.account}]}
    )
    theirs = other.client("ebs")
    own = theirs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]["BlockToken"]
    assert theirs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=own)["DataLength"] == BLOCK
    for client, index, token in (
        (direct.ebs, 0, tokens[1]),
        (theirs, 0, tokens[0]),
        (direct.ebs, 0, "AAAA"),
        (direct.ebs, 0, tokens[0][:-4] + "AAA="),
    ):
        asked = {"SnapshotId": snapshot, "BlockIndex": index, "BlockToken": token}
        assert refusal(client.get_snapshot_block, **asked)[0] == "ValidationException"


def test_what_is_written_block_by_block_counts_among_the_volumes(direct: Direct) -> None:
    """Each is held open between two blocks, and the map of an open volume is in memory."""
    first = direct.start(VolumeSize=16_000)
    assert refusal(direct.ebs.start_snapshot, VolumeSize=385)[0] == "ServiceQuotaExceededException"
    zone = {"AvailabilityZone": "us-east-1a"}
    assert refusal(direct.ec2.create_volume, Size=385, **zone)[0] == "VolumeLimitExceeded"
    direct.ec2.delete_snapshot(SnapshotId=first)
    direct.start(VolumeSize=385)


def test_anothers_snapshot_is_one_that_nobody_has(direct: Direct, served_cloud: ServedCloud) -> None:
    snapshot = direct.written((0, block(b"secret")))
    theirs = served_cloud.owner().client("ebs")
    for identifier in (snapshot, UNKNOWN):
        code, message = refusal(theirs.list_snapshot_blocks, SnapshotId=identifier)
        assert (code, message.replace(identifier, "…")) == (
            "ResourceNotFoundException",
            "The snapshot '…' does not exist.",
        )
        assert refusal(theirs.start_snapshot, VolumeSize=1, ParentSnapshotId=identifier)[0] == (
            "ResourceNotFoundException"
        )
    assert REGION == "us-east-1"
