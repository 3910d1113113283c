from __future__ import annotations

from pathlib import Path

import pysequoia
import pytest

from celaje.errors import ImageError
from celaje.image import archive_keys
from celaje.image.archive_keys import ArchiveKeys
from tests.image.conftest import FabricatedArchive

TEXT = "Codename: trixie\nDate: today"


def test_the_text_is_what_was_signed_and_nothing_around_it(fabricated: FabricatedArchive) -> None:
    message = b"Codename: evil\n\n" + fabricated.sign(TEXT) + b"\nCodename: evil\n"
    assert fabricated.keys.signed_text(message, "InRelease").strip() == TEXT


@pytest.mark.parametrize(
    "message", [b"", TEXT.encode(), b"-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n", b"\xff\x00garbage"], ids=repr
)
def test_an_unsigned_text_is_refused(fabricated: FabricatedArchive, message: bytes) -> None:
    with pytest.raises(ImageError, match=r"dists/x/InRelease.*sign"):
        fabricated.keys.signed_text(message, "dists/x/InRelease")


def test_a_changed_text_is_refused(fabricated: FabricatedArchive) -> None:
    with pytest.raises(ImageError, match="not signed by a key"):
        fabricated.keys.signed_text(fabricated.sign(TEXT).replace(b"trixie", b"sneaky"), "InRelease")


def test_a_strangers_signature_is_refused(fabricated: FabricatedArchive) -> None:
    stranger = pysequoia.Tsk.generate("Stranger <stranger@example.org>")
    with pytest.raises(ImageError, match="not signed by a key"):
        fabricated.keys.signed_text(fabricated.sign(TEXT, stranger), "InRelease")


def test_an_error_is_one_line(fabricated: FabricatedArchive) -> None:
    with pytest.raises(ImageError) as caught:
        fabricated.keys.signed_text(b"x", "InRelease")
    assert "\n" not in str(caught.value)


def test_a_key_that_either_keyring_revokes_signs_nothing(fabricated: FabricatedArchive) -> None:
    certificate = bytes(fabricated.key.extract_certificate())
    revocation = bytes(fabricated.key.extract_certificate().revoke(fabricated.key.certifier()))
    message = fabricated.sign(TEXT)
    for keyrings in ([certificate, certificate + revocation], [certificate + revocation, certificate]):
        with pytest.raises(ImageError, match="not signed by a key"):
            ArchiveKeys(keyrings).signed_text(message, "InRelease")


def test_debians_keys_come_with_celaje(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_keys, "_HOST_KEYRING", Path("/nonexistent"))
    keys = ArchiveKeys.of_debian()
    names = [str(user) for certificate in keys.certificates for user in certificate.user_ids]
    for release in ("12/bookworm", "13/trixie"):
        assert any(f"Debian Archive Automatic Signing Key ({release})" in name for name in names)
        assert any(f"Debian Stable Release Key ({release})" in name for name in names)
