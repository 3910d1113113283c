from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest

from celaje.errors import ImageError
from celaje.image import deb, tar
from celaje.image.tree import Tree
from tests.image.conftest import ar_of, deb_of, tar_of


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return tmp_path / "made_1_riscv64.deb"


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_a_package_unpacks_to_its_files(package: Path, compression: str) -> None:
    package.write_bytes(deb_of({"./usr/bin/a": b"A" * 100_000, "./etc/b": b"B"}, compression))
    tree = deb.unpack(package)
    assert tree.read("usr/bin/a") == b"A" * 100_000
    assert tree.read("etc/b") == b"B"


def test_only_wanted_files_are_kept(package: Path) -> None:
    package.write_bytes(deb_of({"./usr/bin/a": b"A", "./etc/b": b"B"}))
    tree = deb.unpack(package, lambda path: path.startswith("etc/"))
    assert "usr/bin/a" not in tree
    assert "etc/b" in tree


def test_owners_modes_links_and_devices_are_kept(package: Path) -> None:
    directory = tarfile.TarInfo("./var/mail")
    directory.type, directory.mode, directory.gid = tarfile.DIRTYPE, 0o2775, 8
    device = tarfile.TarInfo("./dev/null")
    device.type, device.mode, device.devmajor, device.devminor = tarfile.CHRTYPE, 0o666, 1, 3
    extra = [directory, device, link("./s", tarfile.SYMTYPE, "../anywhere"), link("./h", tarfile.LNKTYPE, "./a")]
    package.write_bytes(deb_of({"./a": b"A"}, extra=extra))
    tree = deb.unpack(package)
    assert (tree["var/mail"].mode, tree["var/mail"].gid) == (stat.S_IFDIR | 0o2775, 8)
    assert (tree["dev/null"].mode, tree["dev/null"].device) == (stat.S_IFCHR | 0o666, (1, 3))
    assert tree["s"].data == b"../anywhere"
    assert tree.read("h") == b"A"


@pytest.mark.parametrize(
    "extra",
    [
        [link("../outside", tarfile.SYMTYPE, "x")],
        [link("./h", tarfile.LNKTYPE, "../../etc/shadow")],
        [link("./h", tarfile.LNKTYPE, "./missing")],
        [link("./out", tarfile.SYMTYPE, "/etc"), link("./out/passwd", tarfile.SYMTYPE, "x")],
        [link("./contiguous", b"Z", "")],
    ],
)
def test_a_hostile_archive_is_refused(package: Path, extra: list[tarfile.TarInfo]) -> None:
    package.write_bytes(deb_of({"./a": b"A"}, extra=extra))
    with pytest.raises(ImageError):
        deb.unpack(package)


def test_a_file_that_leaves_the_tree_is_refused(package: Path) -> None:
    package.write_bytes(deb_of({"./usr/../../etc/cron.d/evil": b"*"}))
    with pytest.raises(ImageError, match="leaves the tree"):
        deb.unpack(package)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no Debian package"),
        (b"PK\3\4 a zip", "no Debian package"),
        (b"!<arch>\n" + b"x" * 60, "no ar member"),
        (ar_of({"data.tar": b""}), "debian-binary"),
        (ar_of({"debian-binary": b"2.0\n"}), "no data.tar"),
        (ar_of({"debian-binary": b"2.0\n", "data.tar.lz9": b""}), "no data.tar"),
        (ar_of({"debian-binary": b"2.0\n", "data.tar.xz": b"not xz"}), "broken package"),
        (ar_of({"debian-binary": b"2.0\n", "data.tar.gz": b"\x1f\x8bnot gz"}), "broken package"),
        (ar_of({"debian-binary": b"2.0\n", "data.tar.zst": b"not zst"}), "broken package"),
    ],
)
def test_what_is_no_package_is_an_error_that_says_why(package: Path, content: bytes, said: str) -> None:
    package.write_bytes(content)
    with pytest.raises(ImageError, match=said):
        deb.unpack(package)


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_a_package_that_is_cut_short_is_refused(package: Path, compression: str) -> None:
    whole = deb_of({"./a": bytes(range(256)) * 400}, compression)
    package.write_bytes(whole[: len(whole) - 200])
    with pytest.raises(ImageError, match="cut short"):
        deb.unpack(package)


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_a_data_archive_that_is_cut_short_is_refused(package: Path, compression: str) -> None:
    whole = deb_of({"./a": bytes(range(256)) * 400}, compression)
    start = whole.index(b"data.tar")
    data = whole[start + 60 : start + 60 + int(whole[start + 48 : start + 58])]
    package.write_bytes(ar_of({"debian-binary": b"2.0\n", f"data.tar{compression}": data[: len(data) // 3]}))
    with pytest.raises(ImageError, match="made_1"):
        deb.unpack(package)


def test_a_tree_goes_through_tar_and_back_unchanged() -> None:
    tree = Tree()
    tree.directory("tmp", 0o1777)
    tree.file("home/user/x", b"x", 0o640, uid=1000, gid=1001)
    tree.symlink("bin", "usr/bin")
    tree.character_device("dev/console", 5, 1)
    buffer = io.BytesIO()
    tar.write(tree, buffer)
    buffer.seek(0)
    assert list(deb.unpack_tar(buffer, "tree")) == list(tree)
    assert len(tar_of({})) == 10240
    assert len(buffer.getvalue()) % 10240 == 0


def test_the_control_archive_has_what_a_package_says_to_dpkg(tmp_path: Path) -> None:
    path = tmp_path / "tool.deb"
    path.write_bytes(deb_of({"./usr/bin/tool": b"tool"}, name="tool", postinst=b"#!/bin/sh\n"))
    found = deb.control(path)
    assert found.read("control").startswith(b"Package: tool\n")
    assert found.read("postinst") == b"#!/bin/sh\n"
    path.write_bytes(deb_of({"./usr/bin/tool": b"tool"}))
    with pytest.raises(ImageError, match=r"tool.deb"):
        deb.control(path)
