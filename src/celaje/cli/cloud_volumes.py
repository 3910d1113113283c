"""`celaje volume …` and `celaje snapshot …`: volumes of the cloud, and what they held."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from celaje.cli.arguments import Parser, size
from celaje.cli.cloud_client import Client, Refused, Shape, ec2, name_of, named
from celaje.cli.instances import found as found_instances
from celaje.cli.instances import wait
from celaje.cli.table import table
from celaje.errors import CelajeError, NotFound, UsageError

GIB = 1 << 30
VOLUME = "a name or an identifier (`celaje volume ls`)"
SNAPSHOT = "an identifier (`celaje snapshot ls`)"


def _named(items: Sequence[Shape], member: str, noun: str, name: str) -> Shape:
    matching = [one for one in items if name in (one[member], name_of(one))]
    if not matching:
        if not items:
            raise NotFound(f"there is no {noun} {name!r}, and no other; make one: celaje volume create --size 8G")
        have = ", ".join(f"{name_of(one)} ({one[member]})" if name_of(one) else str(one[member]) for one in items)
        raise NotFound(f"there is no {noun} {name!r}; there are: {have}")
    if len(matching) > 1:
        these = ", ".join(str(one[member]) for one in matching)
        raise UsageError(f"{name!r} is the name of several {noun}s; choose by identifier: {these}")
    return matching[0]


def _volume(client: Client, name: str) -> Shape:
    return _named(list(client.all("describe_volumes", "Volumes")), "VolumeId", "volume", name)


def _wait_for_volume(client: Client, identifier: str, wanted: str) -> Shape:
    def look() -> tuple[Shape | None, str]:
        seen: Shape = client("describe_volumes", VolumeIds=[identifier])["Volumes"][0]
        if seen["State"] == "error":
            raise CelajeError(f"{identifier} cannot be made; see: celaje logs")
        attached = [one["State"] for one in seen.get("Attachments", ())]
        state = attached[0] if attached else seen["State"]
        return (seen if state == wanted else None), f"{identifier} is {state}"

    return wait(look, f"until it is {wanted}")


def volume_create(words: list[str]) -> int:
    """Make a volume, and wait until it is there."""
    parser = Parser("volume create", "Makes a volume: a disk that outlives instances.")
    parser.add_argument("--name", metavar="NAME", help="its Name tag")
    parser.add_argument("--size", type=size, metavar="SIZE", help="such as 8G (that of its snapshot)")
    parser.add_argument("--snapshot", metavar="SNAPSHOT", help=f"what it holds: {SNAPSHOT}")
    parser.add_argument("--zone", metavar="ZONE", help="where instances can use it (the region's first)")
    parser.add_argument("--type", default="gp3", metavar="TYPE", help="gp3, gp2, io2, … (gp3)")
    chosen = parser.parse_args(words)
    if chosen.size is None and chosen.snapshot is None:
        raise UsageError("an empty volume needs a size, such as --size 8G")
    client = ec2()
    zone = chosen.zone or client("describe_availability_zones")["AvailabilityZones"][0]["ZoneName"]
    made = client(
        "create_volume",
        AvailabilityZone=zone,
        Size=None if chosen.size is None else -(-chosen.size // GIB),
        SnapshotId=chosen.snapshot,
        VolumeType=chosen.type,
        TagSpecifications=named(chosen.name, "volume"),
    )
    _wait_for_volume(client, made["VolumeId"], "available")
    print(f"{made['VolumeId']} is a volume of {made['Size']} GiB in {zone}")
    print(f"  celaje volume attach {shlex.quote(chosen.name or made['VolumeId'])} INSTANCE")
    return 0


def volume_ls(words: list[str]) -> int:
    """List volumes."""
    parser = Parser("volume ls", "Lists the volumes of the cloud.")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    found = list(ec2().all("describe_volumes", "Volumes"))
    if chosen.json:
        print(json.dumps(found, indent=2, default=str))
    elif not found:
        print("There are no volumes; this makes the first: celaje volume create --name data --size 8G")
    else:
        rows = []
        for one in sorted(found, key=lambda one: one["CreateTime"]):
            held = one["Attachments"][0] if one.get("Attachments") else {}
            rows.append(
                (
                    name_of(one),
                    one["VolumeId"],
                    one["State"],
                    f"{one['Size']} GiB",
                    one["VolumeType"],
                    one["AvailabilityZone"],
                    held.get("InstanceId", ""),
                    held.get("Device", ""),
                    one.get("SnapshotId", ""),
                )
            )
        headings = ("NAME", "VOLUME", "STATE", "SIZE", "TYPE", "ZONE", "INSTANCE", "DEVICE", "SNAPSHOT")
        print(table(headings, rows))
    return 0


def volume_attach(words: list[str]) -> int:
    """Attach a volume, and wait until the guest has it."""
    parser = Parser("volume attach", "Attaches a volume to an instance, also while it runs.")
    parser.add_argument("volume", metavar="VOLUME", help=VOLUME)
    parser.add_argument("instance", metavar="INSTANCE", help="a name or an identifier (`celaje ls`)")
    parser.add_argument("--device", metavar="DEVICE", help="such as /dev/sdf (the first that is free)")
    chosen = parser.parse_args(words)
    client = ec2()
    volume = _volume(client, chosen.volume)
    instance = found_instances(client, [chosen.instance])[0]
    used = {one["DeviceName"] for one in instance.get("BlockDeviceMappings", ())}
    free = (f"/dev/sd{letter}" for letter in "fghijklmnop" if f"/dev/sd{letter}" not in used)
    device = chosen.device or next(free, "/dev/sdq")
    client("attach_volume", VolumeId=volume["VolumeId"], InstanceId=instance["InstanceId"], Device=device)
    _wait_for_volume(client, volume["VolumeId"], "attached")
    serial = volume["VolumeId"].replace("-", "")
    print(f"{chosen.volume} is attached to {chosen.instance} as {device}; the guest finds it by its serial number:")
    print(f"  ls -l /dev/disk/by-id/*{serial}*   or   lsblk -o NAME,SIZE,SERIAL")
    return 0


def volume_detach(words: list[str]) -> int:
    """Detach a volume, and wait until it is free."""
    parser = Parser("volume detach", "Takes a volume from its instance; unmount it in the guest first.")
    parser.add_argument("volume", metavar="VOLUME", help=VOLUME)
    chosen = parser.parse_args(words)
    client = ec2()
    identifier = _volume(client, chosen.volume)["VolumeId"]
    client("detach_volume", VolumeId=identifier)
    _wait_for_volume(client, identifier, "available")
    print(f"{chosen.volume} is available")
    return 0


def volume_grow(words: list[str]) -> int:
    """Make a volume larger, and wait until it is."""
    parser = Parser("volume grow", "Makes a volume larger, also while an instance uses it.")
    parser.add_argument("volume", metavar="VOLUME", help=VOLUME)
    parser.add_argument("size", type=size, metavar="SIZE", help="the new size, such as 16G")
    chosen = parser.parse_args(words)
    client = ec2()
    identifier = _volume(client, chosen.volume)["VolumeId"]
    client("modify_volume", VolumeId=identifier, Size=-(-chosen.size // GIB))

    def look() -> tuple[bool | None, str]:
        seen = client("describe_volumes_modifications", VolumeIds=[identifier])["VolumesModifications"][0]
        if seen["ModificationState"] == "failed":
            raise CelajeError(f"{chosen.volume} cannot grow: {seen.get('StatusMessage', 'see celaje logs')}")
        return (True if seen["ModificationState"] == "completed" else None), f"it is {seen['ModificationState']}"

    wait(look, "until it has grown")
    print(f"{chosen.volume} has {-(-chosen.size // GIB)} GiB")
    return 0


def volume_rm(words: list[str]) -> int:
    """Delete volumes."""
    parser = Parser("volume rm", "Deletes volumes that are attached to nothing.")
    parser.add_argument("volumes", nargs="+", metavar="VOLUME", help=VOLUME)
    chosen = parser.parse_args(words)
    client = ec2()
    found = [_volume(client, name) for name in chosen.volumes]
    for name, one in zip(chosen.volumes, found, strict=True):
        client("delete_volume", VolumeId=one["VolumeId"])
        print(f"{name} is deleted")
    return 0


def volume_snapshot(words: list[str]) -> int:
    """Take a snapshot, and wait until it is whole."""
    parser = Parser("volume snapshot", "Keeps what a volume holds now, also while an instance uses it.")
    parser.add_argument("volume", metavar="VOLUME", help=VOLUME)
    parser.add_argument("--name", metavar="NAME", help="the snapshot's Name tag")
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    parser.add_argument("--no-wait", action="store_true", help="return when the cloud has accepted it")
    chosen = parser.parse_args(words)
    client = ec2()
    made = client(
        "create_snapshot",
        VolumeId=_volume(client, chosen.volume)["VolumeId"],
        Description=chosen.description,
        TagSpecifications=named(chosen.name, "snapshot"),
    )
    identifier = made["SnapshotId"]

    def look() -> tuple[bool | None, str]:
        seen = client("describe_snapshots", SnapshotIds=[identifier])["Snapshots"][0]
        if seen["State"] == "error":
            raise CelajeError(f"{identifier} failed: {seen.get('StateMessage', 'see celaje logs')}")
        return (True if seen["State"] == "completed" else None), f"{seen['Progress']} of it"

    if not chosen.no_wait:
        wait(look, f"until {identifier} is completed")
    print(f"{identifier} is a snapshot of {chosen.volume}; to make a volume of it:")
    print(f"  celaje volume create --snapshot {identifier}")
    return 0


def snapshot_ls(words: list[str]) -> int:
    """List the caller's snapshots."""
    parser = Parser("snapshot ls", "Lists the snapshots of your volumes.")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    found = list(ec2().all("describe_snapshots", "Snapshots", OwnerIds=["self"]))
    own = [one for one in found if one.get("OwnerAlias") != "amazon"]
    if chosen.json:
        print(json.dumps(own, indent=2, default=str))
    elif not own:
        print("There are no snapshots; this takes the first: celaje volume snapshot VOLUME")
    else:
        rows = [
            (
                name_of(one),
                one["SnapshotId"],
                one["State"],
                one["Progress"],
                f"{one['VolumeSize']} GiB",
                one["VolumeId"],
                f"{one['StartTime']:%Y-%m-%d %H:%M}",
                one.get("Description", ""),
            )
            for one in sorted(own, key=lambda one: one["StartTime"])
        ]
        headings = ("NAME", "SNAPSHOT", "STATE", "DONE", "SIZE", "VOLUME", "TAKEN", "DESCRIPTION")
        print(table(headings, rows))
    return 0


def snapshot_rm(words: list[str]) -> int:
    """Delete snapshots."""
    parser = Parser("snapshot rm", "Deletes snapshots; volumes that were made of them stay.")
    parser.add_argument("snapshots", nargs="+", metavar="SNAPSHOT", help=SNAPSHOT)
    chosen = parser.parse_args(words)
    client = ec2()
    for name in chosen.snapshots:
        try:
            client("delete_snapshot", SnapshotId=name)
        except Refused as error:
            if error.code == "InvalidSnapshot.InUse":
                raise CelajeError(f"{error}; first: celaje image rm IMAGE") from error
            raise
        print(f"{name} is deleted")
    return 0
