"""Small files that are replaced as a whole, durably: whoever reads one finds what was there or what is there now."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from celaje.errors import HostError


def replace(path: Path, data: bytes, durably: bool = True) -> None:
    """`path` holds `data`, for its owner only (mode 0600), from when this returns, if `durably` also after a loss of
    power. HostError where the host cannot; what was there stays then. What writers that were killed have left beside it
    is taken away with the next durable write."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    try:
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
                if durably:
                    file.flush()
                    os.fsync(descriptor)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        if durably:
            sync_directory(path.parent)
            _sweep(path)
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}; make room there, or set CELAJE_HOME elsewhere"
        ) from error


def _sweep(path: Path) -> None:
    before = f".{path.name}."
    for name in os.listdir(path.parent):
        writer = name.removeprefix(before).partition(".")[0] if name.startswith(before) else ""
        if writer.isdecimal() and not _lives(int(writer)):
            path.with_name(name).unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's now
    return True


def remove(path: Path) -> bool:
    """The file is gone, durably. Whether there was one."""
    try:
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"cannot remove {path}: {error.strerror}") from error
    return True


def sync_directory(directory: Path) -> None:
    """The names in it are durable. OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
