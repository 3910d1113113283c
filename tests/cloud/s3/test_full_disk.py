"""A disk that is full is told, nothing half-made stays on it, and what is there can be read and deleted."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.disk.files import HostFiles
from tests.cloud.s3.conftest import client_of
from tests.cloud.s3.refusals import refused
from tests.cloud.s3.server import Served


class SmallDisk(HostFiles):
    """The host's files, on which so many bytes can still be written."""

    def __init__(self, room: int) -> None:
        self.room = room

    def pwritev(self, fd: int, buffers: Sequence[memoryview | bytes | bytearray], offset: int, /) -> int:  # type: ignore[override]  # of the host it is a function
        if self.room < sum(map(len, buffers)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = os.pwritev(fd, buffers, offset)
        self.room -= done
        return done


def test_a_full_disk_is_told_and_nothing_half_made_stays(tmp_path: Path) -> None:
    disk = SmallDisk(5_000_000)
    with Served(tmp_path, ObjectStore(tmp_path / "cloud" / "s3", disk)) as served:
        client = client_of(served.endpoint)
        client.create_bucket(Bucket="a-bucket")
        client.put_object(Bucket="a-bucket", Key="fits", Body=bytes(3_000_000))
        for size in (2_500_000, 20_000_000):
            with refused("InsufficientStorage", 507):
                client.put_object(Bucket="a-bucket", Key="does-not", Body=bytes(size))
        disk.room = 5_000_000
        upload = client.create_multipart_upload(Bucket="a-bucket", Key="parts")["UploadId"]
        with refused("InsufficientStorage", 507):
            client.upload_part(
                Bucket="a-bucket", Key="parts", UploadId=upload, PartNumber=1, Body=bytes(6_000_000)
            )
        with refused("NoSuchKey"):
            client.get_object(Bucket="a-bucket", Key="does-not")
        assert client.get_object(Bucket="a-bucket", Key="fits")["Body"].read() == bytes(3_000_000)
        files = [path for path in (tmp_path / "cloud" / "s3" / "contents").rglob("*") if path.is_file()]
        assert len(files) == 1
        client.delete_object(Bucket="a-bucket", Key="fits")
        client.close()
