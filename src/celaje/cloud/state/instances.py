"""Instances: what was asked for, and what was seen of it.

`wanted` is intent, and is written by actions alone; `state` is what clients are told, and goes through AWS's machine:

    pending ──> running ──> stopping ──> stopped ──> pending …
       │           │ ^          │           │
       │           │ └─ reboot  │           │
       └───────────┴────────────┴───────────┴──> shutting-down ──> terminated     (listed for an hour more)

Actions set the states that begin something (pending, stopping, shutting-down), in the transaction in which they write
intent; the controller sets those that something has come to (running, stopped, terminated).
"""

from __future__ import annotations

import datetime
from typing import Final, Literal

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from celaje.cloud.state.base import Base, Resource, Structure
from celaje.cloud.state.hosts import LOCAL

State = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]

PENDING: Final = "pending"
RUNNING: Final = "running"
SHUTTING_DOWN: Final = "shutting-down"
TERMINATED: Final = "terminated"
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"

CODES: dict[str, int] = {PENDING: 0, RUNNING: 16, SHUTTING_DOWN: 32, TERMINATED: 48, STOPPING: 64, STOPPED: 80}
ON_A_HOST = (PENDING, RUNNING, STOPPING, SHUTTING_DOWN)  # states in which memory and CPUs are held
TERMINATED_IS_LISTED = datetime.timedelta(hours=1)


class MetadataOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the metadata service answers the instance; words are AWS's."""

    http_endpoint: str = "enabled"
    http_tokens: str = "optional"
    http_put_response_hop_limit: int = 1
    http_protocol_ipv6: str = "disabled"
    instance_metadata_tags: str = "disabled"


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """What the status checks of a running instance found: ok, initializing, or impaired. `system`: its process is there
    and answers; `instance`: its guest answers on the network."""

    system: str = "initializing"
    instance: str = "initializing"


class Instance(Resource, Base):
    """One instance. `created` is when it was made, `launched` when it was last started.

    `zone` is a whole name (us-east-1a); `interface` the primary network interface; `root_device` a name such as
    /dev/sda1. `wanted` is the state that it is to come to: running, stopped or terminated. `since`: when it came into
    its state. `forced`: a stop that does not wait for the guest.
    `reboot_asked`: when a reboot was that has not been done yet. `recoveries`: how often, since it was started, its
    machine was started again because its process had vanished. `failure` is what keeps the controller from going on,
    for a person, "" if nothing. `checked` is what the status checks came to, `checked_since` since when. `profile` is
    an instance profile's ARN, `profile_id` its id.
    """

    __tablename__ = "instances"

    reservation: Mapped[str] = mapped_column(index=True)
    launch_index: Mapped[int] = mapped_column(default=0)
    client_token: Mapped[str] = mapped_column(default="")
    image: Mapped[str]
    architecture: Mapped[str]
    instance_type: Mapped[str]
    zone: Mapped[str]
    host: Mapped[str] = mapped_column(default=LOCAL, index=True)
    vpc: Mapped[str]
    subnet: Mapped[str]
    interface: Mapped[str] = mapped_column(index=True)
    key_name: Mapped[str] = mapped_column(default="")
    key_line: Mapped[str] = mapped_column(default="")  # of authorized_keys; the key pair may be deleted meanwhile
    root_device: Mapped[str]
    launched: Mapped[datetime.datetime]

    wanted: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    since: Mapped[datetime.datetime]
    reason_code: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    transition_reason: Mapped[str] = mapped_column(default="")
    reboot_asked: Mapped[datetime.datetime | None]
    recoveries: Mapped[int] = mapped_column(default=0)
    forced: Mapped[bool] = mapped_column(default=False)
    failure: Mapped[str] = mapped_column(default="")
    checked: Mapped[Checks] = mapped_column(Structure(Checks), default=Checks())
    checked_since: Mapped[datetime.datetime | None]

    memory: Mapped[int]  # MiB, of the type; kept here so that a host's sum is one query
    vcpus: Mapped[int]
    user_data: Mapped[bytes | None]
    shutdown_behaviour: Mapped[str] = mapped_column(default="stop")
    protected: Mapped[bool] = mapped_column(default=False)  # DisableApiTermination
    stop_protected: Mapped[bool] = mapped_column(default=False)  # DisableApiStop
    metadata_options: Mapped[MetadataOptions] = mapped_column(Structure(MetadataOptions))
    profile: Mapped[str] = mapped_column(default="", index=True)
    profile_id: Mapped[str] = mapped_column(default="")
    profile_association: Mapped[str] = mapped_column(default="")
    monitoring: Mapped[bool] = mapped_column(default=False)
    ebs_optimized: Mapped[bool] = mapped_column(default=False)
    credits: Mapped[str] = mapped_column(default="")  # standard or unlimited; "" for types without
    ena_support: Mapped[bool] = mapped_column(default=True)
    auto_recovery: Mapped[str] = mapped_column(default="default")

    def enter(
        self, state: State, now: datetime.datetime, *, code: str = "", reason: str = "", transition: str = ""
    ) -> None:
        """Come into `state` at `now`, with what clients are told as its cause; the former cause goes."""
        self.state = state
        self.since = now
        self.reason_code, self.reason, self.transition_reason = code, reason, transition


def held(session: Session, host: str) -> tuple[int, int]:
    """(MiB of memory, CPUs) that instances have on `host`."""
    sums = select(func.coalesce(func.sum(Instance.memory), 0), func.coalesce(func.sum(Instance.vcpus), 0))
    memory, cpus = session.execute(sums.where(Instance.host == host, Instance.state.in_(ON_A_HOST))).one()
    return int(memory), int(cpus)
