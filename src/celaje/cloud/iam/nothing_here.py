"""What users have at AWS and cannot have here: passwords, devices, certificates, keys of other services.

Whatever would make one is refused. So a user's lists of them are truly empty, and clients that look before they delete
a user, as Ansible and Terraform do, find nothing in their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.iam.entities import USERS, no_such
from celaje.cloud.iam.listing import listed

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")


def _of_user(call: Call, request: Request) -> None:
    """AwsError NoSuchEntity where the request names a user that the account does not have."""
    name = request.get("UserName")
    if name is not None:
        USERS.find(call, str(name))


def _none(call: Call, request: Request, member: str) -> Answer:
    """An empty list, of which there is one page."""
    return listed(call, request, member, (), str, str)


@ACTIONS.action
def list_mfa_devices(call: Call, request: iam.ListMFADevicesRequestTypeDef) -> Answer:
    """No user has a device."""
    _of_user(call, request)
    return _none(call, request, "MFADevices")


@ACTIONS.action
def list_virtual_mfa_devices(call: Call, request: iam.ListVirtualMFADevicesRequestTypeDef) -> Answer:
    """No account has a device."""
    return _none(call, request, "VirtualMFADevices")


@ACTIONS.action
def list_signing_certificates(call: Call, request: iam.ListSigningCertificatesRequestTypeDef) -> Answer:
    """No user has a certificate."""
    _of_user(call, request)
    return _none(call, request, "Certificates")


@ACTIONS.action
def list_ssh_public_keys(call: Call, request: iam.ListSSHPublicKeysRequestTypeDef) -> Answer:
    """No user has a key for CodeCommit."""
    _of_user(call, request)
    return _none(call, request, "SSHPublicKeys")


@ACTIONS.action
def list_service_specific_credentials(
    call: Call, request: iam.ListServiceSpecificCredentialsRequestTypeDef
) -> Answer:
    """No user has credentials of another service."""
    _of_user(call, request)
    return _none(call, request, "ServiceSpecificCredentials")


@ACTIONS.action
def get_login_profile(call: Call, request: iam.GetLoginProfileRequestTypeDef) -> Answer:
    """AwsError NoSuchEntity: no user has a password."""
    raise _no_password(call, request)


@ACTIONS.action
def delete_login_profile(call: Call, request: iam.DeleteLoginProfileRequestTypeDef) -> Answer:
    """AwsError NoSuchEntity: no user has a password."""
    raise _no_password(call, request)


def _no_password(call: Call, request: Request) -> Exception:
    _of_user(call, request)
    return no_such(f"Login Profile for User {request.get('UserName', '')} cannot be found.")
