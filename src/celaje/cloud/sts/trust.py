"""Which services a role's trust policy lets have it. Who else may assume a role is decided as everything is."""

from __future__ import annotations

from celaje.cloud.policy.documents import Asked, Grade, Who, document
from celaje.cloud.policy.grammar import PolicyError

ASSUME_ROLE = "sts:AssumeRole"


def trusts(trust: str, service: str) -> bool:
    """Whether a trust policy lets a `service` (ec2.amazonaws.com) assume the role."""
    try:
        policy = document(trust)
    except PolicyError:
        return False
    asked = Asked(ASSUME_ROLE, "*", {"aws:principalisawsservice": ("true",)})
    who = Who(service=service)
    return policy.denial(asked, who) is None and policy.allowance(asked, who)[0] is not Grade.NOT
