"""What shapes require of values: members that must be there, lengths and ranges, enumerations, patterns.

Compiled per operation; what has no constraint anywhere below costs nothing. A checker gets the members that a parser
made and notes every violation; the service's dialect decides which of them AWS would mention.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from celaje.cloud.aws.model import Operation, Reference, Service, Shape
from celaje.cloud.aws.parse_query import wire_name
from celaje.cloud.aws.refusals import Violation

Checker = Callable[[dict[str, object]], Sequence[Violation]]
_Check = Callable[[Any, str, list[Violation]], None]

# Enumerations that grow by the week and have error codes of their own at AWS (InvalidInstanceType, UnknownVolumeType,
# InvalidStorageClass, …), which only the action can give. AWS has no processors of riscv64.
OPEN_ENUMERATIONS = frozenset(
    "InstanceType ResourceType VolumeType StorageClass BucketLocationConstraint ObjectStorageClass MetadataDirective "
    "TaggingDirective EncodingType ChecksumAlgorithm AccountAttributeName ArchitectureValues "
    "ServerSideEncryption".split()
)
# Texts that S3 decodes before it looks at them: `bucket%2Fkey` names a key as well, which only the action sees.
_ENCODED = frozenset(["CopySource", "RenameSource"])
_PATTERN_LENGTH = 100_000  # beyond it only the length is looked at


def compile_checker(service: Service, operation: Operation) -> Checker | None:
    """A checker of the operation's members, or None where nothing is required of them."""
    if operation.input is None:
        return None
    check = _Compiler(service).check(operation.input)
    if check is None:
        return None

    def violations(members: dict[str, object]) -> Sequence[Violation]:
        found: list[Violation] = []
        check(members, "", found)
        return found

    return violations


class _Compiler:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.compiled: dict[str, _Check | None] = {}
        self.open: set[str] = set()  # shapes being compiled: what contains itself

    def check(self, reference: Reference) -> _Check | None:
        name = reference.shape
        if name in self.compiled:
            return self.compiled[name]
        if name in self.open:  # recursion: looked up when it is needed

            def later(value: Any, path: str, found: list[Violation]) -> None:
                check = self.compiled[name]
                if check is not None:
                    check(value, path, found)

            return later
        self.open.add(name)
        check = self._compile(name, self.service.shape(reference))
        self.open.discard(name)
        self.compiled[name] = check
        return check

    def _compile(self, name: str, shape: Shape) -> _Check | None:
        if shape.type == "structure":
            return self._structure(shape)
        if shape.type == "list":
            return self._list(shape)
        if shape.type == "map":
            return self._map(shape)
        if shape.type in ("integer", "long", "float", "double"):
            return _range(shape)
        if shape.type in ("string", "blob"):
            return _text(name, shape)
        return None

    def _displayed(self, name: str, member: Reference) -> str:
        if self.service.protocol == "ec2":
            return wire_name(self.service, name, member)
        if self.service.name == "s3":
            return member.location_name or name
        return name[0].lower() + name[1:]

    def _absent(self, name: str, shape: Shape) -> object:
        """What stands for a required member that is not there."""
        return () if self.service.shape(shape.members[name]).type == "list" else None

    def _structure(self, shape: Shape) -> _Check | None:
        required = [
            (name, self._displayed(name, shape.members[name]), self._absent(name, shape)) for name in shape.required
        ]
        checks: dict[str, tuple[str, _Check]] = {}
        for name, member in shape.members.items():
            check = self.check(member)
            if check is not None:
                checks[name] = (self._displayed(name, member), check)
        if not required and not checks:
            return None

        def run(value: dict[str, object], path: str, found: list[Violation]) -> None:
            for name, displayed, absent in required:
                if name not in value:
                    found.append(Violation(path + displayed, absent, "Member must not be null", missing=True))
            for name, item in value.items():
                entry = checks.get(name)
                if entry is not None:
                    inner = entry[1]
                    here = path + entry[0]
                    inner(item, here + "." if isinstance(item, dict) else here, found)

        return run

    def _list(self, shape: Shape) -> _Check | None:
        assert shape.member is not None
        length = _length(shape)
        inner = self.check(shape.member)
        if length is None and inner is None:
            return None
        between = ".member." if self.service.protocol not in ("ec2", "rest-xml") else "."

        def run(value: list[object], path: str, found: list[Violation]) -> None:
            if length is not None:
                length(value, path, found)
            if inner is not None:
                for index, item in enumerate(value, 1):
                    here = f"{path}{between}{index}"
                    inner(item, here + "." if isinstance(item, dict) else here, found)

        return run

    def _map(self, shape: Shape) -> _Check | None:
        assert shape.key is not None
        assert shape.value is not None
        length = _length(shape)
        key = self.check(shape.key)
        inner = self.check(shape.value)
        if length is None and key is None and inner is None:
            return None

        def run(value: dict[str, object], path: str, found: list[Violation]) -> None:
            path = path.removesuffix(".")
            if length is not None:
                length(value, path, found)
            for name, item in value.items():
                if key is not None:
                    key(name, path, found)
                if inner is not None:
                    here = f"{path}.{name}.member"
                    inner(item, here + "." if isinstance(item, dict) else here, found)

        return run


def _length(shape: Shape) -> _Check | None:
    low, high = shape.min, shape.max
    if not low and high is None:
        return None

    def run(value: Any, path: str, found: list[Violation]) -> None:
        if low and len(value) < low:
            found.append(Violation(path, value, f"Member must have length greater than or equal to {int(low)}"))
        elif high is not None and len(value) > high:
            found.append(Violation(path, value, f"Member must have length less than or equal to {int(high)}"))

    return run


def _range(shape: Shape) -> _Check | None:
    low, high = shape.min, shape.max
    if low is None and high is None:
        return None

    def run(value: float, path: str, found: list[Violation]) -> None:
        if low is not None and value < low:
            found.append(Violation(path, value, f"Member must have value greater than or equal to {low:.15g}"))
        elif high is not None and value > high:
            found.append(Violation(path, value, f"Member must have value less than or equal to {high:.15g}"))

    return run


def _text(name: str, shape: Shape) -> _Check | None:
    length = _length(shape)
    allowed = frozenset(shape.enum) if name not in OPEN_ENUMERATIONS else frozenset()
    pattern = None
    if shape.pattern is not None and shape.type == "string" and name not in _ENCODED:
        # A few patterns use classes that only Java knows (\p{L}); those are the action's to check.
        with contextlib.suppress(re.error):
            pattern = re.compile(shape.pattern)
    if length is None and not allowed and pattern is None:
        return None

    def run(value: Any, path: str, found: list[Violation]) -> None:
        if not isinstance(value, str | bytes):
            return  # a body that streams: its length is the action's to look at
        before = len(found)
        if length is not None:
            length(value, path, found)
        if allowed and value not in allowed:
            listed = ", ".join(shape.enum)
            found.append(Violation(path, value, f"Member must satisfy enum value set: [{listed}]", enum=True))
        elif (
            pattern is not None
            and isinstance(value, str)
            and len(found) == before
            and len(value) <= _PATTERN_LENGTH
            and not pattern.fullmatch(value)
        ):
            rule = f"Member must satisfy regular expression pattern: {shape.pattern}"
            found.append(Violation(path, value, rule))

    return run
