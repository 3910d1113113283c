"""A machine's further network cards in a running Debian: plugged in, used, kept in a snapshot, and pulled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.debian_guest import Guest, booted, celaje, place, restored

TIMES = 3


@pytest.fixture(autouse=True)
def _no_settings_from_outside() -> None:
    """`home` makes the settings that these tests need."""


@pytest.fixture
def home(built_image: Callable[[str], Path], tmp_path: Path) -> Iterator[Path]:
    with place(tmp_path / "home", built_image("debian-mini")) as found:
        yield found


def address(guest: Guest, card: str) -> str:
    """What DHCP has told it there."""
    guest.wait(f"ip -o -4 address show {card} 2>/dev/null | grep -q inet")
    return guest.run(f"ip -o -4 address show {card} | awk '{{print $4}}'").partition("/")[0]


def test_cards_come_and_go_and_are_there_again_after_a_snapshot(
    home: Path, built_image: Callable[[str], Path], tmp_path: Path
) -> None:
    image = built_image("debian-mini")
    one = booted("one", image, "--network", "user,network=back")
    two = booted("two", image, "--network", "user,network=back")
    peer = address(two, "eth0")
    for _ in range(TIMES):
        celaje("vm", "plug", "one", "--network", "user,network=back")
        own = address(one, "eth1")
        one.wait(f"ping -c 1 -W 2 -I eth1 {peer} >/dev/null")
        celaje("vm", "unplug", "one", "1")
        one.wait("[ ! -e /sys/class/net/eth1 ]")
        assert two.status(f"ping -c 1 -W 1 {own}")[0] != 0
    celaje("vm", "plug", "one", "--network", "user,network=back")
    own = address(one, "eth1")
    file = tmp_path / "one.snap"
    celaje("vm", "snapshot", "one", file)
    celaje("vm", "kill", "one")
    again = restored("again", file, "user,network=back")
    again.wait(f"ping -c 1 -W 2 -I eth1 {peer} >/dev/null")
    assert address(again, "eth1") == own
    celaje("vm", "unplug", "again", "1")
    celaje("vm", "plug", "again", "--network", "user,network=back")  # the guest has yet to let go of the former one
    again.wait(f"ping -c 1 -W 2 -I eth1 {peer} >/dev/null 2>&1")
