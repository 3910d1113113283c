"""What an owner writes into settings.json is taken, or refused by what is wrong with it, before anything is begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from celaje.cloud.settings import FILE_NAME, Settings, read_settings
from celaje.errors import InputError


def test_defaults_are_written_where_there_are_no_settings_and_read_again(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings()
    assert json.loads((tmp_path / FILE_NAME).read_text())["port"] == 4566
    assert read_settings(tmp_path) == Settings()


def test_what_is_decided_is_taken(tmp_path: Path) -> None:
    decided = {
        "regions": {"us-gov-west-1": ["a"], "ap-southeast-2": ["a", "b", "c"]},
        "port": 0,
        "public_pool": "127.200.0.0/29",
        "images": ["debian-mini-firmware"],
        "reserved_memory": 0,
        "memory_overcommit": 1.5,
        "lifecycle_day_seconds": 2,
    }
    (tmp_path / FILE_NAME).write_text(json.dumps(decided))
    assert read_settings(tmp_path).images == ("debian-mini-firmware",)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("port", 65536, "<= 65535"),
        ("port", -1, ">= 0"),
        ("port", "4566", r"\$\.port"),
        ("public_pool", "the ones of mine", "public_pool 'the ones of mine'"),
        ("public_pool", "::1/64", "public_pool '::1/64'"),
        ("public_pool", "127.64.0.1/10", "host bits"),
        ("public_pool", "127.64.0.0/31", "fewer than 4 addresses"),
        ("regions", {}, "length >= 1"),
        ("regions", {"here": ["a"]}, "matching regex"),
        ("regions", {"us-east-1": []}, "length >= 1"),
        ("regions", {"us-east-1": ["zone"]}, "matching regex"),
        ("regions", {"us-east-1": ["a", "a"]}, "the region us-east-1 has a zone twice"),
        ("reserved_memory", -1, ">= 0"),
        ("memory_overcommit", 0, "> 0"),
        ("cpu_overcommit", -2, "> 0"),
        ("lifecycle_day_seconds", 0, "> 0"),
        ("colour", "blue", "colour"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(tmp_path: Path, setting: str, value: object, said: str) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({setting: value}))
    with pytest.raises(InputError, match=said) as refusal:
        read_settings(tmp_path)
    assert str(tmp_path / FILE_NAME) in str(refusal.value)
    assert str(refusal.value).endswith("mend it, or remove it for defaults")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1, "port"', "\udcff"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="is not what settings must be"):
        read_settings(tmp_path)
