"""Accounts: made, listed, closed. Only whoever signs for the root account may; others are told nothing.

A new account has a role (OrganizationAccountAccessRole unless it is named otherwise) that the root account may assume;
so its first user and keys are made with STS and IAM, as at AWS. The key of its root is in the file of credentials of
whoever owns this cloud.
"""

from __future__ import annotations

import hashlib
import json
import re

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.pagination import page
from celaje.cloud.iam.accounts import CREDENTIALS, open_account, root_account
from celaje.cloud.iam.entities import ROLES
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.state.accounts import Account
from celaje.cloud.state.addresses import ElasticAddress
from celaje.cloud.state.base import Base
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import TERMINATED, Instance
from celaje.cloud.state.networks import InterfaceGroup, NetworkInterface
from celaje.cloud.state.roles import (
    AttachedPolicy,
    Boundary,
    Group,
    GroupMember,
    IdentityTag,
    InlinePolicy,
    InstanceProfile,
    ManagedPolicy,
    PolicyVersion,
    Role,
    User,
)
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.volumes import Volume

ACCESS_ROLE = "OrganizationAccountAccessRole"
_NAME = re.compile(r"[\x20-\x7e]{1,50}")
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}")


class AccountActions:
    """The actions, which also look whether an account has buckets in `store`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create_account(self, call: Call, request: Request) -> Answer:
        """An account, at once. Its name is its own in this cloud, whatever its case."""
        _refuse_others(call)
        name, email = request["AccountName"], request["Email"]
        if not _NAME.fullmatch(name) or name.strip() != name or set(name) & set("[]") or name.lower() == "default":
            raise _invalid(
                "AccountName has 1 to 50 printable ASCII characters, no brackets, no spaces at its ends, and is not "
                "default: it names a profile in a file of credentials"
            )
        if not _EMAIL.fullmatch(email):
            raise _invalid("Email must be an address of the form name@domain")
        taken = select(Account.id).where(func.lower(Account.name) == name.lower())
        if call.session.scalars(taken).first() is not None:
            raise AwsError("DuplicateAccountException", f"There is an account of the name {name} already")
        account, _ = open_account(call.session, name, call.settings, call.now)
        account.email = email
        _add_access_role(call, account, request.get("RoleName") or ACCESS_ROLE)
        call.wake(CREDENTIALS)
        return {"CreateAccountStatus": _status(account)}

    def describe_create_account_status(self, call: Call, request: Request) -> Answer:
        """What became of a request to make an account: it is there."""
        _refuse_others(call)
        wanted = request["CreateAccountRequestId"]
        for account in call.session.scalars(select(Account)):
            if _request_id(account) == wanted:
                return {"CreateAccountStatus": _status(account)}
        raise AwsError("CreateAccountStatusNotFoundException", f"There is no request {wanted[:100]}")

    def list_accounts(self, call: Call, request: Request) -> Answer:
        """All accounts, the root account first."""
        _refuse_others(call)
        rows = call.session.scalars(select(Account)).all()
        found, token = page(
            call, request, rows, key=lambda row: f"{row.created:%Y%m%d%H%M%S%f} {row.id}", least=1, most=20, default=20
        )
        root = root_account(call.session).id
        return {"Accounts": [_described(account, root) for account in found], "NextToken": token}

    def describe_account(self, call: Call, request: Request) -> Answer:
        """One account."""
        _refuse_others(call)
        account = _find(call, request["AccountId"])
        return {"Account": _described(account, root_account(call.session).id)}

    def describe_organization(self, call: Call, request: Request) -> Answer:
        """What all accounts belong to."""
        root = root_account(call.session)
        organization = _organization_id(root.id)
        return {
            "Organization": {
                "Arn": f"arn:aws:organizations::{root.id}:organization/{organization}",
                "FeatureSet": "ALL",
                "Id": organization,
                "MasterAccountArn": _arn(root.id, root.id),
                "MasterAccountEmail": root.email or None,
                "MasterAccountId": root.id,
            }
        }

    def close_account(self, call: Call, request: Request) -> Answer:
        """An account that has no instances, volumes, snapshots, images, elastic addresses or buckets is gone with its
        networks, keys and identities. AwsError ConstraintViolationException if it has some, saying how many."""
        _refuse_others(call)
        account = _find(call, request["AccountId"])
        if account.id == root_account(call.session).id:
            raise AwsError("ConstraintViolationException", "You can't close the root account of this cloud")
        left = _left(call.session, account.id)
        if buckets := len(self._store.buckets.of(account.id)):
            left["buckets"] = buckets
        if left:
            there = ", ".join(f"{count} {noun}" for noun, count in left.items())
            raise AwsError(
                "ConstraintViolationException",
                f"The account {account.name} still has {there}; remove them, then close the account",
            )
        _remove(call.session, account)
        call.wake(CREDENTIALS)
        return {}


def organizations_actions(store: ObjectStore) -> Actions:
    """The actions of Organizations, for the cloud whose objects are in `store`."""
    actions = Actions("organizations")
    group = AccountActions(store)
    for name in (name for name in vars(AccountActions) if not name.startswith("_")):
        actions.add(getattr(group, name), reads=name.startswith(("describe_", "list_")))
    return actions


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidInputException", message)


def _refuse_others(call: Call) -> None:
    if call.account != root_account(call.session).id:
        raise AwsError("AccessDeniedException", "You don't have permissions to access this resource.")


def _find(call: Call, account_id: str) -> Account:
    account = call.session.get(Account, account_id)
    if account is None:
        raise AwsError("AccountNotFoundException", "You specified an account that doesn't exist.")
    return account


def _add_access_role(call: Call, account: Account, name: str) -> None:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{call.account}:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    inside = Call(
        service=call.service,
        operation=call.operation,
        region=call.region,
        caller=type(call.caller)(account.id, f"arn:aws:iam::{account.id}:root", account.id),
        request_id=call.request_id,
        now=call.now,
        session=call.session,
    )
    role = Role(**ROLES.fresh(inside, name, None), trust=json.dumps(trust))
    call.session.add(role)
    call.session.add(AttachedPolicy(holder=role.id, arn="arn:aws:iam::aws:policy/AdministratorAccess"))


def _digest(purpose: str, text: str) -> str:
    return hashlib.sha256(f"{purpose}:{text}".encode()).hexdigest()


def _organization_id(root: str) -> str:
    return "o-" + _digest("organization", root)[:10]


def _request_id(account: Account) -> str:
    return "car-" + _digest("request", account.id)[:32]


def _arn(root: str, account: str) -> str:
    return f"arn:aws:organizations::{root}:account/{_organization_id(root)}/{account}"


def _status(account: Account) -> dict[str, object]:
    return {
        "AccountId": account.id,
        "AccountName": account.name,
        "CompletedTimestamp": account.created,
        "Id": _request_id(account),
        "RequestedTimestamp": account.created,
        "State": "SUCCEEDED",
    }


def _described(account: Account, root: str) -> dict[str, object]:
    return {
        "Arn": _arn(root, account.id),
        "Email": account.email or None,
        "Id": account.id,
        "JoinedMethod": "INVITED" if account.id == root else "CREATED",
        "JoinedTimestamp": account.created,
        "Name": account.name,
        "State": "ACTIVE",
        "Status": "ACTIVE",
    }


def _left(session: Session, account: str) -> dict[str, int]:
    """How much the account has of what must be removed by hand, by noun; nouns of which it has none are left out."""
    counted = {
        "instances": select(func.count()).where(Instance.account == account, Instance.state != TERMINATED),
        "volumes": select(func.count()).where(Volume.account == account, Volume.state != "deleted"),
        "snapshots": select(func.count()).where(Snapshot.account == account),
        "images": select(func.count()).where(Image.account == account, Image.state != "deregistered"),
        "elastic addresses": select(func.count()).where(ElasticAddress.account == account),
    }
    found = {noun: session.scalar(query) or 0 for noun, query in counted.items()}
    return {noun: count for noun, count in found.items() if count}


def _remove(session: Session, account: Account) -> None:
    """Every row of the account's, in every table."""
    interfaces = select(NetworkInterface.id).where(NetworkInterface.account == account.id)
    session.execute(delete(InterfaceGroup).where(InterfaceGroup.interface.in_(interfaces)))
    holders = [
        *session.scalars(select(User.id).where(User.account == account.id)),
        *session.scalars(select(Group.id).where(Group.account == account.id)),
        *session.scalars(select(Role.id).where(Role.account == account.id)),
        *session.scalars(select(InstanceProfile.id).where(InstanceProfile.account == account.id)),
        *session.scalars(select(ManagedPolicy.id).where(ManagedPolicy.account == account.id)),
    ]
    session.execute(delete(GroupMember).where(GroupMember.group.in_(holders)))
    for held in (InlinePolicy, AttachedPolicy, IdentityTag, Boundary):
        session.execute(delete(held).where(held.holder.in_(holders)))
    session.execute(delete(PolicyVersion).where(PolicyVersion.policy.in_(holders)))
    for table in Base.metadata.sorted_tables:
        if "account" in table.columns:
            session.execute(delete(table).where(table.c.account == account.id))
    session.delete(account)
