"""A process that puts objects into a store and says of each, once it is durable, that it is. Ends when killed.

Called with the store's directory, the number of the first object, and what the bucket's versioning is to be. Object n
has the key `n mod KEYS`; what it has follows from n, and every 7th is a multipart upload, every 11th a deletion,
every 3rd is encrypted.
"""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

from celaje.cloud.s3.store.checksums import ALGORITHMS
from celaje.cloud.s3.store.encryption import AES_256, NONE, Encryption
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.receive import LARGEST_ROW
from celaje.cloud.s3.store.records import Attributes, Bucket, UploadPlan
from celaje.cloud.s3.store.uploads import WantedPart

KEYS = 60
THREADS = 3


def key(number: int) -> bytes:
    return b"key/%d" % (number % KEYS)


def is_deletion(number: int) -> bool:
    return number % 11 == 0


def body(number: int) -> bytes:
    chance = random.Random(number)
    size = chance.choice((0, 100, LARGEST_ROW, LARGEST_ROW + 1, 300_000))
    return b"%012d" % number + chance.randbytes(size)


def encryption(number: int) -> Encryption:
    return Encryption(AES_256) if number % 3 == 0 else NONE


def put(store: ObjectStore, bucket: Bucket, number: int) -> None:
    if is_deletion(number):
        store.objects.delete(bucket, key(number)).result()
        return
    content = body(number)
    if number % 7 == 0:
        plan = UploadPlan(Attributes(encryption=encryption(number).name), "CRC32", False)
        upload = store.uploads.begin(bucket, key(number), plan).result()
        receiver = store.receiver(ALGORITHMS["CRC32"], part=True, encryption=encryption(number))
        receiver.take(content)
        part = store.uploads.put_part(upload, 1, receiver.finish()).result()
        store.uploads.complete(bucket, upload, [WantedPart(1, part.etag)]).result()
        return
    receiver = store.receiver(encryption=encryption(number))
    receiver.take(content)
    received = receiver.finish()
    store.objects.put(bucket, key(number), received, Attributes(checksum=received.checksum)).result()


def main() -> None:
    store = ObjectStore(Path(sys.argv[1]))
    store.sweep_beside()
    bucket = store.buckets.get("a-bucket") or store.buckets.create("a-bucket", "123456789012", "us-east-1").result()
    store.buckets.set(bucket, versioning=sys.argv[3]).result()
    start = int(sys.argv[2])

    def work(lane: int) -> None:
        # Each thread has keys of its own, so that the order of a key's objects is known.
        number = start - start % THREADS + lane
        while True:
            put(store, bucket, number)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            number += THREADS

    for lane in range(THREADS):
        threading.Thread(target=work, args=(lane,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
