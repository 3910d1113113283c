"""`make demo`: the main job, from nothing. A cloud comes up on this machine, and boto3, which knows nothing of celaje,
makes a key pair and a volume, launches an instance, logs in, writes to the volume, terminates the instance, launches
another one that finds the data there, and fetches an object of S3 from inside it.

Everything goes through what people use: the `celaje` command and boto3. Each step is shown as it happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import botocore.client

CELAJE = (sys.executable, "-m", "celaje")
IMAGE = "debian-mini"
NAME = "celaje-demo"
INSIDE = "169.254.169.250"  # where the cloud's API is for its instances, at the same port
SERIAL = "/dev/disk/by-id"
COLOURS = sys.stdout.isatty()


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if COLOURS else text


@contextlib.contextmanager
def step(about: str) -> Iterator[Callable[[str], None]]:
    """Shows what is done, what comes of it, and how long it took."""
    print(bold(f"== {about}"), flush=True)
    began = time.monotonic()
    yield lambda text: print(f"   {text}", flush=True)
    print(f"   [{time.monotonic() - began:.1f} s]\n", flush=True)


def celaje(*words: str) -> str:
    """What a `celaje` command prints; its progress and errors are shown. The demo ends where it fails."""
    done = subprocess.run([*CELAJE, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"demo: celaje {' '.join(words)} ended with status {done.returncode}")
    return done.stdout.strip()


class Demo:
    """The cloud as boto3 sees it, and what was made in it."""

    def __init__(self) -> None:
        settings = json.loads(celaje("env", "--json"))
        session = boto3.Session(
            settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"], region_name=settings["AWS_REGION"]
        )
        self.endpoint = settings["AWS_ENDPOINT_URL"]
        self.ec2 = session.client("ec2", endpoint_url=self.endpoint)
        path_style = botocore.client.Config(s3={"addressing_style": "path"})
        self.s3 = session.client("s3", endpoint_url=self.endpoint, config=path_style)
        inside = f"http://{INSIDE}:{self.endpoint.rpartition(':')[2]}"
        self.s3_inside = session.client("s3", endpoint_url=inside, config=path_style)
        self.key = Path(tempfile.mkdtemp(prefix="celaje-demo-")) / "key"

    def image(self) -> str:
        """The image's identifier, when it is built."""
        shown = ""
        while True:
            (found,) = self.ec2.describe_images(
                Owners=["amazon"], Filters=[{"Name": "name", "Values": [IMAGE]}]
            )["Images"]
            if found["State"] == "available":
                return str(found["ImageId"])
            told = found.get("StateReason", {}).get("Message", "")
            if told != shown:
                print(f"   {found['State']}: {told}", flush=True)
                shown = told
            time.sleep(0.5)

    def launch(self, image: str, group: str) -> str:
        """A running instance."""
        made = self.ec2.run_instances(
            ImageId=image,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            KeyName=NAME,
            SecurityGroupIds=[group],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": NAME}]}],
        )
        identifier = str(made["Instances"][0]["InstanceId"])
        self.ec2.get_waiter("instance_running").wait(
            InstanceIds=[identifier], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        return identifier

    def run(self, instance: str, command: str) -> str:
        """What a command in the guest prints, over SSH; the command is shown."""
        print(f"   admin@{instance}$ {command}", flush=True)
        printed = celaje("ssh", "-i", str(self.key), instance, command)
        for line in printed.splitlines():
            print(f"   {line}", flush=True)
        return printed

    def attach(self, volume: str, instance: str) -> str:
        """Attach the volume; the guest's name for it."""
        self.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        self.ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume])
        found = f"ls {SERIAL} 2>/dev/null | grep {volume.replace('-', '')} | head -1"
        link = self.run(instance, f"for i in $(seq 60); do {found} | grep . && break; sleep 1; done")
        if not link:
            sys.exit("demo: the volume did not appear in the guest")
        return f"{SERIAL}/{link}"

    def terminate(self, instance: str) -> None:
        """Terminate it, and wait until it is."""
        self.ec2.terminate_instances(InstanceIds=[instance])
        self.ec2.get_waiter("instance_terminated").wait(
            InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )


