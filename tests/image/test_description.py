from __future__ import annotations

import json

import pytest

from celaje.errors import ImageError
from celaje.image.description import Description, FileDescription, checked_name, parse

SHA256 = "ab" * 32
GOOD = Description(
    "debian-mini", "riscv64", "kernel", "quiet", 5, {"kernel": FileDescription("kernel", 7, SHA256)}, {"libc6": "2.41"}
)


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(GOOD.to_json()), **fields})


def test_a_description_reads_back_as_it_was_written() -> None:
    assert parse(GOOD.to_json(), "image.json") == GOOD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no image description"),
        ("[]", "format None"),
        (changed(format=2), "format 2, and this celaje knows format 1"),
        (changed(name="../x"), "an image's name"),
        (changed(architecture=None), "'architecture'"),
        (changed(created="now"), "'created'"),
        (changed(created=True), "'created'"),
        (changed(files=[]), "'files'"),
        (changed(packages=None), "'packages'"),
        (changed(files={"rootfs": {}}), "unknown role 'rootfs'"),
        (changed(files={"kernel": {"name": "../kernel", "size": 7, "sha256": SHA256}}), "plain name"),
        (changed(files={"kernel": {"name": "..", "size": 7, "sha256": SHA256}}), "plain name"),
        (changed(files={"kernel": {"name": "kernel", "size": -7, "sha256": SHA256}}), "'size'"),
        (changed(files={"kernel": {"name": "kernel", "size": 7, "sha256": "x"}}), "SHA-256"),
        (changed(boot="floppy"), "boot method 'floppy'"),
        (changed(boot="firmware"), "needs the files: disk, firmware"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        parse(text, "image.json")


@pytest.mark.parametrize("name", ["", "A", "-x", ".x", "a/b", "x" * 64, "a b", "ä"])
def test_a_name_that_would_be_trouble_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match="an image's name"):
        checked_name(name)
