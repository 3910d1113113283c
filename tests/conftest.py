"""What every test finds: no setting of the person who runs them leaks in, and what a test keeps goes with it.

The image debian-mini and the tools are the exceptions: they are made before the tests (see .ci/run): tests use no
network.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from celaje.image import recipes
from celaje.image.description import parse
from tests.machine_processes import Machines, end_servers

# No law depends on how busy the host is.
settings.register_profile("celaje", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("celaje")

_SOURCE = Path(__file__).resolve().parent.parent / "src"
_SETTINGS = ("CELAJE_HOME", "CELAJE_DEBUG", "CELAJE_DEBIAN_MIRROR", "COLUMNS")
_OUTSIDE = {name: os.environ[name] for name in ("HOME", "CELAJE_HOME", "CELAJE_CACHE") if name in os.environ}

# Command -> the Debian package that has it.
_PACKAGES = {
    "qemu-riscv64": "qemu-user",
    "qemu-system-riscv64": "qemu-system-misc",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu",
    "qemu-img": "qemu-utils",
    "dtc": "device-tree-compiler",
    "e2fsck": "e2fsprogs",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / "celaje-home"))
    monkeypatch.setenv("PYTHONPATH", str(_SOURCE))  # for the processes that tests start, in whatever directory


@pytest.fixture(scope="session")
def outside_environment() -> dict[str, str]:
    """The environment with the images that were made before the tests: HOME and celaje's directories as they were."""
    return {**os.environ, **_OUTSIDE}


@pytest.fixture(scope="session")
def built_image(outside_environment: dict[str, str]) -> Callable[[str], Path]:
    """The directory of an image that was built before the tests; skips by name where it was not."""

    def find(name: str) -> Path:
        home = outside_environment.get("CELAJE_HOME")
        home_directory = Path(home) if home else Path(outside_environment["HOME"]) / ".local/share/celaje"
        directory = home_directory / "images" / name
        if not directory.exists():
            pytest.skip(f"the image {name} is not built (celaje image build {name})")
        if parse((directory / "image.json").read_text(), name).revision != recipes.revision():
            pytest.skip(f"the image {name} is another celaje's (celaje image build {name} makes this one's)")
        return directory

    return find


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Path of a command that the tests compare with; skips by name where it is not installed."""

    def find(name: str) -> str:
        # Debian keeps some of them out of an ordinary user's PATH.
        path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"{name} is not installed (Debian: {_PACKAGES[name]})")
        return path

    return find


@pytest.fixture(scope="session")
def debian_file() -> Callable[[str, str], Path]:
    """A file of a Debian package on this host; skips by name where the package is not installed."""

    def find(package: str, path: str) -> Path:
        if not Path(path).exists():
            pytest.skip(f"{path} is not there (Debian: {package})")
        return Path(path)

    return find


@pytest.fixture(scope="session")
def repetitions() -> Callable[[int, int], int]:
    """How often a test that repeats itself does: the first number; the second in `make test-full`, or any other that
    CELAJE_REPETITIONS says."""
    said = os.environ.get("CELAJE_REPETITIONS", "")

    def choose(few: int, many: int) -> int:
        return many if said == "full" else int(said or few)

    return choose


@pytest.fixture(scope="module")
def runtime() -> Iterator[Path]:
    """A short directory for sockets. The template and the networks' processes that listen there end with the file."""
    directory = Path(tempfile.mkdtemp(prefix="celaje-", dir="/tmp"))
    setting = pytest.MonkeyPatch()
    setting.setenv("XDG_RUNTIME_DIR", str(directory))
    try:
        yield directory
    finally:
        end_servers()
        setting.undo()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def machines(runtime: Path, tmp_path: Path) -> Iterator[Machines]:
    """Machines in processes of their own, none of which outlives the test."""
    found = Machines(tmp_path / "firmware")
    try:
        yield found
    finally:
        found.end()
