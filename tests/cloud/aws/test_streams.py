"""Bodies that are not held in memory."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import botocore.httpchecksum
import pytest

from celaje.cloud.aws.checksums import ALGORITHMS, Checksum, is_digest
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.streams import Claim, FileRange, Pieces, RequestBody

DATA = bytes(range(256)) * 40


def body(data: bytes = DATA, *, length: int | None = len(DATA), **checks: object) -> RequestBody:
    pieces = iter([data[at : at + 1000] for at in range(0, len(data), 1000)])
    return RequestBody(lambda: next(pieces, b""), length, **checks)


def test_a_body_is_read_in_the_sizes_asked_for_and_ends_empty() -> None:
    reading = body()
    pieces = []
    while piece := reading.read(300):
        assert 0 < len(piece) <= 300
        pieces.append(piece)
    assert b"".join(pieces) == DATA
    assert reading.read() == b""


def test_what_the_client_claims_is_verified_before_the_end_is_told() -> None:
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert b"".join(body(sha256=sha256)) == DATA
    wrong = body(sha256="0" * 64)
    with pytest.raises(AwsError) as refused:
        list(wrong)
    assert refused.value.code == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_checksums_are_those_that_botocore_sends(algorithm: str) -> None:
    checksum = Checksum(algorithm)
    checksum.update(DATA[:100])
    checksum.update(DATA[100:])
    if algorithm == "MD5":
        expected = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    else:
        expected = botocore.httpchecksum._CHECKSUM_CLS[algorithm.lower()]().handle(DATA)
    assert checksum.base64 == checksum.base64 == expected
    assert is_digest(algorithm, expected)
    assert not is_digest(algorithm, expected[4:])
    assert not is_digest(algorithm, "é?")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "SHA256"])
def test_a_checksum_in_a_trailer_is_verified_when_it_is_there(algorithm: str) -> None:
    right = Checksum(algorithm)
    right.update(DATA)
    header = f"x-amz-checksum-{algorithm.lower()}"
    trailers: dict[str, str] = {}
    reading = body(claims=(Claim(algorithm, header, ""),), trailers=trailers)
    assert reading.claimed == {}
    while reading.received < len(DATA):
        reading.read()
    trailers[header] = right.base64
    assert reading.read() == b""
    assert reading.claimed == {algorithm: right.base64}
    with pytest.raises(AwsError, match=algorithm) as refused:
        list(body(claims=(Claim(algorithm, header, ""),), trailers={header: "AAAA"}))
    assert refused.value.code == "BadDigest"
    with pytest.raises(AwsError) as refused:
        list(body(claims=(Claim(algorithm, header, ""),)))
    assert refused.value.code == "MalformedTrailerError"


def test_a_body_that_is_shorter_or_longer_than_announced_is_refused() -> None:
    for length in (len(DATA) + 1, len(DATA) - 1):
        with pytest.raises(AwsError) as refused:
            list(body(length=length))
        assert refused.value.code == "IncompleteBody"


def test_a_checksum_is_asked_for_before_the_first_byte() -> None:
    reading = body()
    md5 = reading.checksum("MD5")
    assert reading.checksum("MD5") is md5
    list(reading)
    assert md5.digest() == hashlib.md5(DATA).digest()
    with pytest.raises(RuntimeError, match="SHA1"):
        reading.checksum("SHA1")


def test_a_small_body_is_had_at_once_and_a_large_one_refused() -> None:
    assert body().all(len(DATA)) == DATA
    with pytest.raises(AwsError) as refused:
        body().all(len(DATA) - 1)
    assert refused.value.code == "EntityTooLarge"


def test_a_range_of_a_file_is_read_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(DATA)
    part = FileRange(os.open(path, os.O_RDONLY), offset=10, length=100)
    assert part.read(0, 1000) == DATA[10:110]
    assert part.read(90, 1000) == DATA[100:110]
    assert part.read(100, 1000) == b""
    descriptor = part.descriptor
    part.close()
    part.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)


def test_a_file_that_ends_too_soon_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"abc")
    part = FileRange(os.open(path, os.O_RDONLY), offset=0, length=10)
    assert part.read(0, 10) == b"abc"
    with pytest.raises(OSError, match="7 bytes too soon"):
        part.read(3, 7)
    part.close()


def test_pieces_skip_empty_ones_and_close_their_generator() -> None:
    closed = []

    def generate() -> object:
        try:
            yield b""
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    pieces = Pieces(generate(), None)
    assert pieces.next() == b"one"
    pieces.close()
    assert closed == [True]
