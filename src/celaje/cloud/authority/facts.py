"""What conditions may look at: of the request and who makes it, and of the resource in question.

Keys are in lower case. What is asked of a resource is looked up only if a condition asks (a callable in its place).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence

from celaje.cloud.authority.identities import Principal
from celaje.cloud.aws.action import Call
from celaje.cloud.aws.question import Fact, Question, Values


def _moment(call: Call, principal: Principal) -> Values:
    return (call.now.strftime("%Y-%m-%dT%H:%M:%SZ"),)


def _issued(call: Call, principal: Principal) -> Values:
    if not call.caller.temporary:
        return None
    return (datetime.datetime.fromtimestamp(call.caller.issued, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),)


def _text(value: str) -> Values:
    return (value,) if value else None


_GLOBAL: dict[str, Callable[[Call, Principal], Values]] = {
    "aws:currenttime": _moment,
    "aws:epochtime": lambda call, principal: (str(int(call.now.timestamp())),),
    "aws:multifactorauthpresent": lambda call, principal: ("false",) if call.caller.temporary else None,
    "aws:principalaccount": lambda call, principal: _text(call.caller.account),
    "aws:principalarn": lambda call, principal: _text(principal.who.role or principal.who.arn),
    "aws:principalisawsservice": lambda call, principal: ("false",),
    "aws:principaltype": lambda call, principal: (principal.kind,),
    "aws:referer": lambda call, principal: _text(call.referer),
    "aws:requestedregion": lambda call, principal: (call.region,),
    "aws:securetransport": lambda call, principal: ("true" if call.secure else "false",),
    "aws:sourceip": lambda call, principal: _text(call.source),
    "aws:tokenissuetime": _issued,
    "aws:useragent": lambda call, principal: _text(call.user_agent),
    "aws:userid": lambda call, principal: _text(call.caller.user_id),
    "aws:username": lambda call, principal: _text(principal.name),
    "aws:viaawsservice": lambda call, principal: ("false",),
}
_PRINCIPAL_TAG = "aws:principaltag/"
_RESOURCE_TAGS = ("aws:resourcetag/", "ec2:resourcetag/", "iam:resourcetag/")
_OBJECT_TAG = "s3:existingobjecttag/"  # S3's alone: its objects' tags are no resource's


class Facts:
    """The context of one question."""

    __slots__ = ("_call", "_principal", "_question")

    def __init__(self, call: Call, principal: Principal, question: Question) -> None:
        self._call = call
        self._principal = principal
        self._question = question

    def get(self, key: str, /) -> Values:
        """The values of a key, None where it is not known."""
        facts = self._question.facts
        if key in facts:
            found = facts[key]
            return found() if callable(found) else found
        known = _GLOBAL.get(key)
        if known is not None:
            return known(self._call, self._principal)
        if key.startswith(_PRINCIPAL_TAG):
            return tagged(self._principal.tags, key[len(_PRINCIPAL_TAG) :])
        of_resource = (_OBJECT_TAG,) if self._question.action.startswith("s3:") else _RESOURCE_TAGS
        if key.startswith(of_resource) and self._question.tags is not None:
            return tagged(self._question.tags(), key.partition("/")[2])
        return None

    def shown(self) -> dict[str, Sequence[str]]:
        """What is known without looking anything up, for whoever asks why."""
        keys = (*_GLOBAL, *(key for key, fact in self._question.facts.items() if not callable(fact)))
        return {key: values for key in keys if (values := self.get(key)) is not None}


def tagged(tags: Mapping[str, str], key: str) -> Values:
    """The value of a tag, whatever the case of its key's letters."""
    for name, value in tags.items():
        if name.lower() == key.lower():
            return (value,)
    return None


def requested_tags(tags: Iterable[tuple[str, str]]) -> dict[str, Fact]:
    """What conditions may ask of the tags that a request gives."""
    pairs = list(tags)
    facts: dict[str, Fact] = {f"aws:requesttag/{key.lower()}": (value,) for key, value in pairs}
    if pairs:
        facts["aws:tagkeys"] = tuple(key for key, _ in pairs)
    return facts
