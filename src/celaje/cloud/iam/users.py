"""Users of an account, and the keys that sign for them and for the root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.accounts import CREDENTIALS
from celaje.cloud.iam.boundaries import bound, boundary_of
from celaje.cloud.iam.entities import USERS, conflict, no_such, remove_tags, set_tags, tags_of
from celaje.cloud.iam.listing import listed
from celaje.cloud.iam.policies import refuse_with_policies
from celaje.cloud.state.accounts import AccessKey, Account, new_access_key
from celaje.cloud.state.roles import GroupMember, User

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")
KEYS_PER_USER = 2
USERS_PER_ACCOUNT = 5000


@ACTIONS.action
def create_user(call: Call, request: iam.CreateUserRequestTypeDef) -> Answer:
    """Somebody who can have keys."""
    user = User(**USERS.fresh(call, request["UserName"], request.get("Path")))
    if len(USERS.all(call, None)) >= USERS_PER_ACCOUNT:
        raise AwsError("LimitExceeded", f"Cannot exceed quota for UsersPerAccount: {USERS_PER_ACCOUNT}", 409)
    call.session.add(user)
    set_tags(call, user.id, request.get("Tags"))
    bound(call, user.id, request.get("PermissionsBoundary"))
    return {"User": described(user) | _more(call, user)}


@ACTIONS.action
def get_user(call: Call, request: iam.GetUserRequestTypeDef) -> Answer:
    """A user by name, else who asks: a user, or the account's root."""
    name = request.get("UserName")
    if name is None:
        caller = call.session.get(User, call.caller.user_id)
        if caller is None:
            return {"User": _root(call)}
        user = caller
    else:
        user = USERS.find(call, name)
    return {"User": described(user) | _more(call, user)}


def _root(call: Call) -> dict[str, object]:
    if call.caller.user_id != call.account:
        raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
    account = call.session.get_one(Account, call.account)
    return {
        "Arn": f"arn:aws:iam::{call.account}:root",
        "CreateDate": account.created,
        "Path": "/",
        "UserId": call.account,
        "UserName": account.name,
    }


@ACTIONS.action
def list_users(call: Call, request: iam.ListUsersRequestTypeDef) -> Answer:
    """The account's users."""
    rows = USERS.all(call, request.get("PathPrefix"))
    return listed(call, request, "Users", rows, lambda user: user.folded, described)


@ACTIONS.action
def update_user(call: Call, request: iam.UpdateUserRequestTypeDef) -> Answer:
    """Another name or another path: keys, policies and groups stay the user's."""
    user = USERS.find(call, request["UserName"])
    USERS.rename(call, user, request.get("NewUserName", user.name), request.get("NewPath", user.path))
    call.wake(CREDENTIALS)  # the ARN that the user's keys sign for has changed
    return {}


@ACTIONS.action
def delete_user(call: Call, request: iam.DeleteUserRequestTypeDef) -> Answer:
    """A user without keys and policies."""
    user = USERS.find(call, request["UserName"])
    if _keys_of(call, user.id):
        raise conflict("Cannot delete entity, must delete access keys first.")
    refuse_with_policies(call, user.id)
    if call.session.scalars(select(GroupMember.group).where(GroupMember.user == user.id)).first() is not None:
        raise conflict("Cannot delete entity, must remove users from group first.")
    bound(call, user.id, None)
    remove_tags(call, user.id)
    call.session.delete(user)
    call.wake(CREDENTIALS)  # sessions of the user's end with it
    return {}


@ACTIONS.action
def tag_user(call: Call, request: iam.TagUserRequestTypeDef) -> Answer:
    """Add tags to a user."""
    set_tags(call, USERS.find(call, request["UserName"]).id, request["Tags"])
    return {}


@ACTIONS.action
def untag_user(call: Call, request: iam.UntagUserRequestTypeDef) -> Answer:
    """Remove tags from a user."""
    remove_tags(call, USERS.find(call, request["UserName"]).id, request["TagKeys"])
    return {}


