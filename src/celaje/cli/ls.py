"""`celaje ls`: the instances of the cloud."""

from __future__ import annotations

import json

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import Shape, ec2, name_of
from celaje.cli.instances import instances
from celaje.cli.table import table

HEADINGS = ("NAME", "INSTANCE", "STATE", "TYPE", "ZONE", "PRIVATE", "PUBLIC", "IMAGE", "NOTE")


def run(words: list[str]) -> int:
    """List them."""
    parser = Parser("ls", "Lists the instances of the cloud.")
    parser.add_argument("--all", action="store_true", help="also those that are terminated")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    client = ec2()
    found = [one for one in instances(client) if chosen.all or one["State"]["Name"] != "terminated"]
    if chosen.json:
        print(json.dumps(found, indent=2, default=str))
    elif not found:
        print("There are no instances; this launches the first: celaje launch --name web")
    else:
        names = {one["ImageId"]: str(one["Name"]) for one in client.all("describe_images", "Images")}
        rows = [
            (
                name_of(one),
                one["InstanceId"],
                one["State"]["Name"],
                one["InstanceType"],
                one["Placement"]["AvailabilityZone"],
                one.get("PrivateIpAddress", ""),
                one.get("PublicIpAddress", ""),
                names.get(one["ImageId"], str(one["ImageId"])),
                _reason(one),
            )
            for one in found
        ]
        print(table(HEADINGS, rows))
    return 0


def _reason(one: Shape) -> str:
    """Why it is what it is, without the code, which AWS's messages begin with."""
    told: Shape = one.get("StateReason", {})
    return str(told.get("Message", "")).removeprefix(f"{told.get('Code')}: ")
