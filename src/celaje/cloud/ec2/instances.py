"""All actions on instances."""

from __future__ import annotations

from celaje.cloud.aws.action import Actions
from celaje.cloud.ec2 import (
    instance_attributes,
    instance_descriptions,
    instance_launch,
    instance_life,
    instance_status,
    metadata_options,
    profiles,
)

ACTIONS = Actions("ec2")
for module in (
    instance_attributes,
    instance_descriptions,
    instance_launch,
    instance_life,
    instance_status,
    metadata_options,
    profiles,
):
    ACTIONS.include(module.ACTIONS)
