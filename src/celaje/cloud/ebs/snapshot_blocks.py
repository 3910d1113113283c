"""The six actions of EBS's direct APIs. Blocks are the chunks of snapshots: 512 KiB, listed unless they are zeros."""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from celaje import paths
from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.streams import RequestBody
from celaje.cloud.aws.tag_specifications import checked_tags
from celaje.cloud.ebs.block_tokens import block_token, check_block_token, expiry, opened_page_token, page_token
from celaje.cloud.ec2 import quotas, snapshots
from celaje.cloud.state.permissions import is_granted
from celaje.cloud.state.snapshots import BLOCKS, Snapshot
from celaje.cloud.state.tags import answered_tags

if TYPE_CHECKING:
    from mypy_boto3_ebs import type_defs as ebs

    from celaje.cloud.ebs.written_blocks import WrittenBlocks
    from celaje.disk.manifest import Manifest

ACTIONS = Actions("ebs")
BLOCK = 512 << 10
SUM = "SHA256"
LARGEST = 16_384  # GiB
DEFAULT_RESULTS = 10_000
_BLOCKS_OF_GIB = (1 << 30) // BLOCK


def _invalid(reason: str, message: str) -> AwsError:
    return AwsError("ValidationException", message, fields={"Reason": reason})


def _found(call: Call, session: Session, identifier: str) -> Snapshot:
    """A snapshot of the caller's, or one that is shared with the caller's account. AwsError."""
    row = session.get(Snapshot, identifier)
    if (
        row is None
        or row.region != call.region
        or row.state == "deleting"
        or not (row.account == call.account or row.public or is_granted(session, row.id, call.account))
    ):
        raise AwsError(
            "ResourceNotFoundException",
            f"The snapshot '{identifier[:64]}' does not exist.",
            404,
            fields={"Reason": "SNAPSHOT_NOT_FOUND"},
        )
    return row


# --- reading ---


class _Manifests:
    """The last few manifests that were read: a list of many pages asks for one again and again."""

    KEPT = 4

    def __init__(self) -> None:
        self._known: OrderedDict[str, Manifest] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, call: Call, identifier: str) -> Manifest:
        """That of a snapshot which the caller may read and which is whole. AwsError."""
        from celaje.disk.volumes import VolumeStore  # what it imports would make the first answer of a cloud wait

        row = _found(call, call.session, identifier)
        if row.state != "completed":
            raise _invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{row.id}' is not completed; it is {row.state}.")
        if row.host_image:
            raise AwsError(
                "AccessDeniedException",
                f"The snapshot '{row.id}' stands for an image of this cloud; read a copy of it (CopySnapshot).",
                403,
            )
        with self._lock:
            known = self._known.pop(row.id, None)
            if known is not None:
                self._known[row.id] = known
                return known
        manifest = VolumeStore().snapshots.manifest(row.id)
        with self._lock:
            self._known[row.id] = manifest
            if len(self._known) > self.KEPT:
                self._known.popitem(last=False)
        return manifest


_MANIFESTS = _Manifests()


@ACTIONS.action
def list_snapshot_blocks(call: Call, request: ebs.ListSnapshotBlocksRequestTypeDef) -> Answer:
    """The blocks that are not zeros."""
    snapshot = request["SnapshotId"]
    manifest = _MANIFESTS.of(call, snapshot)
    until = expiry(call)

    def blocks(first: int) -> Iterator[tuple[int, dict[str, object]]]:
        for index in manifest.differing(None, first):
            yield index, {"BlockIndex": index, "BlockToken": block_token(call, snapshot, index, until)}

    start, token = request.get("StartingBlockIndex", 0), request.get("NextToken")
    first = opened_page_token(call, token, snapshot) if token else start
    listed, following = _paged(blocks(first), request.get("MaxResults", DEFAULT_RESULTS))
    return {
        "Blocks": listed,
        "BlockSize": BLOCK,
        "ExpiryTime": until,
        "VolumeSize": manifest.size >> 30,
        "NextToken": None if following is None else page_token(call, snapshot, following),
    }


