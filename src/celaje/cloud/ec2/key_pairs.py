"""Key pairs: a name for a public key, which an instance's metadata then has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.key_material import KeyMaterial, imported_key, made_key
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.quotas import refuse_beyond
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.key_pairs import KeyPair
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags, tags_of

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
KEY_PAIRS = Kind(KeyPair, "key", "InvalidKeyPair", "InvalidKeyPair.NotFound", "key pair ID")
_NAME = re.compile(r"[\x20-\x7e]{1,255}")


def find_key_pair(session: Session, account: str, region: str, name: str) -> KeyPair:
    """The account's key pair of that name. AwsError InvalidKeyPair.NotFound."""
    found = session.scalars(
        select(KeyPair).where(KeyPair.account == account, KeyPair.region == region, KeyPair.name == name)
    ).one_or_none()
    if found is None:
        raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return found


def public_key_line(session: Session, account: str, region: str, name: str) -> str:
    """The line of authorized_keys, with the pair's name as its comment. AwsError InvalidKeyPair.NotFound."""
    return f"{find_key_pair(session, account, region, name).public_line} {name}"


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.strip() != name:
        raise AwsError(
            "InvalidParameterValue",
            f"Value ({name[:100]}) for parameter KeyName is invalid. It must have 1 to 255 ASCII characters and "
            "neither begin nor end with a space",
        )
    return name


def _refuse_taken(session: Session, call: Call, name: str) -> None:
    same = select(KeyPair).where(KeyPair.account == call.account, KeyPair.region == call.region, KeyPair.name == name)
    if session.scalars(same).first() is not None:
        raise AwsError("InvalidKeyPair.Duplicate", f"The keypair '{name}' already exists.")


def _add(session: Session, call: Call, name: str, key: KeyMaterial, tags: dict[str, str]) -> dict[str, object]:
    _refuse_taken(session, call, name)
    refuse_beyond(session, call, KeyPair, quotas.KEY_PAIRS, "key pairs")
    pair = KeyPair(
        id=new_id("key"),
        account=call.account,
        region=call.region,
        created=call.now,
        name=name,
        key_type=key.key_type,
        fingerprint=key.fingerprint,
        public_line=key.public_line,
    )
    session.add(pair)
    set_tags(session, pair.id, "key-pair", call.account, call.region, tags)
    return {
        "KeyFingerprint": key.fingerprint,
        "KeyName": name,
        "KeyPairId": pair.id,
        "Tags": answered_tags(tags) or None,
    }


@ACTIONS.untransacted
def create_key_pair(call: Call, request: ec2.CreateKeyPairRequestTypeDef) -> Answer:
    """A new pair, whose private half is in this answer and nowhere else. Untransacted: an RSA key takes a while."""
    name = _checked_name(request["KeyName"])
    if request.get("KeyFormat", "pem") != "pem":
        raise AwsError(
            "UnsupportedOperation", "Keys are made in the format pem; puttygen makes ppk of it. Give KeyFormat=pem"
        )
    tags = tags_for(request.get("TagSpecifications"), "key-pair")
    with call.reading() as session:
        _refuse_taken(session, call, name)
    if request.get("DryRun"):
        raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    key = made_key(request.get("KeyType", "rsa"))
    with call.writing() as session:
        answer = _add(session, call, name, key, tags)
    return answer | {"KeyMaterial": key.private}


@ACTIONS.action
def import_key_pair(call: Call, request: ec2.ImportKeyPairRequestTypeDef) -> Answer:
    """A name for a public key that the client has."""
    name = _checked_name(request["KeyName"])
    tags = tags_for(request.get("TagSpecifications"), "key-pair")
    material = request["PublicKeyMaterial"]
    key = imported_key(material.encode() if isinstance(material, str) else _bytes(material))
    return _add(call.session, call, name, key, tags)


def _bytes(material: object) -> bytes:
    assert isinstance(material, bytes | bytearray), "a blob of a request is bytes"
    return bytes(material)


@ACTIONS.action
def delete_key_pair(call: Call, request: ec2.DeleteKeyPairRequestTypeDef) -> Answer:
    """By name or by id. A name that nothing has is no error, as at AWS. Instances keep what they started with."""
    if key_id := request.get("KeyPairId"):
        pair: KeyPair | None = KEY_PAIRS.find(call, key_id)
    elif name := request.get("KeyName"):
        same = select(KeyPair).where(
            KeyPair.account == call.account, KeyPair.region == call.region, KeyPair.name == name
        )
        pair = call.session.scalars(same).one_or_none()
    else:
        raise AwsError("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
    if pair is None:
        return {"Return": True}
    remove_tags(call.session, pair.id)
    call.session.delete(pair)
    return {"Return": True, "KeyPairId": pair.id}


_FILTERS = Filters[Tagged[KeyPair]](
    {
        "fingerprint": lambda pair: pair.row.fingerprint,
        "key-name": lambda pair: pair.row.name,
        "key-pair-id": lambda pair: pair.row.id,
    },
    tags=lambda pair: pair.tags,
)


@ACTIONS.action
def describe_key_pairs(call: Call, request: ec2.DescribeKeyPairsRequestTypeDef) -> Answer:
    """The account's key pairs, by name."""
    names, ids = request.get("KeyNames"), request.get("KeyPairIds")
    matches = _FILTERS.matcher(request.get("Filters"))
    if names or ids:
        rows = {pair.id: pair for pair in (KEY_PAIRS.rows(call, ids) if ids else [])}
        for name in names or ():
            pair = find_key_pair(call.session, call.account, call.region, name)
            rows[pair.id] = pair
        pairs = list(rows.values())
    else:
        pairs = KEY_PAIRS.rows(call)
    tags = tags_of(call.session, [pair.id for pair in pairs])
    found = [tagged for pair in pairs if matches(tagged := Tagged(pair, tags[pair.id]))]
    found.sort(key=lambda pair: pair.row.name)
    with_key = bool(request.get("IncludePublicKey"))
    return {"KeyPairs": [_described(pair, with_key) for pair in found]}


def _described(pair: Tagged[KeyPair], with_key: bool) -> dict[str, object]:
    row = pair.row
    return {
        "CreateTime": row.created,
        "KeyFingerprint": row.fingerprint,
        "KeyName": row.name,
        "KeyPairId": row.id,
        "KeyType": row.key_type,
        "PublicKey": f"{row.public_line} {row.name}" if with_key else None,
        "Tags": answered_tags(pair.tags),
    }
