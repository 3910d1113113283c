"""The host's files, as the rest of the room relies on them."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from pathlib import Path

import pytest

from celaje.disk import files as layer
from celaje.disk.files import CREATE, HOST, READ, WRITE, opened, publish, read_at_once, read_fully, remove_tree, section
from celaje.disk.volumes import ImageSource, VolumeStore

MEBIBYTE = 1 << 20


def sparse(path: Path) -> bytes:
    """A file with a hole at either end and one inside."""
    content = bytes(MEBIBYTE) + os.urandom(65536) + bytes(MEBIBYTE) + os.urandom(4096) + bytes(MEBIBYTE)
    with open(path, "wb") as file:
        file.truncate(len(content))
        for at in (MEBIBYTE, 2 * MEBIBYTE + 65536):
            file.seek(at)
            file.write(content[at : at + 65536].rstrip(b"\0"))
    return content


def test_holes_are_told_apart_from_data(tmp_path: Path) -> None:
    content = sparse(tmp_path / "file")
    with opened(HOST, tmp_path / "file", READ) as fd:
        stretches = list(HOST.data(fd, 4096, len(content) - 4096))
        inside = {at for start, end in stretches for at in range(start, end, 4096)}
        for at in range(4096, len(content) - 4096, 4096):
            assert at in inside or content[at : at + 4096] == bytes(4096)
        assert all(4096 <= start < end <= len(content) - 4096 for start, end in stretches)
        assert list(HOST.data(fd, 0, 0)) == []


@pytest.mark.parametrize("refused", [[], ["ioctl"], ["ioctl", "copy_file_range"]])
def test_a_copy_is_whole_and_keeps_its_holes(
    refused: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    for name in refused:
        monkeypatch.setattr(fcntl if name == "ioctl" else os, name, refuse)
    content = sparse(tmp_path / "file")
    with opened(HOST, tmp_path / "file", READ) as given, opened(HOST, tmp_path / "copy", CREATE) as taken:
        assert list(HOST.copy(given, taken, len(content)))[-1] == len(content)
    assert (tmp_path / "copy").read_bytes() == content
    assert HOST.allocated(tmp_path / "copy") < MEBIBYTE
    assert os.stat(tmp_path / "copy").st_mode & 0o777 == 0o600


def test_an_erased_range_reads_as_zeros_and_gives_its_space_back(tmp_path: Path) -> None:
    with opened(HOST, tmp_path / "file", CREATE) as fd:
        os.write(fd, b"x" * MEBIBYTE)
        for keep_space in (True, False):
            if not HOST.erase(fd, 4096, MEBIBYTE // 2, keep_space):
                pytest.skip("this file system has no holes")
            assert os.pread(fd, MEBIBYTE, 0) == b"x" * 4096 + bytes(MEBIBYTE // 2) + b"x" * (MEBIBYTE // 2 - 4096)
        assert HOST.allocated(tmp_path / "file") <= MEBIBYTE // 2 + 8192


def test_a_lock_is_one_writers_or_many_readers(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with opened(HOST, tmp_path / "file", READ) as one, opened(HOST, tmp_path / "file", READ) as other:
        assert HOST.lock(one, exclusive=False, wait=False)
        assert HOST.lock(other, exclusive=False, wait=True)
        assert not HOST.lock(other, exclusive=True, wait=False)
    with opened(HOST, tmp_path / "file", WRITE) as one:
        assert HOST.lock(one, exclusive=True, wait=False)


def test_a_file_that_ends_before_what_should_be_in_it_is_an_io_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    block = bytearray(200)
    with opened(HOST, tmp_path / "file", READ) as fd, pytest.raises(OSError, match="ends 100 bytes before"):
        read_fully(HOST, fd, section([memoryview(block)], 0, 200), 0)


def test_reading_at_once_says_whether_it_has(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4096)
    block = bytearray(4096)
    with opened(HOST, tmp_path / "file", READ) as fd:
        os.pread(fd, 4096, 0)
        if read_at_once(HOST, fd, [memoryview(block)], 0):
            assert block == b"x" * 4096


def test_what_is_published_is_whole_and_nothing_else_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(HOST, tmp_path / "file", [b"one"])
    publish(HOST, tmp_path / "file", [b"two", b"three"])
    assert (tmp_path / "file").read_bytes() == b"twothree"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(layer.HostFiles, "fdatasync", refuse)
    with pytest.raises(OSError, match="space"):
        publish(HOST, tmp_path / "file", [b"four"])
    assert (tmp_path / "file").read_bytes() == b"twothree"
    assert os.listdir(tmp_path) == ["file"]
    remove_tree(HOST, tmp_path / "nothing")


def test_where_no_link_can_be_made_an_image_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(random.Random(1).randbytes(MEBIBYTE))
    store = VolumeStore(tmp_path / "home")
    link = os.link

    def across(old: Path, new: Path) -> None:
        if old == image:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(old, new)

    monkeypatch.setattr(os, "link", across)
    for name in ("one", "two"):
        store.create(name, source=ImageSource(image, "5" * 64))
    bases = [store.layout.volumes / name / "base" for name in ("one", "two")]
    image.unlink()
    assert bases[0].read_bytes() == random.Random(1).randbytes(MEBIBYTE)
    assert os.path.samefile(*bases)
