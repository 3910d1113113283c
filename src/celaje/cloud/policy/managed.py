"""Policies of AWS's own, as AWS publishes them: each by its name, with the document of its default version.

    aws_policies.xz   beside this file; a policy a line, in the order of their names: path and name, default version,
                      when it was made and changed (ISO 8601), document as JSON, with tabs between them

Whoever has an account at AWS makes the file anew from what AWS answers:

    aws iam list-policies --scope AWS, then get-policy-version of each, as {"Policies": [{"Arn", "DefaultVersionId",
    "CreateDate", "UpdateDate", "PolicyVersionList": [{"VersionId", "Document"}]}]} (the form of
    get-account-authorization-details)
    python -m celaje.cloud.policy.managed ANSWER.json

It is read when somebody first has such a policy: most clouds never need it.
"""

from __future__ import annotations

import functools
import json
import lzma
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from celaje.typed_data import from_json

PREFIX = "arn:aws:iam::aws:policy/"
FILE = Path(__file__).with_name("aws_policies.xz")
_SERVICES_OWN = "aws-service-role/"  # of roles that AWS's services make for themselves


@dataclass(frozen=True, slots=True)
class Published:
    """A policy of AWS's. `name` follows PREFIX in its ARN, and may have a path; `created`, `updated`: ISO 8601."""

    name: str
    version: str
    created: str
    updated: str
    document: str

    @property
    def arn(self) -> str:
        return PREFIX + self.name

    @property
    def attachable(self) -> bool:
        """Whether a role of an account's own may have it."""
        return not self.name.startswith(_SERVICES_OWN)


@functools.cache
def published() -> Mapping[str, Published]:
    """All of them, by their ARNs."""
    lines = lzma.decompress(FILE.read_bytes()).decode().splitlines()
    return {one.arn: one for one in (Published(*line.split("\t")) for line in lines)}


def document_of(arn: str) -> str | None:
    """The document of a policy of AWS's own, None for one that is none."""
    if not arn.startswith(PREFIX):
        return None
    found = published().get(arn)
    return None if found is None else found.document


class _Version(msgspec.Struct, rename="pascal"):
    version_id: str
    document: msgspec.Raw


class _Answered(msgspec.Struct, rename="pascal"):
    arn: str
    default_version_id: str
    create_date: str
    update_date: str
    policy_version_list: list[_Version]


class _Answer(msgspec.Struct, rename="pascal"):
    policies: list[_Answered]


def write(answer: bytes, file: Path = FILE) -> int:
    """Make the file of what AWS answered. Returns how many policies it has."""
    lines = []
    for one in sorted(from_json(answer, _Answer).policies, key=lambda one: one.arn):
        [document] = [each.document for each in one.policy_version_list if each.version_id == one.default_version_id]
        text = json.dumps(json.loads(bytes(document)), separators=(",", ":"))
        lines.append(
            "\t".join((one.arn.removeprefix(PREFIX), one.default_version_id, one.create_date, one.update_date, text))
        )
    file.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    return len(lines)


if __name__ == "__main__":
    print(write(Path(sys.argv[1]).read_bytes()), "policies")
