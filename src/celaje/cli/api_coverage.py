"""`celaje api coverage`: which operations of AWS this cloud has."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from celaje.cli.arguments import Parser
from celaje.cli.table import table


def run(words: list[str]) -> int:
    """Print it: it follows from the code, and needs no cloud that runs."""
    parser = Parser(
        "api coverage",
        "Shows how much of each service is implemented. What is not is refused by name, never answered with nothing.",
    )
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="its operations one by one, such as ec2")
    parser.add_argument("--missing", action="store_true", help="with SERVICE: also what is not implemented")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(words)

    from celaje.cloud.aws.coverage import coverage
    from celaje.cloud.iam.key_uses import KeyUses
    from celaje.cloud.s3.store.object_store import home_store
    from celaje.cloud.services import registry
    from celaje.cloud.state.database import Database
    from celaje.errors import NotFound

    with tempfile.TemporaryDirectory(prefix="celaje-") as directory:
        store = home_store(Path(directory))  # S3's operations belong to a store; nothing is put into this one
        try:
            uses = KeyUses(Database(Path(directory) / "state.sqlite3"))
            found = list(coverage(registry(store, uses)))
        finally:
            store.close()
    if chosen.service is not None:
        found = [one for one in found if one.service == chosen.service]
        if not found:
            raise NotFound(f"this cloud has no service {chosen.service!r}; `celaje api coverage` lists those it has")
    if chosen.json:
        facts = {one.service: {"implemented": one.implemented, "missing": one.missing} for one in found}
        print(json.dumps(facts, indent=2))
    elif chosen.service is not None:
        (service,) = found
        print("\n".join(service.implemented))
        if chosen.missing:
            print("\n".join(f"{name}  (refused)" for name in service.missing))
    else:
        rows = [(one.service, one.full_name, str(len(one.implemented)), str(one.operations)) for one in found]
        print(table(("SERVICE", "NAME", "IMPLEMENTED", "OF AWS'S"), rows))
    return 0
