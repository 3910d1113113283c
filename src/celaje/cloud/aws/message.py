"""One HTTP request and one answer, as the protocols see them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from celaje.cloud.aws.streams import RequestBody, ResponseBody

INSIDE = "127.169.254.250"
"""The loopback address to which networks bring what instances send to the API, at the port that it has elsewhere. Their
processes connect as any program of this host does: without an address of their own, guests would look like its owner.
"""


@dataclass(slots=True)
class HttpRequest:
    """`path` and `query` are as the client sent them, percent-encoded. `headers` have names in lower case, in the
    order of arrival. `body` is whole, b"" while (or where) it streams. `secure`: nobody on the way could read it, since
    it came through TLS or has not left this host (as browsers take loopback for secure). `inside`: it came to INSIDE,
    from an instance. `belongs_to` is told whose it is, once that is verified, and says whether the account may have
    what the request takes meanwhile.
    """

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    source: str = "127.0.0.1"
    secure: bool = False
    inside: bool = False
    belongs_to: Callable[[str], bool] = lambda account: True
    _index: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.headers:
            self._index.setdefault(name, value)

    def header(self, name: str) -> str | None:
        """The first of that name (in lower case)."""
        return self._index.get(name)

    def parameters(self) -> list[tuple[str, str]]:
        """The query's pairs, decoded. Raises UnicodeDecodeError where they are not UTF-8."""
        pairs = []
        for piece in self.query.split("&"):
            if piece:
                name, _, value = piece.partition("=")
                pairs.append((decoded(name), decoded(value)))
        return pairs


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is this very host's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False


def decoded(text: str) -> str:
    """One name or value of a query string."""
    if "%" not in text and "+" not in text:
        return text
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")


@dataclass(slots=True)
class HttpAnswer:
    """`body` that is not bytes streams, and is closed by who sends it."""

    status: int
    headers: list[tuple[str, str]]
    body: ResponseBody = b""


__all__ = ["INSIDE", "HttpAnswer", "HttpRequest", "RequestBody", "decoded", "is_loopback"]
