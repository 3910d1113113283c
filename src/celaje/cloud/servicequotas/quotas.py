"""Quotas: the limits that this cloud enforces, under AWS's codes. What it does not enforce is not listed.

Numbers of things are AWS's defaults or this cloud's own, the same for every account; running vCPUs are the host's, with
what the owner's settings overcommit, and all accounts share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2 import quotas
from celaje.cloud.ec2.addresses import ADDRESSES_PER_REGION
from celaje.cloud.ec2.security_group_rules import RULES_PER_GROUP
from celaje.cloud.ec2.security_groups import GROUPS_PER_INTERFACE
from celaje.cloud.state.hosts import LOCAL, Host

ACTIONS = Actions("servicequotas")
Item = TypeVar("Item")
_SERVICES = {
    "ebs": "Amazon Elastic Block Store (Amazon EBS)",
    "ec2": "Amazon Elastic Compute Cloud (Amazon EC2)",
    "vpc": "Amazon Virtual Private Cloud (Amazon VPC)",
}


@dataclass(frozen=True, slots=True)
class _Quota:
    service: str
    code: str
    name: str
    value: Callable[[Call], int]


def _vcpus(call: Call) -> int:
    host = call.session.get(Host, LOCAL)
    return host.cpus if host is not None else 0


_QUOTAS = (
    _Quota("ec2", "L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", _vcpus),
    _Quota("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances", _vcpus),
    _Quota("ec2", "L-417A185B", "Running On-Demand P instances", _vcpus),
    _Quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", lambda call: ADDRESSES_PER_REGION),
    _Quota("ebs", "L-309BACF6", "Snapshots per Region", lambda call: quotas.SNAPSHOTS),
    _Quota("ebs", "L-7A658B76", "Storage for volumes, in TiB", lambda call: quotas.STORAGE >> 10),
    _Quota("vpc", "L-0EA8095F", "Inbound or outbound rules per security group", lambda call: RULES_PER_GROUP),
    _Quota("vpc", "L-2AFB9258", "Security groups per network interface", lambda call: GROUPS_PER_INTERFACE),
    _Quota("vpc", "L-F678F1CE", "VPCs per Region", lambda call: quotas.VPCS),
    _Quota("vpc", "L-A4707A72", "Internet gateways per Region", lambda call: quotas.INTERNET_GATEWAYS),
    _Quota("vpc", "L-FE5A380F", "NAT gateways per Availability Zone", lambda call: quotas.NAT_GATEWAYS_PER_ZONE),
    _Quota("vpc", "L-83CA0A9D", "IPv4 CIDR blocks per VPC", lambda call: quotas.CIDRS_PER_VPC),
    _Quota("vpc", "L-407747CB", "Subnets per VPC", lambda call: quotas.SUBNETS_PER_VPC),
    _Quota("vpc", "L-589F43AA", "Route tables per VPC", lambda call: quotas.ROUTE_TABLES_PER_VPC),
    _Quota("vpc", "L-93826ACB", "Routes per route table", lambda call: quotas.ROUTES),
    _Quota("vpc", "L-B4A6D682", "Network ACLs per VPC", lambda call: quotas.NETWORK_ACLS_PER_VPC),
    _Quota("vpc", "L-2AEEBF1A", "Rules per network ACL", lambda call: quotas.NETWORK_ACL_ENTRIES),
    _Quota("vpc", "L-DF5E4CA3", "Network interfaces per Region", lambda call: quotas.NETWORK_INTERFACES),
)


def _described(call: Call, quota: _Quota) -> dict[str, object]:
    return {
        "ServiceCode": quota.service,
        "ServiceName": _SERVICES[quota.service],
        "QuotaArn": f"arn:aws:servicequotas:{call.region}:{call.account}:{quota.service}/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": float(quota.value(call)),
        "Unit": "None",
        "Adjustable": False,
        "GlobalQuota": False,
        "QuotaAppliedAtLevel": "ACCOUNT",
    }


def _of_service(code: str) -> list[_Quota]:
    if code not in _SERVICES:
        raise AwsError(
            "NoSuchResourceException",
            f"The request failed because the specified service does not exist: {code[:64]}; there are "
            f"{', '.join(_SERVICES)}",
        )
    return [quota for quota in _QUOTAS if quota.service == code]


def _found(service: str, code: str) -> _Quota:
    for quota in _of_service(service):
        if quota.code == code:
            return quota
    raise AwsError(
        "NoSuchResourceException",
        f"The request failed because the specified service quota does not exist: {code[:128]}; ListServiceQuotas has "
        "those that this cloud enforces",
    )


# The model's pattern of tokens has the usual alphabet of base64, pages have the one for addresses.
_IN, _OUT = str.maketrans("+/", "-_"), str.maketrans("-_", "+/")


def _paged(
    call: Call, request: Request, items: Iterable[Item], key: Callable[[Item], str]
) -> tuple[list[Item], str | None]:
    given = request.get("NextToken")
    asked = {**request, "NextToken": given.translate(_IN)} if given else request
    shown, token = page(call, asked, items, key, least=1, most=100, default=100)
    return shown, token.translate(_OUT) if token else None


@ACTIONS.action
def list_services(call: Call, request: Request) -> Answer:
    """The services that have quotas here."""
    shown, token = _paged(call, request, _SERVICES, lambda code: code)
    return {
        "Services": [{"ServiceCode": code, "ServiceName": _SERVICES[code]} for code in shown],
        "NextToken": token,
    }


def _listed(call: Call, request: Request) -> Answer:
    wanted = request.get("QuotaCode")
    found = [quota for quota in _of_service(request["ServiceCode"]) if wanted in (None, quota.code)]
    shown, token = _paged(call, request, found, lambda quota: quota.code)
    return {"Quotas": [_described(call, quota) for quota in shown], "NextToken": token}


@ACTIONS.action
def list_service_quotas(call: Call, request: Request) -> Answer:
    """Those of a service that this cloud enforces."""
    return _listed(call, request)


@ACTIONS.action
def list_aws_default_service_quotas(call: Call, request: Request) -> Answer:
    """The same: no account has others."""
    return _listed(call, request)


@ACTIONS.action
def get_service_quota(call: Call, request: Request) -> Answer:
    """One of them."""
    return {"Quota": _described(call, _found(request["ServiceCode"], request["QuotaCode"]))}


@ACTIONS.action
def get_aws_default_service_quota(call: Call, request: Request) -> Answer:
    """The same: no account has others."""
    return {"Quota": _described(call, _found(request["ServiceCode"], request["QuotaCode"]))}
