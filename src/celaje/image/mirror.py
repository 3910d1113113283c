"""The mirror that packages come from, and downloads from it.

No mirror is built in: it is CELAJE_DEBIAN_MIRROR, else the full Debian archive that the host's own apt uses, through
the proxy that apt is told to use, else through the environment's.

A download grows in `NAME.part` beside its final place, goes on from there after a break (RFC 9110, 14.2: Range), and is
renamed only once its SHA-256 is right. What lies under its final name is therefore whole; it is hashed again when used.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from celaje import paths
from celaje.errors import HostError, ImageError
from celaje.image import apt_configuration
from celaje.image.apt_configuration import AptConfiguration
from celaje.image.progress import BuildProgress

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 60
_ATTEMPTS = 4
_USER_AGENT = "celaje"
_INDEX_BYTES = 64 << 20


class Missing(ImageError):
    """The mirror answers that it has no such file."""


class Unreachable(HostError):
    """The mirror, or the proxy before it, does not answer."""


class NotAsSigned(ImageError):
    """What the mirror has is not what the archive's signed index says."""


class _CutShort(Exception):
    """The connection ended before the file did; another attempt may go on from where it stopped."""


class _NothingThere(_CutShort):
    """The part that is here already is longer than what the mirror has; it is thrown away."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """`base`: a full Debian archive's address without trailing slash. `proxies`: by scheme, as urllib takes them."""

    base: str
    proxies: dict[str, str]
    checks_expiry: bool = True

    @classmethod
    def of_this_host(cls, apt: AptConfiguration | None = None) -> Mirror:
        """The mirror to use here. HostError, saying how to name one, where nothing names it."""
        apt = apt or apt_configuration.read_host()
        given = os.environ.get("CELAJE_DEBIAN_MIRROR", "").rstrip("/")
        base = given or next(iter(apt.archives), "")
        if not base:
            raise HostError(
                "no Debian mirror is known: this host's apt names no full Debian archive (an address that ends in "
                "/debian). Set CELAJE_DEBIAN_MIRROR to the address of one, for example: "
                "export CELAJE_DEBIAN_MIRROR=http://MIRROR/debian"
            )
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https", "file") or (parts.scheme != "file" and not parts.hostname):
            raise HostError(f"CELAJE_DEBIAN_MIRROR must be an address like http://MIRROR/debian, not {base!r}")
        return cls(base, _proxies(base, apt), checks_expiry=bool(given) or apt.checks_expiry)

    def address(self, path: str) -> str:
        """Where `path` (relative to the archive's root) is."""
        return f"{self.base}/{quote(path, safe='/+~:')}"

    def open(self, path: str, offset: int = 0) -> http.client.HTTPResponse:
        """The answer to a request for `path` from byte `offset`. Missing, Unreachable."""
        url = self.address(path)
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(self.proxies))
        try:
            answer: http.client.HTTPResponse = opener.open(
                urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise Missing(f"the mirror has no {url} (HTTP {error.code})") from error
            if error.code == 416:
                raise _NothingThere(f"{url} has no byte {offset}") from error
            raise Unreachable(f"the mirror refuses {url}: HTTP {error.code} {error.reason}") from error
        except FileNotFoundError as error:
            raise Missing(f"the mirror has no {url}") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(getattr(error, "reason", None), FileNotFoundError) or "No such file" in str(error):
                raise Missing(f"the mirror has no {url}") from error
            raise Unreachable(
                f"the mirror does not answer for {url}: {getattr(error, 'reason', error)}; "
                "set CELAJE_DEBIAN_MIRROR to another, or http_proxy to the proxy that reaches it"
            ) from error
        return answer

    def read(self, path: str) -> bytes:
        """The whole of a small file without a known hash (InRelease). Missing, Unreachable; ImageError past 64 MiB."""
        for _ in range(_ATTEMPTS):
            with self.open(path) as answer:
                try:
                    body = answer.read(_INDEX_BYTES + 1)
                except (http.client.HTTPException, OSError):
                    continue
                whole = not getattr(answer, "length", 0)
            if len(body) > _INDEX_BYTES:
                raise ImageError(f"{self.address(path)} is larger than {_INDEX_BYTES >> 20} MiB, which no index is")
            if whole:
                return body
        raise Unreachable(f"{self.address(path)} breaks off again and again; run the command again")

    def download(self, path: str, sha256: str, size: int, progress: BuildProgress, name: str = "") -> Path:
        """`path` in the cache, whole, with this SHA-256 and size; from the mirror if it is not there already.

        It is called `name` there and in the progress; by default as it is on the mirror.

        NotAsSigned where the mirror has other bytes, Missing, Unreachable; HostError where the cache cannot hold them.
        """
        name = name or path.rsplit("/", 1)[-1]
        target = downloads() / f"{sha256[:32]}-{name}"
        part = target.with_name(target.name + ".part")
        try:
            with _locked(target.parent):
                if not (target.exists() and _sha256(target) == sha256):
                    self._fetch(path, part, sha256, size, name, progress)
                    os.replace(part, target)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise HostError(
                    f"no space is left for {path} ({size >> 20} MiB) in {target.parent}; make room, or set "
                    "CELAJE_CACHE elsewhere"
                ) from error
            raise HostError(f"cannot keep {path} in {target.parent}: {error.strerror or error}") from error
        return target

    def _fetch(self, path: str, part: Path, sha256: str, size: int, name: str, progress: BuildProgress) -> None:
        reason = ""
        for _ in range(_ATTEMPTS):
            held = part.stat().st_size if part.exists() else 0
            if held > size:
                part.unlink()
                held = 0
            if held < size:
                try:
                    self._go_on(path, part, held, size, name, progress)
                except _CutShort as error:
                    if isinstance(error, _NothingThere):
                        part.unlink()
                    reason = str(error)
                    continue
            progress.transfer(name, size, size)
            found = _sha256(part)
            if found == sha256:
                return
            part.unlink()
            if not held:
                raise NotAsSigned(
                    f"{self.address(path)} is not what the archive's signed index says: its SHA-256 is {found}, "
                    f"not {sha256}; try again later, or set CELAJE_DEBIAN_MIRROR to another mirror"
                )
        raise Unreachable(
            f"{self.address(path)} breaks off again and again ({reason}); run the command again to go on from there"
        )

    def _go_on(self, path: str, part: Path, held: int, size: int, name: str, progress: BuildProgress) -> None:
        with self.open(path, held) as answer:
            resumed = held > 0 and answer.status == 206
            done = held if resumed else 0
            length = getattr(answer, "length", None)
            if length is not None and done + length != size:
                part.unlink(missing_ok=True)
                raise NotAsSigned(
                    f"{self.address(path)} has {done + length} bytes, not the {size} of the signed index; try "
                    "again later, or set CELAJE_DEBIAN_MIRROR to another mirror"
                )
            with open(part, "ab" if resumed else "wb") as file:
                while done <= size:
                    try:
                        chunk = answer.read(_CHUNK_BYTES)
                    except (http.client.HTTPException, OSError) as error:
                        raise _CutShort(f"after {done} of {size} bytes: {error}") from error
                    if not chunk:
                        break
                    file.write(chunk)
                    done += len(chunk)
                    progress.transfer(name, min(done, size), size)
        if done > size:
            part.unlink()
            raise NotAsSigned(
                f"{self.address(path)} is larger than the {size} bytes that the archive's signed index says"
            )
        if done < size:
            raise _CutShort(f"after {done} of {size} bytes")


def _proxies(base: str, apt: AptConfiguration) -> dict[str, str]:
    parts = urlsplit(base)
    told = apt.proxy(base)
    if told is not None:
        return {parts.scheme: told} if told else {}
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return {}
    return urllib.request.getproxies()


def downloads() -> Path:
    """The directory of finished downloads, made if it is not there."""
    return paths.made(paths.cache() / "downloads")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two builds at once do not write the same part: the second waits and then finds the download finished."""
    with open(directory / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
