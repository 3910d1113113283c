"""Debian's archive: a signed index of indices, an index of packages, packages (wiki: DebianRepository/Format).

    dists/SUITE/InRelease                          signed text: dates, and name, size and SHA-256 of every index
    dists/SUITE/main/binary-ARCH/Packages.xz       a stanza a package: dependencies, path, size and SHA-256 of the .deb
    pool/...                                       the packages

Trust runs down this chain: a key signs InRelease, which has the index's hash, which has each package's hash.
A suite has two names (`trixie`, and `stable` while it is that). Mirrors that renew their files one by one can show
a new InRelease beside an old index; then the other name often still leads to a pair that fits, as signed as the first.
The last pair that fitted is kept and serves when the mirror is away.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from celaje import paths
from celaje.errors import HostError, ImageError
from celaje.image.archive_keys import ArchiveKeys
from celaje.image.mirror import Mirror, Missing, NotAsSigned, Unreachable
from celaje.image.progress import BuildProgress

_HASH_LINE = re.compile(r"^ ([0-9a-f]{64}) +(\d+) +(\S+)$")
_BASE = re.compile(r"^(?:Priority: required|Essential: yes)$", re.MULTILINE)
_PROVIDES = re.compile(r"^Provides: *(.+)$", re.MULTILINE)
_DEPENDENCY = re.compile(r"^\s*(?P<name>[a-z0-9][a-z0-9+.-]+)(?::\w+)?\s*(?:\([^)]*\))?\s*(?:\[[^]]*\])?\s*$")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One line of a Release file: what an index must be."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """A verified Release file. `files` by path relative to the suite's directory."""

    codename: str
    version: str
    date: str
    by_hash: bool
    files: dict[str, IndexFile]

    @classmethod
    def parse(cls, text: str, name: str, now: datetime, checks_expiry: bool = True) -> Release:
        """From the signed text. ImageError where a field is missing, or where it is past its Valid-Until."""
        fields: dict[str, str] = {}
        files: dict[str, IndexFile] = {}
        section = ""
        for line in text.splitlines():
            if line and line[0] not in " \t":
                section, _, value = line.partition(":")
                fields[section] = value.strip()
            elif section == "SHA256":
                match = _HASH_LINE.match(line)
                if match:
                    files[match[3]] = IndexFile(match[3], int(match[2]), match[1])
        for required in ("Codename", "Date", "SHA256"):
            if required not in fields:
                raise ImageError(f"{name} has no field {required}; it is not the index of a Debian archive")
        if checks_expiry and "Valid-Until" in fields and _instant(fields["Valid-Until"], name) < now:
            raise ImageError(
                f"{name} was valid until {fields['Valid-Until']} and it is {now:%Y-%m-%d %H:%M} UTC now: the mirror is "
                "no longer renewed, or this host's clock is wrong. Set CELAJE_DEBIAN_MIRROR to another mirror"
            )
        return cls(
            fields["Codename"],
            fields.get("Version", ""),
            fields["Date"],
            fields.get("Acquire-By-Hash", "") == "yes",
            files,
        )


def _instant(text: str, name: str) -> datetime:
    try:
        return parsedate_to_datetime(text.replace("UTC", "+0000")).astimezone(UTC)
    except ValueError as error:
        raise ImageError(f"{name} has no date that can be read: {text!r}") from error


@dataclass(frozen=True, slots=True)
class Package:
    """One stanza of a Packages index. `dependencies`: alternatives by need, versions left out (a suite fits itself)."""

    name: str
    version: str
    path: str
    size: int
    sha256: str
    dependencies: tuple[tuple[str, ...], ...] = ()


