"""`celaje launch`: instances, with all that is needed to log in to them."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from celaje.cli.arguments import Parser, size
from celaje.cli.cloud_client import Client, Refused, Shape, cloud_directory, ec2, named
from celaje.cli.instances import found, label, wait, wait_until
from celaje.errors import CelajeError, InputError, NotFound, UsageError

KEY = "celaje"  # the key pair, and the security group, that this command makes for itself
EPILOG = """\
Without --key the key pair `celaje` is used, made at the first time and kept beside the cloud's state; without --group
the security group `celaje`, which admits SSH and ping from anywhere, and what --open says.

  celaje launch --name web
  celaje launch debian-13 --name db --type t3.small --root-size 16G --volume 8G
  celaje ssh web"""


def run(words: list[str]) -> int:
    """Launch them. NotFound; Refused as the cloud refuses; what was made before stays."""
    parser = Parser("launch", "Launches instances.", EPILOG)
    add = parser.add_argument
    add("image", nargs="?", default="debian-mini", metavar="IMAGE", help="a name or an identifier (debian-mini)")
    add("--name", metavar="NAME", help="its Name tag, by which other commands know it")
    add("--type", default="t3.micro", metavar="TYPE", help="CPUs and memory, such as t3.nano or m5.large (t3.micro)")
    add("--count", type=int, default=1, metavar="N", help="how many (1)")
    add("--zone", metavar="ZONE", help="an availability zone, such as us-east-1b")
    add("--key", metavar="KEY", help="a key pair of the cloud")
    add("--ssh-key", type=Path, metavar="FILE.pub", help="a public key of yours, imported as a key pair")
    add("--group", action="append", metavar="SG", help="a security group's identifier; may be given again")
    add("--open", action="append", default=[], metavar="PROTOCOL:PORT", help="such as tcp:80; may be repeated")
    add("--root-size", type=size, metavar="SIZE", help="of the root disk, such as 8G (as the image's)")
    add("--volume", type=size, action="append", default=[], metavar="SIZE", help="one more disk; may be repeated")
    add("--user-data", type=Path, metavar="FILE", help="what the guest runs, or reads, at its first boot")
    add("--role", metavar="PROFILE", help="an instance profile, whose role's credentials the guest gets")
    add("--no-wait", action="store_true", help="return when the cloud has accepted it")
    add("--json", action="store_true", help="the instances as the API describes them")
    chosen = parser.parse_args(words)
    if chosen.key and chosen.ssh_key:
        raise UsageError("--key names a key pair and --ssh-key a file; give one of them")
    client = ec2()
    image = _image(client, chosen.image)
    request: dict[str, object] = {
        "ImageId": image["ImageId"],
        "InstanceType": chosen.type,
        "MinCount": chosen.count,
        "MaxCount": chosen.count,
        "KeyName": chosen.key or _key(client, chosen.ssh_key),
        "SecurityGroupIds": _groups(client, chosen.group, chosen.open),
        "TagSpecifications": named(chosen.name, "instance"),
        "Placement": {"AvailabilityZone": chosen.zone} if chosen.zone else None,
        "BlockDeviceMappings": _disks(image, chosen.root_size, chosen.volume) or None,
        "UserData": None if chosen.user_data is None else _user_data(chosen.user_data),
        "IamInstanceProfile": {"Name": chosen.role} if chosen.role else None,
    }
    made: list[Shape] = client("run_instances", **request)["Instances"]
    if not chosen.no_wait:
        made = wait_until(client, [one["InstanceId"] for one in made], "running")
    if chosen.json:
        print(json.dumps(made, indent=2, default=str))
        return 0
    for one in made:
        where = f" at {one['PublicIpAddress']}" if one.get("PublicIpAddress") else ""
        print(f"{label(one)} is {one['State']['Name']}{where}")
    print(f"  celaje ssh {shlex.quote(_called(client, chosen.name, made[0]['InstanceId']))}")
    return 0


def _called(client: Client, name: str | None, identifier: str) -> str:
    """What other commands may call an instance: by its name if that is of no other."""
    if name is None:
        return identifier
    try:
        found(client, [name])
    except CelajeError:
        return identifier
    return name


def _image(client: Client, name: str) -> Shape:
    """The image of that name or identifier, the caller's own before a public one; one that is being built is waited
    for."""

    def look() -> tuple[Shape | None, str]:
        if name.startswith("ami-"):
            found = client("describe_images", ImageIds=[name])["Images"]
        else:
            found = client("describe_images", Filters=[{"Name": "name", "Values": [name]}])["Images"]
        if not found:
            have = sorted({str(one["Name"]) for one in client("describe_images")["Images"]})
            hint = f"there are: {', '.join(have)}" if have else "see what becomes of them: celaje image ls"
            raise NotFound(f"there is no image {name!r}; {hint}")
        found.sort(key=lambda one: (one["State"] != "available", one["Public"], one["CreationDate"]))
        why = found[0].get("StateReason", {}).get("Message", "")
        if found[0]["State"] not in ("available", "pending"):
            raise CelajeError(f"the image {name} is {found[0]['State']}: {why}")
        return (found[0] if found[0]["State"] == "available" else None), f"{found[0]['State']}; {why}"

    return wait(look, f"until the image {name} is available", 3600.0)


def key_file(account: str, region: str, name: str) -> Path:
    """Where the private key of a key pair is kept that this command has made."""
    return cloud_directory() / "keys" / f"{account}-{region}-{name}.pem"


def _key(client: Client, public: Path | None) -> str:
    """The name of the key pair to use, which is made where there is none."""
    if public is not None:
        return _imported(client, public)
    path = key_file(client_account(client), client.access.region, KEY)
    try:
        known = client("describe_key_pairs", KeyNames=[KEY])["KeyPairs"]
    except Refused as error:
        if error.code != "InvalidKeyPair.NotFound":
            raise
        known = []
    if known and path.exists():
        return KEY
    if known:
        raise CelajeError(
            f"the private key of the key pair {KEY!r} is not here ({path}); give --key or --ssh-key, or delete the "
            f"pair: aws ec2 delete-key-pair --key-name {KEY}"
        )
    made = client("create_key_pair", KeyName=KEY, KeyType="ed25519")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(made["KeyMaterial"])
    return KEY


def client_account(client: Client) -> str:
    """The account whose keys this client signs with."""
    return str(Client("sts", client.access)("get_caller_identity")["Account"])


def _imported(client: Client, public: Path) -> str:
    try:
        text = public.expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the key {public}: {error.strerror}; make one: ssh-keygen -t ed25519") from error
    name = f"celaje-{public.stem}"
    try:
        client("import_key_pair", KeyName=name, PublicKeyMaterial=text)
    except Refused as error:
        if error.code != "InvalidKeyPair.Duplicate":
            raise
        client("delete_key_pair", KeyName=name)
        client("import_key_pair", KeyName=name, PublicKeyMaterial=text)
    return name


def _groups(client: Client, given: list[str] | None, opened: list[str]) -> list[str]:
    """The groups to be in. What is to be opened is opened in a group of this command's own."""
    rules = [_rule(text) for text in opened]
    if given and not rules:
        return given
    found = client("describe_security_groups", Filters=[{"Name": "group-name", "Values": [KEY]}])["SecurityGroups"]
    if found:
        group = str(found[0]["GroupId"])
    else:
        text = "SSH and ping from anywhere, made by celaje launch"
        group = str(client("create_security_group", GroupName=KEY, Description=text)["GroupId"])
        rules += [_rule("tcp:22"), {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": _ANYWHERE}]
    for rule in rules:
        try:
            client("authorize_security_group_ingress", GroupId=group, IpPermissions=[rule])
        except Refused as error:
            if error.code != "InvalidPermission.Duplicate":
                raise
    return [*(given or []), group]


_ANYWHERE = [{"CidrIp": "0.0.0.0/0"}]


def _rule(text: str) -> Shape:
    protocol, _, ports = text.partition(":")
    first, _, last = ports.partition("-")
    if protocol not in ("tcp", "udp") or not first.isdigit() or (last and not last.isdigit()):
        raise UsageError(f"what is opened is a protocol and a port, such as tcp:80 or udp:6000-6010, not {text!r}")
    return {"IpProtocol": protocol, "FromPort": int(first), "ToPort": int(last or first), "IpRanges": _ANYWHERE}


def _disks(image: Shape, root: int | None, volumes: list[int]) -> list[Shape]:
    asked = [(image["RootDeviceName"], root)] if root else []
    asked += [(f"/dev/sd{letter}", bytes_) for letter, bytes_ in zip("fghijklmnop", volumes, strict=False)]
    if len(volumes) > len("fghijklmnop"):
        raise UsageError(f"an instance is launched with at most 11 more disks, not {len(volumes)}")
    return [{"DeviceName": device, "Ebs": {"VolumeSize": -(-bytes_ // (1 << 30))}} for device, bytes_ in asked]


def _user_data(path: Path) -> bytes:
    """As it is: botocore encodes it for the wire."""
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the user data {path}: {error.strerror}") from error
