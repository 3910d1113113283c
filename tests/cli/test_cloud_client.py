"""What the command says when the cloud refuses a request."""

from __future__ import annotations

import re

import pytest

from celaje.cli.cloud_client import NEXT_COMMANDS, Refused
from celaje.cli.cloud_volumes import _named
from celaje.cli.command import find
from celaje.errors import NotFound


def test_a_refusal_ends_with_the_next_command() -> None:
    refused = Refused("InvalidSnapshotID.Malformed", 'Invalid id: "nope" (expecting "snap-...")')
    assert str(refused).endswith("(InvalidSnapshotID.Malformed); these are there: celaje snapshot ls")
    assert refused.code == "InvalidSnapshotID.Malformed"


def test_a_refusal_that_says_itself_what_to_do_gets_no_hint() -> None:
    assert str(Refused("InvalidPermission.Duplicate", "It is there.")) == "It is there. (InvalidPermission.Duplicate)"


@pytest.mark.parametrize("hint", sorted({*NEXT_COMMANDS.values()}))
def test_every_command_of_a_hint_exists(hint: str) -> None:
    for typed in re.findall(r"celaje ([^\")]+)", hint):
        find(typed.split())


def test_volumes_are_listed_by_name_and_identifier_where_names_repeat() -> None:
    tags = [{"Key": "Name", "Value": "data"}]
    items = [{"VolumeId": "vol-1", "Tags": tags}, {"VolumeId": "vol-2", "Tags": tags}, {"VolumeId": "vol-3"}]
    with pytest.raises(NotFound, match=r"there are: data \(vol-1\), data \(vol-2\), vol-3$"):
        _named(items, "VolumeId", "volume", "nope")
    with pytest.raises(NotFound, match="celaje volume create"):
        _named([], "VolumeId", "volume", "nope")
