"""Identifiers that requests name."""

from __future__ import annotations

import re

from celaje.cloud.aws.errors import AwsError

_DIGITS = re.compile(r"[0-9a-f]{8}(?:[0-9a-f]{9})?")


def checked_id(value: str, prefix: str, noun: str) -> str:
    """`value`, if it has the form of an identifier of `prefix`. Otherwise AwsError NOUN.Malformed, as AWS has it:
    `noun` begins the code, such as InvalidVolumeID.
    """
    head, _, digits = value.partition("-")
    if head != prefix or not _DIGITS.fullmatch(digits):
        raise AwsError(f"{noun}.Malformed", f'Invalid id: "{value}" (expecting "{prefix}-...")')
    return value
