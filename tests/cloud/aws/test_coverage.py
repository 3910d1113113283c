"""What `celaje api coverage` tells."""

from __future__ import annotations

import pytest

from celaje.cloud.aws.action import Actions, Answer, Call, Registry
from celaje.cloud.aws.coverage import coverage


def test_every_service_is_there_with_what_it_has_and_what_it_lacks() -> None:
    sts = Actions("sts")

    @sts.action
    def get_caller_identity(call: Call, request: dict[str, object]) -> Answer:
        return {}

    covered = {each.service: each for each in coverage(Registry([sts]))}
    assert {"ec2", "sts", "iam", "s3", "ssm", "ebs"} <= set(covered)
    assert covered["sts"].implemented == ["GetCallerIdentity"]
    assert "AssumeRole" in covered["sts"].missing
    assert covered["ec2"].operations > 800
    assert covered["ec2"].implemented == []


def test_an_action_that_aws_does_not_have_is_named() -> None:
    sts = Actions("sts")

    @sts.action
    def get_weather(call: Call, request: dict[str, object]) -> Answer:
        return {}

    with pytest.raises(ValueError, match="get_weather"):
        list(coverage(Registry([sts])))
