from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from celaje.errors import HostError, InputError, NotFound
from celaje.machine.virtio.block_backend import BlockBackend, RawFile, section, write_fully, write_zeroes_by_hand
from celaje.machine.virtio.overlay import Overlay

SIZE = 40 * 512 + 5 * 4096  # does not end on a cluster's edge


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def read(backend: BlockBackend, offset: int, length: int) -> bytes:
    data = bytearray(length)
    backend.readinto([memoryview(data)], offset)
    return bytes(data)


def write(backend: BlockBackend, offset: int, data: bytes) -> None:
    backend.write([memoryview(bytearray(data))], offset)


def test_a_section_of_buffers_is_cut_from_them_put_end_to_end() -> None:
    buffers = [memoryview(bytearray(part)) for part in (b"abc", b"defg", b"h")]
    whole = b"abcdefgh"
    for start in range(9):
        for length in range(9 - start):
            assert b"".join(section(buffers, start, length)) == whole[start : start + length]


def test_a_raw_file_holds_what_is_written(path: Path) -> None:
    disk = RawFile(path)
    before = path.read_bytes()
    write(disk, 1024, b"q" * 512)
    disk.flush()
    disk.close()
    assert path.read_bytes() == before[:1024] + b"q" * 512 + before[1536:]


def test_a_raw_file_that_shrinks_gives_an_error_instead_of_old_bytes(path: Path) -> None:
    disk = RawFile(path)
    os.truncate(path, 700)
    with pytest.raises(OSError, match="ends"):
        read(disk, 512, 512)
    assert not disk.readinto_at_once([memoryview(bytearray(512))], 512)
    disk.close()


def test_a_hole_gives_the_space_back_and_keeps_the_size(path: Path) -> None:
    path.write_bytes(b"z" * (1 << 20))
    disk = RawFile(path)
    before = path.stat().st_blocks
    disk.write_zeroes(4096, 1 << 19, True)
    disk.close()
    assert path.read_bytes() == b"z" * 4096 + bytes(1 << 19) + b"z" * ((1 << 20) - (1 << 19) - 4096)
    assert path.stat().st_blocks < before


def test_zeros_are_written_by_hand_where_there_are_no_holes(path: Path) -> None:
    before = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        write_zeroes_by_hand(file.fileno(), 512, 4096)
    assert path.read_bytes() == before[:512] + bytes(4096) + before[512 + 4096 :]


def test_two_writers_of_one_disk_are_refused(path: Path) -> None:
    first = RawFile(path)
    with pytest.raises(InputError, match=r"in use by another machine.*readonly to both"):
        RawFile(path)
    with pytest.raises(InputError, match="in use by another machine"):
        RawFile(path, read_only=True)
    first.close()
    RawFile(path).close()


def test_any_number_of_readers_share_a_disk_and_keep_writers_out(path: Path) -> None:
    readers = [RawFile(path, read_only=True) for _ in range(3)]
    with pytest.raises(InputError, match="in use"):
        RawFile(path)
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("size", [0, 511, 513])
def test_a_file_that_is_not_whole_sectors_is_refused_with_the_way_out(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.raw"
    path.write_bytes(bytes(size))
    with pytest.raises(InputError, match=rf"{size} bytes.*truncate -s %512"):
        RawFile(path)


def test_a_disk_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no disk .*missing\.raw.*truncate"):
        RawFile(tmp_path / "missing.raw")


def test_a_directory_is_no_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        RawFile(tmp_path)


def test_a_serial_stays_with_its_path_and_can_be_given(path: Path) -> None:
    disk = RawFile(path, read_only=True)
    again = RawFile(path, read_only=True, serial=b"vol-0123")
    assert len(disk.serial) == 20
    assert again.serial == b"vol-0123"
    disk.close()
    again.close()


def test_an_overlay_never_writes_its_base(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    overlay = Overlay(RawFile(path, read_only=True), tmp_path)
    write(overlay, 0, b"n" * SIZE)
    overlay.discard(0, 8192)
    overlay.flush()
    overlay.close()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    assert list(tmp_path.iterdir()) == [path], "nothing stays behind"


def test_many_overlays_share_a_base(path: Path) -> None:
    overlays = [Overlay(RawFile(path, read_only=True)) for _ in range(2)]
    write(overlays[0], 512, b"0" * 512)
    write(overlays[1], 512, b"1" * 512)
    assert [read(overlay, 512, 512)[:1] for overlay in overlays] == [b"0", b"1"]
    for overlay in overlays:
        overlay.close()


@pytest.mark.parametrize("seed", range(20))
def test_an_overlay_behaves_as_a_disk_in_memory(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    model = bytearray(path.read_bytes())
    overlay = Overlay(RawFile(path, read_only=True))
    for _ in range(60):
        first = rng.randrange(SIZE // 512)
        offset = first * 512
        length = 512 * rng.randint(1, min(20, SIZE // 512 - first))
        match rng.choice(["write", "zeroes", "discard", "read", "at once"]):
            case "write":
                data = rng.randbytes(length)
                cut = rng.randrange(length + 1)
                overlay.write([memoryview(bytearray(part)) for part in (data[:cut], data[cut:]) if part], offset)
                model[offset : offset + length] = data
            case "zeroes":
                overlay.write_zeroes(offset, length, rng.choice([True, False]))
                model[offset : offset + length] = bytes(length)
            case "discard":
                overlay.discard(offset, length)
                inner = range(-(-offset // 4096) * 4096, (offset + length) // 4096 * 4096)
                model[inner.start : max(inner.start, inner.stop)] = bytes(len(inner))
            case "read":
                assert read(overlay, offset, length) == model[offset : offset + length]
            case _:
                target = bytearray(length)
                if overlay.readinto_at_once([memoryview(target)], offset):
                    assert target == model[offset : offset + length]
    assert read(overlay, 0, SIZE) == bytes(model)
    overlay.close()


def test_an_overlay_that_finds_no_room_says_where_and_what_to_do(path: Path, tmp_path: Path) -> None:
    base = RawFile(path, read_only=True)
    with pytest.raises(HostError, match=r"nowhere.*TMPDIR"):
        Overlay(base, tmp_path / "nowhere")
    base.close()


def test_a_write_goes_on_where_the_host_took_only_a_part(tmp_path: Path) -> None:
    parts = [bytes([number]) * 3 for number in range(8)]
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        write_fully(file.fileno(), parts, 5)
        assert os.pread(file.fileno(), 100, 5) == b"".join(parts)


@pytest.mark.parametrize("size", [512, 4097])
def test_a_file_does_not_shrink_and_has_whole_sectors(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    disk = RawFile(path)
    with pytest.raises(InputError, match=f"has 4096 bytes; .* not {size}"):
        disk.grow(size)
    disk.grow(8192)
    assert (disk.size, path.stat().st_size) == (8192, 8192)
    disk.close()
