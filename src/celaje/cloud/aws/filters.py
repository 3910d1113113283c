"""The `Filters` of Describe actions: which names there are, and what an item must be to match.

    _FILTERS = Filters[Volume](
        {
            "volume-id": lambda volume: volume.id,
            "encrypted": lambda volume: volume.encrypted,
            "attachment.instance-id": lambda volume: [each.instance for each in volume.attachments],
        },
        tags=lambda volume: volume.tags,
    )

    matches = _FILTERS.matcher(request.get("Filters"))
    found = [volume for volume in volumes if matches(volume)]

All filters must match, any value of a filter is enough, upper and lower case differ, `*` stands for any characters,
`?` for one, and a backslash takes the meaning from the character after it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.scalars import write_iso

Item = TypeVar("Item")
Fact = str | int | float | bool | datetime.datetime | None
VALUES = 200  # of all filters of one request, as at AWS
LONGEST_VALUE = 1024  # characters: each is held against each item; nothing that filters look at is longer


class Filters(Generic[Item]):
    """The filters of one noun. `fields` maps a filter's name to the fact that it looks at: one, or several of which
    one is enough; None matches nothing. With `tags` (the item's, key to value) there are also `tag:KEY`, `tag-key`
    and `tag-value`. `never` are the names that AWS has for what no item here has, such as IPv6 addresses: they match
    nothing, and are no mistake of the client's.
    """

    def __init__(
        self,
        fields: Mapping[str, Callable[[Item], Fact | Iterable[Fact]]],
        tags: Callable[[Item], Mapping[str, str]] | None = None,
        never: Iterable[str] = (),
    ) -> None:
        self._fields: dict[str, Callable[[Item], Fact | Iterable[Fact]]] = dict.fromkeys(never, _nothing)
        self._fields.update(fields)
        self._tags = tags
        if tags is not None:
            self._fields["tag-key"] = lambda item: tags(item).keys()
            self._fields["tag-value"] = lambda item: tags(item).values()

    def matcher(self, filters: Sequence[Mapping[str, object]] | None) -> Callable[[Item], bool]:
        """Whether an item matches the request's filters. AwsError InvalidParameterValue for a name that the noun does
        not have, FilterLimitExceeded for more than 200 values."""
        if not filters:
            return lambda item: True
        if sum(len(_values(given)) for given in filters) > VALUES:
            raise AwsError(
                "FilterLimitExceeded",
                f"The maximum number of filter values specified on a single call is {VALUES}",
            )
        if any(len(value) > LONGEST_VALUE for given in filters for value in _values(given)):
            raise AwsError("InvalidParameterValue", f"A filter value has at most {LONGEST_VALUE} characters")
        tests = [self._test(given) for given in filters]
        return lambda item: all(test(item) for test in tests)

    def wanted(self, filters: Sequence[Mapping[str, object]] | None, name: str) -> list[str] | None:
        """The values of the filter `name` where they are exact, for a query that need not read more; None otherwise."""
        for given in filters or ():
            values = _values(given)
            if given.get("Name") == name and values and not any(set(value) & set("*?\\") for value in values):
                return values
        return None

    def _test(self, given: Mapping[str, object]) -> Callable[[Item], bool]:
        name = given.get("Name")
        if not name:
            raise AwsError("InvalidParameterValue", "The filter 'null' is invalid")
        name = str(name)
        field = self._fields.get(name)
        if field is None and name.startswith("tag:") and len(name) > 4 and self._tags is not None:
            tags, key = self._tags, name[4:]
            field = lambda item: tags(item).get(key)  # noqa: E731  the twin of those in the mapping
        if field is None:
            raise AwsError("InvalidParameterValue", f"The filter '{name[:200]}' is invalid")
        fact = field
        wanted = any_of(_values(given))

        def test(item: Item) -> bool:
            found = fact(item)
            if found is None or isinstance(found, str | int | float | datetime.datetime):
                return found is not None and wanted(as_text(found))
            return any(wanted(as_text(each)) for each in found if each is not None)

        return test


def _nothing(item: object) -> None:
    return None


def any_of(values: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text matches any of `values`, each of which may have wildcards."""
    exact: set[str] = set()
    patterns: list[list[str]] = []
    for value in values:
        pattern = _pattern(value)
        if "*" in pattern or "?" in pattern:
            patterns.append(pattern)
        else:
            exact.add("".join(piece[-1] for piece in pattern))
    if not patterns:
        return exact.__contains__
    return lambda text: text in exact or any(_matches(pattern, text) for pattern in patterns)


def as_text(fact: str | int | float | bool | datetime.datetime) -> str:
    """A fact as filters name it: `true`, `8`, `2026-01-31T12:00:00.000Z`."""
    if isinstance(fact, str):
        return fact
    if isinstance(fact, bool):
        return "true" if fact else "false"
    return write_iso(fact) if isinstance(fact, datetime.datetime) else str(fact)


def _values(given: Mapping[str, object]) -> list[str]:
    values = given.get("Values")
    return values if isinstance(values, list) else []


def _pattern(value: str) -> list[str]:
    """One entry a character: `*` and `?` are wildcards, anything else, escaped ones with their backslash, itself."""
    pieces: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            pieces.append("\\" + next(characters, "\\"))
        elif character != "*" or not pieces or pieces[-1] != "*":
            pieces.append(character)
    return pieces


def _matches(pattern: list[str], text: str) -> bool:
    """In time proportional to the lengths' product, whatever the pattern: no regular expression does that."""
    at = here = 0
    star, resumed = -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed = at, here
            at += 1
        elif at < len(pattern) and (pattern[at] == "?" or pattern[at][-1] == text[here]):
            at += 1
            here += 1
        elif star >= 0:
            resumed += 1
            at, here = star + 1, resumed
        else:
            return False
    return all(piece == "*" for piece in pattern[at:])
