"""How each service words that it will not take a request: one place for the codes and sentences of validation.

What is wrong with a request is found in one way for all protocols (a value that is no number, a member that is
missing, a constraint that is broken); what AWS answers then differs by service. A `Dialect` is that difference.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from celaje.cloud.aws.errors import AwsError

_SHOWN = 200  # characters of a client's value that an error repeats


class Violation(NamedTuple):
    """A value that its shape's constraints do not allow; `path` is in the client's terms, `rule` in AWS's words. What
    is missing has the value None, or () for a list: clients leave out lists that are empty."""

    path: str
    value: object
    rule: str
    missing: bool = False
    enum: bool = False


class Dialect(Protocol):
    def malformed(self, path: str, text: str, expected: str) -> AwsError:
        """The text is no value of its type; `expected` completes "Expected …"."""
        ...

    def unknown(self, path: str) -> AwsError | None:
        """A parameter that the operation does not have; None where AWS does not look at it."""
        ...

    def syntax(self, message: str) -> AwsError:
        """The request cannot be read at all."""
        ...

    def violated(self, violations: Sequence[Violation]) -> AwsError:
        """At least one constraint is broken."""
        ...


def shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


# What EC2 says, in words of its own, of lists without an entry.
_EMPTY_LISTS = {
    "InstanceId": ("InvalidParameterCombination", "No instances specified"),
    "ResourceId": ("MissingParameter", "The request must contain the parameter resourceIdSet"),
}


class Ec2Dialect:
    """EC2 answers the first thing that it finds, each kind with a code of its own."""

    def malformed(self, path: str, text: str, expected: str) -> AwsError:
        return AwsError(
            "InvalidParameterValue",
            f"Value ({shown(text)}) for parameter {_lower_first(path)} is invalid. Expected {expected}",
        )

    def unknown(self, path: str) -> AwsError | None:
        return AwsError("UnknownParameter", f"The parameter {shown(path)} is not recognized")

    def syntax(self, message: str) -> AwsError:
        return AwsError("MalformedQueryString", message)

    def violated(self, violations: Sequence[Violation]) -> AwsError:
        first = min(violations, key=lambda violation: not violation.missing)
        if first.missing and first.value == () and first.path in _EMPTY_LISTS:
            return AwsError(*_EMPTY_LISTS[first.path])
        if first.missing:
            return AwsError("MissingParameter", f"The request must contain the parameter {first.path}")
        return AwsError(
            "InvalidParameterValue",
            f"Value ({shown(first.value)}) for parameter {_lower_first(first.path)} is invalid. {first.rule}",
        )


class ValidationDialect:
    """STS, IAM (`ValidationError`), SSM and EBS (`ValidationException`) list all that is wrong in one sentence."""

    def __init__(self, code: str, syntax_code: str) -> None:
        self.code = code
        self.syntax_code = syntax_code

    def malformed(self, path: str, text: str, expected: str) -> AwsError:
        return AwsError(self.syntax_code, f"Value '{shown(text)}' at '{path}' cannot be read: expected {expected}")

    def unknown(self, path: str) -> AwsError | None:
        return None

    def syntax(self, message: str) -> AwsError:
        return AwsError(self.syntax_code, message)

    def violated(self, violations: Sequence[Violation]) -> AwsError:
        count = len(violations)
        listed = "; ".join(
            f"Value {'null' if broken.missing else repr_of(broken.value)} at '{broken.path}' failed to satisfy "
            f"constraint: {broken.rule}"
            for broken in violations[:10]
        )
        return AwsError(self.code, f"{count} validation error{'s' if count > 1 else ''} detected: {listed}")


class S3Dialect:
    """S3 says that the XML is malformed, or that an argument (query parameter or header) is invalid."""

    def malformed(self, path: str, text: str, expected: str) -> AwsError:
        return AwsError(
            "InvalidArgument",
            f"Provided argument {path} must be {expected}",
            fields={"ArgumentName": path, "ArgumentValue": shown(text)},
        )

    def unknown(self, path: str) -> AwsError | None:
        return None

    def syntax(self, message: str) -> AwsError:
        return AwsError(
            "MalformedXML",
            f"The XML you provided was not well-formed or did not validate against our published schema: {message}",
        )

    def violated(self, violations: Sequence[Violation]) -> AwsError:
        first = violations[0]
        if "." in first.path:
            return self.syntax(f"{first.path}: {first.rule}")
        if first.missing:
            return AwsError(
                "InvalidRequest", f"The request must contain {first.path}", fields={"ArgumentName": first.path}
            )
        return AwsError(
            "InvalidArgument",
            f"Invalid argument {first.path}: {first.rule}",
            fields={"ArgumentName": first.path, "ArgumentValue": shown(first.value)},
        )


def repr_of(value: object) -> str:
    """A value between quotes, as AWS's validation messages show it; bytes and containers by their kind."""
    if isinstance(value, bytes | bytearray):
        return "'(bytes)'"
    return f"'{shown(value)}'"


def _lower_first(path: str) -> str:
    return path if "." in path else path[:1].lower() + path[1:]


DIALECTS: dict[str, Dialect] = {
    "ec2": Ec2Dialect(),
    "sts": ValidationDialect("ValidationError", "MalformedInput"),
    "iam": ValidationDialect("ValidationError", "MalformedInput"),
    "ssm": ValidationDialect("ValidationException", "SerializationException"),
    "organizations": ValidationDialect("InvalidInputException", "SerializationException"),
    "ebs": ValidationDialect("ValidationException", "SerializationException"),
    "servicequotas": ValidationDialect("IllegalArgumentException", "SerializationException"),
    "s3": S3Dialect(),
}
