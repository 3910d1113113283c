"""image.json: what an image is and what its files must be.

    {"format": 1, "name": ..., "architecture": "riscv64", "boot": "kernel" | "firmware", "command_line": ...,
     "created": seconds since 1970, "packages": {NAME: VERSION},
     "files": {ROLE: {"name": ..., "size": ..., "sha256": ...}}}

Roles: `kernel` and `initrd` (Linux, in supervisor mode; with boot method `firmware`, `kernel` is the boot loader that
the firmware starts), `firmware` (starts in machine mode), `disk` (raw).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from celaje.errors import ImageError

FORMAT = 1
FILE_NAME = "image.json"
_REQUIRED_ROLES = {"kernel": {"kernel"}, "firmware": {"firmware", "disk"}}
_ROLES = {"kernel", "initrd", "firmware", "disk"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileDescription:
    """One file of an image: its name in the image's directory, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Description:
    """An image's description. `created` is in seconds since 1970; `revision` tells the recipes that made it from others
    (recipes.revision), and is "" where none did."""

    name: str
    architecture: str
    boot: str
    command_line: str
    created: int
    files: Mapping[str, FileDescription]
    packages: Mapping[str, str]
    revision: str = ""

    def to_json(self) -> str:
        """The text of image.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"


def checked_name(name: str) -> str:
    """`name`, if images may be called so. ImageError otherwise."""
    if not _NAME.fullmatch(name):
        raise ImageError(
            f"an image's name has up to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit; "
            f"{name!r} does not"
        )
    return name


def parse(text: str, where: str) -> Description:
    """The description in `text`; `where` names it in errors. ImageError for anything that is not of this format."""
    try:
        held = json.loads(text)
    except ValueError as error:
        raise ImageError(f"{where} is no image description: {error}") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        version = held.get("format") if isinstance(held, dict) else None
        raise ImageError(
            f"{where} has format {version!r}, and this celaje knows format {FORMAT}; build the image again"
        )
    reader = _Reader(held, where)
    files = {role: reader.file(role, file) for role, file in reader.mapping("files").items()}
    packages = {name: str(version) for name, version in reader.mapping("packages").items()}
    description = Description(
        checked_name(reader.text("name")),
        reader.text("architecture"),
        reader.text("boot"),
        reader.text("command_line"),
        reader.number(held, "created"),
        files,
        packages,
        reader.text("revision") if "revision" in held else "",
    )
    missing = _REQUIRED_ROLES.get(description.boot, {"kernel or firmware"}) - set(files)
    if description.boot not in _REQUIRED_ROLES or missing:
        raise ImageError(f"{where}: boot method {description.boot!r} needs the files: {', '.join(sorted(missing))}")
    return description


@dataclass(frozen=True, slots=True)
class _Reader:
    held: Mapping[str, object]
    where: str

    def text(self, field: str) -> str:
        value = self.held.get(field)
        if not isinstance(value, str):
            raise ImageError(f"{self.where} must have a text as {field!r}, not {value!r}")
        return value

    def mapping(self, field: str) -> Mapping[str, object]:
        value = self.held.get(field)
        if not isinstance(value, dict):
            raise ImageError(f"{self.where} must have an object as {field!r}, not {value!r}")
        return value

    def number(self, held: Mapping[str, object], field: str) -> int:
        value = held.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ImageError(f"{self.where} must have a whole number as {field!r}, not {value!r}")
        return value

    def file(self, role: str, file: object) -> FileDescription:
        if role not in _ROLES or not isinstance(file, dict):
            raise ImageError(
                f"{self.where} has a file of an unknown role {role!r}; roles are {', '.join(sorted(_ROLES))}"
            )
        name, sha256 = file.get("name"), file.get("sha256")
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ImageError(f"{self.where}: the file {role!r} must have a plain name, not {name!r}")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ImageError(f"{self.where}: the file {role!r} must have a SHA-256 in hexadecimal, not {sha256!r}")
        return FileDescription(name, self.number(file, "size"), sha256)
