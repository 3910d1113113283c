"""Tags in requests."""

from __future__ import annotations

import pytest

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.tag_specifications import checked_tags, tags_by_type, tags_for


def test_tags_are_those_of_the_resource_type() -> None:
    given = [
        {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web"}, {"Key": "bare"}]},
        {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "data"}]},
    ]
    assert tags_by_type(given, "instance", "volume", "network-interface") == {
        "instance": {"Name": "web", "bare": ""},
        "volume": {"Name": "data"},
        "network-interface": {},
    }
    assert tags_for(None, "volume") == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"Tags": [{"Key": "a"}]}], "resource type must have a value"),
        ([{"ResourceType": "vpc", "Tags": [{"Key": "a"}]}], "'vpc' is not a valid taggable resource type"),
        ([{"ResourceType": "volume"}], "at least one tag"),
        ([{"ResourceType": "volume", "Tags": [{"Key": "a"}]}] * 2, "more than once"),
    ],
)
def test_a_specification_that_is_none_is_refused(given: list[dict[str, object]], message: str) -> None:
    with pytest.raises(AwsError, match=message) as refused:
        tags_for(given, "volume")
    assert refused.value.code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("tags", "code", "message"),
    [
        ([{"Value": "x"}], "InvalidParameterValue", "cannot be null or empty"),
        ([{"Key": "aws:made"}], "InvalidParameterValue", "reserved"),
        ([{"Key": "k" * 129}], "InvalidParameterValue", "128"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue", "256"),
        ([{"Key": "k"}, {"Key": "k"}], "InvalidParameterValue", "Duplicate tag key 'k' specified."),
        ([{"Key": f"k{number}"} for number in range(51)], "TagLimitExceeded", "at most 50"),
    ],
)
def test_a_tag_that_aws_would_refuse_is_refused(tags: list[dict[str, object]], code: str, message: str) -> None:
    with pytest.raises(AwsError, match=message) as refused:
        checked_tags(tags)
    assert refused.value.code == code
