"""Keys of key pairs: made, read from what clients import, and their fingerprints as AWS computes each."""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from celaje.cloud.aws.errors import AwsError

RSA_BITS = 2048
_RSA_LENGTHS = range(1024, 8193)
_LONGEST = 16_384  # bytes of what is imported
_RFC4716_BEGIN = "---- BEGIN SSH2 PUBLIC KEY ----"

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """`public_line` is a line of authorized_keys without comment; `private` the PEM text, "" of what was imported."""

    key_type: Literal["rsa", "ed25519"]
    fingerprint: str
    public_line: str
    private: str = ""


def made_key(key_type: str) -> KeyMaterial:
    """A new pair. RSA keys have 2,048 bits and PKCS #1's PEM, Ed25519 keys OpenSSH's. AwsError for another type."""
    if key_type == "ed25519":
        ed_key = ed25519.Ed25519PrivateKey.generate()
        text = ed_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        line = _line(ed_key.public_key())
        return KeyMaterial("ed25519", _ssh_fingerprint(line), line, text)
    if key_type != "rsa":
        raise AwsError("InvalidParameterValue", f"Invalid value '{key_type}' for keyType. Allowed: rsa, ed25519")
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    # Of a pair that AWS made: SHA-1 of the private key in PKCS #8.
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    return KeyMaterial("rsa", _colons(hashlib.sha1(secret).digest()), _line(key.public_key()), text)


def imported_key(material: bytes) -> KeyMaterial:
    """The public key in what a client imports: a line of OpenSSH's, an RFC 4716 file, PEM, or base64 of DER. AwsError
    InvalidKey.Format, or InvalidKeyPair.Format for a length that is not allowed."""
    key = _read(material)
    line = _line(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyMaterial("ed25519", _ssh_fingerprint(line), line)
    if key.key_size not in _RSA_LENGTHS:
        raise AwsError(
            "InvalidKeyPair.Format",
            f"RSA keys must have {_RSA_LENGTHS[0]} to {_RSA_LENGTHS[-1]} bits; this one has {key.key_size}",
        )
    # Of an imported one: MD5 of the public key in DER.
    public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return KeyMaterial("rsa", _colons(hashlib.md5(public).digest()), line)


def _read(material: bytes) -> PublicKey:
    refusal = AwsError("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
    if len(material) > _LONGEST:
        raise refusal
    try:
        text = material.decode("ascii").strip()
        with warnings.catch_warnings():  # of a curve or a length that is refused below
            warnings.simplefilter("ignore")
            key = _loaded(text)
    except (ValueError, UnsupportedAlgorithm, binascii.Error) as error:
        raise refusal from error
    if not isinstance(key, PublicKey):
        raise refusal
    return key


def _loaded(text: str) -> object:
    if text.startswith(_RFC4716_BEGIN):
        body = [line for line in text.splitlines()[1:-1] if ":" not in line and not line.endswith("\\")]
        blob = base64.b64decode("".join(body), validate=True)
        name = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
        return serialization.load_ssh_public_key(name + b" " + base64.b64encode(blob))
    if text.startswith("-----BEGIN"):
        return serialization.load_pem_public_key(text.encode())
    if text.startswith(("ssh-", "ecdsa-", "sk-")):
        return serialization.load_ssh_public_key(" ".join(text.split()[:2]).encode())
    return serialization.load_der_public_key(base64.b64decode("".join(text.split()), validate=True))


def _line(key: PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _ssh_fingerprint(line: str) -> str:
    """SHA-256 of the key as SSH has it, in base64: what ssh-keygen -l shows, with its padding."""
    return base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).decode()


def _colons(digest: bytes) -> str:
    return digest.hex(":")
