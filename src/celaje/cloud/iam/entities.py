"""What users, roles, profiles and policies have in common: names, paths, ARNs, tags, and how each is found."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.policy.grammar import Kind, PolicyError, check
from celaje.cloud.state.roles import (
    Group,
    Identity,
    IdentityTag,
    InstanceProfile,
    ManagedPolicy,
    Role,
    User,
    new_unique_id,
)

_NAME = re.compile(r"[\w+=,.@-]+", re.ASCII)
_TAG = re.compile(r"[\w\s.:/=+\-@]*")  # AWS: letters, numbers and separators of any script, and these
_PATH = re.compile(r"/|/[\x21-\x7e]+/")
TAGS_PER_ENTITY = 50
LONGEST_DOCUMENT = 131_072

Entity = TypeVar("Entity", bound=Identity)


def no_such(message: str) -> AwsError:
    """What IAM answers where there is none."""
    return AwsError("NoSuchEntity", message, 404)


def conflict(message: str) -> AwsError:
    """What IAM answers where something must be removed first."""
    return AwsError("DeleteConflict", message, 409)


@dataclass(frozen=True, slots=True)
class Sort(Generic[Entity]):
    """A sort of entities: its table, AWS's word for it, the prefix of its unique ids, its word in ARNs, and the most
    characters of a name."""

    table: type[Entity]
    noun: str
    prefix: str
    in_arn: str
    longest: int

    def find(self, call: Call, name: str) -> Entity:
        """The caller's entity of that name, whatever its case. AwsError NoSuchEntity."""
        found = self.look(call.session, call.account, name)
        if found is None:
            if self.noun == "instance profile":
                raise no_such(f"Instance Profile {name} cannot be found.")
            raise no_such(f"The {self.noun} with name {name} cannot be found.")
        return found

    def look(self, session: Session, account: str, name: str) -> Entity | None:
        """The account's entity of that name, None if there is none."""
        query = select(self.table).where(self.table.account == account, self.table.folded == name.lower())
        return session.scalars(query).one_or_none()

    def all(self, call: Call, path_prefix: str | None) -> list[Entity]:
        """The caller's entities below a path."""
        rows = call.session.scalars(select(self.table).where(self.table.account == call.account))
        return [row for row in rows if row.path.startswith(path_prefix or "/")]

    def arn(self, entity: Entity) -> str:
        """Its ARN, which has its path."""
        return f"arn:aws:iam::{entity.account}:{self.in_arn}{entity.path}{entity.name}"

    def fresh(self, call: Call, name: str, path: str | None) -> dict[str, object]:
        """The columns of a new entity. AwsError ValidationError or EntityAlreadyExists."""
        path = path or "/"
        self._check(name, path)
        if self.look(call.session, call.account, name) is not None:
            raise self._taken(name)
        return {
            "id": new_unique_id(self.prefix),
            "account": call.account,
            "name": name,
            "folded": name.lower(),
            "path": path,
            "created": call.now,
        }

    def rename(self, call: Call, entity: Entity, name: str, path: str) -> None:
        """Another name, another path, or the same in other case. AwsError as `fresh`."""
        self._check(name, path)
        if name.lower() != entity.folded and self.look(call.session, call.account, name) is not None:
            raise self._taken(name)
        entity.name, entity.folded, entity.path = name, name.lower(), path

    def _taken(self, name: str) -> AwsError:
        words = {
            "policy": f"A policy called {name} already exists. Duplicate names are not allowed.",
            "instance profile": f"Instance Profile {name} already exists.",
        }
        message = words.get(self.noun, f"{self.noun.capitalize()} with name {name} already exists.")
        return AwsError("EntityAlreadyExists", message, 409)

    def _check(self, name: str, path: str) -> None:
        if not _NAME.fullmatch(name) or len(name) > self.longest:
            raise AwsError(
                "ValidationError",
                f"The specified value for {self.noun}Name is invalid. It must have 1 to {self.longest} characters, "
                "which are alphanumeric or among +=,.@-_",
            )
        if not _PATH.fullmatch(path) or len(path) > 512:
            raise AwsError(
                "ValidationError",
                "The specified value for path is invalid. It must begin and end with / and have at most 512 characters",
            )


