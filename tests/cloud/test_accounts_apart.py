"""Two accounts: whatever the one asks with the other's identifiers is answered as if nothing had them, changes nothing
of the other's, and tells nothing of it. All actions, all members that take identifiers, found from the models.

S3 is not among them: names of buckets are one space for all, and its refusals say so, as at AWS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel, Shape, StringShape
from sqlalchemy import select

from celaje.cloud.state.base import Base
from celaje.cloud.state.identifiers import new_id
from tests.cloud.belongings import POLICY, PUBLIC_KEY, TRUST, belongings
from tests.cloud.served import ServedCloud

# The least number of members that take identifiers, of the actions that there are.
MEMBERS = {"ec2": 150, "iam": 50, "sts": 1, "ssm": 0, "organizations": 2}
SERVICES = tuple(MEMBERS)
DEPTH = 4
TOLD = ("GetAccessKeyInfo",)  # at AWS too whoever sees a key is told whose it is

# What members of requests mean, by their names.
KINDS = {
    "AccessKeyId": "user key",
    "AccountId": "account",
    "AllocationId": "eipalloc",
    "AllocationIds": "eipalloc",
    "Arn": "profile arn",
    "AssociationId": "eipassoc",
    "DhcpOptionsId": "dopt",
    "DhcpOptionsIds": "dopt",
    "ExecutableUsers": "account",
    "GroupId": "sg",
    "GroupIds": "sg",
    "GroupName": "group name",
    "GroupNames": "group name",
    "Groups": "sg",
    "ImageId": "ami",
    "ImageIds": "ami",
    "InstanceId": "i",
    "InstanceIds": "i",
    "InstanceProfileName": "profile",
    "GatewayId": "igw",
    "InternetGatewayId": "igw",
    "InternetGatewayIds": "igw",
    "KeyName": "key name",
    "KeyNames": "key name",
    "KeyPairId": "key pair",
    "KeyPairIds": "key pair",
    "LaunchTemplateId": "lt",
    "LaunchTemplateIds": "lt",
    "LaunchTemplateName": "lt name",
    "LaunchTemplateNames": "lt name",
    "NatGatewayId": "nat",
    "NatGatewayIds": "nat",
    "NetworkAclId": "acl",
    "NetworkAclIds": "acl",
    "NetworkInterfaceId": "eni",
    "NetworkInterfaceIds": "eni",
    "Owners": "account",
    "OwnerIds": "account",
    "PermissionsBoundary": "policy arn",
    "PolicyArn": "policy arn",
    "PublicIp": "public address",
    "PublicIps": "public address",
    "ReferencedGroupId": "sg",
    "Resources": "vpc",
    "RestorableByUserIds": "account",
    "RoleArn": "role arn",
    "RoleName": "role",
    "RouteTableId": "rtb",
    "RouteTableIds": "rtb",
    "SecurityGroupIds": "sg",
    "SecurityGroupRuleId": "sgr",
    "SecurityGroupRuleIds": "sgr",
    "SecurityGroups": "group name",
    "SnapshotId": "snap",
    "SnapshotIds": "snap",
    "SourceImageId": "ami",
    "SourceSnapshotId": "snap",
    "SourceSecurityGroupName": "group name",
    "SourceSecurityGroupOwnerId": "account",
    "SubnetId": "subnet",
    "SubnetIds": "subnet",
    "UserId": "account",
    "UserIds": "account",
    "UserName": "user",
    "VolumeId": "vol",
    "VolumeIds": "vol",
    "VpcId": "vpc",
    "VpcIds": "vpc",
}
OF_TAGS = (
    *("vpc", "subnet", "sg", "sgr", "eni", "eipalloc", "key pair", "i", "vol", "snap", "ami", "acl", "rtb", "lt"),
    "nat",
)
GIVEN: dict[str, Any] = {
    "AssumeRolePolicyDocument": TRUST,
    "AvailabilityZone": "us-east-1a",
    "CidrBlock": "10.9.0.0/16",
    "CidrIpv4": "10.9.0.0/16",
    "DestinationCidrBlock": "10.8.0.0/16",
    "DeprecateAt": "2030-01-01T00:00:00Z",
    "Device": "/dev/sdf",
    "FromPort": 7,
    "IpProtocol": "tcp",
    "MaxCount": 1,
    "MinCount": 1,
    "PolicyDocument": POLICY,
    "PublicKeyMaterial": PUBLIC_KEY,
    "RoleSessionName": "session",
    "Size": 1,
    "SourceRegion": "us-east-1",
    "ToPort": 7,
    "VersionId": "v1",
}


def changed(identifier: str) -> str:
    """An identifier of the same form that nothing has."""
    if identifier.startswith("127."):
        return "127.99.99.99"
    head, mark, tail = identifier.rpartition("/" if identifier.startswith("arn:") else "-")
    if identifier.startswith("arn:"):
        return f"{head}{mark}nobody-has-this"
    if identifier.isdigit():
        return "987654321098"
    if mark and len(tail) == 17:
        return new_id(head)
    return "nobody-has-this" if not identifier.isupper() else "AKIA" + "7" * 16


class Worlds:
    """The account that asks, and another whose belongings it asks for."""

    def __init__(self, cloud: ServedCloud) -> None:
        self.cloud = cloud
        self.asking, self.other = cloud.owner(), cloud.owner()
        self.own, self.others = belongings(self.asking, "asking"), belongings(self.other, "hidden")
        self.clients = {service: self._client(service) for service in SERVICES}
        self.before = self.rows()

    def _client(self, service: str) -> Any:
        return self.asking.client(service, config=Config(parameter_validation=False, retries={"max_attempts": 1}))

    def rows(self) -> str:
        """Everything that the other account has, as text."""
        found = []
        with self.cloud.database.read() as session:
            for table in Base.metadata.sorted_tables:
                if "account" in table.columns:
                    query = select(table).where(table.c.account == self.other.account)
                    found += sorted(f"{table.name} {row}" for row in session.execute(query).all())
                elif "holder" in table.columns:
                    every = (f"{table.name} {row}" for row in session.execute(select(table)).all())
                    found += sorted(text for text in every if "hidden" in text)
        return "\n".join(found)

    def told(self, answer: object, asked: str) -> set[str]:
        """What an answer says of the other account, beyond what was asked with. Private addresses may be the same."""
        text = json.dumps(answer, default=str).replace(asked, "")
        others = {value for kind, value in self.others.items() if kind != "private address"}
        # The address 127.64.0.1 is not told by who tells 127.64.0.12.
        return {value for value in others if re.search(rf"{re.escape(value)}(?!\d)", text)}


@pytest.fixture(scope="module")
def worlds(served_cloud: ServedCloud) -> Worlds:
    return Worlds(served_cloud)


def members(shape: Shape, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The paths of members that take identifiers, and the kind of each."""
    if shape.type_name == "structure" and len(path) < 2 * DEPTH:
        for name, member in shape.members.items():
            if name in ("Filters", "TagSpecifications", "Tags"):
                continue
            inner = member.member if member.type_name == "list" else member
            if name in KINDS and isinstance(inner, StringShape):
                yield (*path, name), KINDS[name]
            else:
                yield from members(inner, (*path, name))


