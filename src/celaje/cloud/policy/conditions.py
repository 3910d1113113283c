"""Conditions: operators over what is known of a request (IAM User Guide, "Condition operators").

All operators and all keys of a condition must hold; of a key's values one is enough, for a negated operator none may
match. A key that the request does not have fails a test, but passes a negated one and one that says IfExists.
ForAllValues holds where every value of the request passes (also where there is none), ForAnyValue where one does.
"""

from __future__ import annotations

import datetime
import ipaddress
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from celaje.cloud.policy.patterns import Context, glob, has_variable, plain, resolved

Condition = Callable[[Context], bool]
# Whether one value of the request fits a value of the policy, which is made ready once.
Fits = Callable[[str], bool]
Ready = Callable[[str], Fits]

_ALL, _ANY = "ForAllValues:", "ForAnyValue:"
_IF_EXISTS = "IfExists"
_MOST_DIGITS = 400


class BadValue(ValueError):
    """A value of a policy that its operator does not take."""


class BadDate(BadValue):
    """One that is no date."""


def _never(text: str) -> bool:
    return False


def _equal(value: str) -> Fits:
    value = plain(value)
    return lambda text: text == value


def _equal_folded(value: str) -> Fits:
    value = plain(value).casefold()
    return lambda text: text.casefold() == value


def _like(value: str) -> Fits:
    match = glob(value)
    return lambda text: bool(match(text))


def _arn(value: str) -> Fits:
    """Six parts between colons, each with wildcards of its own."""
    parts = [glob(part) for part in value.split(":", 5)]

    def fits(text: str) -> bool:
        given = text.split(":", 5)
        return len(given) == len(parts) and all(match(part) for match, part in zip(parts, given, strict=True))

    return fits


def _number(text: str) -> float:
    if len(text) > _MOST_DIGITS:
        raise BadValue(f"{text[:20]}… is no number")
    try:
        number = float(text)
    except ValueError:
        raise BadValue(f"{text} is no number") from None
    if not math.isfinite(number):
        raise BadValue(f"{text} is no number")
    return number