USERS = Sort(User, "user", "AIDA", "user", 64)
GROUPS = Sort(Group, "group", "AGPA", "group", 128)
ROLES = Sort(Role, "role", "AROA", "role", 64)
PROFILES = Sort(InstanceProfile, "instance profile", "AIPA", "instance-profile", 128)
POLICIES = Sort(ManagedPolicy, "policy", "ANPA", "policy", 128)


def checked_identity_policy(text: str) -> str:
    """A policy of a user, group, role or session. AwsError MalformedPolicyDocument."""
    return _checked(text, Kind.IDENTITY)


def checked_trust(text: str) -> str:
    """A trust policy. AwsError MalformedPolicyDocument."""
    return _checked(text, Kind.TRUST)


def _checked(text: str, kind: Kind) -> str:
    if len(text) > LONGEST_DOCUMENT:
        raise AwsError(
            "MalformedPolicyDocument", f"A policy has at most {LONGEST_DOCUMENT} characters; this one {len(text)}"
        )
    try:
        check(text, kind)
    except PolicyError as error:
        raise AwsError("MalformedPolicyDocument", str(error)) from None
    return text


def answered_document(text: str) -> str:
    """A policy document as IAM answers it: percent-encoded."""
    return urllib.parse.quote(text, safe="")


def tags_of(session: Session, holder: str) -> list[dict[str, str]]:
    """The tags of an entity, as IAM answers them."""
    query = select(IdentityTag).where(IdentityTag.holder == holder).order_by(IdentityTag.key)
    return [{"Key": tag.key, "Value": tag.value} for tag in session.scalars(query)]


def set_tags(call: Call, holder: str, given: Sequence[Mapping[str, object]] | None) -> None:
    """Add tags to an entity, over those of the same keys; of users and roles also over those of the same letters.
    AwsError InvalidInput or LimitExceeded."""
    present = {tag["Key"] for tag in tags_of(call.session, holder)}
    keys = [str(tag.get("Key") or "").lower() for tag in given or ()]
    if len(set(keys)) < len(keys):
        raise AwsError(
            "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive."
        )
    for number, tag in enumerate(given or (), 1):
        key, value = str(tag.get("Key") or ""), str(tag.get("Value") or "")
        if not key or len(key) > 128 or len(value) > 256:
            raise AwsError("InvalidInput", "A tag's key has 1 to 128 characters, its value at most 256")
        if key.lower().startswith("aws:"):
            raise AwsError("InvalidInput", "Tag keys that begin with aws: are reserved")
        for member, text in (("key", key), ("value", value)):
            if not _TAG.fullmatch(text):
                raise AwsError(
                    "ValidationError",
                    f"1 validation error detected: Value '{text}' at 'tags.{number}.member.{member}' failed to satisfy "
                    r"constraint: Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+",
                )
        if _folds(holder):
            same = {each for each in present if each.lower() == key.lower() and each != key}
            remove_tags(call, holder, sorted(same))
            present -= same
        present.add(key)
        call.session.merge(IdentityTag(holder=holder, key=key, value=value))
    if len(present) > TAGS_PER_ENTITY:
        raise AwsError("LimitExceeded", f"The number of tags has reached the maximum limit: {TAGS_PER_ENTITY}", 409)


def remove_tags(call: Call, holder: str, keys: Sequence[str] | None = None) -> None:
    """Remove an entity's tags of these keys, all if that is None."""
    query = delete(IdentityTag).where(IdentityTag.holder == holder)
    if keys is not None:
        wanted = {key.lower() for key in keys} if _folds(holder) else set(keys)
        present = call.session.scalars(select(IdentityTag.key).where(IdentityTag.holder == holder))
        going = [key for key in present if (key.lower() if _folds(holder) else key) in wanted]
        query = query.where(IdentityTag.key.in_(going))
    call.session.execute(query)


def _folds(holder: str) -> bool:
    """Whether the keys of a holder's tags are the same whatever their case ("Tags for IAM resources")."""
    return holder.startswith((USERS.prefix, ROLES.prefix))
