"""Regions and availability zones, as clients ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.state.zones import zone_id

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
_OPTED_IN = "opt-in-not-required"

_REGION_FILTERS = Filters[str](
    {
        "endpoint": lambda region: _endpoint(region),
        "opt-in-status": lambda region: _OPTED_IN,
        "region-name": lambda region: region,
    }
)


@ACTIONS.action
def describe_regions(call: Call, request: ec2.DescribeRegionsRequestTypeDef) -> Answer:
    """The regions of this cloud."""
    names = request.get("RegionNames")
    for name in names or ():
        if name not in call.settings.regions:
            raise AwsError("InvalidParameterValue", f"Invalid region: {name}")
    matches = _REGION_FILTERS.matcher(request.get("Filters"))
    return {
        "Regions": [
            {"Endpoint": _endpoint(region), "OptInStatus": _OPTED_IN, "RegionName": region}
            for region in call.settings.regions
            if (not names or region in names) and matches(region)
        ]
    }


def _endpoint(region: str) -> str:
    return f"ec2.{region}.amazonaws.com"


_ZONE_FILTERS = Filters[str](
    {
        "group-name": lambda zone: _group_name(zone),
        "message": lambda zone: None,
        "opt-in-status": lambda zone: _OPTED_IN,
        "parent-zone-id": lambda zone: None,
        "parent-zone-name": lambda zone: None,
        "region-name": lambda zone: zone[:-1],
        "state": lambda zone: "available",
        "zone-id": lambda zone: zone_id(zone[:-1], zone),
        "zone-name": lambda zone: zone,
        "zone-type": lambda zone: "availability-zone",
    }
)


def zones_of(call: Call) -> list[str]:
    """The whole names (us-east-1a) of the zones of the request's region."""
    return [call.region + letter for letter in call.settings.regions[call.region]]


def _group_name(zone: str) -> str:
    return f"{zone[:-1]}-zg-1"


@ACTIONS.action
def describe_availability_zones(call: Call, request: ec2.DescribeAvailabilityZonesRequestTypeDef) -> Answer:
    """The zones of the request's region."""
    zones = zones_of(call)
    names, ids = request.get("ZoneNames"), request.get("ZoneIds")
    for name in names or ():
        if name not in zones:
            raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{name}]")
    by_id = {zone_id(call.region, zone): zone for zone in zones}
    for given in ids or ():
        if given not in by_id:
            raise AwsError("InvalidParameterValue", f"Invalid availability zone-id: [{given}]")
    wanted = set(names or ()) | {by_id[given] for given in ids or ()}
    matches = _ZONE_FILTERS.matcher(request.get("Filters"))
    return {
        "AvailabilityZones": [
            {
                "GroupName": _group_name(zone),
                "Messages": [],
                "NetworkBorderGroup": call.region,
                "OptInStatus": _OPTED_IN,
                "RegionName": call.region,
                "State": "available",
                "ZoneId": zone_id(call.region, zone),
                "ZoneName": zone,
                "ZoneType": "availability-zone",
            }
            for zone in zones
            if (not wanted or zone in wanted) and matches(zone)
        ]
    }