def filled(shape: Shape, own: dict[str, str], path: tuple[str, ...], value: str, name: str = "") -> Any:
    """A value of the shape: what is required, and `value` at the path."""
    if shape.type_name == "structure":
        required = set(shape.required_members) | ({path[0]} if path else set())
        if not shape.required_members and {"IpProtocol", "FromPort"} <= shape.members.keys():
            required |= {"IpProtocol", "FromPort", "ToPort"} & shape.members.keys()
        return {
            each: filled(shape.members[each], own, path[1:] if path[:1] == (each,) else (), value, each)
            if path[:1] == (each,) and len(path) > 1
            else [value]
            if path == (each,) and shape.members[each].type_name == "list"
            else value
            if path == (each,)
            else filled(shape.members[each], own, (), value, each)
            for each in sorted(required)
        }
    if shape.type_name == "list":
        return [filled(shape.member, own, path, value, name)]
    if name in GIVEN:
        return GIVEN[name]
    if name in KINDS:
        return own[KINDS[name]]
    if shape.type_name in ("integer", "long", "float", "double"):
        return 1
    if shape.type_name == "boolean":
        return False
    if shape.type_name == "map":
        return {}
    enumeration = getattr(shape, "enum", None)
    return enumeration[0] if enumeration else "something"


def outcome(worlds: Worlds, service: str, operation: OperationModel, request: Any, asked: str) -> tuple[str, str]:
    """How a request ends: the code and the message of a refusal, without the identifier that it asked with."""
    try:
        answer = getattr(worlds.clients[service], xform_name(operation.name))(**request)
    except ClientError as error:
        said = error.response["Error"]
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] < 500, said
        told = worlds.told(said["Message"], asked)
        assert not told, f"the refusal tells of {told}"
        return said["Code"], said["Message"].replace(asked, "…")
    told = worlds.told({key: value for key, value in answer.items() if key != "ResponseMetadata"}, asked)
    assert not told, f"the answer tells of {told}"
    return "", ""


def operations(worlds: Worlds, service: str) -> Iterator[OperationModel]:
    """Every implemented operation of a service."""
    model = worlds.clients[service].meta.service_model
    names = {xform_name(name): name for name in model.operation_names}
    for action in worlds.cloud.registry.actions(service):
        if names[action.name] not in TOLD:
            yield model.operation_model(names[action.name])


@pytest.mark.parametrize("service", SERVICES)
def test_another_accounts_identifier_is_one_that_nothing_has(worlds: Worlds, service: str) -> None:
    tried = 0
    for operation in operations(worlds, service):
        shape = operation.input_shape
        for path, kind in members(shape) if shape is not None else ():
            for each in OF_TAGS if path == ("Resources",) else (kind,):
                theirs, nobodys = worlds.others[each], changed(worlds.others[each])
                ends = [
                    outcome(worlds, service, operation, filled(shape, worlds.own, path, value), value)
                    for value in (nobodys, theirs)
                ]
                assert ends[0] == ends[1], f"{operation.name} tells {theirs} at {'.'.join(path)} from what nothing has"
                tried += 1
        assert worlds.rows() == worlds.before, f"{operation.name} has changed another account's"
    assert tried >= MEMBERS[service]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_listed_is_the_accounts_own(worlds: Worlds, service: str) -> None:
    for operation in operations(worlds, service):
        if operation.name.startswith(("Describe", "List", "Get")):
            shape = operation.input_shape
            outcome(worlds, service, operation, filled(shape, worlds.own, (), "") if shape else {}, "nothing")
