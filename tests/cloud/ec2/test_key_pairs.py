"""Key pairs, with OpenSSH and OpenSSL as the judges of keys and fingerprints."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from celaje.cloud.ec2.key_pairs import public_key_line
from tests.cloud.served import REGION, refusal

ED25519 = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
OPENSSH = (Encoding.OpenSSH, PublicFormat.OpenSSH)
needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def run(*words, stdin=b""):
    return subprocess.run(words, input=stdin, capture_output=True, check=True).stdout


def test_a_made_rsa_pair_signs_with_the_half_that_it_answered(ec2, owner):
    made = ec2.create_key_pair(KeyName="mine")
    assert made["KeyMaterial"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    key = load_pem_private_key(made["KeyMaterial"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert made["KeyFingerprint"] == hashlib.sha1(secret).digest().hex(":")
    with owner.cloud.database.read() as session:
        line = public_key_line(session, owner.account, REGION, "mine")
    assert line == key.public_key().public_bytes(*OPENSSH).decode() + " mine"


@needs_ssh_keygen
def test_a_made_ed25519_pair_has_the_fingerprint_that_ssh_keygen_shows(ec2, tmp_path):
    made = ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(made["KeyMaterial"])
    load_ssh_private_key(made["KeyMaterial"].encode(), None)
    shown = run("ssh-keygen", "-l", "-f", str(path)).split()[1].decode()
    assert shown == "SHA256:" + made["KeyFingerprint"].rstrip("=")
    [pair] = ec2.describe_key_pairs(KeyNames=["mine"], IncludePublicKey=True)["KeyPairs"]
    assert pair["PublicKey"].split()[:2] == run("ssh-keygen", "-y", "-f", str(path)).decode().split()[:2]
    assert pair["KeyType"] == "ed25519"


@needs_ssh_keygen
@pytest.mark.parametrize(
    ("kind", "form"), [("rsa", "openssh"), ("rsa", "rfc4716"), ("rsa", "pem"), ("rsa", "der"), ("ed25519", "openssh")]
)
def test_keys_are_imported_in_every_form_that_aws_takes(ec2, tmp_path, kind, form):
    path = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "me@here", "-f", str(path))
    public = path.with_suffix(".pub")
    material = public.read_bytes()
    if form == "rfc4716":
        material = run("ssh-keygen", "-e", "-m", "RFC4716", "-f", str(public))
    elif form != "openssh":
        material = run("ssh-keygen", "-e", "-m", "PKCS8", "-f", str(public))
        if form == "der":
            material = b"".join(material.splitlines()[1:-1])
    imported = ec2.import_key_pair(KeyName="theirs", PublicKeyMaterial=material)
    if kind == "rsa":
        pem = run("ssh-keygen", "-e", "-m", "PKCS8", "-f", str(public))
        der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
        assert imported["KeyFingerprint"] == hashlib.md5(der).digest().hex(":")
    else:
        shown = run("ssh-keygen", "-l", "-f", str(public)).split()[1].decode()
        assert shown == "SHA256:" + imported["KeyFingerprint"].rstrip("=")
    [pair] = ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    assert pair["PublicKey"].split()[:2] == public.read_text().split()[:2]


def test_what_is_no_key_or_one_that_aws_refuses_is_refused(ec2):
    curve = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*OPENSSH)
    for material in (b"", b"ssh-rsa AAAA", b"\xff\xfe", b"ssh-rsa " + b"A" * 20_000, curve, b"hello world"):
        code, message = refusal(ec2.import_key_pair, KeyName="bad", PublicKeyMaterial=material)
        assert (code, message) == ("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
    assert ec2.describe_key_pairs()["KeyPairs"] == []


def test_a_name_is_taken_once_and_free_after_it_was_deleted(ec2):
    made = ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    assert refusal(ec2.create_key_pair, KeyName="mine", KeyType="ed25519") == (
        "InvalidKeyPair.Duplicate",
        "The keypair 'mine' already exists.",
    )
    assert ec2.delete_key_pair(KeyName="mine")["KeyPairId"] == made["KeyPairId"]
    assert refusal(ec2.describe_key_pairs, KeyNames=["mine"]) == (
        "InvalidKeyPair.NotFound",
        "The key pair 'mine' does not exist",
    )
    assert ec2.delete_key_pair(KeyName="mine")["Return"]
    assert refusal(ec2.delete_key_pair, KeyPairId=made["KeyPairId"])[0] == "InvalidKeyPair.NotFound"
    ec2.create_key_pair(KeyName="mine", KeyType="ed25519")
    for name in ("", " spaced", "x" * 256, "näme"):
        assert refusal(ec2.create_key_pair, KeyName=name, KeyType="ed25519")[0] == "InvalidParameterValue"


def test_a_dry_run_makes_no_pair(ec2):
    for action, request in (
        (ec2.create_key_pair, {}),
        (ec2.import_key_pair, {"PublicKeyMaterial": b"ssh-ed25519 " + base64.b64encode(ED25519)}),
    ):
        assert refusal(action, KeyName="mine", DryRun=True, **request) == (
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        )
    assert ec2.describe_key_pairs()["KeyPairs"] == []


def test_a_list_of_one_may_be_written_without_its_number(ec2):
    for name in ("one", "two"):
        ec2.create_key_pair(KeyName=name, KeyType="ed25519")

    def unnumbered(params, **_):
        params["body"]["KeyName"] = params["body"].pop("KeyName.1")

    ec2.meta.events.register("before-call.ec2.DescribeKeyPairs", unnumbered)
    assert [pair["KeyName"] for pair in ec2.describe_key_pairs(KeyNames=["two"])["KeyPairs"]] == ["two"]


def test_key_pairs_are_found_by_filters_and_tags(ec2):
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "team", "Value": "red"}]}]
    one = ec2.create_key_pair(KeyName="one", KeyType="ed25519", TagSpecifications=tags)
    ec2.create_key_pair(KeyName="two", KeyType="ed25519")
    found = ec2.describe_key_pairs(Filters=[{"Name": "tag:team", "Values": ["r*"]}])["KeyPairs"]
    assert [pair["KeyPairId"] for pair in found] == [one["KeyPairId"]]
    found = ec2.describe_key_pairs(Filters=[{"Name": "fingerprint", "Values": [one["KeyFingerprint"]]}])["KeyPairs"]
    assert [pair["KeyName"] for pair in found] == ["one"]
