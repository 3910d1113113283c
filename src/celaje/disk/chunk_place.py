"""Where a home keeps its chunks: in a folder, or in a bucket that its owner has chosen.

    CELAJE_HOME/store/bucket.json    mode 0600, since the keys are in it; without it chunks are in store/chunks
    {"version": 1, "endpoint": "https://…", "bucket": "…", "prefix": "celaje", "region": "us-east-1",
     "access_key": "…", "secret_key": "…"}
    CELAJE_HOME/store/home           home-0123456789abcdef0: what this home is called in buckets

Strict: what is unknown in it is refused. In the bucket the object PREFIX/home says which home the prefix belongs to:
one, since a sweep takes what this home does not know for garbage.

A home moves as a whole (`move`): under the store's lock, held exclusively, every chunk that a manifest names is put
where it was not, then the file gets its name. What was there before stays there, so processes that have a volume open
go on reading; they look at the file before each chunk, and follow.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from celaje.disk.bucket import BucketChunkStore, Keys
from celaje.disk.chunk_store import CHUNK, ChunkError, ChunkStore, FolderChunkStore, fetch, keep
from celaje.disk.description import new_id
from celaje.disk.files import Files, contents, publish
from celaje.disk.layout import Layout, store_lock
from celaje.disk.sweep import manifests
from celaje.disk.volume import Progress, no_progress
from celaje.errors import InputError
from celaje.typed_data import from_json

FILE_NAME = "bucket.json"
HOME_NAME = "home"
VERSION = 1
THREADS = 8  # that copy chunks: a bucket's answers take longer than its bytes
ADVICE = "remove it, and choose again: celaje vm volume store --help"


class BucketPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bucket, and who may use it."""

    version: int = VERSION
    endpoint: str
    bucket: str
    prefix: str
    region: str
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"BucketPlace({self.text})"

    @property
    def text(self) -> str:
        """How a person calls it."""
        return f"s3://{self.bucket}/{self.prefix} at {self.endpoint}"

    def store(self) -> BucketChunkStore:
        """The chunk store there. InputError where the endpoint is none."""
        keys = Keys(self.access_key, self.secret_key)
        return BucketChunkStore(self.endpoint, self.bucket, keys, prefix=self.prefix, region=self.region)


def checked(place: BucketPlace) -> BucketPlace:
    """`place`, if it can be one. InputError."""
    rules = (
        ("bucket's name", place.bucket, r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "3 to 63 of a-z, 0-9, dot and dash"),
        ("prefix", place.prefix, r"[\w.-]+(/[\w.-]+)*", "letters, digits, dots, dashes, underscores, slashes between"),
        ("region", place.region, r"[a-z0-9-]{1,40}", "such as us-east-1"),
        ("access key", place.access_key, r"[!-~]{1,128}", "up to 128 letters, digits and signs"),
    )
    for what, text, pattern, rule in rules:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise InputError(f"{text!r} is no {what}: {rule}")
    if len(place.prefix) > 200 or ".." in place.prefix:
        raise InputError(f"a prefix has up to 200 characters and no two dots in a row; {place.prefix!r} does not")
    if not re.fullmatch(r"[!-~]{1,256}", place.secret_key):
        raise InputError("a secret key has up to 256 letters, digits and signs, and this one does not")
    place.store()
    return place


def chosen(files: Files, layout: Layout) -> BucketPlace | None:
    """The bucket that this home's owner has chosen, None for the folder. InputError for a setting that is none."""
    path = layout.store / FILE_NAME
    content = _content(files, path)
    return None if content is None else _parsed(files, path, content)


def _content(files: Files, path: Path) -> bytes | None:
    try:
        return contents(files, path)
    except FileNotFoundError:
        return None


def _parsed(files: Files, path: Path, content: bytes) -> BucketPlace:
    if not files.is_private(path):
        raise InputError(f"{path} has keys in it, and others may read it; first: chmod 600 {path}")
    try:
        place = from_json(content, BucketPlace)
        if place.version != VERSION:
            raise InputError(f"it is of version {place.version}, and this celaje reads version {VERSION}")
        return checked(place)
    except (msgspec.MsgspecError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path} does not say where chunks are: {error}; {ADVICE}") from None