@ACTIONS.action
def list_user_tags(call: Call, request: iam.ListUserTagsRequestTypeDef) -> Answer:
    """The tags of a user."""
    tags = tags_of(call.session, USERS.find(call, request["UserName"]).id)
    return listed(call, request, "Tags", tags, lambda tag: tag["Key"], lambda tag: tag)


def _more(call: Call, user: User) -> dict[str, object]:
    return {"Tags": tags_of(call.session, user.id) or None, "PermissionsBoundary": boundary_of(call, user.id)}


def described(user: User) -> dict[str, object]:
    """A user as lists have it."""
    return {
        "Arn": USERS.arn(user),
        "CreateDate": user.created,
        "Path": user.path,
        "UserId": user.id,
        "UserName": user.name,
    }


def _owner(call: Call, name: str | None) -> tuple[str, str]:
    """(id in the table of keys, name) of whom a request about keys means: a user, or without a name who asks."""
    if name is not None:
        user = USERS.find(call, name)
        return user.id, user.name
    caller = call.session.get(User, call.caller.user_id)
    if caller is not None:
        return caller.id, caller.name
    if call.caller.user_id != call.account:
        raise AwsError("ValidationError", "Must specify userName when calling with non-User credentials")
    return "", call.session.get_one(Account, call.account).name


def _keys_of(call: Call, user: str) -> list[AccessKey]:
    query = select(AccessKey).where(AccessKey.account == call.account, AccessKey.user == user)
    return list(call.session.scalars(query))


def _key(call: Call, name: str | None, key_id: str) -> AccessKey:
    owner, _ = _owner(call, name)
    key = call.session.get(AccessKey, key_id)
    if key is None or (key.account, key.user) != (call.account, owner):
        raise no_such(f"The Access Key with id {key_id} cannot be found.")
    return key


@ACTIONS.action
def create_access_key(call: Call, request: iam.CreateAccessKeyRequestTypeDef) -> Answer:
    """A key of a user's, or of who asks; its secret is in this answer alone."""
    owner, name = _owner(call, request.get("UserName"))
    if len(_keys_of(call, owner)) >= KEYS_PER_USER:
        raise AwsError("LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {KEYS_PER_USER}", 409)
    key = new_access_key(call.session, call.account, owner, call.now)
    call.session.flush()  # it is active then
    call.wake(CREDENTIALS)
    return {"AccessKey": _described_key(key, name) | {"SecretAccessKey": key.secret}}


@ACTIONS.action
def list_access_keys(call: Call, request: iam.ListAccessKeysRequestTypeDef) -> Answer:
    """The keys of a user, or of who asks, without their secrets."""
    owner, name = _owner(call, request.get("UserName"))
    return listed(
        call,
        request,
        "AccessKeyMetadata",
        _keys_of(call, owner),
        lambda key: f"{key.created:%Y%m%d%H%M%S%f} {key.id}",
        lambda key: _described_key(key, name),
    )


@ACTIONS.action
def update_access_key(call: Call, request: iam.UpdateAccessKeyRequestTypeDef) -> Answer:
    """Let a key sign, or no longer."""
    key = _key(call, request.get("UserName"), request["AccessKeyId"])
    key.active = request["Status"] == "Active"
    call.wake(CREDENTIALS)
    return {}


@ACTIONS.action
def delete_access_key(call: Call, request: iam.DeleteAccessKeyRequestTypeDef) -> Answer:
    """A key that signs nothing any more."""
    key = _key(call, request.get("UserName"), request["AccessKeyId"])
    call.session.delete(key)
    call.wake(CREDENTIALS)
    return {}


def _described_key(key: AccessKey, name: str) -> dict[str, object]:
    return {
        "AccessKeyId": key.id,
        "CreateDate": key.created,
        "Status": "Active" if key.active else "Inactive",
        "UserName": name,
    }
