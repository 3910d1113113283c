"""Identifiers that requests name."""

from __future__ import annotations

import re

from celaje.cloud.aws.errors import AwsError

_DIGITS = re.compile(r"[0-9a-f]{8}(?:[0-9a-f]{9})?")


def is_id(value: str, prefix: str) -> bool:
    """Whether a text has the form of an identifier of `prefix`."""
    head, _, digits = value.partition("-")
    return head == prefix and _DIGITS.fullmatch(digits) is not None


def checked_id(value: str, prefix: str, noun: str) -> str:
    """`value`, if it has the form of an identifier of `prefix`. Otherwise AwsError NOUN.Malformed, as AWS has it:
    `noun` begins the code, such as InvalidVolumeID.
    """
    if not is_id(value, prefix):
        raise AwsError(f"{noun}.Malformed", f'Invalid id: "{value}" (expecting "{prefix}-...")')
    return value
