"""`celaje env`: what a shell must export so that every client of AWS speaks to this cloud."""

from __future__ import annotations

import json
import shlex

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import access

EPILOG = """\
  eval "$(celaje env)"
  aws ec2 describe-instances"""


def run(words: list[str]) -> int:
    """Print it. HostError if no cloud runs, NotFound for an account without keys here."""
    parser = Parser("env", "Prints the endpoint, keys and region of the cloud for a shell to evaluate.", EPILOG)
    parser.add_argument("--account", metavar="NAME", help="whose keys (root)")
    parser.add_argument("--region", metavar="REGION", help="(us-east-1)")
    parser.add_argument("--json", action="store_true", help="as an object")
    parser.add_argument("--unset", action="store_true", help="what a shell must unset to speak to AWS again")
    chosen = parser.parse_args(words)
    if chosen.unset:
        print("unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION AWS_DEFAULT_REGION")
        return 0
    found = access(chosen.account, chosen.region)
    variables = {
        "AWS_ENDPOINT_URL": found.endpoint,
        "AWS_ACCESS_KEY_ID": found.key,
        "AWS_SECRET_ACCESS_KEY": found.secret,
        "AWS_REGION": found.region,
        "AWS_DEFAULT_REGION": found.region,
    }
    if chosen.json:
        print(json.dumps(variables, indent=2))
    else:
        print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items()))
    return 0