_DATE = re.compile(
    r"(?P<year>-?\d{1,9})(?:-(?P<month>\d{1,2}))?(?:-(?P<day>\d{1,2}))?"
    r"(?:t(?:(?P<hours>\d{1,2})(?::(?P<minutes>\d{1,2})(?::(?P<seconds>\d{1,2}(?:\.\d{1,9})?))?)?)?"
    r"(?P<zone>z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)
_LAST_SECOND = (1 << 63) - 1
_YEARS = range(-292_275_054, 292_278_994)


def _moment(text: str) -> float:
    """Seconds since 1970 of a date in ISO 8601, whose parts may be left out from the end and need not be of two
    digits, as AWS takes them; or of such seconds. A date alone is its beginning in UTC. BadDate."""
    if text.isascii() and text.isdigit():
        seconds = int(text[:20])
        if seconds > _LAST_SECOND:
            raise BadDate(f"{text[:50]} is no date")
        return float(seconds)
    found = _DATE.fullmatch(text.lower())
    if found is None:
        raise BadDate(f"{text[:50]} is no date")
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    hours, minutes, seconds_of = int(found["hours"] or 0), int(found["minutes"] or 0), float(found["seconds"] or 0)
    zone = found["zone"] or "z"
    offset = 0
    if zone != "z":
        digits = zone[1:].replace(":", "")
        offset = int(digits[:2]) * 60 + int(digits[2:] or 0)
        offset = -offset if zone[0] == "-" else offset
    good = year in _YEARS and 1 <= month <= 12 and 1 <= day <= 31 and hours < 24 and minutes < 60 and seconds_of < 60
    if not good or abs(offset) >= 24 * 60:
        raise BadDate(f"{text[:50]} is no date")
    return ((_days(year, month, day) * 24 + hours) * 60 + minutes - offset) * 60 + seconds_of


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the calendar of today, carried on in both directions; day 31 of a shorter month is of
    the next one."""
    cycles, year = divmod(year - 1, 400)
    return cycles * 146_097 + datetime.date(year + 1, month, 1).toordinal() + day - 1 - _EPOCH


_EPOCH = datetime.date(1970, 1, 1).toordinal()


def _compared(read: Callable[[str], float], compare: Callable[[float, float], bool]) -> Ready:
    def ready(value: str) -> Fits:
        limit = read(value)

        def fits(text: str) -> bool:
            try:
                return compare(read(text), limit)
            except BadValue:
                return False

        return fits

    return ready


def _address(value: str) -> Fits:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise BadValue(f"{value[:50]} is no range of addresses") from None

    def fits(text: str) -> bool:
        try:
            return ipaddress.ip_address(text) in network
        except ValueError:
            return False

    return fits


def _bool(value: str) -> Fits:
    wanted = value.lower()
    if wanted not in ("true", "false"):
        return _never
    return lambda text: text.lower() == wanted


@dataclass(frozen=True, slots=True)
class _Operator:
    """`varies`: its values may have policy variables."""

    ready: Ready
    negated: bool = False
    varies: bool = False


_ORDERS: dict[str, tuple[Callable[[float, float], bool], bool]] = {
    "Equals": (lambda given, limit: given == limit, False),
    "NotEquals": (lambda given, limit: given == limit, True),
    "LessThan": (lambda given, limit: given < limit, False),
    "LessThanEquals": (lambda given, limit: given <= limit, False),
    "GreaterThan": (lambda given, limit: given > limit, False),
    "GreaterThanEquals": (lambda given, limit: given >= limit, False),
}
_OPERATORS = {
    "StringEquals": _Operator(_equal, varies=True),
    "StringNotEquals": _Operator(_equal, negated=True, varies=True),
    "StringEqualsIgnoreCase": _Operator(_equal_folded, varies=True),
    "StringNotEqualsIgnoreCase": _Operator(_equal_folded, negated=True, varies=True),
    "StringLike": _Operator(_like, varies=True),
    "StringNotLike": _Operator(_like, negated=True, varies=True),
    "ArnEquals": _Operator(_arn, varies=True),
    "ArnLike": _Operator(_arn, varies=True),
    "ArnNotEquals": _Operator(_arn, negated=True, varies=True),
    "ArnNotLike": _Operator(_arn, negated=True, varies=True),
    "BinaryEquals": _Operator(_equal),
    "Bool": _Operator(_bool, varies=True),
    "IpAddress": _Operator(_address),
    "NotIpAddress": _Operator(_address, negated=True),
    **{f"Numeric{name}": _Operator(_compared(_number, test), negated) for name, (test, negated) in _ORDERS.items()},
    **{f"Date{name}": _Operator(_compared(_moment, test), negated) for name, (test, negated) in _ORDERS.items()},
}


def compiled(block: Mapping[str, Mapping[str, Sequence[str]]], *, variables: bool) -> Condition | None:
    """The condition of a statement: operator to key to values. None where nothing is asked. `variables`: the document
    is of a version that has them. BadValue for an operator or a value that is none."""
    tests = [
        _test(operator, key.lower(), values, variables)
        for operator, keys in block.items()
        for key, values in keys.items()
    ]
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda context: all(test(context) for test in tests)


def _test(name: str, key: str, values: Sequence[str], variables: bool) -> Condition:
    every, some = name.startswith(_ALL), name.startswith(_ANY)
    word = name.removeprefix(_ALL).removeprefix(_ANY)
    if word == "Null" and not (every or some):
        return _null(key, values)
    optional = word.endswith(_IF_EXISTS)
    operator = _OPERATORS.get(word.removesuffix(_IF_EXISTS))
    if operator is None:
        raise BadValue(f"{name[:60]} is no condition operator")
    known = [operator.ready(value) for value in values if not (variables and operator.varies and has_variable(value))]
    varying = [value for value in values if variables and operator.varies and has_variable(value)]
    negated = operator.negated
    without = optional or every or (negated and not some)

    def passes(text: str, fits: Sequence[Fits]) -> bool:
        return any(fit(text) for fit in fits) is not negated

    def test(context: Context) -> bool:
        given = context.get(key)
        if given is None:
            return without
        fits = known
        if varying:
            now = (resolved(value, context) for value in varying)
            fits = known + [operator.ready(value) for value in now if value is not None]
        # Without a qualifier a key of several values is a positive test's if one fits, a negated one's if none does.
        if every or (negated and not some):
            return all(passes(text, fits) for text in given)
        return any(passes(text, fits) for text in given)

    return test


def _null(key: str, values: Sequence[str]) -> Condition:
    wanted = {value.lower() for value in values}
    if not wanted <= {"true", "false"}:
        raise BadValue("Null takes true or false")
    return lambda context: ("true" if not context.get(key) else "false") in wanted
