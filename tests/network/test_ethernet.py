"""Ethernet addresses."""

from __future__ import annotations

import pytest

from celaje.network import ethernet


@pytest.mark.parametrize(
    ("mac", "unicast"),
    [
        ("525400000001", True),
        ("020000000001", True),
        ("010000000001", False),
        ("ffffffffffff", False),
        ("000000000000", False),
        ("5254000000", False),
    ],
)
def test_an_interface_has_an_address_of_its_own(mac: str, unicast: bool) -> None:
    assert ethernet.is_unicast(bytes.fromhex(mac)) is unicast


def test_an_address_is_written_with_colons() -> None:
    assert ethernet.text(bytes.fromhex("5254000a0001")) == "52:54:00:0a:00:01"
