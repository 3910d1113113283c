"""Who may do what: what the dispatcher asks before each action, and what actions ask of resources with policies."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import text
from sqlalchemy.orm import Session

from celaje.cloud.authority import ec2, iam, others
from celaje.cloud.authority.facts import Facts
from celaje.cloud.authority.identities import Identities, Principal
from celaje.cloud.authority.refusals import refused
from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.question import Question
from celaje.cloud.policy.decision import Decision, Side, decide
from celaje.cloud.policy.documents import Asked
from celaje.cloud.state.database import Database
from celaje.cloud.state.roles import session_key

Questions = Callable[[Call, Mapping[str, object]], Iterable[Question]]

_QUESTIONS: dict[str, Questions] = {
    "ec2": ec2.questions,
    "iam": iam.questions,
    "sts": others.of_sts,
    "ssm": others.of_ssm,
    "ebs": others.of_ebs,
}
_OPEN = text("SELECT 1 FROM accounts WHERE id = :account")
# What sessions of users and roots may not ask without a second factor: these services, but for the operations below.
_NEEDS_MFA = ("iam", "sts")
_WITHOUT_MFA = ("GetCallerIdentity", "AssumeRole")


def reason_key(session: Session) -> bytes:
    """The key of encoded reasons: it follows from the cloud's own."""
    return hmac.digest(session_key(session), b"encoded reasons", hashlib.sha256)


class PolicyAuthority:
    """Answers from `database`. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._identities = Identities()

    def changed(self) -> None:
        """Identities or policies are others than before; called before that is answered."""
        self._identities.changed()

    def require_open(self, session: Session, account: str) -> None:
        """AwsError where the account was closed since the request was verified."""
        if session.connection().execute(_OPEN, {"account": account}).first() is None:
            raise AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)

    def check(self, call: Call, members: Mapping[str, object]) -> None:
        """AwsError where whoever calls may not do all that the request asks for."""
        caller = call.caller
        principal = self._identities.of(call.session, caller)
        if caller.temporary and principal.kind in ("User", "Account") and call.service in _NEEDS_MFA:
            _refuse_session(call)
        if caller.is_root:
            return
        questions = _QUESTIONS.get(call.service, others.of_any)(call, members)
        side = Side(caller.account)
        for question in questions:
            facts = Facts(call, principal, question)
            asked = Asked(question.action, question.resource, facts)
            decision = decide(asked, principal.who, principal.held, side)
            if not decision.allowed:
                raise refused(call.service, caller, question, decision, facts, reason_key(call.session))

    def principal(self, call: Call) -> Principal:
        """Who calls, in a transaction of its own where the call has none."""
        known = self._identities.known(call.caller)
        if known is not None:
            return known
        with self._database.read() as session:
            return self._identities.of(session, call.caller)

    def decide(self, call: Call, question: Question, side: Side) -> Decision:
        """What comes of a question about a resource that may have a policy of its own."""
        principal = self.principal(call)
        asked = Asked(question.action, question.resource, Facts(call, principal, question))
        return decide(asked, principal.who, principal.held, side)


def _refuse_session(call: Call) -> None:
    if call.operation not in _WITHOUT_MFA:
        raise AwsError(
            "AccessDenied" if call.service == "sts" else "InvalidClientTokenId",
            f"Cannot call {call.operation} with session credentials"
            if call.service == "sts"
            else "The security token included in the request is invalid",
            403,
        )

