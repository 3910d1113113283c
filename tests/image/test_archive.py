from __future__ import annotations

from datetime import UTC, datetime

import pysequoia
import pytest

from celaje.errors import HostError, ImageError
from celaje.image.archive import Archive, PackageIndex, Release
from celaje.image.mirror import Mirror
from celaje.image.progress import Silence
from tests.image.conftest import FabricatedArchive, MirrorServer

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def opened(server: MirrorServer, fabricated: FabricatedArchive) -> Archive:
    return Archive.open(server.mirror, fabricated.keys, "trixie", "riscv64", Silence(), NOW)


@pytest.fixture
def full(fabricated: FabricatedArchive) -> FabricatedArchive:
    fabricated.package("busybox-static", b"busybox")
    fabricated.package("e2fsprogs", b"e2", depends="libc6 (>= 2.38), libblkid1 (>= 2.36) | libblkid-dev, logsave")
    fabricated.package("libblkid1", b"blkid", depends="libc6")
    fabricated.package("libc6", b"libc", depends="libgcc-s1")
    fabricated.package("libgcc-s1", b"gcc")
    fabricated.package("logsave", b"log", depends="perl:any")
    return fabricated


@pytest.mark.parametrize("by_hash", [False, True])
def test_packages_are_found_and_fetched(server: MirrorServer, full: FabricatedArchive, by_hash: bool) -> None:
    full.publish(by_hash=by_hash)
    archive = opened(server, full)
    package = archive.packages["busybox-static"]
    assert (package.version, package.size) == ("1.0-1", 7)
    assert archive.fetch(package, Silence()).read_bytes() == b"busybox"
    assert archive.released == int(datetime(2026, 9, 12, 7, 55, 41, tzinfo=UTC).timestamp())
    assert archive.notes == []


def test_the_closure_follows_dependencies_and_leaves_out_what_is_not_wanted(
    server: MirrorServer, full: FabricatedArchive
) -> None:
    full.publish()
    names = [one.name for one in opened(server, full).packages.closure(["e2fsprogs"], without=["logsave"])]
    assert names == ["e2fsprogs", "libblkid1", "libc6", "libgcc-s1"]


def test_a_dependency_that_the_archive_lacks_is_an_error_that_names_both(
    server: MirrorServer, full: FabricatedArchive
) -> None:
    full.publish()
    with pytest.raises(ImageError, match="'logsave' needs perl"):
        opened(server, full).packages.closure(["e2fsprogs"])


