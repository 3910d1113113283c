"""Pages of a list: opaque tokens that say where the next page begins, and that only their own query may use.

    rows, token = page(call, request, volumes, key=lambda volume: volume.id)
    return {"Volumes": [answered(row) for row in rows], "NextToken": token}

A token holds the last item's key, not a count, so items that come or go between two pages neither repeat nor hide
others. It is signed with this cloud's key over who asked what (service, operation, account, region, and every
parameter but the token and the page's size), so that it cannot be forged and does not work with other filters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError

Item = TypeVar("Item")
_MAC_BYTES = 16
# What each service says of a token that is not one of its own.
_REFUSED = {
    "ec2": (
        "InvalidPaginationToken",
        "The pagination token is not valid: use it as it was returned, and repeat the parameters of that request",
    ),
    "iam": ("ValidationError", "Invalid Marker."),
    "organizations": (
        "InvalidInputException",
        "INVALID_PAGINATION_TOKEN: the value of NextToken is the one of the answer before.",
    ),
    "servicequotas": ("InvalidPaginationTokenException", "Invalid input was provided."),
    "ssm": ("InvalidNextToken", "The specified token isn't valid."),
}


def page(
    call: Call,
    request: Mapping[str, object],
    items: Iterable[Item],
    key: Callable[[Item], str],
    *,
    least: int = 5,
    most: int = 1000,
    default: int | None = None,
    token_member: str = "NextToken",
    size_member: str = "MaxResults",
) -> tuple[list[Item], str | None]:
    """One page of `items` and the token of the next, None after the last.

    Items are ordered by `key`, which must be unique and must not change: an identifier, or a moment and an identifier
    (`f"{created:%Y%m%d%H%M%S%f} {id}"`) where age is the order. Without a size in the request the page has `default`
    items; None is all of them. As at AWS, a size below `least` is refused (InvalidParameterValue) and one above
    `most` is `most`. A token that is not this query's raises the service's AwsError: EC2's InvalidPaginationToken.
    """
    size = request.get(size_member)
    if size is None:
        size = default
    elif not isinstance(size, int) or size < least:
        name = size_member[0].lower() + size_member[1:]
        raise AwsError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter {name} is invalid. Expecting a value from {least} to {most}.",
        )
    else:
        size = min(size, most)
    keyed = sorted(((key(item), item) for item in items), key=lambda pair: pair[0])
    token = request.get(token_member)
    query = _query(call, request, token_member, size_member)
    if token:
        after = _opened(call, query, token)
        keyed = [pair for pair in keyed if pair[0] > after]
    if size is None or len(keyed) <= size:
        return [item for _, item in keyed], None
    keyed = keyed[:size]
    return [item for _, item in keyed], _sealed(call, query, keyed[-1][0])


def _query(call: Call, request: Mapping[str, object], token_member: str, size_member: str) -> bytes:
    asked = {name: value for name, value in request.items() if name not in (token_member, size_member) and value}
    encoded = msgspec.json.encode(
        (call.service, call.operation, call.account, call.region, asked), enc_hook=repr, order="sorted"
    )
    return hashlib.blake2b(encoded, digest_size=32).digest()


def _mac(call: Call, query: bytes, key: bytes) -> bytes:
    return hmac.digest(call.token_key, query + key, "sha256")[:_MAC_BYTES]


def _sealed(call: Call, query: bytes, key: str) -> str:
    encoded = key.encode()
    return base64.urlsafe_b64encode(_mac(call, query, encoded) + encoded).decode("ascii")


def _opened(call: Call, query: bytes, token: object) -> str:
    try:
        raw = base64.b64decode(str(token).encode("ascii"), altchars=b"-_", validate=True)
        mac, key = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if hmac.compare_digest(mac, _mac(call, query, key)):
            return key.decode()
    except (binascii.Error, ValueError):
        pass
    code, message = _REFUSED.get(call.service, _REFUSED["ec2"])
    raise AwsError(code, message)
