"""What the host's own apt is told: where Debian's archive is, through which proxy, and whether old indices will do.

Settings come from `apt-config dump` (apt.conf(5)), so that every file, fragment and default that apt reads counts.
Sources are read from sources.list(5) in both of its formats: one line a source, and deb822 stanzas.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_DUMP_LINE = re.compile(r'^(?P<name>\S+) "(?P<value>.*)";$')
_ONE_LINE_SOURCE = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")


@dataclass(frozen=True, slots=True)
class AptConfiguration:
    """`archives`: addresses of full Debian archives, in the order of the sources. `settings`: names in lower case."""

    archives: tuple[str, ...]
    settings: Mapping[str, str]

    def proxy(self, url: str) -> str | None:
        """The proxy for `url`: its address, "" for none on purpose (DIRECT), None where apt says nothing."""
        parts = urlsplit(url)
        for name in (f"acquire::{parts.scheme}::proxy::{parts.hostname}", f"acquire::{parts.scheme}::proxy"):
            value = self.settings.get(name)
            if value:
                return "" if value.upper() == "DIRECT" else value
        return None

    @property
    def checks_expiry(self) -> bool:
        """Whether an index past its Valid-Until is to be refused: apt's own rule, turned off for frozen mirrors."""
        return self.settings.get("acquire::check-valid-until", "true").lower() not in ("false", "no", "0", "off")


def parse_dump(text: str) -> dict[str, str]:
    """Settings out of the text of `apt-config dump`; names in lower case, since apt does not tell cases apart."""
    settings: dict[str, str] = {}
    for line in text.splitlines():
        match = _DUMP_LINE.match(line)
        if match:
            settings[match["name"].lower()] = match["value"]
    return settings


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    last = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t" and last:
            fields[last] += " " + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()


def deb822_addresses(text: str) -> Iterator[str]:
    """The URIs of the enabled binary sources in a `.sources` file."""
    for stanza in _stanzas(text):
        if "deb" in stanza.get("types", "").split() and stanza.get("enabled", "yes").lower() != "no":
            yield from stanza.get("uris", "").split()


def one_line_addresses(text: str) -> Iterator[str]:
    """The URIs of the binary sources in a `sources.list`."""
    for line in text.splitlines():
        match = _ONE_LINE_SOURCE.match(line.split("#", 1)[0].strip())
        if match:
            yield match["uri"]


def full_archives(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of `addresses` that look like full Debian archives (path `.../debian`, over HTTP), no `/` at the end."""
    chosen: dict[str, None] = {}
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and parts.path.rstrip("/").endswith("/debian"):
            chosen[address.rstrip("/")] = None
    return tuple(chosen)


def _dump() -> dict[str, str]:
    command = shutil.which("apt-config")
    if command is None:
        return {}
    finished = subprocess.run([command, "dump"], capture_output=True, text=True, errors="replace", check=False)
    return parse_dump(finished.stdout)


def _source_files(settings: Mapping[str, str]) -> Iterator[Path]:
    def place(name: str, default: str) -> Path:
        below = Path(settings.get("dir", "/")) / settings.get("dir::etc", "etc/apt")
        return below / settings.get(f"dir::etc::{name}", default)

    yield place("sourcelist", "sources.list")
    parts = place("sourceparts", "sources.list.d")
    if parts.is_dir():
        yield from sorted(parts.iterdir())


def read_host() -> AptConfiguration:
    """The host's configuration; empty where the host has no apt. Files that cannot be read count as missing."""
    settings = _dump()
    addresses: list[str] = []
    for path in _source_files(settings):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            addresses += deb822_addresses(text)
        elif path.suffix == ".list":
            addresses += one_line_addresses(text)
    return AptConfiguration(full_archives(addresses), settings)