def _paged(blocks: Iterator[tuple[int, dict[str, object]]], most: int) -> tuple[list[dict[str, object]], int | None]:
    listed: list[dict[str, object]] = []
    for index, block in blocks:
        if len(listed) == most:
            return listed, index
        listed.append(block)
    return listed, None


@ACTIONS.action
def list_changed_blocks(call: Call, request: ebs.ListChangedBlocksRequestTypeDef) -> Answer:
    """Where two snapshots differ: any two, since a block's name says what is in it. Without a first one, what the
    second has."""
    second, first = request["SecondSnapshotId"], request.get("FirstSnapshotId")
    after = _MANIFESTS.of(call, second)
    before = _MANIFESTS.of(call, first) if first else None
    until = expiry(call)

    def blocks(start: int) -> Iterator[tuple[int, dict[str, object]]]:
        for index in after.differing(before, start):
            found: dict[str, object] = {"BlockIndex": index}
            if before is not None and first and any(before.name(index)):
                found["FirstBlockToken"] = block_token(call, first, index, until)
            if any(after.name(index)):
                found["SecondBlockToken"] = block_token(call, second, index, until)
            yield index, found

    listed_of = f"{first or ''}/{second}"
    start, token = request.get("StartingBlockIndex", 0), request.get("NextToken")
    beginning = opened_page_token(call, token, listed_of) if token else start
    listed, following = _paged(blocks(beginning), request.get("MaxResults", DEFAULT_RESULTS))
    return {
        "ChangedBlocks": listed,
        "BlockSize": BLOCK,
        "ExpiryTime": until,
        "VolumeSize": after.size >> 30,
        "NextToken": None if following is None else page_token(call, listed_of, following),
    }


@ACTIONS.action
def get_snapshot_block(call: Call, request: ebs.GetSnapshotBlockRequestTypeDef) -> Answer:
    """A block's bytes, compared with its name."""
    from celaje.disk.chunk_store import fetch
    from celaje.disk.volumes import VolumeStore

    snapshot, index = request["SnapshotId"], request["BlockIndex"]
    manifest = _MANIFESTS.of(call, snapshot)
    check_block_token(call, request["BlockToken"], snapshot, index)
    content = fetch(VolumeStore().chunks, manifest.name(index))
    return {
        "DataLength": len(content),
        "BlockData": bytes(content),
        "Checksum": base64.b64encode(hashlib.sha256(content).digest()).decode("ascii"),
        "ChecksumAlgorithm": SUM,
    }


# --- writing ---


def _writing() -> WrittenBlocks:
    from celaje.cloud.ebs.written_blocks import written_blocks

    return written_blocks(paths.home())


@ACTIONS.action
def start_snapshot(call: Call, request: ebs.StartSnapshotRequestTypeDef) -> Answer:
    """Pending until it is completed, or until nothing has come for as long as Timeout says."""
    if request.get("Encrypted") or request.get("KmsKeyArn"):
        raise _invalid("INVALID_PARAMETER_VALUE", "Snapshots of this cloud are not encrypted; leave Encrypted out.")
    size, parent = request["VolumeSize"], request.get("ParentSnapshotId") or ""
    if not 1 <= size <= LARGEST:
        raise _invalid("INVALID_VOLUME_SIZE", f"VolumeSize is 1 to {LARGEST} GiB, not {size}")
    if parent:
        before = _found(call, call.session, parent)
        if before.account != call.account or before.host_image:
            raise AwsError("AccessDeniedException", f"The snapshot '{parent}' is not the caller's", 403)
        if before.state != "completed":
            raise _invalid("INVALID_SNAPSHOT_ID", f"The parent snapshot '{parent}' is not completed.")
        if size < before.size:
            raise _invalid("INVALID_VOLUME_SIZE", f"VolumeSize is less than the {before.size} GiB of the parent")
    quotas.refuse_storage_beyond(call, size, "ServiceQuotaExceededException", 402)
    tags = checked_tags(request.get("Tags"))
    description = snapshots.checked_description(request.get("Description"))
    minutes = request.get("Timeout", 60)
    row = snapshots.add_row(call, size, description, tags, origin=BLOCKS, source=parent, timeout=minutes)
    return {
        "SnapshotId": row.id,
        "Description": description or None,
        "OwnerId": row.account,
        "Status": "pending",
        "StartTime": row.created,
        "VolumeSize": size,
        "BlockSize": BLOCK,
        "ParentSnapshotId": parent or None,
        "Tags": answered_tags(tags) or None,
        "SseType": "none",
    }


