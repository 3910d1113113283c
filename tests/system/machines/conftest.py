"""What the tests of lasting machines share: a home for a module, and snapshots of two Debians for the whole session."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.debian_guest import MEMORY, Guest, celaje, place, remove, up


@pytest.fixture(autouse=True)
def _no_settings_from_outside(home: Path) -> None:
    """A module's tests share their home, which has been made without settings from outside."""


@pytest.fixture(scope="session")
def key(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key of SSH; the public one is beside it."""
    tool("ssh")
    path = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def frozen(
    built_image: Callable[[str], Path], key: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Snapshots of the running machines `one` and `two`, by name. Both let root and admin in with `key`."""
    image = built_image("debian-mini")
    directory = tmp_path_factory.mktemp("frozen")
    files = {name: directory / f"{name}.snap" for name in ("one", "two")}
    with place(directory / "home", image):
        for name in files:
            celaje("vm", "start", name, image, "--memory", MEMORY, "--ssh-key", key.with_suffix(".pub"))
        for guest in map(up, files):
            guest.run("sync")
            celaje("vm", "snapshot", guest.name, files[guest.name])
            guest.close()
    return files


@pytest.fixture(scope="module")
def home(
    built_image: Callable[[str], Path], frozen: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """CELAJE_HOME of the module's machines, which end with it."""
    with place(tmp_path_factory.mktemp("module") / "home", built_image("debian-mini")) as found:
        yield found


@pytest.fixture
def leaving() -> Iterator[Callable[[Guest], Guest]]:
    """Takes guests that are to be removed at the end of the test."""
    guests: list[Guest] = []

    def take(guest: Guest) -> Guest:
        guests.append(guest)
        return guest

    yield take
    for guest in guests:
        remove(guest)
