"""How many of a kind an account may have in a region: AWS's defaults where they are numbers of things, so that a client
which makes them in a loop fills neither the database nor the disk.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state.base import Resource
from celaje.cloud.state.networks import NetworkAcl, RouteTable, Subnet
from celaje.cloud.state.snapshots import BLOCKS, Snapshot
from celaje.cloud.state.volumes import Volume, VolumeModification

VOLUMES = 5_000
# GiB of all volumes together, and of snapshots that are being written block by block. Whoever has a volume open, a
# machine or the daemon, holds 256 KiB a GiB of it in memory (disk/cluster_map.py), and a manifest of it has 64 KiB.
STORAGE = 16 << 10
SNAPSHOTS = 10_000
KEY_PAIRS = 5_000
IMAGES = 50_000
NETWORK_INTERFACES = 5_000
# Where AWS's default is a handful, this is what it grants on request.
VPCS = 100
INTERNET_GATEWAYS = 100
DHCP_OPTIONS = 100
SUBNETS_PER_VPC = 200
ROUTE_TABLES_PER_VPC = 200
ROUTES = 500
NETWORK_ACLS_PER_VPC = 200
NETWORK_ACL_ENTRIES = 40  # of each direction, and not counting the last
NAT_GATEWAYS_PER_ZONE = 50
CIDRS_PER_VPC = 5
LAUNCH_TEMPLATES = 5_000
LAUNCH_TEMPLATE_VERSIONS = 10_000  # of one template
LAUNCH_TEMPLATE_BYTES = 64 << 10  # of one version as JSON: four times as much as all user data that there may be
GRANTEES = 1_000  # accounts that an image or a snapshot is shared with
VERSIONS_AT_ONCE = 200  # that a request deletes


def refuse_storage_beyond(call: Call, more: int, code: str = "VolumeLimitExceeded", status: int = 400) -> None:
    """AwsError if the caller's volumes would have more than STORAGE together, with `more` GiB than they have."""
    volumes = select(func.sum(Volume.size)).where(
        Volume.account == call.account, Volume.region == call.region, Volume.state != "deleting"
    )
    written = select(func.sum(Snapshot.size)).where(
        Snapshot.account == call.account,
        Snapshot.region == call.region,
        Snapshot.origin == BLOCKS,
        Snapshot.state == "pending",
    )
    growing = select(func.sum(VolumeModification.size - VolumeModification.original_size)).where(
        VolumeModification.account == call.account,
        VolumeModification.region == call.region,
        VolumeModification.state == "modifying",
    )
    have = sum(call.session.scalar(query) or 0 for query in (volumes, written, growing))
    if more > 0 and have + more > STORAGE:
        raise AwsError(
            code,
            f"You have exceeded your maximum storage limit of {STORAGE >> 10} TiB in {call.region}: there are {have} "
            f"GiB already, and {more} more were asked for; delete some volumes first.",
            status,
        )


def refuse_beyond_in_vpc(
    session: Session,
    table: type[Subnet] | type[RouteTable] | type[NetworkAcl],
    vpc: str,
    most: int,
    noun: str,
    code: str,
) -> None:
    """AwsError if a VPC has `most` of them already."""
    there = select(func.count()).select_from(table).where(table.vpc == vpc)
    if (session.scalar(there) or 0) >= most:
        raise AwsError(code, f"The maximum number of {noun} of {vpc} has been reached: {most}")


def refuse_beyond(
    session: Session, call: Call, table: type[Resource], most: int, noun: str, code: str = "ResourceLimitExceeded"
) -> None:
    """AwsError if the caller has `most` of them already."""
    there = select(func.count()).select_from(table).where(table.account == call.account, table.region == call.region)
    if (session.scalar(there) or 0) >= most:
        raise AwsError(code, f"You have reached the limit of {most} {noun} in {call.region}; delete some first.")
