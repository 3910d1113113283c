"""What policies would answer, without the call: SimulateCustomPolicy and SimulatePrincipalPolicy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from celaje.cloud.authority.identities import held_by
from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.iam.entities import GROUPS, ROLES, USERS, checked_identity_policy, no_such
from celaje.cloud.iam.groups import groups_of
from celaje.cloud.iam.listing import listed
from celaje.cloud.policy.decision import Decision, Held, Side, decide
from celaje.cloud.policy.documents import Asked, Document, Who, unremembered
from celaje.cloud.policy.grammar import Kind, PolicyError, check

if TYPE_CHECKING:
    from mypy_boto3_iam import type_defs as iam

ACTIONS = Actions("iam")
MOST_ANSWERS = 10_000
_MOST_CHARACTERS = 262_144  # of all documents of a request
_MOST_WORK = 50_000_000  # answers times characters of documents: half a second


def simulate_custom_policy(call: Call, request: iam.SimulateCustomPolicyRequestTypeDef) -> Answer:
    """What these documents would answer."""
    bounds = request.get("PermissionsBoundaryPolicyInputList")
    held = Held(_documents(request["PolicyInputList"]), None if bounds is None else _documents(bounds))
    return _simulated(call, request, held, f"arn:aws:iam::{call.account}:user/simulated")


def simulate_principal_policy(call: Call, request: iam.SimulatePrincipalPolicyRequestTypeDef) -> Answer:
    """What the policies of a user, group or role would answer, with these documents besides."""
    source = request["PolicySourceArn"]
    held = _held_by(call, source)
    more = _documents(request.get("PolicyInputList", ()))
    bounds = request.get("PermissionsBoundaryPolicyInputList")
    boundary = held.boundary if bounds is None else _documents(bounds)
    return _simulated(call, request, Held((*held.identity, *more), boundary), source)


for _action in (simulate_custom_policy, simulate_principal_policy):
    ACTIONS.add(_action, reads=True)


def _held_by(call: Call, arn: str) -> Held:
    prefix, _, path = arn.partition(f"arn:aws:iam::{call.account}:")
    sort, _, rest = path.partition("/")
    name = rest.rpartition("/")[2]
    for kind in (USERS, ROLES, GROUPS):
        if prefix or kind.in_arn != sort:
            continue
        found = kind.look(call.session, call.account, name)
        if found is not None and kind.arn(found) == arn:  # type: ignore[arg-type]  # it is of that very kind
            groups = groups_of(call.session, found.id) if kind is USERS else []
            return held_by(call.session, [found.id, *groups], found.id)
    raise no_such(f"The entity {arn[:200]} cannot be found.")


def _documents(texts: Sequence[str]) -> tuple[Document, ...]:
    """Asked once, and not remembered: what is simulated is made up."""
    if (characters := sum(map(len, texts))) > _MOST_CHARACTERS:
        raise AwsError(
            "InvalidInput", f"The policies of a simulation have at most {_MOST_CHARACTERS} characters, not {characters}"
        )
    return tuple(unremembered(checked_identity_policy(text)) for text in texts)


class _Given:
    """The context that a request gives."""

    def __init__(self, entries: Sequence[Mapping[str, object]]) -> None:
        self.missing: dict[str, None] = {}
        self._values: dict[str, Sequence[str]] = {}
        for entry in entries:
            values = entry.get("ContextKeyValues")
            self._values[str(entry.get("ContextKeyName")).lower()] = values if isinstance(values, list) else []

    def get(self, key: str, /) -> Sequence[str] | None:
        found = self._values.get(key)
        if found is None:
            self.missing[key] = None
        return found


def _simulated(call: Call, request: Request, held: Held, source: str) -> Answer:
    actions, resources = request["ActionNames"], request.get("ResourceArns") or ["*"]
    if len(actions) * len(resources) > MOST_ANSWERS:
        raise AwsError("InvalidInput", f"At most {MOST_ANSWERS} answers at once")
    texts = [*request.get("PolicyInputList", ()), *(request.get("PermissionsBoundaryPolicyInputList") or ())]
    characters = sum(map(len, texts)) + len(request.get("ResourcePolicy") or "")
    if len(actions) * len(resources) * characters > _MOST_WORK:
        raise AwsError("InvalidInput", "Too many answers for policies of this size; ask for fewer actions or resources")
    policy = _resource_policy(request.get("ResourcePolicy"))
    owner = str(request.get("ResourceOwner") or "").split(":")
    account = owner[4] if len(owner) > 4 else call.account
    caller = str(request.get("CallerArn") or source)
    who = Who(call.account, caller)
    found: list[tuple[int, Mapping[str, object]]] = []
    for action in actions:
        for resource in resources:
            given = _Given(request.get("ContextEntries") or ())
            decision = decide(Asked(action, resource, given), who, held, Side(account, policy))
            found.append((len(found), _answered(action, resource, decision, given)))
    return listed(call, request, "EvaluationResults", found, lambda one: f"{one[0]:09}", lambda one: one[1])


def _resource_policy(text: str | None) -> Document | None:
    if text is None:
        return None
    try:
        check(text, Kind.RESOURCE)
        return unremembered(text)
    except PolicyError as error:
        raise AwsError("MalformedPolicyDocument", str(error)) from None


def _answered(action: str, resource: str, decision: Decision, given: _Given) -> Mapping[str, object]:
    word = "allowed" if decision.allowed else "explicitDeny" if decision.denied else "implicitDeny"
    return {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": word,
        "MatchedStatements": [{"SourcePolicyId": each.sid or f"statement-{each.number}"} for each in decision.matched],
        "MissingContextValues": list(given.missing) if not decision.allowed else [],
    }
