"""The README is run: every ```sh block is a script that must work as it stands; ```console blocks show and are not run.

A block under `<!-- run: IMAGE -->` needs that image, which is built before the tests; without it the block is skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.report import LATEST, fill, read
from celaje import paths
from celaje.host import record
from tests.machine_processes import end, end_servers

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?:<!-- run: (\S+) -->\n)?```sh\n(.*?)```", README, re.S)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory for sockets. The template and the networks' processes that listen there end with the test."""
    with tempfile.TemporaryDirectory(prefix="celaje-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)
        end_servers()


@pytest.fixture
def shell(tmp_path: Path, runtime: Path, outside_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """An environment with an empty HOME, this celaje first on PATH, and the images and the code cache from outside.
    What a block leaves running is ended."""
    command = tmp_path / "bin" / "celaje"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m celaje "$@"\n')
    command.chmod(0o755)
    outside = Path(outside_environment["HOME"])
    images = Path(outside_environment.get("CELAJE_HOME", outside / ".local/share/celaje")) / "images"
    home = paths.home()
    (home / "cloud").mkdir(parents=True)
    (home / "images").symlink_to(images)
    (home / "cloud" / "settings.json").write_text('{"port": 0, "images": ["debian-mini"]}')
    yield {
        **outside_environment,
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "CELAJE_HOME": str(home),
        "CELAJE_CACHE": outside_environment.get("CELAJE_CACHE", str(outside / ".cache/celaje")),
    }
    with contextlib.suppress(FileNotFoundError):
        end(json.loads((home / "cloud" / "daemon.json").read_text())["process"])
    for name in record.names():
        end(record.MachineDirectory.of(name).holder())


@pytest.mark.parametrize(("image", "script"), BLOCKS, ids=[script.split("\n")[0][:40] for _, script in BLOCKS])
def test_a_shell_block_of_the_readme_works_as_it_stands(
    image: str, script: str, shell: dict[str, str], built_image: Callable[[str], Path], tmp_path: Path
) -> None:
    if image:
        built_image(image)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=shell,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_shows_commands_that_are_run() -> None:
    assert len(BLOCKS) >= 2


def test_every_file_that_the_readme_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_numbers_in_the_readme_are_those_of_the_committed_benchmark() -> None:
    if not LATEST.exists():
        assert "Not measured yet." in README
    else:
        assert fill(README, read()) == README
