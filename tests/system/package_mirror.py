"""A Debian mirror on the host's loopback, and a kernel's package that the test makes.

What the archive signed is served as it was signed, index and packages, from celaje's cache of downloads: apt in a guest
verifies the whole chain down from the keys that it came with.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import lzma
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from celaje import paths
from celaje.errors import ImageError
from celaje.image import deb, tar
from celaje.image.archive import PackageIndex, Release
from celaje.image.archive_keys import ArchiveKeys
from celaje.image.debian_13 import CODENAME
from celaje.image.ingredients import ARCHITECTURE, kernel_package
from celaje.image.kernel_modules import KernelModules
from celaje.image.mirror import downloads
from celaje.image.tree import Tree

# In the kernel that a test makes.
MODULES = "virtio_mmio virtio_blk virtio_net virtio_scsi sd_mod virtio_rng virtio_input evdev ext4".split()
_INDEX = f"main/binary-{ARCHITECTURE}/Packages.xz"
_SUITE = f"dists/{CODENAME}"

Served = Mapping[str, Path | bytes]


@dataclass(frozen=True)
class CachedArchive:
    """What celaje has fetched of Debian's archive: its signed index, and the packages that are in the cache."""

    packages: PackageIndex
    files: dict[str, Path | bytes]  # by their path in the archive

    @classmethod
    def read(cls) -> CachedArchive:
        """The cache's. Skips where it has none whose index is there too."""
        for place in sorted((paths.cache() / "archives").glob(f"{CODENAME}-*.InRelease")):
            message = place.read_bytes()
            try:
                text = ArchiveKeys.of_debian().signed_text(message, place.name)
                release = Release.parse(text, place.name, datetime.now(UTC), checks_expiry=False)
            except ImageError:
                continue
            wanted = release.files.get(_INDEX)
            index = downloads() / f"{wanted.sha256[:32]}-Packages.xz" if wanted else None
            if wanted is None or index is None or not index.exists():
                continue
            packages = PackageIndex(lzma.decompress(index.read_bytes()).decode())
            files: dict[str, Path | bytes] = {f"{_SUITE}/InRelease": message, f"{_SUITE}/{_INDEX}": index}
            files[f"{_SUITE}/{_INDEX.rpartition('/')[0]}/by-hash/SHA256/{wanted.sha256}"] = index
            for file in downloads().glob("*.deb"):
                digits, _, name = file.name.partition("-")
                name = name.partition("_")[0]
                if name in packages and packages[name].sha256.startswith(digits):
                    files[packages[name].path] = file
            return cls(packages, files)
        pytest.skip("celaje's cache has no archive (celaje image build debian-13 fetches what this test serves)")

    def package(self, name: str) -> Path:
        """The package's .deb. Skips where the cache does not have it."""
        found = self.files.get(self.packages[name].path)
        if not isinstance(found, Path):
            pytest.skip(f"celaje's cache does not have the package {name} (celaje image build debian-13 fetches it)")
        return found


def another_kernel(archive: CachedArchive) -> tuple[str, dict[str, bytes]]:
    """(release, files of a repository): Debian's kernel under another release's name, as a package of its own.

    It says that name itself, and has the modules that a machine of celaje's needs; scripts and dependencies are
    those of Debian's package.
    """
    name = kernel_package(archive.packages)
    source = archive.package(name)
    release = name.removeprefix("linux-image-")
    new = release.replace("+deb", "+new")
    assert new != release
    assert len(new) == len(release)  # it is replaced where it stands in the kernel
    directory = f"usr/lib/modules/{release}"
    content = deb.unpack(source, lambda path: path.startswith(("boot/", f"{directory}/")))
    kept = KernelModules(content, directory).selected(MODULES)
    kept.update(content.subset("boot"))
    data = Tree()
    for path, entry in kept:
        if entry.is_regular and not path.endswith(("/modules.dep", "/modules.alias")):
            renamed = entry.data.replace(release.encode(), new.encode()) if "/vmlinu" in path else entry.data
            data.file(path.replace(release, new), renamed, entry.mode & 0o777)
    scripts = Tree()
    for path, entry in deb.control(source):
        if entry.is_regular and path != "md5sums":
            scripts.file(path, entry.data.replace(release.encode(), new.encode()), entry.mode & 0o777)
    return new, _repository(scripts, data)


def _package(control: Tree, data: Tree) -> bytes:
    """A binary package (deb(5)), not compressed."""
    packed = b"!<arch>\n"
    members = {"debian-binary": b"2.0\n", "control.tar": _tar(control), "data.tar": _tar(data)}
    for name, content in members.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed


def _tar(tree: Tree) -> bytes:
    file = io.BytesIO()
    tar.write(tree, file)
    return file.getvalue()


def _repository(control: Tree, data: Tree) -> dict[str, bytes]:
    """A flat repository (DebianRepository/Format) of one package; nobody has signed it."""
    package = _package(control, data)
    told = f"Filename: ./package.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n"
    index = control.read("control").strip() + b"\n" + told.encode()
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    signed = f"Date: {now}\nSHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n"
    return {"package.deb": package, "Packages": index, "Release": signed.encode()}


@contextlib.contextmanager
def serving(served: Served) -> Iterator[int]:
    """A port of the host's loopback where these files are."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # apt asks for everything over one connection

        def do_GET(self) -> None:
            found = served.get(urllib.parse.unquote(self.path).lstrip("/").replace("/./", "/"))
            body = found.read_bytes() if isinstance(found, Path) else found
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
