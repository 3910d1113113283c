"""Snapshots of volumes: taken, described, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.aws.tag_specifications import tags_by_type, tags_for
from celaje.cloud.ec2 import quotas, volumes
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.ec2.instance_lookup import find_instance
from celaje.cloud.ec2.quotas import refuse_beyond
from celaje.cloud.ec2.sharing import OWNERS, USERS, check_users
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import TERMINATED
from celaje.cloud.state.permissions import Permission, granted_to, revoke_all
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import answered_tags, set_tags, tags_of
from celaje.cloud.state.volumes import Volume, attached_to

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
CONTROLLER = "snapshots"
LONGEST_DESCRIPTION = 255


def found(call: Call, identifier: str) -> Snapshot:
    """The caller's own snapshot of that identifier. AwsError InvalidSnapshotID.Malformed, InvalidSnapshot.NotFound; a
    public one of another's, or of celaje's own images, can be read and not changed (AuthFailure)."""
    snapshot = volumes.readable_snapshot(call, identifier)
    if snapshot.account != call.account or snapshot.host_image:
        raise AwsError("AuthFailure", f"Not authorized for snapshot:{identifier}", 403)
    return snapshot


def checked_description(text: str | None) -> str:
    if text is not None and len(text) > LONGEST_DESCRIPTION:
        raise AwsError(
            "InvalidParameterValue",
            f"Value for parameter description is invalid: it has {len(text)} characters, and at most "
            f"{LONGEST_DESCRIPTION} are allowed",
        )
    return text or ""


def add(call: Call, volume: Volume, description: str, tags: dict[str, str]) -> Snapshot:
    """A new snapshot's row, pending; the controller takes it. AwsError for a volume without contents."""
    if volume.state not in ("available", "in-use") and not (volume.state == "creating" and volume.made):
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    return add_row(call, volume.size, description, tags, volume=volume.id)


def add_row(
    call: Call,
    size: int,
    description: str,
    tags: dict[str, str],
    *,
    volume: str = "",
    origin: str = "",
    source: str = "",
    timeout: int = 60,
) -> Snapshot:
    """A new snapshot's row, pending, of whatever origin (state/snapshots.py). AwsError SnapshotLimitExceeded."""
    refuse_beyond(call.session, call, Snapshot, quotas.SNAPSHOTS, "snapshots", "SnapshotLimitExceeded")
    snapshot = Snapshot(
        id=new_id("snap"),
        account=call.account,
        region=call.region,
        created=call.now,
        volume=volume,
        size=size,
        description=description,
        state="pending",
        progress=0,
        host_image="",
        public=False,
        origin=origin,
        source=source,
        timeout=timeout,
    )
    call.session.add(snapshot)
    set_tags(call.session, snapshot.id, "snapshot", call.account, call.region, tags)
    call.wake(CONTROLLER)
    return snapshot


def _refuse_elsewhere(request: Mapping[str, object]) -> None:
    """AwsError for a snapshot that is to be kept on an Outpost or in a local zone."""
    if request.get("OutpostArn") or request.get("Location") not in (None, "regional"):
        raise AwsError("UnsupportedOperation", "Snapshots are kept in their region; leave OutpostArn and Location out.")


@ACTIONS.action
def create_snapshot(call: Call, request: ec2.CreateSnapshotRequestTypeDef) -> Answer:
    """Of a volume, also while it is in use."""
    _refuse_elsewhere(request)
    volume = volumes.found(call, request["VolumeId"])
    tags = tags_for(request.get("TagSpecifications"), "snapshot")
    made = described(add(call, volume, checked_description(request.get("Description")), tags), tags)
    return made | {"Tags": answered_tags(tags)}  # what was made says that it has none; lists do not


_INFO = (
    "SnapshotId",
    "VolumeId",
    "State",
    "StartTime",
    "Progress",
    "OwnerId",
    "Description",
    "VolumeSize",
    "Encrypted",
    "Tags",
)


@ACTIONS.action
def create_snapshots(call: Call, request: ec2.CreateSnapshotsRequestTypeDef) -> Answer:
    """Of all volumes of an instance."""
    _refuse_elsewhere(request)
    specification = request["InstanceSpecification"]
    identifier = specification.get("InstanceId") or ""
    instance = find_instance(call, identifier)
    if instance.state == TERMINATED:
        raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{identifier}' does not exist")
    tags = tags_by_type(request.get("TagSpecifications"), "snapshot")["snapshot"]
    description = checked_description(request.get("Description"))
    left_out = set(specification.get("ExcludeDataVolumeIds") or ())
    taken = []
    for attachment in attached_to(call.session, [instance.id])[instance.id]:
        without_root = attachment.is_root and specification.get("ExcludeBootVolume")
        if attachment.volume in left_out or without_root:
            continue
        volume = call.session.get_one(Volume, attachment.volume)
        copied = tags
        if request.get("CopyTagsFromSource") == "volume":
            copied = tags_of(call.session, [volume.id])[volume.id] | tags
        taken.append((add(call, volume, description, copied), copied))
    # SnapshotInfo, which CreateSnapshots answers, knows less than the Snapshot of all other actions.
    answers = [described(snapshot, given) for snapshot, given in taken]
    return {"Snapshots": [{name: one[name] for name in _INFO} | {"Tags": one["Tags"] or []} for one in answers]}


@ACTIONS.action
def delete_snapshot(call: Call, request: ec2.DeleteSnapshotRequestTypeDef) -> Answer:
    """Volumes that were made of it keep what they have. Not while an image needs it."""
    snapshot = found(call, request["SnapshotId"])
    user = image_of(call, snapshot.id)
    if user is not None:
        raise AwsError("InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {user.id}")
    snapshot.state = "deleting"
    revoke_all(call.session, snapshot.id)
    call.wake(CONTROLLER)
    return {}


