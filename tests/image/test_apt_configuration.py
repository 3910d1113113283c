from __future__ import annotations

from pathlib import Path

import pytest

from celaje.image import apt_configuration
from celaje.image.apt_configuration import (
    AptConfiguration,
    deb822_addresses,
    full_archives,
    one_line_addresses,
    parse_dump,
)

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
 https://second.example/debian/
Suites: trixie trixie-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security

Enabled: no
Types: deb
URIs: http://off.example/debian

Types: deb-src
URIs: http://sources.example/debian
"""

ONE_LINE = """\
# deb http://off.example/debian trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example/debian trixie main # the usual
deb-src http://sources.example/debian trixie main
deb https://other.example/apt stable main
deb file:/srv/debian trixie main
"""


def test_deb822_sources_give_the_addresses_of_enabled_binary_sources() -> None:
    assert list(deb822_addresses(DEB822)) == [
        "http://mirror.example/debian",
        "https://second.example/debian/",
        "http://mirror.example/debian-security",
    ]


def test_one_line_sources_give_the_addresses_of_binary_sources() -> None:
    assert list(one_line_addresses(ONE_LINE)) == [
        "http://mirror.example/debian",
        "https://other.example/apt",
        "file:/srv/debian",
    ]


def test_only_what_looks_like_a_full_debian_archive_counts() -> None:
    addresses = [*one_line_addresses(ONE_LINE), *deb822_addresses(DEB822)]
    assert full_archives(addresses) == ("http://mirror.example/debian", "https://second.example/debian")


def test_the_proxy_of_the_host_comes_before_the_proxy_of_the_scheme() -> None:
    dump = """\
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::HTTP::proxy::near.example "DIRECT";
Acquire::Check-Valid-Until "false";
"""
    apt = AptConfiguration((), parse_dump(dump))
    assert apt.proxy("http://far.example/debian") == "http://proxy.example:3128"
    assert apt.proxy("http://near.example/debian") == ""
    assert apt.proxy("https://far.example/debian") is None
    assert not apt.checks_expiry
    assert AptConfiguration((), {}).checks_expiry


def test_the_hosts_files_are_read_from_where_apt_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tmp_path / "etc" / "sources.list.d"
    parts.mkdir(parents=True)
    (tmp_path / "etc" / "sources.list").write_text("deb http://one.example/debian trixie main\n")
    # apt reads no file that ends otherwise, so an old copy beside the others does not count.
    (parts / "a.sources").write_text(DEB822)
    (parts / "b.list").write_text("deb http://three.example/debian trixie main\n")
    (parts / "c.list.save").write_text("deb http://never.example/debian trixie main\n")
    command = tmp_path / "bin" / "apt-config"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho 'Dir \"{tmp_path}\";'\necho 'Dir::Etc \"etc\";'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    assert apt_configuration.read_host().archives == (
        "http://one.example/debian",
        "http://mirror.example/debian",
        "https://second.example/debian",
        "http://three.example/debian",
    )
