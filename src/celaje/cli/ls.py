"""`celaje ls`: the instances of the cloud."""

from __future__ import annotations

import json

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import ec2, name_of
from celaje.cli.instances import instances
from celaje.cli.table import table

HEADINGS = ("NAME", "INSTANCE", "STATE", "TYPE", "ZONE", "PRIVATE", "PUBLIC", "IMAGE", "NOTE")


def run(words: list[str]) -> int:
    """List them."""
    parser = Parser("ls", "Lists the instances of the cloud.")
    parser.add_argument("--all", action="store_true", help="also those that are terminated")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    found = [one for one in instances(ec2()) if chosen.all or one["State"]["Name"] != "terminated"]
    if chosen.json:
        print(json.dumps(found, indent=2, default=str))
    elif not found:
        print("There are no instances; this launches the first: celaje launch --name web")
    else:
        rows = [
            (
                name_of(one),
                one["InstanceId"],
                one["State"]["Name"],
                one["InstanceType"],
                one["Placement"]["AvailabilityZone"],
                one.get("PrivateIpAddress", ""),
                one.get("PublicIpAddress", ""),
                one["ImageId"],
                one.get("StateReason", {}).get("Message", ""),
            )
            for one in found
        ]
        print(table(HEADINGS, rows))
    return 0
