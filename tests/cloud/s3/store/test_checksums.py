"""Checksums agree with their published check values, and parts' checksums with those of the whole."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celaje.cloud.s3.store.checksums import ALGORITHMS, composite, encoded, full_object


@pytest.mark.parametrize(
    ("name", "digits"), [("CRC32", "cbf43926"), ("CRC32C", "e3069283"), ("CRC64NVME", "ae8b14860a799888")]
)
def test_a_crc_has_the_check_value_of_its_catalogue(name: str, digits: str) -> None:
    hasher = ALGORITHMS[name].hasher()
    hasher.update(b"1234")
    hasher.update(memoryview(b"56789"))
    assert hasher.digest().hex() == digits


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=6), st.sampled_from(["CRC32", "CRC32C", "CRC64NVME"]))
def test_the_checksum_of_all_bytes_follows_from_those_of_the_parts(parts: list[bytes], name: str) -> None:
    algorithm = ALGORITHMS[name]

    def of(content: bytes) -> str:
        hasher = algorithm.hasher()
        hasher.update(content)
        return encoded(hasher.digest())

    assert full_object(algorithm, [(of(part), len(part)) for part in parts]).value == of(b"".join(parts))


def test_a_composite_is_the_checksum_of_the_checksums_and_their_number() -> None:
    digests = [hashlib.sha256(part).digest() for part in (b"one", b"two")]
    found = composite(ALGORITHMS["SHA256"], [base64.b64encode(digest).decode() for digest in digests])
    assert found.composite
    assert found.value == base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode() + "-2"