def image_of(call: Call, snapshot: str) -> Image | None:
    """An image that a snapshot is behind, whoever's."""
    query = select(Image).where(Image.region == call.region, Image.state != "deregistered")
    for image in call.session.scalars(query):
        if any(device.snapshot == snapshot for device in image.devices):
            return image
    return None


class _Found:
    """A snapshot with its tags, for filters."""

    def __init__(self, snapshot: Snapshot, tags: dict[str, str]) -> None:
        self.snapshot = snapshot
        self.tags = tags


_FILTERS = Filters[_Found](
    {
        "snapshot-id": lambda one: one.snapshot.id,
        "volume-id": lambda one: shown_volume(one.snapshot),
        "volume-size": lambda one: one.snapshot.size,
        "status": lambda one: one.snapshot.state,
        "description": lambda one: one.snapshot.description,
        "start-time": lambda one: one.snapshot.created,
        "owner-id": lambda one: one.snapshot.account,
        "owner-alias": lambda one: "amazon" if one.snapshot.host_image else None,
        "progress": lambda one: f"{one.snapshot.progress}%",
        "encrypted": lambda one: False,
        "storage-tier": lambda one: "standard",
    },
    tags=lambda one: one.tags,
    never=("transfer-type",),
)


@ACTIONS.action
def describe_snapshots(call: Call, request: ec2.DescribeSnapshotsRequestTypeDef) -> Answer:
    """The caller's snapshots, and public ones."""
    wanted = request.get("SnapshotIds")
    if wanted and request.get("MaxResults") is not None:
        raise AwsError(
            "InvalidParameterCombination",
            "The parameter snapshotIds cannot be used with the parameter maxResults",
        )
    matches = _FILTERS.matcher(request.get("Filters"))
    rows = _visible(call, wanted)
    owners, users = request.get("OwnerIds"), request.get("RestorableByUserIds")
    check_users(owners, *OWNERS)
    check_users(users, *USERS)
    rows = [row for row in rows if _owned(call, row, owners)]
    named = shared_with(call, users)
    rows = [row for row in rows if _restorable(call, row, users, named)]
    # Another's tags are the other's alone.
    tags = tags_of(call.session, [row.id for row in rows if row.account == call.account])
    joined = [one for one in (_Found(row, tags.get(row.id, {})) for row in rows) if matches(one)]
    shown, token = page(call, request, joined, lambda one: one.snapshot.id)
    return {"Snapshots": [described(one.snapshot, one.tags) for one in shown], "NextToken": token}


def _visible(call: Call, wanted: Sequence[str] | None) -> Sequence[Snapshot]:
    query = select(Snapshot).where(
        Snapshot.region == call.region,
        Snapshot.state != "deleting",
        or_(
            Snapshot.account == call.account,
            Snapshot.public,
            Snapshot.id.in_(select(Permission.resource).where(Permission.grantee == call.account)),
        ),
    )
    if not wanted:
        return call.session.scalars(query).all()
    for identifier in wanted:
        checked_id(identifier, "snap", "InvalidSnapshotID")
    rows = call.session.scalars(query.where(Snapshot.id.in_(list(wanted)))).all()
    missing = set(wanted) - {row.id for row in rows}
    if missing:
        raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{min(missing)}' does not exist.")
    return rows


def _owned(call: Call, snapshot: Snapshot, owners: Sequence[str] | None) -> bool:
    if not owners:
        return True
    names = {snapshot.account}
    if snapshot.host_image:
        names.add("amazon")
    elif snapshot.account == call.account:
        names.add("self")
    return not names.isdisjoint(owners)


def _restorable(call: Call, snapshot: Snapshot, users: Sequence[str] | None, named: set[str]) -> bool:
    """Whether one of `users` may make volumes of it; `named` are those that are shared with one of them by its number.
    With whom another's is shared is the other's secret: only that it is shared with the caller can be asked."""
    if not users:
        return True
    if (snapshot.public and "all" in users) or snapshot.id in named:
        return True
    return snapshot.account == call.account and not {"self", call.account}.isdisjoint(users)


def shared_with(call: Call, users: Sequence[str] | None) -> set[str]:
    """What is shared with the caller's account, if it is among `users`, and what of the caller's is with the others."""
    if not users:
        return set()
    own = granted_to(call.session, [call.account]) if {"self", call.account} & set(users) else set()
    others = select(Permission.resource).where(
        Permission.account == call.account, Permission.grantee.in_([user for user in users if user != call.account])
    )
    return own | set(call.session.scalars(others))


def shown_volume(snapshot: Snapshot) -> str:
    """The volume that it was taken of; AWS has this one where there was none."""
    return snapshot.volume or "vol-ffffffff"


def described(snapshot: Snapshot, tags: dict[str, str]) -> dict[str, object]:
    """A snapshot as EC2 describes it."""
    return {
        "SnapshotId": snapshot.id,
        "VolumeId": shown_volume(snapshot),
        "State": snapshot.state,
        "StateMessage": snapshot.problem or None,
        "StartTime": snapshot.created,
        "CompletionTime": snapshot.completed,
        "Progress": f"{snapshot.progress}%",
        "OwnerId": snapshot.account,
        "OwnerAlias": "amazon" if snapshot.host_image else None,
        "Description": snapshot.description,
        "VolumeSize": snapshot.size,
        "Encrypted": False,
        "StorageTier": "standard",
        "Tags": answered_tags(tags) or None,
    }
