"""`celaje image …`: images of the cloud."""

from __future__ import annotations

import json
import shlex

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import Shape, ec2
from celaje.cli.instances import found as found_instances
from celaje.cli.instances import wait
from celaje.cli.table import table
from celaje.errors import CelajeError


def image_ls(words: list[str]) -> int:
    """List the images that can be launched."""
    parser = Parser("image ls", "Lists the images of the cloud: celaje's own, and yours.")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    found = sorted(ec2()("describe_images")["Images"], key=lambda one: (not one["Public"], one["CreationDate"]))
    if chosen.json:
        print(json.dumps(found, indent=2, default=str))
        return 0
    if not found:
        print("There are no images; of an instance: celaje image create INSTANCE NAME")
        return 0
    rows = [
        (
            one["Name"],
            one["ImageId"],
            one["State"],
            "celaje" if one.get("ImageOwnerAlias") == "amazon" else one["OwnerId"],
            one["Architecture"],
            f"{_size(one)} GiB",
            one.get("StateReason", {}).get("Message", "") or one.get("Description", ""),
        )
        for one in found
    ]
    print(table(("NAME", "IMAGE", "STATE", "OWNER", "ARCHITECTURE", "DISK", "NOTE"), rows))
    return 0


def _size(image: Shape) -> int:
    return sum(int(one.get("Ebs", {}).get("VolumeSize", 0)) for one in image.get("BlockDeviceMappings", ()))


def image_create(words: list[str]) -> int:
    """Make an image of an instance, and wait until it can be launched."""
    parser = Parser("image create", "Makes an image of an instance, which is rebooted unless --no-reboot is given.")
    parser.add_argument("instance", metavar="INSTANCE", help="a name or an identifier (`celaje ls`)")
    parser.add_argument("name", metavar="NAME", help="what to call the image")
    parser.add_argument("--description", metavar="TEXT", help="what it is for")
    parser.add_argument("--no-reboot", action="store_true", help="leave the instance running")
    chosen = parser.parse_args(words)
    client = ec2()
    instance = found_instances(client, [chosen.instance])[0]["InstanceId"]
    identifier = client(
        "create_image",
        InstanceId=instance,
        Name=chosen.name,
        Description=chosen.description,
        NoReboot=True if chosen.no_reboot else None,
    )["ImageId"]

    def look() -> tuple[bool | None, str]:
        seen = client("describe_images", ImageIds=[identifier])["Images"][0]
        if seen["State"] == "failed":
            raise CelajeError(f"{chosen.name} cannot be made: {seen.get('StateReason', {}).get('Message', '')}")
        return (True if seen["State"] == "available" else None), f"it is {seen['State']}"

    wait(look, f"until the image {chosen.name} is available")
    print(f"{chosen.name} is the image {identifier}; now: celaje launch {shlex.quote(chosen.name)}")
    return 0


def image_rm(words: list[str]) -> int:
    """Deregister images and delete their snapshots."""
    parser = Parser("image rm", "Deregisters images and deletes their snapshots; instances of them go on.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a name or an identifier (`celaje image ls`)")
    chosen = parser.parse_args(words)
    client = ec2()
    own = client("describe_images", Owners=["self"])["Images"]
    for name in chosen.images:
        identifier = next((str(one["ImageId"]) for one in own if name in (one["ImageId"], one["Name"])), name)
        client("deregister_image", ImageId=identifier, DeleteAssociatedSnapshots=True)
        print(f"{name} is deregistered")
    return 0
