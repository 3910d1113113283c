"""`celaje bucket …`: the object store of the cloud."""

from __future__ import annotations

import contextlib
import errno
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.cli.byte_size import byte_size
from celaje.cli.cloud_client import Client
from celaje.cli.table import table
from celaje.errors import InputError, UsageError

PLACE = "BUCKET/KEY"
_PIECE = 1 << 20


def _place(text: str) -> tuple[str, str]:
    bucket, _, key = text.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"an object is written BUCKET/KEY, not {text!r}")
    return bucket, key


def bucket_create(words: list[str]) -> int:
    """Make buckets."""
    parser = Parser("bucket create", "Makes buckets.")
    parser.add_argument("buckets", nargs="+", metavar="BUCKET", help="3 to 63 of a-z, 0-9, dots and hyphens")
    chosen = parser.parse_args(words)
    client = Client("s3")
    region = client.access.region
    for name in chosen.buckets:
        where = None if region == "us-east-1" else {"LocationConstraint": region}
        client("create_bucket", Bucket=name, CreateBucketConfiguration=where)
        print(f"{name} is a bucket; now: celaje bucket put FILE {name}/")
    return 0


def bucket_ls(words: list[str]) -> int:
    """List buckets, or what is in one."""
    parser = Parser("bucket ls", "Lists buckets, or the objects of one.")
    parser.add_argument("place", nargs="?", metavar="BUCKET[/PREFIX]", help="what to list (the buckets)")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    client = Client("s3")
    if chosen.place is None:
        found = client("list_buckets")["Buckets"]
        if chosen.json:
            print(json.dumps(found, indent=2, default=str))
        elif not found:
            print("There are no buckets; this makes the first: celaje bucket create NAME")
        else:
            print(table(("BUCKET", "MADE"), [(one["Name"], f"{one['CreationDate']:%Y-%m-%d %H:%M}") for one in found]))
        return 0
    bucket, prefix = _place(chosen.place)
    objects = list(client.all("list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix or None))
    if chosen.json:
        print(json.dumps(objects, indent=2, default=str))
    elif not objects:
        print(f"There is nothing in {chosen.place}; this stores the first object: celaje bucket put FILE {bucket}/")
    else:
        rows = [(one["Key"], byte_size(one["Size"]), f"{one['LastModified']:%Y-%m-%d %H:%M}") for one in objects]
        print(table(("KEY", "SIZE", "STORED"), rows))
    return 0


def bucket_uploads(words: list[str]) -> int:
    """List multipart uploads that were never finished, or abort them."""
    parser = Parser("bucket uploads", "Lists multipart uploads that were never finished, whose parts take room.")
    parser.add_argument("place", nargs="?", metavar="BUCKET[/PREFIX]", help="where to look (in all buckets)")
    parser.add_argument("--abort", action="store_true", help="abort those that are found, and give their room back")
    parser.add_argument("--json", action="store_true", help="as the API describes them, with their parts' Size")
    chosen = parser.parse_args(words)
    client = Client("s3")
    if chosen.place is None:
        places = [(one["Name"], "") for one in client("list_buckets")["Buckets"]]
    else:
        places = [_place(chosen.place)]
    found = []
    for bucket, prefix in places:
        for one in client.all("list_multipart_uploads", "Uploads", Bucket=bucket, Prefix=prefix or None):
            names = {"Bucket": bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
            size = sum(part["Size"] for part in client.all("list_parts", "Parts", **names))
            found.append({**one, **names, "Size": size})
            if chosen.abort:
                client("abort_multipart_upload", **names)
    if chosen.json:
        print(json.dumps(found, indent=2, default=str))
    elif not found:
        print("No upload is unfinished.")
    else:
        rows = [
            (f"{one['Bucket']}/{one['Key']}", byte_size(one["Size"]), f"{one['Initiated']:%Y-%m-%d %H:%M}")
            for one in found
        ]
        print(table(("KEY", "SIZE", "BEGUN"), rows))
        if chosen.abort:
            print(f"{len(found)} uploads are aborted")
        else:
            place = f" {shlex.quote(chosen.place)}" if chosen.place else ""
            print(f"This gives their room back: celaje bucket uploads{place} --abort")
    return 0


def bucket_put(words: list[str]) -> int:
    """Store a file."""
    parser = Parser("bucket put", "Stores a file as an object.")
    parser.add_argument("file", type=Path, metavar="FILE", help="what to store")
    parser.add_argument("place", metavar=PLACE, help="where; a key that ends with a slash gets the file's name")
    chosen = parser.parse_args(words)
    bucket, key = _place(chosen.place)
    if not key or key.endswith("/"):
        key += chosen.file.name
    try:
        with open(chosen.file, "rb") as file:
            Client("s3")("put_object", Bucket=bucket, Key=key, Body=file)
    except OSError as error:
        raise InputError(f"cannot read {chosen.file}: {error.strerror or error}") from error
    print(f"{chosen.file} is {bucket}/{key}")
    return 0


def bucket_get(words: list[str]) -> int:
    """Fetch an object."""
    parser = Parser("bucket get", "Fetches an object.")
    parser.add_argument("place", metavar=PLACE, help="what to fetch")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="where to, or a directory (the key's last part; - is standard output)"
    )
    chosen = parser.parse_args(words)
    bucket, key = _place(chosen.place)
    name = key.rpartition("/")[2]
    target = Path(chosen.file or name)
    if target.is_dir() and name:
        target /= name
    if not key or target.is_dir():
        raise UsageError(f"an object is written {PLACE}, and goes into a file: celaje bucket get {PLACE} FILE")
    client = Client("s3")
    body = client("get_object", Bucket=bucket, Key=key)["Body"]
    pieces = client.pieces(body.iter_chunks(_PIECE))
    if chosen.file == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return 0
    _write(target, pieces)
    print(f"{bucket}/{key} is in {target}")
    return 0


def _write(target: Path, pieces: Iterator[bytes]) -> None:
    """The file has all of it, or is what it was. InputError."""
    fresh = target.with_name(f"{target.name}.part")
    try:
        with open(fresh, "wb") as file:
            for piece in pieces:
                file.write(piece)
        fresh.replace(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # there is none where none could be made
            fresh.unlink()


def bucket_rm(words: list[str]) -> int:
    """Delete an object, or a bucket."""
    parser = Parser("bucket rm", "Deletes objects, or buckets that are empty.")
    parser.add_argument("places", nargs="+", metavar="BUCKET[/KEY]", help="what to delete")
    parser.add_argument(
        "--recursive", action="store_true", help="with everything that begins so; a bucket with all versions in it"
    )
    chosen = parser.parse_args(words)
    client = Client("s3")
    for text in chosen.places:
        bucket, key = _place(text)
        if chosen.recursive and key:
            for one in list(client.all("list_objects_v2", "Contents", Bucket=bucket, Prefix=key)):
                client("delete_object", Bucket=bucket, Key=one["Key"])
        elif chosen.recursive:  # a bucket goes without any version only
            for member in ("Versions", "DeleteMarkers"):
                for one in list(client.all("list_object_versions", member, Bucket=bucket)):
                    client("delete_object", Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
        elif key:
            client("delete_object", Bucket=bucket, Key=key)
        if not key:
            client("delete_bucket", Bucket=bucket)
        print(f"{text} is deleted")
    return 0
