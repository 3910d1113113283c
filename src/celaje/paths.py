"""Where celaje keeps things.

home()               what must not be lost: images, volumes, state       CELAJE_HOME, else ~/.local/share/celaje
cache()              what can be made again: downloads, translated code  CELAJE_CACHE, else ~/.cache/celaje
runtime_directory()  sockets: short, since a socket's path has 108 bytes, and nobody else's
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from celaje.errors import HostError

_SOCKET_PATH_BYTES = 108
_LONGEST_SOCKET_NAME = 40


def home() -> Path:
    """The directory of what must not be lost; it need not exist yet."""
    return _from_environment("CELAJE_HOME", Path("~/.local/share/celaje"))


def cache() -> Path:
    """The directory of what can be made again; it need not exist yet."""
    return _from_environment("CELAJE_CACHE", Path("~/.cache/celaje"))


def _from_environment(variable: str, default: Path) -> Path:
    given = os.environ.get(variable)
    try:
        path = Path(given).expanduser() if given else default.expanduser()
    except RuntimeError as error:
        raise HostError(f"there is no home directory to keep things in; set {variable} to a directory") from error
    return path.absolute()


def made(directory: Path) -> Path:
    """`directory`, made with its parents where they are missing, for their owner only. HostError if that fails."""
    try:
        for missing in [one for one in (*reversed(directory.parents), directory) if not one.exists()]:
            missing.mkdir(mode=0o700, exist_ok=True)
        if not directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise HostError(f"cannot make the directory {directory}: {error.strerror}") from error
    return directory


def runtime_directory() -> Path:
    """A short directory that only this user can enter, for sockets. HostError if it is somebody else's, or too long."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(given) / "celaje" if given else Path(tempfile.gettempdir()) / f"celaje-{os.getuid()}"
    if len(os.fsencode(base)) + _LONGEST_SOCKET_NAME > _SOCKET_PATH_BYTES:
        raise HostError(
            f"{base} is too long for sockets, whose paths have {_SOCKET_PATH_BYTES} bytes; "
            "set XDG_RUNTIME_DIR to a shorter one"
        )
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        held = os.lstat(base)
    except OSError as error:
        raise HostError(
            f"cannot make the directory {base} for sockets: {error.strerror}; set XDG_RUNTIME_DIR to one of your own"
        ) from error
    if not stat.S_ISDIR(held.st_mode) or held.st_uid != os.getuid() or held.st_mode & 0o077:
        raise HostError(
            f"{base} must be a directory that only its owner can enter (mode 0700), and yours; "
            "remove it, or set XDG_RUNTIME_DIR to one of your own"
        )
    return base
