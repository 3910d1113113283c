"""Signatures of Debian's archive: OpenPGP (RFC 9580), verified by Sequoia.

The keys are those of Debian 12 and 13 that come with celaje, and the host's own copy of Debian's keyring where it has
one. The host's is newer or older than celaje's; of a key that both have, both copies count, so that a revocation in
either does.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import pysequoia

from celaje.errors import ImageError

_HOST_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class ArchiveKeys:
    """Public keys, any one of which may sign."""

    def __init__(self, keyrings: Iterable[bytes]) -> None:
        self._certificates: dict[str, pysequoia.Cert] = {}
        for keyring in keyrings:
            for certificate in pysequoia.Cert.split_bytes(keyring):
                held = self._certificates.get(certificate.fingerprint)
                self._certificates[certificate.fingerprint] = held.merge(certificate) if held else certificate

    @classmethod
    def of_debian(cls) -> ArchiveKeys:
        """Debian's own."""
        keyrings = [
            entry.read_bytes()
            for entry in resources.files("celaje.image").joinpath("keys").iterdir()
            if entry.name.endswith(".pgp")
        ]
        if _HOST_KEYRING.is_file():
            keyrings.append(_HOST_KEYRING.read_bytes())
        return cls(keyrings)

    @property
    def certificates(self) -> list[pysequoia.Cert]:
        """The keys."""
        return list(self._certificates.values())

    def signed_text(self, message: bytes, name: str) -> str:
        """The text inside the signed `message`, without what is around it. ImageError unless one of the keys signed it.

        `name` is what the message is called in errors.
        """
        try:
            verified = pysequoia.verify(bytes=message, store=lambda _: self.certificates)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ImageError(
                f"{name} is not signed by a key of Debian's archive ({reason}); nothing from it is used. "
                "Update celaje and the host's debian-archive-keyring, or set CELAJE_DEBIAN_MIRROR to another mirror"
            ) from error
        if not verified.valid_sigs or verified.bytes is None:
            raise ImageError(f"{name} carries no valid signature of Debian's archive; nothing from it is used")
        return bytes(verified.bytes).decode("utf-8", "replace")
