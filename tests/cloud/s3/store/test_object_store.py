"""Buckets, objects and uploads of the store, without HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

import pytest

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.store.checksums import ALGORITHMS, encoded
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.objects import Opened
from celaje.cloud.s3.store.receive import LARGEST_ROW, ROOM
from celaje.cloud.s3.store.records import Attributes, Bucket, StoredObject, UploadPlan
from celaje.cloud.s3.store.uploads import SMALLEST_PART, WantedPart
from celaje.errors import HostError

SIZES = (0, 1, LARGEST_ROW, LARGEST_ROW + 1, 3 << 20)


def put(store: ObjectStore, bucket: Bucket, key: bytes, body: bytes, algorithm: str = "CRC64NVME") -> StoredObject:
    receiver = store.receiver(ALGORITHMS[algorithm])
    for at in range(0, len(body), 100_000):
        receiver.take(body[at : at + 100_000])
    received = receiver.finish()
    after = store.objects.put(bucket, key, received, Attributes(checksum=received.checksum)).result().after
    assert after is not None
    return after


def body_of(opened: Opened, start: int = 0, length: int | None = None) -> bytes:
    length = opened.object.size - start if length is None else length
    if opened.body is not None:
        return opened.body[start : start + length]
    result = b""
    for path, offset, count in opened.pieces(start, length):
        with path.open("rb") as file:
            file.seek(offset)
            result += file.read(count)
    return result


def get(store: ObjectStore, bucket: Bucket, key: bytes) -> bytes:
    opened = store.objects.open(bucket, key)
    try:
        return body_of(opened)
    finally:
        opened.close()


def files(store: ObjectStore, tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "s3" / "contents").rglob("*") if path.is_file()]


@pytest.mark.parametrize("algorithm", ["CRC64NVME", "SHA256"])
def test_a_body_received_into_buffers_that_are_used_again_is_what_was_sent(
    store: ObjectStore, bucket: Bucket, algorithm: str
) -> None:
    body = os.urandom(9 * ROOM + 12_345)
    # Short ones at first, as they come while the head's connection is still the loop's.
    counts = [1000, LARGEST_ROW, 100_000, *[ROOM] * 8, ROOM - 7, 1]
    receiver, at = store.receiver(ALGORITHMS[algorithm]), 0
    for count in counts:
        piece = body[at : at + count]
        receiver.room()[: len(piece)] = piece
        receiver.filled(len(piece))
        at += len(piece)
    receiver.take(body[at:])
    received = receiver.finish()
    whole = ALGORITHMS[algorithm].hasher()
    whole.update(body)
    assert (received.size, received.md5) == (len(body), hashlib.md5(body).digest())
    assert received.checksum.value == encoded(whole.digest())
    store.objects.put(bucket, b"key", received, Attributes(checksum=received.checksum)).result()
    assert get(store, bucket, b"key") == body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_body_of_any_size_comes_back_with_its_digests(
    store: ObjectStore, bucket: Bucket, size: int, algorithm: str
) -> None:
    body = os.urandom(size)
    put(store, bucket, b"key", body, algorithm)
    found = store.objects.find(bucket, b"key")
    assert found is not None
    assert (found.size, found.etag) == (size, hashlib.md5(body).hexdigest())
    hasher = ALGORITHMS[algorithm].hasher()
    hasher.update(body)
    assert found.attributes.checksum is not None
    assert found.attributes.checksum.value == encoded(hasher.digest())
    assert get(store, bucket, b"key") == body


@pytest.mark.parametrize("key", [b"../../etc/passwd", b"/", b"a\0b", b"\xff\xfe", b".", b"x" * 1024, "ключ ☁".encode()])
def test_a_key_is_any_bytes_and_never_a_path(store: ObjectStore, bucket: Bucket, tmp_path: Path, key: bytes) -> None:
    put(store, bucket, key, b"b" * (LARGEST_ROW + 1))
    assert get(store, bucket, key) == b"b" * (LARGEST_ROW + 1)
    assert [each.key for each in store.objects.page(bucket).entries] == [key]
    (path,) = files(store, tmp_path)
    assert path.resolve().is_relative_to(tmp_path / "s3" / "contents")


def test_what_is_replaced_or_deleted_gives_its_space_back_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "s3")
    bucket = store.buckets.create("a-bucket", "123456789012", "us-east-1").result()
    old, new = os.urandom(200_000), os.urandom(200_000)
    put(store, bucket, b"key", old)
    reading = store.objects.open(bucket, b"key")
    put(store, bucket, b"key", new)
    store.objects.delete(bucket, b"key").result()
    assert body_of(reading) == old
    reading.close()
    with pytest.raises(AwsError, match="NoSuchKey"):
        store.objects.open(bucket, b"key")
    store.close()
    assert files(store, tmp_path) == []
    again = ObjectStore(tmp_path / "s3")
    assert again.usage().size == 0
    again.close()


def test_a_store_that_is_opened_again_has_what_it_had(tmp_path: Path) -> None:
    bodies = {b"small": b"s", b"large": os.urandom(1 << 20)}
    first = ObjectStore(tmp_path / "s3")
    bucket = first.buckets.create("a-bucket", "123456789012", "eu-west-1", (("k", "v"),)).result()
    for key, body in bodies.items():
        put(first, bucket, key, body)
    first.close()
    second = ObjectStore(tmp_path / "s3")
    assert second.buckets.get("a-bucket") == bucket
    assert {key: get(second, bucket, key) for key in bodies} == bodies
    assert (second.usage().objects, second.usage().size) == (2, 1 + (1 << 20))
    second.close()


def test_two_processes_cannot_have_one_store(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="celaje down"):
        ObjectStore(tmp_path / "s3")


def test_files_that_a_crash_has_left_are_swept_and_no_others(
    store: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    put(store, bucket, b"kept", b"k" * (LARGEST_ROW + 1))
    left = tmp_path / "s3" / "contents" / "ab" / ("ab" * 16)
    left.write_bytes(b"half")
    receiving = store.receiver()
    receiving.take(b"r" * (LARGEST_ROW + 1))
    assert store.sweep() == 1
    assert not left.exists()
    received = receiving.finish()
    store.objects.put(bucket, b"received", received, Attributes()).result()
    assert get(store, bucket, b"kept")[:1] == b"k"
    assert get(store, bucket, b"received")[:1] == b"r"


def test_a_copy_shares_its_file_and_outlives_the_original(store: ObjectStore, bucket: Bucket) -> None:
    body = os.urandom(200_000)
    put(store, bucket, b"one", body)
    opened = store.objects.open(bucket, b"one")
    received = store.again(opened, ALGORITHMS["CRC64NVME"])
    other = store.again(opened, ALGORITHMS["SHA256"])
    opened.close()
    store.objects.put(bucket, b"two", received, Attributes(checksum=received.checksum)).result()
    store.objects.put(bucket, b"three", other, Attributes(checksum=other.checksum)).result()
    store.objects.delete(bucket, b"one").result()
    assert get(store, bucket, b"two") == get(store, bucket, b"three") == body
    assert received.md5 == other.md5 == hashlib.md5(body).digest()


def test_a_condition_sees_what_is_there_at_the_moment_of_the_change(store: ObjectStore, bucket: Bucket) -> None:
    def nothing_there(found: StoredObject | None) -> None:
        if found is not None:
            raise AwsError("PreconditionFailed", "there is one", 412)

    outcomes = []

    def one(number: int) -> None:
        receiver = store.receiver()
        receiver.take(b"%d" % number * (LARGEST_ROW + 1))
        try:
            store.objects.put(bucket, b"key", receiver.finish(), Attributes(), nothing_there).result()
            outcomes.append(number)
        except AwsError:
            pass

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert get(store, bucket, b"key").startswith(b"%d" % outcomes[0])


def test_a_bucket_with_objects_stays_and_one_with_unfinished_uploads_goes(store: ObjectStore, bucket: Bucket) -> None:
    put(store, bucket, b"key", b"")
    with pytest.raises(AwsError, match="BucketNotEmpty"):
        store.buckets.delete(bucket).result()
    store.objects.delete(bucket, b"key").result()
    upload = store.uploads.begin(bucket, b"key", PLAN).result()
    part(store, upload.identifier, bucket, 1, b"x")
    store.buckets.delete(bucket).result()
    assert store.buckets.get("a-bucket") is None
    with pytest.raises(AwsError, match="NoSuchBucket"):
        put(store, bucket, b"late", b"")
    with pytest.raises(AwsError, match="NoSuchUpload"):
        store.uploads.get(bucket, b"key", upload.identifier)


PLAN = UploadPlan(Attributes(), "CRC32", True)


def part(store: ObjectStore, upload: str, bucket: Bucket, number: int, body: bytes) -> str:
    receiver = store.receiver(ALGORITHMS["CRC32"], part=True)
    receiver.take(body)
    return store.uploads.put_part(store.uploads.get(bucket, b"key", upload), number, receiver.finish()).result().etag


def test_parts_become_an_object_in_the_order_of_their_numbers(
    store: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    bodies = [os.urandom(SMALLEST_PART), os.urandom(SMALLEST_PART + 7), os.urandom(11)]
    upload = store.uploads.begin(bucket, b"key", PLAN).result()
    part(store, upload.identifier, bucket, 3, b"replaced")
    etags = {number: part(store, upload.identifier, bucket, number, bodies[number - 1]) for number in (3, 1, 2)}
    part(store, upload.identifier, bucket, 9, b"not wanted")
    wanted = [WantedPart(number, etags[number]) for number in (1, 2, 3)]
    found = store.uploads.complete(bucket, upload, wanted).result()
    md5s = b"".join(hashlib.md5(body).digest() for body in bodies)
    assert found.etag == hashlib.md5(md5s).hexdigest() + "-3"
    assert get(store, bucket, b"key") == b"".join(bodies)
    opened = store.objects.open(bucket, b"key")
    assert body_of(opened, SMALLEST_PART - 2, 4) == bodies[0][-2:] + bodies[1][:2]
    opened.close()
    assert store.usage().size == found.size == sum(map(len, bodies))
    with pytest.raises(AwsError, match="NoSuchUpload"):
        store.uploads.complete(bucket, upload, wanted).result()


@pytest.mark.parametrize(
    ("numbers", "refusal"),
    [((1, 4), "InvalidPart:"), ((2, 1), "InvalidPartOrder"), ((1, 1), "InvalidPartOrder"), ((1, 2), "EntityTooSmall")],
)
def test_a_list_of_parts_that_cannot_be_an_object_changes_nothing(
    store: ObjectStore, bucket: Bucket, numbers: tuple[int, ...], refusal: str
) -> None:
    upload = store.uploads.begin(bucket, b"key", PLAN).result()
    etags = {number: part(store, upload.identifier, bucket, number, b"%d" % number) for number in (1, 2)}
    wanted = [WantedPart(number, etags.get(number, "0" * 32)) for number in numbers]
    with pytest.raises(AwsError, match=refusal):
        store.uploads.complete(bucket, upload, wanted).result()
    assert [each.number for each in store.uploads.parts(upload)] == [1, 2]
    assert store.objects.find(bucket, b"key") is None
    store.uploads.abort(bucket, upload).result()
    assert store.usage().size == 0


def test_uploads_of_one_key_are_listed_in_the_order_they_began(store: ObjectStore, bucket: Bucket) -> None:
    begun = [store.uploads.begin(bucket, key, PLAN).result() for key in (b"b", b"a", b"b")]
    told, key, upload = [], b"", ""
    while True:
        page = store.uploads.page(bucket, after=key, after_upload=upload, limit=1)
        told += page.entries
        if page.last is None:
            break
        key, upload = page.entries[-1].key, page.entries[-1].identifier
    assert told == [begun[1], begun[0], begun[2]]


def test_what_is_stored_is_for_its_owner_only(tmp_path: Path) -> None:
    with contextlib.closing(ObjectStore(tmp_path / "s3")):
        for file in (tmp_path / "s3").rglob("*"):
            assert file.stat().st_mode & 0o077 == 0, file


def test_an_account_has_so_many_unfinished_uploads_and_no_more(store: ObjectStore, bucket: Bucket) -> None:
    other = store.buckets.create("b-bucket", "123456789012", "us-east-1").result()
    foreign = store.buckets.create("c-bucket", "999999999999", "us-east-1").result()
    plan = UploadPlan(Attributes(), "CRC32", False)
    uploads = [store.uploads.begin(each, b"key", plan, 4).result() for each in (bucket, bucket, other, other)]
    with pytest.raises(AwsError, match="4 multipart uploads that are neither completed nor aborted"):
        store.uploads.begin(bucket, b"key", plan, 4).result()
    store.uploads.begin(foreign, b"key", plan, 4).result()
    receiver = store.receiver(ALGORITHMS["CRC32"], part=True)
    receiver.take(b"left behind")
    store.uploads.put_part(uploads[0], 1, receiver.finish()).result()
    assert (store.usage().uploads, store.usage().upload_size) == (5, 11)
    store.uploads.abort(bucket, uploads[0]).result()
    assert (store.usage().uploads, store.usage().upload_size) == (4, 0)
    store.uploads.begin(bucket, b"key", plan, 4).result()
