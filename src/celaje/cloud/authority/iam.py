"""The questions of IAM's calls: each is asked for the entity that the request names, or else for who calls.

`list_users` and the like are asked for the path that they list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from sqlalchemy import select

from celaje.cloud.authority.facts import requested_tags
from celaje.cloud.authority.identities import identity_tags
from celaje.cloud.aws.action import Call
from celaje.cloud.aws.question import Fact, Question, Values
from celaje.cloud.state.accounts import AccessKey
from celaje.cloud.state.roles import Boundary, Group, Identity, InstanceProfile, Role, User

# In the order in which a request that names several is asked for one: a member is added to a group.
_ENTITIES: dict[str, tuple[str, type[Identity]]] = {
    "InstanceProfileName": ("instance-profile", InstanceProfile),
    "GroupName": ("group", Group),
    "RoleName": ("role", Role),
    "UserName": ("user", User),
}
_LISTED = {
    "ListUsers": "user",
    "ListRoles": "role",
    "ListGroups": "group",
    "ListInstanceProfiles": "instance-profile",
    "ListPolicies": "policy",
}
_OWN = (
    "GetUser",
    "CreateAccessKey",
    "ListAccessKeys",
    "UpdateAccessKey",
    "DeleteAccessKey",
    "ChangePassword",
    "ListMFADevices",
)


# Whoever gives an entity another name or path needs to be allowed what it becomes as well.
_RENAMING = ("UpdateUser", "UpdateGroup")


def questions(call: Call, members: Mapping[str, object]) -> Iterator[Question]:
    """What the call asks for."""
    operation = call.operation
    action = f"iam:{operation}"
    facts = _facts(members)
    if operation in _LISTED:
        path = str(members.get("PathPrefix") or "/")
        yield Question(action, f"arn:aws:iam::{call.account}:{_LISTED[operation]}{path}", facts)
        return
    for member, (word, table) in _ENTITIES.items():
        name = members.get(member)
        if name:
            yield _question(call, action, word, table, str(name), members, facts)
            if operation in _RENAMING:
                yield _renamed(call, action, word, table, str(name), members)
            if operation == "AddRoleToInstanceProfile":
                role = str(members.get("RoleName") or "")
                yield _question(call, "iam:PassRole", "role", Role, role, members, {})
            return
    if operation == "GetAccessKeyLastUsed":
        key = call.session.get(AccessKey, str(members.get("AccessKeyId")))
        user = call.session.get(User, key.user) if key is not None and key.account == call.account else None
        yield Question(action, f"arn:aws:iam::{call.account}:user{user.path + user.name if user else '/*'}", facts)
    elif operation == "CreatePolicy":
        path = str(members.get("Path") or "/")
        yield Question(action, f"arn:aws:iam::{call.account}:policy{path}{members.get('PolicyName')}", facts)
    elif "PolicyArn" in members or "PolicySourceArn" in members:
        yield Question(action, str(members.get("PolicyArn") or members.get("PolicySourceArn")), facts)
    elif operation in _OWN and call.caller.arn.startswith("arn:aws:iam:"):
        yield Question(action, call.caller.arn, facts, partial(identity_tags, call.session, call.caller.user_id))
    else:
        yield Question(action, "*", facts)


def _renamed(
    call: Call, action: str, word: str, table: type[Identity], name: str, members: Mapping[str, object]
) -> Question:
    rows = select(table.path, table.name).where(table.account == call.account, table.folded == name.lower())
    found = call.session.execute(rows).first()
    path, known = ("/", name) if found is None else found
    new = members.get("NewUserName") or members.get("NewGroupName") or known
    return Question(action, f"arn:aws:iam::{call.account}:{word}{members.get('NewPath') or path}{new}")


def _facts(members: Mapping[str, object]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    if members.get("PolicyArn"):
        facts["iam:policyarn"] = (str(members["PolicyArn"]),)
    if members.get("PermissionsBoundary"):
        facts["iam:permissionsboundary"] = (str(members["PermissionsBoundary"]),)
    tags = members.get("Tags")
    pairs = [(str(tag.get("Key") or ""), str(tag.get("Value") or "")) for tag in tags] if isinstance(tags, list) else []
    facts |= requested_tags(pairs)
    keys = members.get("TagKeys")
    if isinstance(keys, list) and keys:
        facts["aws:tagkeys"] = tuple(str(key) for key in keys)
    return facts


def _question(
    call: Call,
    action: str,
    word: str,
    table: type[Identity],
    name: str,
    members: Mapping[str, object],
    facts: Mapping[str, Fact],
) -> Question:
    rows = select(table).where(table.account == call.account, table.folded == name.lower())
    found = call.session.scalars(rows).one_or_none()
    if found is None:
        path = str(members.get("Path") or "/")
        return Question(action, f"arn:aws:iam::{call.account}:{word}{path}{name}", facts)
    arn = f"arn:aws:iam::{found.account}:{word}{found.path}{found.name}"
    # The boundary that a request gives, else the one that the user or role has.
    known: dict[str, Fact] = {"iam:permissionsboundary": partial(_boundary, call, found.id), **facts}
    return Question(action, arn, known, partial(identity_tags, call.session, found.id))


def _boundary(call: Call, holder: str) -> Values:
    bounded = call.session.get(Boundary, holder)
    return None if bounded is None else (bounded.arn,)