def _home(files: Files, layout: Layout) -> str:
    """What this home is called; made when first asked for. Only with the store's lock held exclusively."""
    path = layout.store / HOME_NAME
    content = _content(files, path)
    if content is None:
        content = f"{new_id('home')}\n".encode()
        publish(files, path, [content])
    if not re.fullmatch(rb"home-[0-9a-f]{17}\n", content):
        raise InputError(f"{path} must hold home- and 17 hexadecimal digits; put it back from a copy")
    return content.decode().strip()


class ChosenChunkStore:
    """The chunk store of one home, wherever its chunks are at that moment.

    A setting that cannot be read is an OSError (EIO), as a store is that does not answer: what a guest asks for fails,
    and nothing is looked for elsewhere.
    """

    def __init__(self, files: Files, layout: Layout) -> None:
        self._files = files
        self._path = layout.store / FILE_NAME
        self._folder = FolderChunkStore(layout.chunks, files)
        self._known: tuple[bytes, BucketChunkStore] | None = None
        self._lock = threading.Lock()

    def _now(self) -> FolderChunkStore | BucketChunkStore:
        content = _content(self._files, self._path)
        if content is None:
            return self._folder
        with self._lock:
            if self._known is None or self._known[0] != content:
                try:
                    fresh = _parsed(self._files, self._path, content).store()
                except InputError as error:
                    raise OSError(errno.EIO, str(error)) from None
                if self._known is not None:
                    self._known[1].close()
                self._known = content, fresh
            return self._known[1]

    def put(self, name: bytes, frame: bytes) -> None:
        """Keep a compressed chunk."""
        self._now().put(name, frame)

    def get(self, name: bytes) -> bytes:
        """A compressed chunk. ChunkError if it is not there."""
        return self._now().get(name)

    def has(self, name: bytes) -> bool:
        """Whether it is there."""
        return self._now().has(name)

    def settle(self) -> None:
        """What was put, or found, is durable."""
        self._now().settle()

    def delete(self, name: bytes) -> None:
        """Forget a chunk."""
        self._now().delete(name)

    def list(self) -> Iterator[bytes]:
        """The names of all chunks."""
        return self._now().list()

    def where(self, name: bytes) -> str:
        """How a person finds the chunk."""
        return self._now().where(name)

    def unfinished(self) -> Iterator[Path]:
        """Files that processes left when they were killed while putting a chunk."""
        return self._now().unfinished()


def move(files: Files, layout: Layout, place: BucketPlace | None, progress: Progress = no_progress) -> int:
    """Keep this home's chunks at `place` from now on, None for its folder. How many were copied there.

    InputError where a volume or snapshot is being made, where the bucket's prefix is another home's, or where a chunk
    that is needed is nowhere; OSError where a store does not answer. Nothing has changed then.
    """
    layout.make(files)
    with store_lock(files, layout, exclusive=True, wait=False) as held:
        if not held:
            raise InputError("a volume or a snapshot is being made just now; try again when that is done")
        before = ChosenChunkStore(files, layout)
        after: ChunkStore = FolderChunkStore(layout.chunks, files)
        if place is not None:
            bucket = place.store()
            bucket.claim(_home(files, layout))
            after = bucket
        wanted = sorted({name for _, manifest in manifests(files, layout) for name in manifest.distinct()})

        def carry(name: bytes) -> bool:
            if after.has(name):
                return False
            try:
                keep(after, fetch(before, name))
            except ChunkError as error:
                raise InputError(f"the chunks stay where they are, since one cannot be copied: {error}") from None
            return True

        copied = 0
        with ThreadPoolExecutor(THREADS, "chunk copier") as pool:
            try:
                for done, carried in enumerate(pool.map(carry, wanted)):
                    copied += carried
                    progress((done + 1) * CHUNK, len(wanted) * CHUNK)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        after.settle()
        path = layout.store / FILE_NAME
        if place is not None:
            publish(files, path, [msgspec.json.format(msgspec.json.encode(place), indent=2) + b"\n"])
        else:
            with contextlib.suppress(FileNotFoundError):
                files.unlink(path)
            files.sync_directory(layout.store)
        return copied