def test_a_package_that_is_not_there_is_named(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish()
    with pytest.raises(ImageError, match="'nosuch'"):
        opened(server, full).packages["nosuch"]


def test_an_unsigned_index_is_refused(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish()
    full.files["dists/trixie/InRelease"] = full.release(b"anything").encode()
    with pytest.raises(ImageError, match="not signed by a key"):
        opened(server, full)


def test_a_strangers_index_is_refused_even_when_stable_would_do(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish("stable")
    full.publish()
    stranger = pysequoia.Tsk.generate("Stranger <stranger@example.org>")
    full.files["dists/trixie/InRelease"] = full.sign(full.release(b"x"), stranger)
    with pytest.raises(ImageError, match="not signed by a key"):
        opened(server, full)


def test_an_index_past_its_time_is_refused(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish(fields="Valid-Until: Sun, 22 Nov 2026 02:09:05 UTC\n")
    with pytest.raises(ImageError, match="was valid until Sun, 22 Nov 2026"):
        opened(server, full)


def test_an_owner_of_a_frozen_mirror_may_say_that_time_does_not_matter(
    server: MirrorServer, full: FabricatedArchive
) -> None:
    full.publish(fields="Valid-Until: Sun, 22 Nov 2026 02:09:05 UTC\n")
    mirror = Mirror(server.base, {}, checks_expiry=False)
    assert "libc6" in Archive.open(mirror, full.keys, "trixie", "riscv64", Silence(), NOW).packages


def test_an_index_within_its_time_is_taken(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish(fields="Valid-Until: Tue, 24 Nov 2026 02:09:05 UTC\n")
    assert "libc6" in opened(server, full).packages


def test_an_index_of_another_release_is_refused(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish(codename="bookworm")
    with pytest.raises(ImageError, match="'bookworm', not of 'trixie'"):
        opened(server, full)


def test_an_index_without_the_architecture_is_refused(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish()
    with pytest.raises(ImageError, match="does not carry that architecture"):
        Archive.open(server.mirror, full.keys, "trixie", "sparc", Silence(), NOW)


def test_a_package_with_other_bytes_is_refused(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish()
    archive = opened(server, full)
    package = archive.packages["libc6"]
    full.files[package.path] = b"evil"
    with pytest.raises(ImageError, match="SHA-256"):
        archive.fetch(package, Silence())


def test_a_package_that_is_gone_says_that_the_mirror_is_being_renewed(
    server: MirrorServer, full: FabricatedArchive
) -> None:
    full.publish()
    archive = opened(server, full)
    del full.files[archive.packages["libc6"].path]
    with pytest.raises(ImageError, match="being renewed"):
        archive.fetch(archive.packages["libc6"], Silence())


def test_a_mirror_between_two_states_serves_by_its_other_name(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish("stable")
    full.publish()
    full.files["dists/trixie/main/binary-riscv64/Packages.xz"] += b"newer"
    archive = opened(server, full)
    assert "libc6" in archive.packages
    assert "stable" in archive.notes[0]


def test_stable_does_not_stand_in_once_it_is_another_release(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish("stable", codename="forky")
    full.publish()
    full.files["dists/trixie/main/binary-riscv64/Packages.xz"] += b"newer"
    with pytest.raises(ImageError, match="signed index"):
        opened(server, full)


def test_the_last_state_that_fitted_serves_when_the_mirror_is_away(
    server: MirrorServer, full: FabricatedArchive
) -> None:
    full.publish()
    opened(server, full)
    kept = dict(full.files)
    full.files.clear()
    archive = opened(server, full)
    assert "libc6" in archive.packages
    assert "kept from an earlier build" in archive.notes[0]
    full.files.update(kept)
    assert opened(server, full).notes == []


def test_a_kept_state_past_its_time_does_not_serve(server: MirrorServer, full: FabricatedArchive) -> None:
    full.publish(fields="Valid-Until: Tue, 24 Nov 2026 02:09:05 UTC\n")
    opened(server, full)
    full.files.clear()
    with pytest.raises(ImageError, match="404"):
        Archive.open(server.mirror, full.keys, "trixie", "riscv64", Silence(), datetime(2026, 12, 1, tzinfo=UTC))


def test_a_mirror_that_was_never_there_is_an_error_of_the_host(fabricated: FabricatedArchive) -> None:
    with pytest.raises(HostError, match="does not answer"):
        Archive.open(Mirror("http://127.0.0.1:9/debian", {}), fabricated.keys, "trixie", "riscv64", Silence(), NOW)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Date: Sat, 12 Sep 2026 07:55:41 UTC\nSHA256:\n", "no field Codename"),
        ("Codename: trixie\nSHA256:\n", "no field Date"),
        ("Codename: trixie\nDate: Sat, 12 Sep 2026 07:55:41 UTC\nMD5Sum:\n", "no field SHA256"),
        ("Codename: trixie\nDate: x\nValid-Until: soon\nSHA256:\n", "no date that can be read"),
    ],
)
def test_a_release_that_says_too_little_is_refused(text: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        Release.parse(text, "InRelease", NOW)


HASH = "0" * 64


@pytest.mark.parametrize(
    ("stanza", "said"),
    [
        ("Package: a\nVersion: 1\nSize: 5\nSHA256: " + HASH, "does not say where"),
        ("Package: a\nVersion: 1\nFilename: pool/a.deb\nSize: many\nSHA256: " + HASH, "does not say where"),
        ("Package: a\nVersion: 1\nFilename: pool/a.deb\nSize: 5\nSHA256: short", "path or hash"),
        ("Package: a\nVersion: 1\nFilename: ../../a.deb\nSize: 5\nSHA256: " + HASH, "path or hash"),
        ("Package: a\nVersion: 1\nFilename: /etc/passwd\nSize: 5\nSHA256: " + HASH, "path or hash"),
        ("Package: a\nVersion: 1\nFilename: a\nSize: 5\nDepends: b (>= 1\nSHA256: " + HASH, "cannot be read"),
    ],
)
def test_a_stanza_that_makes_no_sense_is_refused(stanza: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        PackageIndex(stanza)["a"]


def test_an_index_that_is_none_is_refused() -> None:
    with pytest.raises(ImageError, match="does not begin"):
        PackageIndex("<html>not here</html>")


def stanza(name: str, *fields: str) -> str:
    lines = [f"Package: {name}", "Version: 1", f"Filename: pool/{name}.deb", "Size: 5", f"SHA256: {HASH}", *fields]
    return "\n".join(lines) + "\n"


SMALL = PackageIndex(
    "\n".join(
        [
            stanza("base-files", "Essential: yes", "Pre-Depends: awk"),
            stanza("dash", "Priority: required"),
            stanza("gawk", "Provides: awk (= 5), other"),
            stanza("mawk", "Priority: required", "Provides: awk"),
            stanza("tool", "Depends: awk, first | second"),
            stanza("first"),
            stanza("second"),
        ]
    )
)


def names_of(names: list[str]) -> list[str]:
    return [package.name for package in SMALL.closure(names)]


def test_the_base_is_what_is_required_or_essential() -> None:
    assert SMALL.base() == ["base-files", "dash", "mawk"]


def test_a_need_that_only_others_provide_is_met_by_a_package_of_the_base_first() -> None:
    assert names_of(["base-files"]) == ["base-files", "mawk"]
    assert names_of(["base-files", "gawk"]) == ["base-files", "gawk"]


def test_an_alternative_that_is_asked_for_anyhow_meets_the_need() -> None:
    assert names_of(["tool"]) == ["first", "mawk", "tool"]
    assert names_of(["tool", "second"]) == ["mawk", "second", "tool"]
