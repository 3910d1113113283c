"""Tokens that say which block of a snapshot may be read, and until when; and where a list goes on.

Both are base64, as the model's patterns want them, of numbers and a MAC over them and what they are for. They are kept
nowhere.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hmac
import struct

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError

LIFE = datetime.timedelta(days=7)
_MAC = 16
_NUMBER = struct.Struct(">Q")


def _mac(call: Call, *words: object) -> bytes:
    text = "\0".join(str(word) for word in ("ebs", call.account, call.region, *words))
    return hmac.digest(call.token_key, text.encode(), "sha256")[:_MAC]


def _opened(token: str, reason: str) -> tuple[int, bytes]:
    try:
        content = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != _NUMBER.size + _MAC:
        raise refused(reason)
    return _NUMBER.unpack_from(content)[0], content[_NUMBER.size :]


def refused(reason: str) -> AwsError:
    """The refusal of a token that is none."""
    what = "block token" if reason == "INVALID_BLOCK_TOKEN" else "page token"
    return AwsError("ValidationException", f"The {what} is invalid or has expired", fields={"Reason": reason})


def expiry(call: Call) -> datetime.datetime:
    """When tokens that are given now expire."""
    return (call.now + LIFE).replace(microsecond=0)


def block_token(call: Call, snapshot: str, index: int, until: datetime.datetime) -> str:
    """The token for one block."""
    seconds = int(until.timestamp())
    return base64.b64encode(_NUMBER.pack(seconds) + _mac(call, "block", snapshot, index, seconds)).decode("ascii")


def check_block_token(call: Call, token: str, snapshot: str, index: int) -> None:
    """AwsError ValidationException unless it is for this block and this account, and still good."""
    seconds, mac = _opened(token, "INVALID_BLOCK_TOKEN")
    good = hmac.compare_digest(mac, _mac(call, "block", snapshot, index, seconds))
    if not good or call.now.timestamp() >= seconds:
        raise refused("INVALID_BLOCK_TOKEN")


def page_token(call: Call, listed: str, following: int) -> str:
    """The token of a list's next page, which begins at the block `following`."""
    return base64.b64encode(_NUMBER.pack(following) + _mac(call, "page", listed, following)).decode("ascii")


def opened_page_token(call: Call, token: str, listed: str) -> int:
    """The block at which the page begins. AwsError ValidationException."""
    following, mac = _opened(token, "INVALID_PAGE_TOKEN")
    if not hmac.compare_digest(mac, _mac(call, "page", listed, following)):
        raise refused("INVALID_PAGE_TOKEN")
    return following
