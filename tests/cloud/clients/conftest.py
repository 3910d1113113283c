"""A public image and a host with room for its instances."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest

from celaje.cloud.state.hosts import LOCAL, Host
from celaje.cloud.state.images import BlockDevice, Image
from celaje.cloud.state.instances import held
from celaje.cloud.state.snapshots import Snapshot
from tests.cloud.served import REGION, ServedCloud

NOW = datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC)


@pytest.fixture
def image(served_cloud: ServedCloud) -> str:
    """The identifier of an image that everybody may launch. It is this test's own."""
    number = uuid.uuid4().hex[:17]
    about: dict[str, Any] = {"account": served_cloud.root.account, "region": REGION, "created": NOW}
    with served_cloud.database.write() as session:
        memory, cpus = held(session, LOCAL)
        session.merge(Host(id=LOCAL, memory=memory + 8192, cpus=cpus + 64, architectures="riscv64", noted=NOW))
        session.add(Snapshot(id=f"snap-{number}", **about, volume="", size=1, state="completed", public=True))
        device = BlockDevice(device="/dev/sda1", snapshot=f"snap-{number}", size=1)
        session.add(
            Image(
                id=f"ami-{number}",
                **about,
                name=f"image-{number}",
                architecture="riscv64",
                state="available",
                public=True,
                devices=[device],
                host_image="debian-mini",
            )
        )
    return f"ami-{number}"


@pytest.fixture
def launched(ec2: Any, image: str) -> str:
    """An instance, which stays pending: nothing starts machines here."""
    [instance] = ec2.run_instances(ImageId=image, InstanceType="t3.nano", MinCount=1, MaxCount=1)["Instances"]
    return str(instance["InstanceId"])
