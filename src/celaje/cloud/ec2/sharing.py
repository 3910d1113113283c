"""With whom images and snapshots are shared: everybody (the group `all`), or accounts by their numbers.

A request says it in one of two ways: by a structure of what to add and to remove, or by an attribute's name, an
operation, and lists of users and groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2 import quotas
from celaje.cloud.state import permissions

EVERYBODY = "all"
# What lists of owners, and of who may use something, have beside accounts.
OWNERS = ("self", "amazon", "aws-marketplace", "aws-backup-vault")
USERS = ("self", EVERYBODY)
_ACCOUNT = re.compile(r"[0-9]{12}")
_ORGANIZATION = ("OrganizationArn", "OrganizationalUnitArn", "OrganizationArns", "OrganizationalUnitArns")


@dataclass(frozen=True, slots=True)
class SharingChange:
    """Accounts to add and to remove; `public` is what becomes of "everybody may", None: nothing."""

    add: tuple[str, ...]
    remove: tuple[str, ...]
    public: bool | None


def asked(request: Mapping[str, Any], member: str, code: str, users: str, groups: str) -> SharingChange | None:
    """What a request asks for in `member`, or by OperationType with the lists `users` and `groups`; None: nothing.
    AwsError `code` for who cannot be named."""
    given = request.get(member)
    operation = request.get("OperationType")
    if given:
        added, removed = list(given.get("Add") or ()), list(given.get("Remove") or ())
    elif operation in ("add", "remove"):
        lists = [{"UserId": one} for one in request.get(users) or ()]
        lists += [{"Group": one} for one in request.get(groups) or ()]
        lists += [{name: True} for name in _ORGANIZATION if request.get(name)]
        added, removed = (lists, []) if operation == "add" else ([], lists)
    else:
        return None
    if not added and not removed:
        raise AwsError("InvalidParameterCombination", f"{member} has neither anything to add nor to remove")
    to_all = [any(one.get("Group") for one in side) for side in (added, removed)]
    return SharingChange(
        tuple(_accounts(added, code)),
        tuple(_accounts(removed, code)),
        True if to_all[0] else False if to_all[1] else None,
    )


def _accounts(side: Iterable[Mapping[str, Any]], code: str) -> Iterable[str]:
    for one in side:
        group, user = one.get("Group"), one.get("UserId")
        if any(one.get(name) for name in _ORGANIZATION):
            raise AwsError(
                "UnsupportedOperation", "Sharing with organizations is not supported; name the accounts by UserId."
            )
        if group is not None and group != EVERYBODY:
            raise AwsError(code, f'Invalid attribute item value "{str(group)[:64]}" for userGroup item type.')
        if user is not None:
            if not _ACCOUNT.fullmatch(user):
                raise AwsError(code, f'Invalid attribute item value "{str(user)[:64]}" for userId item type.')
            yield user
        elif group is None:
            raise AwsError("MissingParameter", "A permission must name a UserId or the Group all")


def check_users(given: Sequence[str] | None, *names: str) -> None:
    """AwsError InvalidUserID.Malformed for what is neither an account's number nor one of `names`."""
    for user in given or ():
        if user not in names and not _ACCOUNT.fullmatch(user):
            raise AwsError("InvalidUserID.Malformed", f'Invalid user id: "{user[:64]}"')


def apply(call: Call, resource: str, change: SharingChange) -> None:
    """Note the accounts; `public` is a column of the resource's own. AwsError ResourceLimitExceeded."""
    permissions.change(call.session, resource, call.account, change.add, change.remove)
    if change.add and len(permissions.grantees(call.session, resource)) > quotas.GRANTEES:
        raise AwsError(
            "ResourceLimitExceeded", f"{resource} can be shared with at most {quotas.GRANTEES} accounts; take some away"
        )


def described(call: Call, resource: str, public: bool) -> list[dict[str, str]]:
    """The permissions as answers have them."""
    everybody = [{"Group": EVERYBODY}] if public else []
    return everybody + [{"UserId": one} for one in permissions.grantees(call.session, resource)]
