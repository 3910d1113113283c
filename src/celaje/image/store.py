"""The images on this host: CELAJE_HOME/images/NAME, each a directory with image.json and the files that it describes.

    images/debian-mini -> .debian-mini.4f1c…     what is published: a link, swapped in one rename
    images/.debian-mini.4f1c…/                   the files; made under a name that nothing lists, never changed after

An image is verified wholly the first time that it is opened and again whenever one of its files has another size, time
or inode than then; otherwise opening costs a few calls of stat. What was found is kept in the cache, by path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from celaje import paths
from celaje.errors import HostError, ImageError, NotFound
from celaje.image.description import FILE_NAME, Description, FileDescription, checked_name, parse

if TYPE_CHECKING:  # running an image needs nothing of what builds one
    from celaje.image.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose files are there. `size` counts the bytes that it takes on the disk."""

    directory: Path
    description: Description

    def file(self, role: str) -> Path | None:
        """The path of the file with this role (kernel, initrd, firmware, disk), if the image has one."""
        described = self.description.files.get(role)
        return self.directory / described.name if described else None

    @property
    def size(self) -> int:
        return sum((self.directory / file.name).stat().st_blocks * 512 for file in self.description.files.values())


def images_directory() -> Path:
    """Where this host's images are; it need not exist yet."""
    return paths.home() / "images"


def names() -> list[str]:
    """The names of the images that are published here, sorted."""
    try:
        entries = sorted(images_directory().iterdir())
    except FileNotFoundError:
        return []
    return [entry.name for entry in entries if not entry.name.startswith(".") and (entry / FILE_NAME).is_file()]


def described(name_or_path: str) -> Image:
    """The image of that name, or in that directory, its files unread. NotFound, ImageError."""
    if os.sep in name_or_path or name_or_path in (".", ".."):
        directory = Path(name_or_path).expanduser()
        if directory.name == FILE_NAME:
            directory = directory.parent
        if not directory.exists():
            raise NotFound(f"there is no image at {name_or_path}")
    else:
        directory = images_directory() / checked_name(name_or_path)
        if not directory.exists():
            have = ", ".join(names())
            known = f"there are: {have}" if have else "there are none yet; make one: celaje image build debian-mini"
            raise NotFound(f"there is no image {name_or_path!r}; {known}")
    directory = directory.resolve()
    where = directory / FILE_NAME
    try:
        text = where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(
            f"{name_or_path} is no image: an image is a directory with a readable {FILE_NAME} ({error}); "
            "a bare disk is given with --disk, a bare kernel with --kernel"
        ) from error
    return Image(directory, parse(text, str(where)))


def open_image(name_or_path: str) -> Image:
    """The image of that name, or in that directory, fit to start. NotFound; ImageError where a file fails its hash."""
    image = described(name_or_path)
    stamps = {file.name: _stamp(image, file) for file in image.description.files.values()}
    digests = {file.name: file.sha256 for file in image.description.files.values()}
    record = {"stamps": stamps, "sha256": digests}
    place = _verification_record(image)
    if _read_record(place) != record:
        verify(image)
        _keep_record(place, record)
    return image


def verify(image: Image, told: Callable[[str, int, int], None] = lambda name, done, total: None) -> None:
    """Read every file of `image` and compare it with its description. ImageError names the first that differs.

    `told` hears of each file how many of its bytes have been read.
    """
    for file in image.description.files.values():
        _stamp(image, file)
        path = image.directory / file.name
        try:
            # mypy cannot infer a lambda whose default binds the loop's variable
            found = sha256_of(path, lambda done, file=file: told(file.name, done, file.size))  # type: ignore[misc]
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror or error}; {_again(image)}") from error
        if found != file.sha256:
            raise ImageError(f"{path} fails its hash: SHA-256 {found}, not {file.sha256}; {_again(image)}")


def _again(image: Image) -> str:
    return f"build the image again: celaje image build {image.description.name}"


def sha256_of(path: Path, told: Callable[[int], None] = lambda done: None) -> str:
    """The SHA-256 of a file; `told` hears how many bytes have been read."""
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
            told(done)
    return digest.hexdigest()


