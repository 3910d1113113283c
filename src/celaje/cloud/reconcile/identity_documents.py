"""Instance identity documents and their signatures, as the metadata service gives them.

AWS signs with a certificate of each region, which it publishes; a cloud of celaje makes its own at first use and keeps
it in CELAJE_HOME/cloud/identity-REGION.pem (mode 0600, key and certificate).

    dynamic/instance-identity/document     JSON
    dynamic/instance-identity/signature    base64 of a signature of it (RSA, PKCS #1 v1.5, SHA-256)
    dynamic/instance-identity/pkcs7        PKCS #7 with the document inside, base64 without its frame
    dynamic/instance-identity/rsa2048      the same
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

VALID_YEARS = 100
KEY_BITS = 2048
REMEMBERED = 4096  # documents whose signatures are kept
_EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Signer:
    """Signs the identity documents of one region. The key is read, or made, when it is first needed."""

    def __init__(self, directory: Path, region: str) -> None:
        self._path = directory / f"identity-{region}.pem"
        self._region = region
        self._held: tuple[RSAPrivateKey, Certificate] | None = None
        self._making = threading.Lock()
        self.leaves = lru_cache(REMEMBERED)(self._leaves)
        """Document and signatures by their paths, of a document's text."""

    def _leaves(self, document: str) -> Mapping[str, str]:
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

        key, certificate = self._key()
        signature = key.sign(document.encode(), padding.PKCS1v15(), SHA256())
        options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]
        builder = pkcs7.PKCS7SignatureBuilder().set_data(document.encode()).add_signer(certificate, key, SHA256())
        signed = base64.encodebytes(builder.sign(Encoding.DER, options)).decode("ascii").rstrip()
        return {
            "dynamic/instance-identity/document": document,
            "dynamic/instance-identity/signature": base64.encodebytes(signature).decode("ascii").rstrip(),
            "dynamic/instance-identity/pkcs7": signed,
            "dynamic/instance-identity/rsa2048": signed,
        }

    def certificate(self) -> bytes:
        """In PEM: what clients check signatures with."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self._key()[1].public_bytes(Encoding.PEM)

    def _key(self) -> tuple[RSAPrivateKey, Certificate]:
        with self._making:
            if self._held is None:
                try:
                    self._held = _read(self._path.read_bytes())
                except FileNotFoundError:
                    _write(self._path, self._region)
                    self._held = _read(self._path.read_bytes())
            return self._held


def _read(data: bytes) -> tuple[RSAPrivateKey, Certificate]:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    key = load_pem_private_key(data, None)
    assert isinstance(key, RSAPrivateKey)
    return key, load_pem_x509_certificate(data)


def _write(path: Path, region: str) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65_537, KEY_BITS)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "celaje"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"instance identity, {region}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EPOCH)
        .not_valid_after(_EPOCH.replace(year=_EPOCH.year + VALID_YEARS))
        .sign(key, SHA256())
    )
    held = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    aside = path.with_suffix(".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(held + certificate.public_bytes(Encoding.PEM))
        file.flush()
        os.fsync(descriptor)
    os.replace(aside, path)


def identity_document(
    *,
    account: str,
    architecture: str,
    zone: str,
    image: str,
    instance: str,
    instance_type: str,
    launched: datetime.datetime,
    private_address: str,
    region: str,
) -> str:
    """The document's text."""
    return json.dumps(
        {
            "accountId": account,
            "architecture": architecture,
            "availabilityZone": zone,
            "billingProducts": None,
            "devpayProductCodes": None,
            "marketplaceProductCodes": None,
            "imageId": image,
            "instanceId": instance,
            "instanceType": instance_type,
            "kernelId": None,
            "pendingTime": f"{launched:%Y-%m-%dT%H:%M:%SZ}",
            "privateIp": private_address,
            "ramdiskId": None,
            "region": region,
            "version": "2017-09-30",
        },
        indent=2,
    )
