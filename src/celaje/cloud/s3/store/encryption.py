"""Encryption at rest: with keys that the store manages (what S3 calls SSE-S3 and `AES256`), or with a client's own
(SSE-C).

Each body, of an object or of a part, has a random data key of its own, which encrypts nothing else, so that its counter
may begin at zero and a range is read from where it begins. The data key stands before the body, wrapped with the
store's master key: a body needs no row to be read, may have a second name, and is a part of an object like any other.

    body     76 bytes of head, then as many bytes as the plain text has, AES-256 in counter mode (NIST SP 800-38A)
    head      0  8   "CelajeE1", or "CelajeC1" for a key of a client's
              8  8   the master key's id; zeros
             16 12   nonce
             28 48   data key and tag: AES-256-GCM (NIST SP 800-38D) under the master key, or the client's; bytes 0 to
                     15 are authenticated

The master key is a file, made at the first need: durable first, then known by a row of the database, then used. So a
key that is gone or another one is noticed before anything is put or read with it, and a new one is never made in place
of one that objects need. The tag tells a head that was altered. Bytes of a body are as those of any other: who can
write to the store's files can alter them. What this keeps is that nobody reads bodies who has the files without the
key: a copy of `contents` and `objects.sqlite3`, or a disk that was thrown away after the key was destroyed.

A client's key is kept nowhere. An object has a salted HMAC of it, by which another key is told from the right one also
where nothing is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.group_commit import GroupCommit
from celaje.disk.files import Files, contents, is_aside, publish
from celaje.errors import HostError

AES_256 = "AES256"
"""S3's name of it, in headers and in an object's attributes."""

CUSTOMER = "SSE-C"
"""In the attributes of an object that is encrypted with a key of its client's."""

FILE_NAME = "master-key"
HEAD = 76
"""Bytes before a body."""

_MAGIC = b"CelajeE1"
_OF_CLIENT = b"CelajeC1" + bytes(8)
_SALT = 16
_NONCE = 12
_KEY = 32
_UNWRAPPED = slice(0, 16)
_NONCE_AT = slice(16, 28)
_WRAPPED_AT = slice(28, HEAD)
_CIPHER_BLOCK = 16
_FILE = re.compile(rb"celaje-s3-master-key 1 ([0-9a-f]{16}) ([0-9a-f]{64})\n")

Block = bytes | bytearray | memoryview


class KeyUnusable(HostError):
    """The master key is lost, altered, another one, or not private; or a body's head is not what was written."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a body is to be kept: `name` as an object's attributes have it, "" for as it is. `key`: the client's."""

    name: str = ""
    key: bytes | None = field(default=None, repr=False)


NONE = Encryption()
BY_STORE = Encryption(AES_256)


class BodyCipher:
    """Encrypts one body, from its first byte to its last. `head` goes before it. `check`: what knows a client's key
    again (`is_key`)."""

    def __init__(self, name: str, head: bytes, key: bytes, check: bytes = b"") -> None:
        self.name = name
        self.head = head
        self.check = check
        self._encryptor = _counter(key, 0).encryptor()

    def next(self, block: Block) -> bytes:
        """The next bytes, encrypted: as many."""
        return self._encryptor.update(block)