def _open_one(call: Call, identifier: str) -> Snapshot:
    """A snapshot of the caller's that blocks are written to. AwsError."""
    with call.reading() as session:
        row = _found(call, session, identifier)
        if row.account != call.account:
            raise AwsError("AccessDeniedException", f"The snapshot '{identifier}' is not the caller's", 403)
        if row.origin != BLOCKS or row.state != "pending" or row.sealed:
            raise _invalid(
                "INVALID_SNAPSHOT_ID", f"The snapshot '{identifier}' takes no blocks; StartSnapshot makes one."
            )
        return row


def _sum(text: str | None) -> bytes:
    try:
        found = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != 32:
        raise _invalid("INVALID_PARAMETER_VALUE", "A checksum is the SHA-256 in base64")
    return found


@ACTIONS.untransacted
def put_snapshot_block(call: Call, request: ebs.PutSnapshotBlockRequestTypeDef) -> Answer:
    """Durable when it is answered."""
    identifier, index = request["SnapshotId"], request["BlockIndex"]
    row = _open_one(call, identifier)
    given = request["BlockData"]
    content = given.all(BLOCK + 1) if isinstance(given, RequestBody) else b""
    if len(content) != BLOCK or request["DataLength"] != BLOCK:
        raise _invalid("INVALID_BLOCK", f"A block has {BLOCK} bytes, not {len(content)}")
    if not 0 <= index < row.size * _BLOCKS_OF_GIB:
        raise _invalid("INVALID_BLOCK", f"The snapshot's last block is {row.size * _BLOCKS_OF_GIB - 1}, not {index}")
    if request["ChecksumAlgorithm"] != SUM:
        raise _invalid("INVALID_PARAMETER_VALUE", f"ChecksumAlgorithm must be {SUM}")
    if hashlib.sha256(content).digest() != _sum(request["Checksum"]):
        raise _invalid("INVALID_BLOCK", "The block's content is not what its checksum says; send it again")
    writing = _writing()
    with writing.held(identifier):
        _open_one(call, identifier)  # it may have been completed meanwhile
        writing.write(identifier, row.size, row.source, index, content)
    return {"Checksum": request["Checksum"], "ChecksumAlgorithm": SUM}


@ACTIONS.untransacted
def complete_snapshot(call: Call, request: ebs.CompleteSnapshotRequestTypeDef) -> Answer:
    """No block comes after it. The snapshot is completed a moment later."""
    identifier = request["SnapshotId"]
    row = _open_one(call, identifier)
    writing = _writing()
    with writing.held(identifier):
        _open_one(call, identifier)
        sums = writing.sums(identifier, row.size, row.source)
        if request["ChangedBlocksCount"] != len(sums):
            raise _invalid(
                "INVALID_PARAMETER_VALUE",
                f"ChangedBlocksCount is {request['ChangedBlocksCount']}, and {len(sums)} blocks were written",
            )
        if request.get("Checksum"):
            whole = hashlib.sha256(b"".join(sums[index] for index in sorted(sums))).digest()
            if whole != _sum(request["Checksum"]):
                raise _invalid("INVALID_PARAMETER_VALUE", "The checksum of the blocks' checksums is another one")
        writing.close(identifier)
        with call.writing() as session:
            session.get_one(Snapshot, identifier).sealed = True
    call.wake(snapshots.CONTROLLER)
    return {"Status": "pending"}
