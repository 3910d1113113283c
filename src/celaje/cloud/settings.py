"""What the owner of a cloud decides: CELAJE_HOME/cloud/settings.json, made with the defaults at the first start."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from celaje import paths
from celaje.errors import InputError
from celaje.typed_data import from_json

FILE_NAME = "settings.json"

_FEWEST_ADDRESSES = 4

Region = Annotated[str, Meta(pattern="^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")]
Zone = Annotated[str, Meta(pattern="^[a-z]$")]
Zones = Annotated[tuple[Zone, ...], Meta(min_length=1)]
Positive = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`regions` are names of AWS's form, each with zones `a`, `b`, …; `public_pool` is a network of the host's own
    addresses, of 127/8 or such as it was given, from which public addresses are given; `port` is the API's on
    `address`; `name` begins the host names that S3 answers to.
    `images` are the recipes whose images everybody may launch, built in this order.

    Instances may have the host's memory but for `reserved_memory` (MiB), which the host keeps for itself, times
    `memory_overcommit`; it is the owner's risk to set that above 1, since a guest may touch all that it has. They may
    have `cpu_overcommit` vCPUs for each CPU of the host: those that idle cost nothing.

    `lifecycle_day_seconds` is how long a day is in the lifecycle rules of S3's buckets: less, and one can watch.
    `encrypt_new_buckets`: what is put into S3's buckets made from then on is encrypted at rest unasked, as AWS has it.
    """

    regions: Annotated[dict[Region, Zones], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: {"us-east-1": ("a", "b"), "eu-west-1": ("a", "b")}
    )
    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 4566
    public_pool: str = "127.64.0.0/10"
    images: tuple[str, ...] = ("debian-mini", "debian-13")
    reserved_memory: Annotated[int, Meta(ge=0)] = 1024
    memory_overcommit: Positive = 1.0
    cpu_overcommit: Positive = 64.0
    lifecycle_day_seconds: Positive = 86_400.0
    encrypt_new_buckets: bool = False


def cloud_directory() -> Path:
    """Where the cloud keeps its state; it need not exist yet."""
    return paths.home() / "cloud"


def read_settings(directory: Path) -> Settings:
    """The settings of the cloud in `directory`, written there where there are none. InputError if they are unreadable,
    with what is wrong."""
    path = paths.made(directory) / FILE_NAME
    try:
        settings = from_json(path.read_bytes(), Settings)
        _check(settings)
        return settings
    except FileNotFoundError:
        settings = Settings()
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise InputError(
            f"{path} is not what settings must be ({error}); mend it, or remove it for defaults"
        ) from error
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
    os.replace(fresh, path)
    return settings


def _check(settings: Settings) -> None:
    """ValueError for what a type does not say."""
    for region, zones in settings.regions.items():
        if len(set(zones)) < len(zones):
            raise ValueError(f"the region {region} has a zone twice")
    try:
        pool = ipaddress.IPv4Network(settings.public_pool)
    except ValueError as error:
        raise ValueError(f"public_pool {settings.public_pool!r} is no network of version 4: {error}") from None
    if pool.num_addresses < _FEWEST_ADDRESSES:
        raise ValueError(f"public_pool {pool} has fewer than {_FEWEST_ADDRESSES} addresses")
