"""From a request's members to its answer: the transaction, DryRun, and repeated idempotency tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec

from celaje.cloud.aws.action import Action, Answer, Authority, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.state import idempotency
from celaje.cloud.state.database import Database

ASKING = ("s3",)  # services whose actions ask the authority themselves: resources have policies of their own
IDENTITIES = ("iam", "organizations")  # what changes identities and their policies
_TOKEN = 64  # characters of an idempotency token of EC2, which is kept for a day


class Dispatcher:
    """Runs actions on `database`; `wake` tells a controller, by its name, that there is something to do. `authority`
    says who may do what; without one nobody may but the roots of accounts."""

    def __init__(
        self, database: Database, wake: Callable[[str], None], authority: Authority | None = None
    ) -> None:
        self._database = database
        self._wake = wake
        self._authority = authority

    def run(
        self,
        action: Action,
        call: Call,
        members: dict[str, object],
        token_member: str | None,
        write: Callable[[Answer], None],
    ) -> None:
        """Run an action and hand its answer to `write`, before the transaction is committed: an answer that cannot be
        written has changed nothing. AwsError where the action refuses, DryRunOperation included.

        `token_member` names the idempotency token among the members, None if the operation has none.
        """
        call.authority = self._authority
        asked = call.service not in ASKING and (call.caller.temporary or not call.caller.is_root)
        if not action.transacted:
            call.transactions = self._database
            if asked:
                with self._database.read() as session:
                    call.session = session
                    self._check(call, members)
            write(action.handler(call, members))
        else:
            dry = members.get("DryRun") is True
            transaction = self._database.read() if action.reads else self._database.write()
            try:
                with transaction as session:
                    call.session = session
                    if self._authority is not None and not action.reads:
                        self._authority.require_open(session, call.account)
                    if asked:
                        self._check(call, members)
                    write(self._answer(action, call, members, None if action.reads or dry else token_member))
                    if dry:
                        raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
            finally:
                # Before anybody is told: what is remembered of policies is older than what was committed.
                if self._authority is not None and not action.reads and call.service in IDENTITIES:
                    self._authority.changed()
        for controller in call.woken:
            self._wake(controller)

    def _check(self, call: Call, members: Mapping[str, object]) -> None:
        if self._authority is None:
            if call.caller.is_root:
                return
            raise AwsError("AccessDenied", f"User: {call.caller.arn} is not the root of its account", 403)
        self._authority.check(call, members)

    def _answer(self, action: Action, call: Call, members: dict[str, object], token_member: str | None) -> Answer:
        token = members.get(token_member) if token_member is not None else None
        if not token or token_member is None:
            return action.handler(call, members)
        if call.service == "ec2" and len(str(token)) > _TOKEN:  # the models of other services say it themselves
            raise AwsError("InvalidParameterValue", f"{token_member} may have at most {_TOKEN} characters")
        operation = f"{call.service}:{call.operation}"
        digest = parameters_digest(members, token_member)
        earlier = idempotency.remembered(call.session, call.account, call.region, operation, str(token), call.now)
        if earlier is not None:
            if earlier.parameters != digest:
                raise AwsError(
                    "IdempotentParameterMismatch",
                    f"Arguments on this idempotent request are inconsistent with arguments used in previous "
                    f"{call.operation} request(s) with the same {token_member}",
                )
            return idempotency.answered(earlier)
        answer = action.handler(call, members)
        idempotency.remember(call.session, call.account, call.region, operation, str(token), digest, answer, call.now)
        return answer


def parameters_digest(members: Mapping[str, object], token_member: str) -> bytes:
    """Of all parameters but the token."""
    others = {name: value for name, value in members.items() if name != token_member}
    return hashlib.blake2b(msgspec.msgpack.encode(others, order="sorted"), digest_size=32).digest()
