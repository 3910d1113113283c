"""The questions of the calls of STS, SSM, EBS and the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.question import Question

# Nothing need be allowed to know who one is; and a role's trust is asked for by the action itself.
_FREE = ("GetCallerIdentity", "GetSessionToken", "AssumeRole")


def of_sts(call: Call, members: Mapping[str, object]) -> Iterator[Question]:
    """What a call of STS asks for."""
    if call.operation not in _FREE:
        yield Question(f"sts:{call.operation}")


def of_ssm(call: Call, members: Mapping[str, object]) -> Iterator[Question]:
    """What a call of SSM asks for: each parameter, by its name or its path."""
    names = members.get("Names")
    given = list(names) if isinstance(names, list) else [members.get("Name") or members.get("Path")]
    for name in given:
        if not name:
            yield Question(f"ssm:{call.operation}")
            continue
        text = str(name)
        if text.startswith("arn:"):
            yield Question(f"ssm:{call.operation}", text)
            continue
        account = "" if text.startswith("/aws/") else call.account
        resource = f"arn:aws:ssm:{call.region}:{account}:parameter/{text.removeprefix('/')}"
        yield Question(f"ssm:{call.operation}", resource)


def of_ebs(call: Call, members: Mapping[str, object]) -> Iterator[Question]:
    """What a call of the EBS direct APIs asks for: a snapshot."""
    snapshots = [members[name] for name in ("SnapshotId", "FirstSnapshotId", "SecondSnapshotId") if members.get(name)]
    for snapshot in snapshots or ["*"]:
        yield Question(f"ebs:{call.operation}", f"arn:aws:ec2:{call.region}::snapshot/{snapshot}")


def of_any(call: Call, members: Mapping[str, object]) -> Iterator[Question]:
    """What a call of a service without resources asks for."""
    yield Question(f"{call.service}:{call.operation}")
