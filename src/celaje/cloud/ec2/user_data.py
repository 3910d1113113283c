"""User data: what a launch hands to its guests."""

from __future__ import annotations

import base64
import binascii

from celaje.cloud.aws.errors import AwsError

MOST_USER_DATA = 16_384  # bytes


def decoded_user_data(given: str | None, malformed: str = "InvalidParameterValue") -> bytes | None:
    """User data as the guest gets it. AwsError for what is too long, or no base64: `malformed` is the code of that."""
    if not given:
        return None
    try:
        # Lines may be broken, as encoders do it; a space is of a text that nobody encoded.
        data = base64.b64decode("".join(given.split("\n")).replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AwsError(malformed, "Invalid BASE64 encoding of user data.") from error
    return checked_user_data(data)


def checked_user_data(data: bytes) -> bytes:
    """`data`, if it is not too long. AwsError."""
    if len(data) > MOST_USER_DATA:
        raise AwsError("InvalidParameterValue", f"User data is limited to {MOST_USER_DATA} bytes")
    return data
