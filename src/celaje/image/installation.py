"""A Debian, installed inside a machine: what its packages' own scripts do, they do on the processor that they are for.

The host has unpacked the packages into a tree (dpkg.py). The guest makes a file system of it, runs `dpkg --configure`
in it and what is left to set up, tells on its console how far it is, and switches off.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from celaje.errors import GuestError
from celaje.image import tar
from celaje.image.filesystem import Disk, MachineRun, RunMachine, Target, Toolbox, check
from celaje.image.initramfs import initramfs
from celaje.image.progress import BuildProgress
from celaje.image.tree import Tree

VERDICT_INSTALLED = "celaje: installed"
_VERDICT_FAILED = "celaje: installation failed:"
_STAGE = "celaje: stage "
_CONFIGURED = re.compile(r"Setting up (\S+?)(?::\w+)? \(")
_MEMORY_MIB = 1024
_HARTS = 2
_TIMEOUT = 7200.0  # seconds; half an hour is much
_LAST_LINES = 12


def system_file(name: str) -> bytes:
    """The text of one of the files in celaje/image/system."""
    return resources.files("celaje.image").joinpath("system", name).read_bytes()


def install(
    tree: Tree, packages: int, target: Target, toolbox: Toolbox, run_machine: RunMachine, progress: BuildProgress
) -> None:
    """Make the Debian whose unpacked root directory is `tree`, with `packages` packages, at `target`.

    GuestError, with what the guest said last, where one of its scripts fails; ImageError where it leaves no clean file
    system.
    """
    with tempfile.TemporaryDirectory(dir=target.path.parent, prefix=".installation-") as place:
        source = Path(place) / "source.tar"
        with open(source, "wb") as file:
            tar.write(tree, file)
        initrd = Path(place) / "initrd"
        initrd.write_bytes(initramfs(toolbox.tree, system_file("install")))
        command_line = (
            f"console=ttyS0 quiet panic=-1 celaje.uuid={target.identifier} celaje.label={target.label} "
            f"celaje.partition={target.partition}"
        )
        console = run_machine(
            MachineRun(
                toolbox.kernel,
                initrd,
                command_line,
                (Disk(target.path, "target"), Disk(source, "source", read_only=True)),
                _MEMORY_MIB,
                harts=_HARTS,
                timeout=_TIMEOUT,
                told=_told(packages, progress),
            )
        )
    _judge(console)
    check(target)


def _told(packages: int, progress: BuildProgress) -> Callable[[str], None]:
    """What turns the guest's lines into progress."""
    done = 0

    def told(line: str) -> None:
        nonlocal done
        configured = _CONFIGURED.match(line)
        if configured:
            done += 1
            progress.stage(f"Configuring inside a machine: {configured[1]} ({done} of {packages})")
        elif line.startswith(_STAGE):
            progress.stage(f"{line.removeprefix(_STAGE)} inside a machine")

    return told


def _judge(console: str) -> None:
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    if VERDICT_INSTALLED in lines:
        return
    said = next((line for line in reversed(lines) if line.startswith(_VERDICT_FAILED)), f"{_VERDICT_FAILED} no verdict")
    raise GuestError(f"{said.removeprefix('celaje: ')}; its console ended with: {' | '.join(lines[-_LAST_LINES:])}")


def identifier_of(namespace: uuid.UUID, versions: dict[str, str]) -> uuid.UUID:
    """A file system's identifier that is the same for the same packages."""
    return uuid.uuid5(namespace, " ".join(f"{name}={version}" for name, version in sorted(versions.items())))
