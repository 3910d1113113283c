"""The images that celaje can build, and what can be done with those that it has built.

Adding a recipe is one entry in RECIPES: a name, a line about it, and a function that makes the files in a directory.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from celaje.errors import ImageError, NotFound
from celaje.image import debian_13, debian_mini, store
from celaje.image.archive import Archive
from celaje.image.archive_keys import ArchiveKeys
from celaje.image.bundle import Bundle
from celaje.image.filesystem import RunMachine
from celaje.image.ingredients import ARCHITECTURE
from celaje.image.mirror import Mirror
from celaje.image.progress import BuildProgress, Silence
from celaje.image.store import Image


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made: `make(directory, archive, run_machine, progress)` writes its files into `directory`."""

    about: str
    codename: str
    architecture: str
    make: Callable[[Path, Archive, RunMachine, BuildProgress], Bundle]


def _debian_mini(boot_method: str) -> Recipe:
    def make(directory: Path, archive: Archive, run_machine: RunMachine, progress: BuildProgress) -> Bundle:
        return debian_mini.build(directory, archive, run_machine, progress, boot_method)

    how = {"kernel": "its kernel started directly", "firmware": "started by OpenSBI and u-boot from the disk"}[
        boot_method
    ]
    about = f"Debian 13's kernel and busybox, {how}"
    return Recipe(about, debian_mini.CODENAME, ARCHITECTURE, make)


RECIPES: Mapping[str, Recipe] = {
    "debian-mini": _debian_mini("kernel"),
    "debian-mini-firmware": _debian_mini("firmware"),
    "debian-13": Recipe(
        "Debian 13 with systemd, cloud-init, OpenSSH and apt; takes ten minutes to half an hour",
        debian_13.CODENAME,
        ARCHITECTURE,
        debian_13.build,
    ),
}


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` made: the image, and what the person who asked for it should know."""

    image: Image
    notes: tuple[str, ...]


def build(recipe: str, run_machine: RunMachine, progress: BuildProgress | None = None, name: str = "") -> Built:
    """Make the image of `recipe` (a key of RECIPES) and publish it under `name`, by default the recipe's own.

    NotFound for an unknown recipe; HostError where the host lacks something (a mirror, room); ImageError where what the
    mirror has is not what Debian signed; GuestError where the machine that makes the file system fails.
    """
    if recipe not in RECIPES:
        raise NotFound(f"there is no recipe {recipe!r}; there are: {', '.join(sorted(RECIPES))}")
    progress = progress or Silence()
    chosen = RECIPES[recipe]
    progress.stage("Reading the package index")
    archive = Archive.open(
        Mirror.of_this_host(), ArchiveKeys.of_debian(), chosen.codename, chosen.architecture, progress
    )
    notes: list[str] = []

    def make(directory: Path) -> Bundle:
        bundle = chosen.make(directory, archive, run_machine, progress)
        notes.extend(bundle.notes)
        return dataclasses.replace(bundle, revision=revision())

    image = store.publish(name or recipe, make)
    return Built(image, tuple(notes))


@cache
def revision() -> str:
    """Names the recipes as they are: a hash of this room's files. An image of another celaje is known by it."""
    digest = hashlib.blake2b(digest_size=8)
    room = Path(__file__).parent
    for path in sorted(room.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(room)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(name: str) -> bool:
    """Whether the image `name` is whole, and was made by these very recipes."""
    try:
        return verify(name).description.revision == revision()
    except (NotFound, ImageError):
        return False


def images() -> list[Image]:
    """The images on this host, by name. One whose description cannot be read is an ImageError that names it."""
    return [store.described(name) for name in store.names()]


def verify(name_or_path: str, progress: BuildProgress | None = None) -> Image:
    """Read every byte of an image and compare it with its hashes. NotFound, ImageError."""
    image = store.described(name_or_path)
    store.verify(image, (progress or Silence()).transfer)
    return image


def remove(name: str) -> None:
    """Take an image away. NotFound."""
    store.remove(name)
