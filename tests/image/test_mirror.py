from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from celaje.errors import HostError, ImageError
from celaje.image import mirror as mirror_module
from celaje.image.apt_configuration import AptConfiguration
from celaje.image.mirror import Mirror, Missing, NotAsSigned, Unreachable
from celaje.image.progress import Silence
from tests.image.conftest import FabricatedArchive, MirrorServer

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def mirror(server: MirrorServer, fabricated: FabricatedArchive) -> Mirror:
    fabricated.files["pool/x.deb"] = CONTENT
    return server.mirror


def part_of(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "downloads" / f"{SHA256[:32]}-x.deb.part"


class Recorder(Silence):
    def __init__(self) -> None:
        self.transfers: list[tuple[str, int, int]] = []

    def transfer(self, name: str, done: int, total: int) -> None:
        self.transfers.append((name, done, total))


def test_the_mirror_is_what_the_person_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELAJE_DEBIAN_MIRROR", "http://given.example/debian/")
    assert (
        Mirror.of_this_host(AptConfiguration(("http://apt.example/debian",), {})).base == "http://given.example/debian"
    )


def test_the_mirror_is_else_apts_with_apts_proxy() -> None:
    settings = {"acquire::http::proxy": "http://proxy.example:3128"}
    found = Mirror.of_this_host(AptConfiguration(("http://apt.example/debian", "http://b.example/debian"), settings))
    assert found.base == "http://apt.example/debian"
    assert found.proxies == {"http": "http://proxy.example:3128"}


def test_without_a_proxy_of_apts_the_environments_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://env.example:8080")
    monkeypatch.setenv("no_proxy", "near.example")
    assert (
        Mirror.of_this_host(AptConfiguration(("http://a.example/debian",), {})).proxies["http"]
        == "http://env.example:8080"
    )
    assert Mirror.of_this_host(AptConfiguration(("http://near.example/debian",), {})).proxies == {}
    direct = AptConfiguration(("http://a.example/debian",), {"acquire::http::proxy": "DIRECT"})
    assert Mirror.of_this_host(direct).proxies == {}


def test_without_any_mirror_the_error_says_how_to_set_one() -> None:
    with pytest.raises(HostError, match="export CELAJE_DEBIAN_MIRROR="):
        Mirror.of_this_host(AptConfiguration((), {}))


@pytest.mark.parametrize("address", ["debian", "ftp://mirror.example/debian", "http:///debian"])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("CELAJE_DEBIAN_MIRROR", address)
    with pytest.raises(HostError, match="CELAJE_DEBIAN_MIRROR"):
        Mirror.of_this_host(AptConfiguration((), {}))


def test_a_download_is_kept_and_not_fetched_again(mirror: Mirror, server: MirrorServer, tmp_path: Path) -> None:
    progress = Recorder()
    file = mirror.download("pool/x.deb", SHA256, len(CONTENT), progress)
    assert file.read_bytes() == CONTENT
    assert progress.transfers[-1] == ("x.deb", len(CONTENT), len(CONTENT))
    assert mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence()) == file
    assert len(server.requests) == 1
    assert not part_of(tmp_path).exists()


def test_characters_of_package_names_reach_the_mirror(server: MirrorServer, fabricated: FabricatedArchive) -> None:
    fabricated.files["pool/libstdc++6_1~2.deb"] = CONTENT
    assert server.mirror.download("pool/libstdc++6_1~2.deb", SHA256, len(CONTENT), Silence()).read_bytes() == CONTENT


def test_a_download_that_breaks_off_goes_on_where_it_stopped(mirror: Mirror, server: MirrorServer) -> None:
    server.cut_after, server.cuts = 300_000, 2
    file = mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence())
    assert file.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=600000-"]


def test_a_mirror_that_knows_no_ranges_sends_all_again(mirror: Mirror, server: MirrorServer) -> None:
    server.cut_after, server.cuts, server.ranges = 300_000, 1, False
    assert mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence()).read_bytes() == CONTENT


def test_the_part_of_an_earlier_run_is_used(mirror: Mirror, server: MirrorServer, tmp_path: Path) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    assert mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence()).read_bytes() == CONTENT
    assert server.requests == [("pool/x.deb", "bytes=1000-")]


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 5])
def test_a_part_with_wrong_bytes_is_thrown_away(mirror: Mirror, tmp_path: Path, length: int) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(b"x" * length)
    assert mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence()).read_bytes() == CONTENT


def test_a_cached_file_that_was_changed_is_fetched_again(mirror: Mirror) -> None:
    file = mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence())
    file.write_bytes(b"changed")
    assert mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence()).read_bytes() == CONTENT


def test_a_download_that_never_ends_whole_says_so_and_keeps_its_part(
    mirror: Mirror, server: MirrorServer, tmp_path: Path
) -> None:
    server.cut_after, server.cuts = 10, 100
    with pytest.raises(Unreachable, match="run the command again"):
        mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence())
    assert part_of(tmp_path).read_bytes() == CONTENT[: part_of(tmp_path).stat().st_size] != b""


def test_other_bytes_than_the_signed_ones_are_refused(
    mirror: Mirror, fabricated: FabricatedArchive, tmp_path: Path
) -> None:
    fabricated.files["pool/x.deb"] = CONTENT[:-1] + b"!"
    with pytest.raises(NotAsSigned, match=SHA256):
        mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence())
    assert not part_of(tmp_path).exists()


@pytest.mark.parametrize("content", [CONTENT + b"more", CONTENT[:-7]])
def test_another_length_than_the_signed_one_is_refused_before_it_is_fetched(
    mirror: Mirror, fabricated: FabricatedArchive, content: bytes
) -> None:
    fabricated.files["pool/x.deb"] = content
    with pytest.raises(NotAsSigned, match=f"{len(content)} bytes"):
        mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence())


def test_a_file_that_the_mirror_lacks_is_missing(mirror: Mirror) -> None:
    with pytest.raises(Missing, match="404"):
        mirror.download("pool/y.deb", SHA256, 1, Silence())
    with pytest.raises(Missing):
        mirror.read("dists/none/InRelease")


def test_a_mirror_that_is_not_there_is_unreachable() -> None:
    # Port 9 is discard: nothing listens there.
    with pytest.raises(Unreachable, match="does not answer"):
        Mirror("http://127.0.0.1:9/debian", {}).read("dists/trixie/InRelease")


def test_an_index_that_breaks_off_is_asked_for_again(mirror: Mirror, server: MirrorServer) -> None:
    server.cut_after, server.cuts = 5, 1
    assert mirror.read("pool/x.deb") == CONTENT


def test_a_full_disk_is_an_error_that_says_so(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this host has no /dev/full")
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).symlink_to(full)
    with pytest.raises(HostError, match="no space is left"):
        mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence())


def test_a_cache_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(HostError, match="file/cache"):
        mirror_module.downloads()


def test_a_directory_serves_as_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "x.deb").write_bytes(CONTENT)
    mirror = Mirror(f"file://{tmp_path}", {})
    assert mirror.download("pool/x.deb", SHA256, len(CONTENT), Silence()).read_bytes() == CONTENT
    with pytest.raises(Missing):
        mirror.read("pool/y.deb")


def test_every_failure_is_an_error_for_people() -> None:
    assert issubclass(Missing, ImageError)
    assert issubclass(NotAsSigned, ImageError)
    assert issubclass(Unreachable, HostError)