def _stamp(image: Image, file: FileDescription) -> list[int]:
    """What changes when somebody writes the file. ImageError where it is missing, no file, or of another size."""
    path = image.directory / file.name
    try:
        held = path.stat()
    except OSError as error:
        raise ImageError(f"the image's file {path} is missing ({error.strerror}); {_again(image)}") from error
    if not path.is_file() or held.st_size != file.size:
        raise ImageError(f"the image's file {path} must have {file.size} bytes, not {held.st_size}; {_again(image)}")
    return [held.st_size, held.st_mtime_ns, held.st_ctime_ns, held.st_ino, held.st_dev]


def _verification_record(image: Image) -> Path:
    key = hashlib.sha256(os.fsencode(image.directory)).hexdigest()[:32]
    return paths.cache() / "verified" / f"{key}.json"


def _read_record(place: Path) -> object:
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _keep_record(place: Path, record: object) -> None:
    # Without the record the next start hashes the image again, which is slow but right: a full cache stops nobody.
    with contextlib.suppress(OSError, HostError), tempfile.TemporaryDirectory(dir=paths.made(place.parent)) as scratch:
        fresh = Path(scratch) / place.name
        fresh.write_text(json.dumps(record), encoding="utf-8")
        os.replace(fresh, place)


def publish(name: str, make: Callable[[Path], Bundle]) -> Image:
    """Make an image by `make`, in a directory of its own, and let it appear under `name` whole and at once.

    An older image of that name is replaced; whoever has its files open keeps them. Where `make` fails, nothing of it
    stays. HostError where another build of that name is at work, or the disk is full.
    """
    checked_name(name)
    directory = paths.made(images_directory())
    with _lock(directory / f".{name}.lock", name):
        _sweep(directory, name)
        place = directory / f".{name}.{secrets.token_hex(8)}"
        try:
            place.mkdir(mode=0o700)
            bundle = make(place)
            description = _describe(name, bundle)
            (place / FILE_NAME).write_text(description.to_json(), encoding="utf-8")
            _to_disk(place)
            _point(directory / name, place.name)
        except BaseException as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, OSError):
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                reason = (
                    "the disk is full; make room, or set CELAJE_HOME elsewhere"
                    if full
                    else error.strerror or str(error)
                )
                raise HostError(f"cannot make the image {name} in {directory}: {reason}") from error
            raise
        _sweep(directory, name)
        image = Image(place.resolve(), description)
        stamps = {file.name: _stamp(image, file) for file in description.files.values()}
        digests = {file.name: file.sha256 for file in description.files.values()}
        _keep_record(_verification_record(image), {"stamps": stamps, "sha256": digests})
        return image


def remove(name: str) -> None:
    """Take the image `name` away; whoever has its files open keeps them. NotFound."""
    image = described(checked_name(name))
    directory = images_directory()
    with _lock(directory / f".{name}.lock", name):
        published = directory / name
        if published.is_symlink():
            published.unlink()
        else:
            os.replace(published, directory / f".{name}.{secrets.token_hex(8)}")
        _verification_record(image).unlink(missing_ok=True)
        _sweep(directory, name)


def _describe(name: str, bundle: Bundle) -> Description:
    files = {
        role: FileDescription(path.name, path.stat().st_size, sha256_of(path))
        for role, path in sorted(bundle.files.items())
    }
    return Description(
        name,
        bundle.architecture,
        bundle.boot_method,
        bundle.command_line,
        bundle.created,
        files,
        bundle.packages,
        bundle.revision,
    )


def _to_disk(place: Path) -> None:
    """Make files and directory durable, so that a loss of power leaves either the whole image or none."""
    for path in (*sorted(place.iterdir()), place):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _point(link: Path, target: str) -> None:
    fresh = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
    fresh.symlink_to(target)
    if link.is_dir() and not link.is_symlink():
        # Somebody put a plain directory there, a copy from another host for example; it makes way for the link.
        os.replace(link, link.with_name(f".{link.name}.{secrets.token_hex(8)}"))
    os.replace(fresh, link)


def _sweep(directory: Path, name: str) -> None:
    """Remove what earlier builds of `name` left, except what is published. Only with the lock held."""
    published = directory / name
    current = os.readlink(published) if published.is_symlink() else None
    for path in directory.glob(f".{name}.*"):
        suffix = path.name.removeprefix(f".{name}.")
        if path.name == current or len(suffix) != 16 or not set(suffix) <= set("0123456789abcdef"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(
                f"another celaje is building or removing the image {name}; wait until it has finished"
            ) from error
        yield
