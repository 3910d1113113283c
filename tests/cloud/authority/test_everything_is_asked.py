"""Every action that there is asks: who has nothing may do nothing, and who is denied everything is refused it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED, xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel, Shape
from sqlalchemy import select

from celaje.cloud.state.roles import InlinePolicy, User
from tests.cloud.authority.test_permissions import Staff, allow, document
from tests.cloud.belongings import belongings
from tests.cloud.s3.test_permissions import granting
from tests.cloud.served import Owner, ServedCloud

SERVICES = ("ec2", "iam", "sts", "ssm", "ebs", "s3")
FREE = {"GetCallerIdentity", "GetSessionToken"}
DENIED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "403"}
# Of requests whose form is looked at before anybody is asked.
MALFORMED = {"MissingParameter", "InvalidParameterValue", "ValidationError", "ValidationException", "MalformedXML"}
BUCKET = "everything-is-asked"
# What a value is by its member, where the form is checked before.
VALUES: dict[str, Any] = {
    "Bucket": BUCKET,
    "Key": "book",
    "CopySource": f"{BUCKET}/book",
    "RoleArn": "arn:aws:iam::123456789012:role/none",
    "PolicyArn": "arn:aws:iam::aws:policy/ReadOnlyAccess",
    "PolicySourceArn": "arn:aws:iam::123456789012:user/none",
    "EncodedMessage": "x" * 40,
    "AccessKeyId": "AKIA" + "A" * 16,
    "SnapshotId": "snap-0fedcba9876543210",
    "SecondSnapshotId": "snap-0fedcba9876543210",
    "DhcpConfigurations": [{"Key": "domain-name", "Values": ["example"]}],
    "VersionId": "v1",
}


def filled(shape: Shape | None, depth: int = 0) -> Any:
    """A value of a shape, with what it must have."""
    kind = getattr(shape, "type_name", "")
    if kind == "structure":
        members = shape.members  # type: ignore[union-attr]  # of a structure
        needed = set(shape.required_members) | (set(members) & set(VALUES) if depth == 0 else set())  # type: ignore[union-attr]
        return {name: VALUES.get(name) or filled(members[name], depth + 1) for name in sorted(needed)}
    if kind == "list":
        return [filled(shape.member, depth + 1)] if depth < 6 else []  # type: ignore[union-attr]  # of a list
    if kind == "map":
        return {}
    if kind in ("integer", "long", "float", "double"):
        return max(1, int(shape.metadata.get("min", 1)))  # type: ignore[union-attr]
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return "2026-11-26T00:00:00Z"
    if kind == "blob":
        return b"x"
    enum = getattr(shape, "enum", None)
    return enum[0] if enum else "x" * max(1, int(shape.metadata.get("min", 1)))  # type: ignore[union-attr]


def operations(cloud: ServedCloud, service: str) -> Iterator[OperationModel]:
    model = boto3.session.Session().client(service, region_name="us-east-1").meta.service_model
    names = {xform_name(name): name for name in model.operation_names}
    for action in cloud.registry.actions(service):
        yield model.operation_model(names[action.name])


def outcome(client: Any, operation: OperationModel) -> str:
    """The code of the refusal, "" if there is none."""
    request = filled(operation.input_shape) if operation.input_shape else {}
    try:
        getattr(client, xform_name(operation.name))(**request)
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] < 500, error
        return str(error.response["Error"]["Code"])
    return ""


@pytest.fixture(scope="module")
def library(served_cloud: ServedCloud) -> Owner:
    owner = served_cloud.owner()
    s3 = owner.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="book", Body=b"text")
    return owner


def client_of(keys: Owner, service: str) -> Any:
    return keys.client(service, config=Config(retries={"max_attempts": 1}, parameter_validation=False))


@pytest.mark.parametrize("service", SERVICES)
def test_who_has_nothing_may_do_nothing(served_cloud, library, service):
    client = client_of(Staff(library, f"nobody-{service}").keys, service)
    asked: list[str] = []
    malformed: list[str] = []
    for operation in operations(served_cloud, service):
        if operation.name in FREE:
            continue
        code = outcome(client, operation)
        if operation.name == "DeleteObjects":  # it refuses each object by itself
            assert code in ("", "MalformedXML")
            continue
        assert code in DENIED | MALFORMED, f"{operation.name}: {code or 'was done'}"
        (asked if code in DENIED else malformed).append(operation.name)
    assert len(malformed) <= len(asked) // 10, malformed


def test_nobody_may_do_nothing_in_s3(served_cloud, library):
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{served_cloud.port}",
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, parameter_validation=False, retries={"max_attempts": 1}),
    )
    for operation in operations(served_cloud, "s3"):
        if operation.name != "DeleteObjects":
            assert outcome(client, operation) in DENIED, operation.name
    assert library.client("s3").get_object(Bucket=BUCKET, Key="book")["Body"].read() == b"text"


@pytest.mark.parametrize("service", SERVICES)
def test_who_has_everything_is_refused_nothing_for_want_of_it(served_cloud, library, service):
    staff = Staff(library, f"admin-{service}")
    staff.may(allow("*"))
    client = client_of(staff.keys, service)
    for operation in operations(served_cloud, service):
        # A role that trusts nobody, and a key that nobody has, are refused so to everybody.
        if not operation.name.startswith(("Delete", "AssumeRole", "GetAccessKeyLastUsed")):
            assert outcome(client, operation) not in DENIED, operation.name


def test_an_administrator_sees_what_the_root_sees(owner):
    belongings(owner, "mine")
    staff = Staff(owner)
    staff.iam.attach_user_policy(UserName="ada", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    for name in ("describe_instances", "describe_volumes", "describe_security_groups", "describe_network_interfaces"):
        theirs, roots = (getattr(client, name)() for client in (staff.client(), owner.client()))
        del theirs["ResponseMetadata"], roots["ResponseMetadata"]
        assert theirs == roots


def test_a_policy_that_cannot_be_read_denies_everything(owner, served_cloud):
    """Such as one that an older celaje took without looking at it."""
    staff = Staff(owner)
    staff.may(allow("*"))
    with served_cloud.database.write() as session:
        user = session.scalars(select(User).where(User.account == owner.account)).one()
        session.add(InlinePolicy(holder=user.id, name="old", document='{"Statement": [{"Effect": "Deny"}]}'))
    staff.iam.tag_user(UserName="ada", Tags=[{"Key": "a", "Value": "b"}])  # what is remembered counts no more
    with pytest.raises(ClientError, match="explicit deny"):
        staff.client().describe_vpcs()


def test_policies_are_simulated_as_they_are_evaluated(owner):
    staff = Staff(owner)
    staff.iam.create_group(GroupName="readers")
    staff.iam.add_user_to_group(GroupName="readers", UserName="ada")
    staff.iam.put_group_policy(
        GroupName="readers",
        PolicyName="x",
        PolicyDocument=document(allow("s3:Get*"), allow("s3:GetBucketAcl", effect="Deny")),
    )

    def decisions(**request: Any) -> list[str]:
        asked = {"ActionNames": ["s3:GetObject", "s3:GetBucketAcl", "s3:PutObject"], **request}
        answer = staff.iam.simulate_principal_policy(PolicySourceArn=staff.arn, **asked)
        return [each["EvalDecision"] for each in answer["EvaluationResults"]]

    assert decisions() == ["allowed", "explicitDeny", "implicitDeny"]
    assert decisions(PolicyInputList=[document(allow("s3:PutObject"))]) == ["allowed", "explicitDeny", "allowed"]
    bounded = [document(allow("s3:PutObject"))]
    assert decisions(PermissionsBoundaryPolicyInputList=bounded) == ["implicitDeny", "explicitDeny", "implicitDeny"]
    given = document(granting("b", {"AWS": staff.arn}, "s3:PutObject"))
    answer = staff.iam.simulate_principal_policy(
        PolicySourceArn=staff.arn,
        ActionNames=["s3:PutObject"],
        ResourceArns=["arn:aws:s3:::b/x", "arn:aws:s3:::c/x"],
        ResourcePolicy=given,
    )
    assert [each["EvalDecision"] for each in answer["EvaluationResults"]] == ["allowed", "implicitDeny"]
    condition = allow("ec2:*", Condition={"StringEquals": {"ec2:Region": "eu-west-1"}})
    entry = {"ContextKeyName": "ec2:Region", "ContextKeyType": "string", "ContextKeyValues": ["eu-west-1"]}
    for entries, expected in (([], "implicitDeny"), ([entry], "allowed")):
        [found] = staff.iam.simulate_custom_policy(
            PolicyInputList=[document(condition)], ActionNames=["ec2:RunInstances"], ContextEntries=entries
        )["EvaluationResults"]
        assert found["EvalDecision"] == expected
        assert found["MissingContextValues"] == ([] if entries else ["ec2:region"])