class PackageIndex:
    """The packages of one suite and architecture. Stanzas are read as they are asked for: there are some 66,000."""

    def __init__(self, text: str) -> None:
        self._stanzas: dict[str, str] = {}
        for stanza in text.split("\n\n"):
            if stanza.startswith("Package: "):
                self._stanzas[stanza[9 : stanza.find("\n")].strip()] = stanza
            elif stanza.strip():
                raise ImageError(
                    f"a stanza of the package index does not begin with its package's name: {stanza[:60]!r}"
                )
        self._provided: dict[str, list[str]] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._stanzas

    def __getitem__(self, name: str) -> Package:
        """The package `name`. ImageError where the archive has none, or says too little about it."""
        stanza = self._stanzas.get(name)
        if stanza is None:
            raise ImageError(f"the archive has no package {name!r}")
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[last] = fields.get(last, "") + " " + line.strip()
            else:
                last, _, value = line.partition(":")
                fields[last] = value.strip()
        try:
            path, size, sha256 = fields["Filename"], int(fields["Size"]), fields["SHA256"]
            version = fields["Version"]
        except (KeyError, ValueError) as error:
            raise ImageError(
                f"the archive's index does not say where package {name!r} is and what its hash is ({error})"
            ) from error
        if ".." in path.split("/") or path.startswith("/") or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ImageError(
                f"the archive's index has a path or hash for package {name!r} that is none: {path!r}, {sha256!r}"
            )
        needs = ", ".join(fields[kind] for kind in ("Pre-Depends", "Depends") if fields.get(kind))
        return Package(name, version, path, size, sha256, _dependencies(needs, name))

    def base(self) -> list[str]:
        """The packages without which there is no Debian (Debian Policy 2.5 and 3.8): required or essential; sorted."""
        return sorted(name for name, stanza in self._stanzas.items() if _BASE.search(stanza))

    def providers(self, name: str) -> list[str]:
        """The packages that say that they provide `name` (Debian Policy 7.5), those of the base first."""
        if self._provided is None:
            self._provided = {}
            for package in [*(base := self.base()), *(set(self._stanzas) - set(base))]:
                found = _PROVIDES.search(self._stanzas[package])
                for provided in found[1].split(",") if found else ():
                    self._provided.setdefault(provided.split("(")[0].strip(), []).append(package)
        return self._provided.get(name, [])

    def closure(self, names: Iterable[str], without: Iterable[str] = ()) -> list[Package]:
        """The packages `names` and all that they depend on, except `without` and what only those need; by name.

        Of alternatives the first that the archive has is taken, unless another is taken anyhow; then the first package
        that provides one. ImageError where there is none.
        """
        skipped = set(without)
        waiting = list(names)
        settled = {*skipped, *waiting}
        chosen: dict[str, Package] = {}
        while waiting:
            name = waiting.pop()
            if name in chosen or name in skipped:
                continue
            chosen[name] = self[name]
            for alternatives in chosen[name].dependencies:
                candidates = [one for one in alternatives if one in self]
                candidates += [one for virtual in alternatives for one in self.providers(virtual)]
                if not candidates and not settled.intersection(alternatives):
                    raise ImageError(
                        f"package {name!r} needs {' or '.join(alternatives)}, which the archive does not have"
                    )
                if not settled.intersection([*alternatives, *candidates]):
                    settled.add(candidates[0])
                    waiting.append(candidates[0])
        return [chosen[name] for name in sorted(chosen)]


def _dependencies(text: str, package: str) -> tuple[tuple[str, ...], ...]:
    needs = []
    for need in filter(str.strip, text.split(",")):
        matches = [_DEPENDENCY.match(alternative) for alternative in need.split("|")]
        if not all(matches):
            raise ImageError(f"package {package!r} has a dependency that cannot be read: {need.strip()!r}")
        needs.append(tuple(match["name"] for match in matches if match))
    return tuple(needs)


