"""Kinds of resources: what an account finds of them, and what it is told of those that it does not have.

Whatever belongs to another account or lies in another region is answered exactly as what never was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from celaje.cloud.aws.action import Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.pagination import page
from celaje.cloud.ec2.identifiers import checked_id
from celaje.cloud.state.base import Resource
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.prepared import one, owned, owner
from celaje.cloud.state.tags import tags_of

RowType = TypeVar("RowType", bound=Resource)


@dataclass(frozen=True, slots=True)
class Tagged(Generic[RowType]):
    """A resource and its tags: what filters and descriptions look at."""

    row: RowType
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kind(Generic[RowType]):
    """A kind of resources. `malformed` and `not_found` are AWS's codes (the former without .Malformed), `noun` is
    AWS's word for it in "The … 'vpc-…' does not exist"."""

    table: type[RowType]
    prefix: str
    malformed: str
    not_found: str
    noun: str

    def new(self, call: Call, **columns: object) -> RowType:
        """A new resource of the caller's, in the session."""
        make: Callable[..., RowType] = self.table
        row = make(id=new_id(self.prefix), account=call.account, region=call.region, created=call.now, **columns)
        call.session.add(row)
        return row

    def missing(self, identifier: str) -> AwsError:
        """The refusal of an identifier that nothing of the account's has."""
        return AwsError(self.not_found, f"The {self.noun} '{identifier}' does not exist")

    def find(self, call: Call, identifier: str) -> RowType:
        """The caller's resource of that identifier. AwsError if it is malformed, or if there is none."""
        row = self.found(call, checked_id(identifier, self.prefix, self.malformed))
        if row is None:
            raise self.missing(identifier)
        return row

    def found(self, call: Call, identifier: str) -> RowType | None:
        """The caller's resource of that identifier, whatever its form is, if there is one."""
        row = one(call.session, self.table, identifier)
        return row if row is not None and (row.account, row.region) == (call.account, call.region) else None

    def check(self, call: Call, identifier: str) -> None:
        """AwsError as `find`, for who asks of the resource only whether it is the caller's."""
        checked_id(identifier, self.prefix, self.malformed)
        if owner(call.session, self.table, identifier) != (call.account, call.region):
            raise self.missing(identifier)

    def rows(self, call: Call, identifiers: Sequence[str] | None = None) -> list[RowType]:
        """The caller's resources of those identifiers, all if there are none. AwsError as `find`."""
        if identifiers:
            return [self.find(call, identifier) for identifier in dict.fromkeys(identifiers)]
        return owned(call.session, self.table, call.account, call.region)

    def listed(
        self,
        call: Call,
        request: Mapping[str, object],
        identifiers: Sequence[str] | None,
        filters: Filters[Tagged[RowType]],
        among: Callable[[RowType], str] = lambda row: "",
    ) -> tuple[list[Tagged[RowType]], str | None]:
        """One page of what a describing action answers, oldest first, and the token of the next. `among` orders those
        that are equally old."""
        if identifiers and request.get("MaxResults") is not None:
            raise AwsError(
                "InvalidParameterCombination",
                f"The parameter {self.prefix}-ids and the parameter maxResults cannot be used together.",
            )
        matches = filters.matcher(_filters_of(request))
        rows = self.rows(call, identifiers)
        tags = tags_of(call.session, [row.id for row in rows])
        found = [tagged for row in rows if matches(tagged := Tagged(row, tags[row.id]))]
        return page(
            call,
            request,
            found,
            key=lambda one: f"{one.row.created:%Y%m%d%H%M%S%f} {among(one.row)} {one.row.id}",
        )


def _filters_of(request: Mapping[str, object]) -> Sequence[Mapping[str, object]] | None:
    given = request.get("Filters")
    return given if isinstance(given, list) else None
