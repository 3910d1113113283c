"""Page tokens that nobody was given: every action that takes one refuses it, however little there is to list."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.cloud.belongings import POLICY, belongings
from tests.cloud.served import ServedCloud
from tests.cloud.test_accounts_apart import filled

# How many of a service's actions take tokens at least, and how each is refused.
CODES = {
    "ec2": (45, "InvalidPaginationToken"),
    "iam": (20, "ValidationError"),
    "organizations": (1, "InvalidInputException"),
    "service-quotas": (2, "InvalidPaginationTokenException"),
    "ssm": (1, "InvalidNextToken"),
}
# What required members must say, so that nothing but the token is wrong.
SENSE = {"PolicyInputList": [POLICY], "ServiceCode": "ec2"}


@pytest.mark.parametrize("service", CODES)
def test_a_token_that_was_never_given_is_refused(served_cloud: ServedCloud, service: str) -> None:
    owner = served_cloud.owner()
    own = belongings(owner, "own")
    asking = served_cloud.root if service == "organizations" else owner  # who alone may list accounts
    client = asking.client(service, config=Config(parameter_validation=False, retries={"max_attempts": 1}))
    model = client.meta.service_model
    names = {xform_name(name): name for name in model.operation_names}
    least, code = CODES[service]
    asked, taken = 0, {}
    for action in served_cloud.registry.actions(service.replace("-", "")):
        shape = model.operation_model(names[action.name]).input_shape
        token = next((name for name in ("NextToken", "Marker") if shape is not None and name in shape.members), None)
        if token is None:
            continue
        request: dict[str, Any] = filled(shape, own, (), "")
        request |= {name: value for name, value in SENSE.items() if name in request}
        if action.name == "describe_launch_template_versions":
            request["Versions"] = ["$Latest"]
        asked += 1
        try:
            taken[action.name] = getattr(client, action.name)(**request, **{token: "Zm9yZ2Vk"})
        except ClientError as error:
            if error.response["Error"]["Code"] != code:
                taken[action.name] = error.response["Error"]
    assert taken == {}
    assert asked >= least