@dataclass
class Archive:
    """An open archive: a verified release, its packages, where to get them. `notes` are for the person who builds."""

    mirror: Mirror
    release: Release
    packages: PackageIndex
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        mirror: Mirror,
        keys: ArchiveKeys,
        codename: str,
        architecture: str,
        progress: BuildProgress,
        now: datetime | None = None,
    ) -> Archive:
        """The suite `codename` for `architecture`. ImageError where nothing that is signed fits together, HostError."""
        opening = _Opening(
            mirror, keys, codename, f"main/binary-{architecture}/Packages.xz", progress, now or datetime.now(UTC)
        )
        return opening.archive()

    @property
    def released(self) -> int:
        """When this state of the archive was released, in seconds since 1970."""
        return int(_instant(self.release.date, "the archive's release").timestamp())

    def fetch(self, package: Package, progress: BuildProgress) -> Path:
        """The package's .deb, verified, in the cache."""
        try:
            return self.mirror.download(package.path, package.sha256, package.size, progress)
        except Missing as error:
            raise ImageError(f"{error}: the mirror is being renewed; run the command again later") from error


@dataclass
class _Opening:
    mirror: Mirror
    keys: ArchiveKeys
    codename: str
    index: str
    progress: BuildProgress
    now: datetime

    def archive(self) -> Archive:
        notes: list[str] = []
        first: ImageError | HostError | None = None
        for suite in (self.codename, "stable"):
            try:
                message = self.mirror.read(f"dists/{suite}/InRelease")
                release, packages = self._verified(message, suite)
            except (NotAsSigned, Missing, Unreachable) as error:
                first = first or error
                if suite == self.codename and not isinstance(error, Unreachable):
                    notes.append(
                        f"the mirror's index of {suite} does not fit its signed InRelease; the suite's other name, "
                        "stable, was tried"
                    )
                continue
            if release.codename != self.codename:
                continue
            self._keep(message)
            return Archive(self.mirror, release, packages, notes)
        assert first is not None
        return self._from_cache(first)

    def _verified(self, message: bytes, suite: str) -> tuple[Release, PackageIndex]:
        name = self.mirror.address(f"dists/{suite}/InRelease")
        text = self.keys.signed_text(message, name)
        release = Release.parse(text, name, self.now, self.mirror.checks_expiry)
        if suite == self.codename and release.codename != self.codename:
            raise ImageError(f"{name} is the index of {release.codename!r}, not of {self.codename!r}")
        if self.index not in release.files:
            raise ImageError(f"{name} lists no {self.index}: the mirror does not carry that architecture")
        wanted = release.files[self.index]
        return release, PackageIndex(self._index_text(f"dists/{suite}", wanted, release.by_hash))

    def _index_text(self, directory: str, wanted: IndexFile, by_hash: bool) -> str:
        plain = f"{directory}/{wanted.path}"
        folder, _, name = plain.rpartition("/")
        places = [f"{folder}/by-hash/SHA256/{wanted.sha256}", plain] if by_hash else [plain]
        try:
            file = self.mirror.download(places[0], wanted.sha256, wanted.size, self.progress, name)
        except Missing:
            file = self.mirror.download(places[-1], wanted.sha256, wanted.size, self.progress, name)
        try:
            return lzma.decompress(file.read_bytes()).decode("utf-8", "replace")
        except lzma.LZMAError as error:
            raise ImageError(f"{wanted.path} fits its hash but is no xz file: {error}") from error

    def _place(self) -> Path:
        key = hashlib.sha256(f"{self.mirror.base}\n{self.codename}\n{self.index}".encode()).hexdigest()[:16]
        return paths.made(paths.cache() / "archives") / f"{self.codename}-{key}.InRelease"

    def _keep(self, message: bytes) -> None:
        place = self._place()
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            file.write(message)
        os.replace(file.name, place)

    def _from_cache(self, reason: ImageError | HostError) -> Archive:
        place = self._place()
        if not place.is_file():
            raise reason
        try:
            release, packages = self._verified(place.read_bytes(), self.codename)
        except (ImageError, HostError):
            raise reason from None
        return Archive(
            self.mirror,
            release,
            packages,
            [f"{reason}. Used instead: the index of {release.date}, kept from an earlier build"],
        )