class BodyKey:
    """What a body is decrypted with, from anywhere."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._decryptor = _counter(key, 0).decryptor()

    def begin(self, offset: int) -> None:
        """The next bytes are those from `offset` of the body on."""
        self._decryptor = _counter(self._key, offset // _CIPHER_BLOCK).decryptor()
        self._decryptor.update(bytes(offset % _CIPHER_BLOCK))

    def next(self, block: Block) -> bytes:
        """The next bytes, decrypted."""
        return self._decryptor.update(block)


def _counter(key: bytes, first: int) -> Cipher[CTR]:
    return Cipher(AES256(key), CTR(first.to_bytes(_CIPHER_BLOCK, "big")))


class MasterKey:
    """The master key of the store in `directory`."""

    def __init__(self, directory: Path, files: Files, database: Database, commit: GroupCommit) -> None:
        self._path = directory / FILE_NAME
        self._files = files
        self._database = database
        self._commit = commit
        self._lock = threading.Lock()
        self._key: bytes | None = None
        self._identity: tuple[int, int] | None = None

    def cipher(self, encryption: Encryption = BY_STORE) -> BodyCipher:
        """For a new body. Makes the master key if there never was one. KeyUnusable; OSError."""
        if encryption.key is not None:
            wrapping, known, check = encryption.key, _OF_CLIENT, check_of(encryption.key)
        else:
            wrapping, check = self._for_writing(), b""
            known = _MAGIC + _id(wrapping)
        key, nonce = os.urandom(_KEY), os.urandom(_NONCE)
        return BodyCipher(encryption.name, known + nonce + AESGCM(wrapping).encrypt(nonce, key, known), key, check)

    def body_key(self, head: bytes, client: bytes | None = None) -> BodyKey:
        """Of the body after `head`; `client`: the key of its client's. KeyUnusable."""
        if head.startswith(_OF_CLIENT):
            if client is None:
                raise KeyUnusable("an object is encrypted with its client's key (SSE-C), which nobody else has")
            return self._unwrapped(head, client)
        master = self._known()
        if len(head) != HEAD or not head.startswith(_MAGIC):
            raise KeyUnusable("an encrypted body of the object store does not begin as it was written: it is damaged")
        if head[_UNWRAPPED] != _MAGIC + _id(master):
            raise KeyUnusable(
                f"a body of the object store is encrypted with the master key {head[8:16].hex()}, and {self._path} is"
                f" {_id(master).hex()}; put that key's file back from a copy"
            )
        return self._unwrapped(head, master)

    def _unwrapped(self, head: bytes, wrapping: bytes) -> BodyKey:
        try:
            return BodyKey(AESGCM(wrapping).decrypt(head[_NONCE_AT], head[_WRAPPED_AT], head[_UNWRAPPED]))
        except InvalidTag:
            raise KeyUnusable("the key of an encrypted body of the object store was altered: it is damaged") from None

    def plain(self, stored: bytes, client: bytes | None = None) -> bytes:
        """A body that is in one piece with its head. KeyUnusable."""
        return self.body_key(stored[:HEAD], client).next(memoryview(stored)[HEAD:])

    # --- the file ---

    def _for_writing(self) -> bytes:
        """The key, whose file is there: nothing is encrypted with what could not be read again."""
        with self._lock:
            if self._key is None or self._files.identity(self._path) != self._identity:
                self._load(make=True)
            assert self._key is not None
            return self._key

    def _known(self) -> bytes:
        """The key, as it was found: who has lost its file while the store is open can still read everything."""
        with self._lock:
            if self._key is None:
                self._load(make=False)
            assert self._key is not None
            return self._key

    def _load(self, *, make: bool) -> None:
        row = self._database.reader.execute("SELECT id FROM master_keys").fetchone()
        identity = self._files.identity(self._path)
        if identity is None:
            if row is not None or not make:
                raise KeyUnusable(
                    f"{self._path} is not there, the key that objects in the object store are encrypted with; put it"
                    " back from a copy: they cannot be read without it, and no other is made in its place"
                )
            self._make()
            identity = self._files.identity(self._path)
        key = self._read()
        if row is not None and row[0] != _id(key):
            raise KeyUnusable(
                f"{self._path} is the master key {_id(key).hex()}, and the object store's is {row[0].hex()}; put that"
                " key's file back from a copy"
            )
        if row is None:
            known = _id(key)
            self._commit.submit(
                lambda writer: writer.execute("INSERT OR IGNORE INTO master_keys (id) VALUES (?)", (known,))
            ).result()
        self._key, self._identity = key, identity

    def _read(self) -> bytes:
        if not self._files.is_private(self._path):
            raise KeyUnusable(f"{self._path} can be read or written by others than its owner: chmod 600 {self._path}")
        parsed = _FILE.fullmatch(contents(self._files, self._path))
        key = bytes.fromhex(parsed[2].decode()) if parsed is not None else b""
        if parsed is None or _id(key).hex() != parsed[1].decode():
            raise KeyUnusable(f"{self._path} is not the master key that was written there; put it back from a copy")
        return key

    def _make(self) -> None:
        key = os.urandom(_KEY)
        # What a crash has left of an earlier attempt was never used.
        for name in self._files.names(self._path.parent):
            if is_aside(name) and name.startswith(f".{FILE_NAME}."):
                with contextlib.suppress(FileNotFoundError):
                    self._files.unlink(self._path.with_name(name))
        text = f"celaje-s3-master-key 1 {_id(key).hex()} {key.hex()}\n"
        publish(self._files, self._path, [text.encode()])


def check_of(key: bytes) -> bytes:
    """What knows a client's key again, and from which nobody finds it: a salt, and the HMAC-SHA-256 of it."""
    salt = os.urandom(_SALT)
    return salt + hmac.digest(key, salt, "sha256")


def is_key(check: bytes, key: bytes) -> bool:
    """Whether it is the client's key that `check` was made of."""
    return hmac.compare_digest(hmac.digest(key, check[:_SALT], "sha256"), check[_SALT:])


def _id(key: bytes) -> bytes:
    """What a master key is called, which says nothing of it."""
    return hashlib.sha256(b"celaje's object store: a master key's id" + key).digest()[:8]
