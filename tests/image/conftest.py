"""A Debian archive of the tests' own: packages made here, indices signed by a key made here, a mirror on loopback."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pysequoia
import pytest

from celaje import zstandard
from celaje.image import partition_table
from celaje.image.archive_keys import ArchiveKeys
from celaje.image.mirror import Mirror
from celaje.image.partition_table import Partition

MIB = 1 << 20
MakeDisk = Callable[..., bytes]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def tar_of(files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> bytes:
    """A tar archive with regular files, and entries as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra or []:
            archive.addfile(info)
    return buffer.getvalue()


def ar_of(members: dict[str, bytes]) -> bytes:
    """An ar archive."""
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        parts.append(
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return b"".join(parts)


def deb_of(
    files: dict[str, bytes],
    compression: str = ".xz",
    extra: list[tarfile.TarInfo] | None = None,
    name: str = "",
    **control: bytes,
) -> bytes:
    """A Debian package with these files; with a `name`, its control archive says it, and has the members `control`."""
    data = COMPRESSIONS[compression](tar_of(files, extra))
    text = f"Package: {name}\nVersion: 1.0-1\nArchitecture: riscv64\n".encode()
    members = {"./control": text, **{f"./{member}": content for member, content in control.items()}}
    said = tar_of(members) if name else b""
    return ar_of({"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(said), f"data.tar{compression}": data})


class DiskInMemory:
    """A disk in memory."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content

    @property
    def size(self) -> int:
        return len(self.content)

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        assert offset % 512 == 0
        for buffer in buffers:
            assert len(buffer) % 512 == 0
            buffer[:] = self.content[offset : offset + len(buffer)]
            offset += len(buffer)


@dataclass
class FabricatedArchive:
    """Files by path, as a mirror has them. `publish` makes and signs the indices of what `package` has added."""

    key: pysequoia.Tsk
    files: dict[str, bytes] = field(default_factory=dict)
    stanzas: list[str] = field(default_factory=list)

    @property
    def keys(self) -> ArchiveKeys:
        return ArchiveKeys([bytes(self.key.extract_certificate())])

    def package(
        self, name: str, content: bytes = b"", depends: str = "", version: str = "1.0-1", fields: str = ""
    ) -> None:
        path = f"pool/main/{name[0]}/{name}/{name}_{version}_riscv64.deb"
        self.files[path] = content
        lines = [f"Package: {name}", f"Version: {version}", f"Filename: {path}", f"Size: {len(content)}"]
        if depends:
            lines.append(f"Depends: {depends}")
        lines += fields.splitlines()
        self.stanzas.append("\n".join([*lines, f"SHA256: {hashlib.sha256(content).hexdigest()}", ""]))

    def sign(self, text: str, key: pysequoia.Tsk | None = None) -> bytes:
        signer = (key or self.key).signer()
        return bytes(pysequoia.sign(signer, text.encode(), mode=pysequoia.SignatureMode.CLEAR))

    def release(self, packages: bytes, codename: str = "trixie", fields: str = "") -> str:
        digest = hashlib.sha256(packages).hexdigest()
        return (
            f"Origin: Test\nCodename: {codename}\nVersion: 13.0\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n{fields}"
            f"MD5Sum:\n {'0' * 32} 7 main/binary-riscv64/Packages.xz\n"
            f"SHA256:\n {digest} {len(packages)} main/binary-riscv64/Packages.xz\n"
        )

    def publish(self, suite: str = "trixie", codename: str = "trixie", fields: str = "", by_hash: bool = False) -> None:
        packages = lzma.compress("\n".join(self.stanzas).encode())
        folder = f"dists/{suite}/main/binary-riscv64"
        if by_hash:
            fields += "Acquire-By-Hash: yes\n"
            self.files[f"{folder}/by-hash/SHA256/{hashlib.sha256(packages).hexdigest()}"] = packages
        else:
            self.files[f"{folder}/Packages.xz"] = packages
        self.files[f"dists/{suite}/InRelease"] = self.sign(self.release(packages, codename, fields))


@pytest.fixture(scope="session")
def archive_key() -> pysequoia.Tsk:
    return pysequoia.Tsk.generate("Archive of the tests <archive@example.org>")


@pytest.fixture
def fabricated(archive_key: pysequoia.Tsk) -> FabricatedArchive:
    return FabricatedArchive(archive_key)


@dataclass
class MirrorServer:
    """What a mirror on loopback was asked, and how it misbehaves: `cut` bodies after so many bytes, so many times."""

    base: str
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    cut_after: int = 0
    cuts: int = 0
    ranges: bool = True

    @property
    def mirror(self) -> Mirror:
        return Mirror(self.base, {})


@pytest.fixture
def server(fabricated: FabricatedArchive) -> Iterator[MirrorServer]:
    """Serves `fabricated` over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.removeprefix("/debian/")
            asked = self.headers.get("Range")
            state.requests.append((path, asked))
            if path not in fabricated.files:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = fabricated.files[path]
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if start and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if state.cuts and len(body) > state.cut_after:
                state.cuts -= 1
                self.wfile.write(body[start : start + state.cut_after])
                self.close_connection = True
                return
            with contextlib.suppress(ConnectionError):  # whoever does not want the rest hangs up
                self.wfile.write(body[start:])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = MirrorServer(f"http://127.0.0.1:{listener.server_address[1]}/debian")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def make_disk(tool: Callable[[str], str], tmp_path: Path) -> MakeDisk:
    """A disk with a partition table, or without one, and one file system of these files (bytes) and links (text)."""

    def make(files: dict[str, bytes | str], partitioned: bool = True) -> bytes:
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (root / path).write_bytes(content)
            else:
                (root / path).symlink_to(content)
        place = tmp_path / "system"
        with open(place, "wb") as file:
            file.truncate(8 * MIB)
        subprocess.run([tool("mke2fs"), "-q", "-t", "ext4", "-d", root, place], check=True, capture_output=True)
        if not partitioned:
            return place.read_bytes()
        disk = io.BytesIO(bytes(12 * MIB))
        partitions = [
            Partition(MIB, MIB, uuid.UUID(int=1), "other"),
            Partition(2 * MIB, 8 * MIB, uuid.UUID(int=2), "root"),
        ]
        partition_table.write(disk, 12 * MIB, uuid.UUID(int=3), partitions)
        disk.seek(2 * MIB)
        disk.write(place.read_bytes())
        return disk.getvalue()

    return make
