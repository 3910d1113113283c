"""What the store keeps about a bucket, an object, an upload and a part."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from celaje.typed_data import msgpack_decoder

ENABLED, SUSPENDED = "Enabled", "Suspended"

CONTENT_ID_SIZE = 16
_SEGMENT_SIZE = CONTENT_ID_SIZE + 8


# The switches of S3's public access block; all are on for a new bucket.
PUBLIC_ACCESS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """What an access control list gives: `grantee` is S3's canonical name of an account or the URI of a group,
    `permission` S3's word (READ, WRITE, READ_ACP, WRITE_ACP, FULL_CONTROL)."""

    grantee: str
    permission: str


class CorsRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What pages of other origins may do. Origins may have one `*` each, and so may headers. `exposed` are headers
    that a page may read; `max_age` in seconds."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age: int | None = None
    identifier: str | None = None


class LifecycleFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which objects a rule is for: all that is said must hold. Sizes in bytes, both exclusive. `form`: how its owner
    wrote it, which is how it is told again: "Prefix" (of the rule itself), "Filter", or "And" in a filter."""

    form: str
    prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    larger_than: int | None = None
    smaller_than: int | None = None


class LifecycleRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of objects in time: `days` after they were put, or from `date` on (milliseconds since 1970); of
    noncurrent versions the `newer` newest are kept; `markers`: delete markers that nothing is behind go."""

    identifier: str
    enabled: bool
    filter: LifecycleFilter
    days: int | None = None
    date: int | None = None
    markers: bool | None = None
    noncurrent_days: int | None = None
    newer: int | None = None
    abort_days: int | None = None


class BucketEncryption(msgspec.Struct, frozen=True, omit_defaults=True):
    """How new objects of a bucket are encrypted whose client says nothing. `bucket_key` is kept as it was given: it
    saves requests to KMS, of which there are none. `blocked`: kinds of encryption that the bucket takes no more.
    `unasked`: its owner did not ask for it, the cloud's settings did."""

    algorithm: str = "AES256"
    bucket_key: bool | None = None
    blocked: tuple[str, ...] = ()
    unasked: bool = False


class BucketSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is set of a bucket. Kept as a map without what has its default, so that a field more needs no migration.

    `policy` as its owner wrote it, "" for none; `principals` are the unique ids of users and roles whose ARNs it had
    then. `grants` None: the owner has FULL_CONTROL and nobody else has anything.
    `blocked` are the switches of the public access block that are on, None where there is none.
    `versioning` is Enabled or Suspended, "" where there never were versions.
    """

    policy: str = ""
    principals: tuple[tuple[str, str], ...] = ()
    grants: tuple[Grant, ...] | None = None
    ownership: str | None = "BucketOwnerEnforced"
    blocked: tuple[str, ...] | None = PUBLIC_ACCESS
    versioning: str = ""
    cors: tuple[CorsRule, ...] = ()
    lifecycle: tuple[LifecycleRule, ...] = ()
    transition_minimum: str = "all_storage_classes_128K"
    encryption: BucketEncryption | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """`account` owns it; `created` in milliseconds since 1970."""

    number: int
    name: str
    account: str
    region: str
    created: int
    tags: tuple[tuple[str, str], ...] = ()
    settings: BucketSettings = field(default_factory=BucketSettings)


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of `contents`, all of it. `size` is the body's, without what an encrypted one has before it."""

    content: bytes
    size: int


class Checksum(msgspec.Struct, frozen=True, array_like=True):
    """`algorithm` as S3 spells it (CRC32, CRC32C, CRC64NVME, SHA1, SHA256); `value` in base64, of a composite with its
    number of parts (`…-3`)."""

    algorithm: str
    value: str
    composite: bool = False


class PartOfObject(msgspec.Struct, frozen=True, array_like=True):
    """A part that an object was put together of: its number, its size, and its own checksum."""

    number: int
    size: int
    checksum: Checksum | None = None


class Attributes(msgspec.Struct, frozen=True, array_like=True):
    """What a client said of an object, and what is kept so that it can be told again.

    `headers`: content-type and the like, by their names in lower case. `metadata`: x-amz-meta-…, without that prefix.
    `parts` and `upload`: of an object that was put together from parts. `owner`: the account that it belongs to, "" for
    the bucket's; `grants`: its access control list, None where its owner alone has something. `encryption`: of its
    bodies at rest, "" for none, and `check` of the key that its client has for it (encryption.py).
    """

    headers: dict[str, str] = msgspec.field(default_factory=dict)
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    checksum: Checksum | None = None
    parts: tuple[PartOfObject, ...] = ()
    upload: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    storage_class: str = "STANDARD"
    owner: str = ""
    grants: tuple[Grant, ...] | None = None
    encryption: str = ""
    check: bytes = b""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """`etag` without quotation marks; `modified` in milliseconds since 1970. The body is either a row of the database
    (`body`) or the `segments` one after the other.

    `version` is empty for the null version, which an object of a bucket without versions has. Of a key's versions the
    newest has the least `rank`. `marker`: a delete marker, which has nothing else."""

    key: bytes
    size: int
    etag: str
    modified: int
    attributes: Attributes
    segments: tuple[Segment, ...] = ()
    body: int | None = None
    version: str = ""
    rank: int = 0
    marker: bool = False


class UploadPlan(msgspec.Struct, frozen=True, array_like=True):
    """What the object of an upload is to be. `algorithm`: of its checksum; `composite`: whether that is of the parts'
    checksums, or of all bytes; `declared`: its client named it. `initiator`: the ARN of whoever began it, "" where
    nobody signed."""

    attributes: Attributes
    algorithm: str
    composite: bool
    declared: bool = False
    initiator: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that is neither completed nor aborted. Ids sort by the time of their beginning."""

    identifier: str
    bucket: int
    key: bytes
    initiated: int
    plan: UploadPlan


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an upload: its file, its MD5 in hexadecimal digits, its checksum."""

    number: int
    size: int
    etag: str
    modified: int
    content: bytes
    checksum: Checksum | None


def packed(segments: tuple[Segment, ...]) -> bytes | None:
    """Segments as a row keeps them: 16 bytes of id and 8 of size (little-endian) for each."""
    if not segments:
        return None
    return b"".join(each.content + each.size.to_bytes(8, "little") for each in segments)


def unpacked(row: bytes | None) -> tuple[Segment, ...]:
    """The opposite of `packed`."""
    if row is None:
        return ()
    each = (row[at : at + _SEGMENT_SIZE] for at in range(0, len(row), _SEGMENT_SIZE))
    return tuple(Segment(one[:CONTENT_ID_SIZE], int.from_bytes(one[CONTENT_ID_SIZE:], "little")) for one in each)


encode = msgspec.msgpack.encode
decode_attributes = msgpack_decoder(Attributes).decode
decode_settings = msgpack_decoder(BucketSettings).decode
decode_plan = msgpack_decoder(UploadPlan).decode
decode_checksum = msgpack_decoder(Checksum | None).decode
