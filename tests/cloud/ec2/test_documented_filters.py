"""Every filter that AWS documents is known: botocore's models have the names in their prose."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.loaders import Loader

_NAME = re.compile(r"<li>\s*<p>\s*<code>([a-z][a-z0-9.-]*)</code>(?! - <code>)")
# Where the prose lists what are values of a filter, or what this cloud's answers have no member for.
_NOT_HERE = re.compile(
    r"tag|available-ip-address-count|free-tier-eligible|informational|low|medium|high|critical|(image-watermark|scan-result|instance-type-specification|operator|"
    r"capacity-reservation-specification|network-performance-options|host-resource-group|license-configuration)\b.*|"
    r"network-interface\.(operator|tag-key|tag-value|deny-all-igw-traffic|ipv6-native|public-dns-name).*|"
    r"network-interface\.attachment\.network-card-index|"
    r"application-status\.status|attachment-status\..*|image-allowed|group-long-name|network-card-index|"
    r"(ebs-info\.(attachment-limit-type|maximum-ebs)|network-info\.(bandwidth-weightings|flexible-ena)).*|"
    r"processor-info\.supported-features|reboot-migration-support"
)


def documented() -> dict[str, list[str]]:
    """Operation -> its filters."""
    model = Loader().load_service_model("ec2", "service-2")
    found = {}
    for operation, about in model["operations"].items():
        members = model["shapes"].get(about.get("input", {}).get("shape"), {}).get("members", {})
        prose = "".join(one.get("documentation", "") for one in members.values() if one["shape"] == "FilterList")
        names = [name for name in dict.fromkeys(_NAME.findall(prose)) if not _NOT_HERE.fullmatch(name)]
        required = model["shapes"].get(about.get("input", {}).get("shape"), {}).get("required")
        if operation.startswith("Describe") and names and not required:
            found[operation] = names
    return found


def test_every_filter_that_aws_documents_is_known(ec2: Any) -> None:
    asked, unknown = 0, []
    for operation, names in documented().items():
        for name in names:
            try:
                getattr(ec2, xform_name(operation))(Filters=[{"Name": name, "Values": ["x"]}])
            except ClientError as error:
                refused = error.response["Error"]
                if refused["Code"] == "UnsupportedOperation":
                    break  # the whole action
                if refused["Message"] == f"The filter '{name}' is invalid":
                    unknown.append(f"{operation}: {name}")
            asked += 1
    assert asked > 300
    assert unknown == []


def test_a_filter_that_nobody_documents_is_refused(ec2: Any) -> None:
    with pytest.raises(ClientError, match="The filter 'colour' is invalid"):
        ec2.describe_instances(Filters=[{"Name": "colour", "Values": ["red"]}])