def main() -> None:
    began = time.monotonic()
    with step("A cloud comes up: celaje up --detach") as say:
        say(celaje("up", "--detach").splitlines()[0])
    demo = Demo()
    with step(f"The image {IMAGE} is built from Debian's signed packages, in the background, at the first time") as say:
        image = demo.image()
        say(f"{image} is available")
    _clear(demo)
    with step("boto3: a key pair, a security group that admits SSH, and a volume of 1 GiB") as say:
        material = demo.ec2.create_key_pair(KeyName=NAME, KeyType="ed25519")["KeyMaterial"]
        demo.key.touch(0o600)
        demo.key.write_text(material)
        group = demo.ec2.create_security_group(GroupName=NAME, Description="of the demo")["GroupId"]
        demo.ec2.authorize_security_group_ingress(
            GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
        )
        zone = demo.ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
        volume = demo.ec2.create_volume(
            AvailabilityZone=zone,
            Size=1,
            VolumeType="gp3",
            TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": NAME}]}],
        )["VolumeId"]
        demo.ec2.get_waiter("volume_available").wait(
            VolumeIds=[volume], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        say(f"{group}, {volume} in {zone}")
    with step("boto3: an instance; SSH to its public address") as say:
        first = demo.launch(image, group)
        address = demo.ec2.describe_instances(InstanceIds=[first])["Reservations"][0]["Instances"][0]["PublicIpAddress"]
        say(f"{first} runs at {address}")
        demo.run(first, "uname -srm; uptime")
    with step("The volume is attached while it runs; a file system on it, and a file") as say:
        device = demo.attach(volume, first)
        demo.run(first, f"sudo mkfs.ext4 -q {device} && sudo mkdir -p /data && sudo mount {device} /data")
        demo.run(first, "echo 'written by the first instance' | sudo tee /data/note >/dev/null; sudo umount /data")
    with step("The instance is terminated; the volume outlives it") as say:
        demo.terminate(first)
        (state,) = demo.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
        say(f"{first} is terminated, {volume} is {state['State']}")
    with step("Another instance finds the data there") as say:
        second = demo.launch(image, group)
        device = demo.attach(volume, second)
        told = demo.run(second, f"sudo mkdir -p /data && sudo mount {device} /data && cat /data/note")
        if told != "written by the first instance":
            sys.exit("demo: the data is not there")
    with step("boto3: an object in S3, fetched from inside the instance") as say:
        bucket = f"{NAME}-{int(time.time())}"
        demo.s3.create_bucket(Bucket=bucket)
        demo.s3.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello from S3\n")
        url = demo.s3_inside.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "hello.txt"})
        if demo.run(second, f"wget -q -O - '{url}'") != "hello from S3":
            sys.exit("demo: the object did not come")
    print(bold(f"That was the main job, in {time.monotonic() - began:.0f} s. The instance still runs; next:\n"))
    print(f"  celaje ls\n  celaje ssh -i {demo.key} {NAME}\n  celaje console {NAME}")
    print('  eval "$(celaje env)"; aws ec2 describe-instances')
    print(f"  celaje terminate {NAME}\n  celaje down")


def _clear(demo: Demo) -> None:
    """What an earlier demo has left under the same names."""
    for reservation in demo.ec2.describe_instances(
        Filters=[
            {"Name": "tag:Name", "Values": [NAME]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
    )["Reservations"]:
        for instance in reservation["Instances"]:
            demo.terminate(instance["InstanceId"])
    for volume in demo.ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [NAME]}])["Volumes"]:
        with contextlib.suppress(botocore.client.ClientError):
            demo.ec2.delete_volume(VolumeId=volume["VolumeId"])
    with contextlib.suppress(botocore.client.ClientError):
        demo.ec2.delete_key_pair(KeyName=NAME)
    with contextlib.suppress(botocore.client.ClientError):
        demo.ec2.delete_security_group(GroupName=NAME)


if __name__ == "__main__":
    os.umask(0o077)
    main()
