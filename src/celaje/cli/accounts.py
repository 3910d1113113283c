"""`celaje account …`: accounts of the cloud, each with resources that no other sees."""

from __future__ import annotations

import json
import shlex

from celaje.cli.arguments import Parser
from celaje.cli.cloud_client import Client, Shape, access, credentials
from celaje.cli.instances import wait
from celaje.cli.table import table
from celaje.errors import CelajeError, NotFound

DOMAIN = "celaje.invalid"  # of addresses that nobody gave; RFC 2606


def account_create(words: list[str]) -> int:
    """Make accounts; their keys are here when this returns."""
    parser = Parser("account create", "Makes accounts. Only the account `root` may.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="what to call it")
    parser.add_argument("--email", metavar="ADDRESS", help="whose it is")
    chosen = parser.parse_args(words)
    client = Client("organizations")
    for name in chosen.names:
        email = chosen.email or f"{name.replace(' ', '.')}@{DOMAIN}"
        status = client("create_account", AccountName=name, Email=email)["CreateAccountStatus"]

        def look(name: str = name) -> tuple[bool | None, str]:
            try:
                credentials(name)
            except NotFound:
                return None, "they are being written"
            return True, ""

        wait(look, f"for the keys of {name}")
        print(f"{name} is the account {status['AccountId']}; to work in it:")
        print(f'  eval "$(celaje env --account {shlex.quote(name)})"')
    return 0


def account_ls(words: list[str]) -> int:
    """List accounts."""
    parser = Parser("account ls", "Lists the accounts of the cloud. Only the account `root` may.")
    parser.add_argument("--json", action="store_true", help="as the API describes them")
    chosen = parser.parse_args(words)
    found = list(Client("organizations").all("list_accounts", "Accounts"))
    if chosen.json:
        print(json.dumps(found, indent=2, default=str))
    else:
        rows = [(one["Name"], one["Id"], one["Status"], f"{one['JoinedTimestamp']:%Y-%m-%d %H:%M}") for one in found]
        print(table(("NAME", "ACCOUNT", "STATE", "MADE"), rows))
    return 0


def account_rm(words: list[str]) -> int:
    """Close accounts that have nothing any more."""
    parser = Parser("account rm", "Closes accounts that have no instances, volumes, images, addresses or buckets left.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a name or an identifier (`celaje account ls`)")
    chosen = parser.parse_args(words)
    client = Client("organizations")
    known: list[Shape] = list(client.all("list_accounts", "Accounts"))
    found = [_one(known, name) for name in chosen.names]
    for name, one in zip(chosen.names, found, strict=True):
        client("close_account", AccountId=one["Id"])
        print(f"{name} is closed")
    return 0


def _one(known: list[Shape], name: str) -> Shape:
    found = next((one for one in known if name in (one["Name"], one["Id"])), None)
    if found is None:
        there = ", ".join(one["Name"] for one in known)
        raise NotFound(f"there is no account {name!r}; there are: {there}")
    return found


def account_whoami(words: list[str]) -> int:
    """Tell whose keys are used."""
    parser = Parser("account whoami", "Tells who the commands here act as, and where.")
    parser.parse_args(words)
    how = access()
    me = Client("sts", how)("get_caller_identity")
    if not me.get("Arn"):
        raise CelajeError("the cloud does not tell who this is; see: celaje logs")
    print(f"{me['Arn']} in {how.region} at {how.endpoint}")
    return 0
