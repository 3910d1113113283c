"""What a recipe makes, before it is published as an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a recipe makes: `files` by role (kernel, initrd, disk, firmware), all in one directory.

    `revision` is that of the recipes, "" for an image that no recipe made.
    """

    boot_method: str
    architecture: str
    command_line: str
    files: dict[str, Path]
    packages: dict[str, str]
    created: int
    notes: list[str] = field(default_factory=list)
    revision: str = ""
