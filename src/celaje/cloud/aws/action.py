"""What an action is: one function, named as AWS's operation in snake case, and what it is called with.

    ACTIONS = Actions("ec2")

    @ACTIONS.action
    def create_key_pair(call: Call, request: CreateKeyPairRequestTypeDef) -> Answer:
        …

The dispatcher has parsed, validated and authenticated the request before, answers DryRun and repeated ClientTokens
itself, opens the transaction that the action runs in (`call.session`) and commits it when the action returns; an action
that raises has changed nothing. Controllers that the action woke are told after the commit, never before.

An action that waits for its client or moves many bytes (PutObject, CopyObject) must not keep the database's only
writing transaction meanwhile. It is registered by `@ACTIONS.untransacted` and opens short transactions where it needs
them:

    @ACTIONS.untransacted
    def put_object(call: Call, request: PutObjectRequestTypeDef) -> Answer:
        with call.reading() as session:
            …                               # is the bucket there, and the caller's?
        …                                   # read the body (streams.py)
        with call.writing() as session:     # committed, durably, at the end of the block
            …
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from botocore import xform_name
from sqlalchemy.orm import Session

from celaje.cloud.aws.question import Question
from celaje.cloud.policy.decision import Decision, Side
from celaje.cloud.settings import Settings

# An action's answer by the names of the model's members; None is left out.
Answer = Mapping[str, object]

# A TypedDict of the operation's input; the decorator cannot know which.
Handler = Callable[..., Answer]
HandlerType = TypeVar("HandlerType", bound=Handler)

# What signs page tokens where nobody set a key: tokens then last as long as this process.
_PROCESS_KEY = secrets.token_bytes(32)

READING = ("describe_", "get_", "list_", "head_")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a session may have of what its role has: documents of its own, and managed policies by their ARNs."""

    documents: tuple[str, ...] = ()
    managed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed the request. `account` has 12 digits. `arn` is a user's, the root's, or an assumed role's; `user_id`
    what STS tells; `access_key` the key that signed ("" for an anonymous request, which only S3 admits). Of a session
    (`temporary`): what it was narrowed to, the tags that it was given, and when it was begun, in seconds since 1970."""

    account: str
    arn: str
    user_id: str
    access_key: str = ""
    temporary: bool = False
    narrowing: Narrowing | None = None
    tags: tuple[tuple[str, str], ...] = ()
    issued: int = 0

    @property
    def is_root(self) -> bool:
        """Whether it is the account itself, with a key or in a session."""
        return self.user_id == self.account != ""


class Transactions(Protocol):
    """What opens transactions: the database."""

    def read(self) -> contextlib.AbstractContextManager[Session]: ...

    def write(self) -> contextlib.AbstractContextManager[Session]: ...


class Authority(Protocol):
    """What knows the policies."""

    def check(self, call: Call, members: Mapping[str, object]) -> None:
        """AwsError where whoever calls may not do what the request asks for. In the transaction of the call."""
        ...

    def decide(self, call: Call, question: Question, side: Side) -> Decision:
        """What comes of a question about a resource that may have a policy of its own."""
        ...

    def require_open(self, session: Session, account: str) -> None:
        """AwsError where the account was closed since the request was verified: nothing is written for it any more."""
        ...

    def changed(self) -> None:
        """Identities or their policies are others than before."""
        ...


@dataclass(slots=True)
class Call:
    """One request, as an action sees it. `now` is the request's time on this host, in UTC and whole microseconds;
    `source` the address that it came from. `region` is where it is to happen, checked to be one of this cloud's;
    `settings` are the owner's. `secure`, `user_agent` and `referer` are what policies may look at besides; `authority`
    answers what is not asked by the dispatcher, None where nobody but roots may do anything."""

    service: str
    operation: str
    region: str
    caller: Caller
    request_id: str
    now: datetime.datetime
    session: Session
    source: str = "127.0.0.1"
    settings: Settings = field(default_factory=Settings)
    woken: set[str] = field(default_factory=set)
    transactions: Transactions | None = field(default=None, repr=False)
    token_key: bytes = field(default=_PROCESS_KEY, repr=False)  # signs page tokens (pagination.py)
    secure: bool = False
    user_agent: str = ""
    referer: str = ""
    authority: Authority | None = field(default=None, repr=False)

    @property
    def account(self) -> str:
        return self.caller.account

    def wake(self, controller: str) -> None:
        """Once this request is committed, let `controller` look at what is to be done."""
        self.woken.add(controller)

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """A transaction of an untransacted action's own that changes nothing."""
        assert self.transactions is not None, f"{self.operation} runs in a transaction already: use call.session"
        return self.transactions.read()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction of an untransacted action's own, durable at the end of the block. One at a time in the whole
        cloud: neither wait nor copy in it. AwsError where the account was closed meanwhile."""
        assert self.transactions is not None, f"{self.operation} runs in a transaction already: use call.session"
        with self.transactions.write() as session:
            if self.authority is not None:
                self.authority.require_open(session, self.account)
            yield session


@dataclass(frozen=True, slots=True)
class Action:
    """`reads`: changes nothing, and so runs beside others in a transaction that only reads. `transacted`: runs in one
    transaction, its own only where this is False."""

    service: str
    name: str
    handler: Handler
    reads: bool
    transacted: bool = True


class Actions:
    """The actions of one service that are implemented, by their names in snake case."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._by_name: dict[str, Action] = {}

    def action(self, handler: HandlerType) -> HandlerType:
        """Decorator: `handler` is the action of its name. Names that start as those of reading actions do, read."""
        self.add(handler, reads=handler.__name__.startswith(READING))
        return handler

    def untransacted(self, handler: HandlerType) -> HandlerType:
        """Decorator: as `action`, for one that opens short transactions of its own (call.reading, call.writing)."""
        self.add(handler, reads=handler.__name__.startswith(READING), transacted=False)
        return handler

    def add(self, handler: Handler, *, reads: bool, transacted: bool = True) -> None:
        """The same for a bound method, or where the name does not tell. ValueError if there is one already."""
        name = handler.__name__
        if name in self._by_name:
            raise ValueError(f"{self.service} has two actions {name}; one is in {inspect.getmodule(handler)}")
        self._by_name[name] = Action(self.service, name, handler, reads, transacted)

    def include(self, others: Actions) -> None:
        """Take in the actions of another module of the same service."""
        for action in others:
            self.add(action.handler, reads=action.reads, transacted=action.transacted)

    def get(self, operation: str) -> Action | None:
        """The action of an operation by AWS's name (RunInstances), None if it is not implemented."""
        return self._by_name.get(xform_name(operation))

    def __iter__(self) -> Iterator[Action]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)


class Registry:
    """The actions of all services."""

    def __init__(self, services: Iterable[Actions]) -> None:
        self._services = {actions.service: actions for actions in services}

    def actions(self, service: str) -> Actions:
        """Those of `service`; none if this cloud has no such service."""
        return self._services.get(service) or Actions(service)

    def get(self, service: str, operation: str) -> Action | None:
        """The action, None if it is not implemented."""
        return self.actions(service).get(operation)


# What is asked of a request's TypedDict where a handler is generic over it.
Request = Mapping[str, Any]
