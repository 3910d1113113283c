"""`celaje vm volume store`: where the chunks of snapshots are kept."""

from __future__ import annotations

import json
import os
import re

from celaje.cli.arguments import Parser
from celaje.errors import UsageError

EPILOG = """\
Chunks are the pieces of snapshots, and of volumes made from them. With s3://BUCKET[/PREFIX] they are kept in a bucket
of an S3-compatible object store from now on, with `folder` under CELAJE_HOME again. What snapshots and volumes need is
copied there first, and stays where it was as well. Machines that run follow by themselves.

The keys are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, and kept in
CELAJE_HOME/store/bucket.json, which only its owner can read (mode 0600); typed again with others, they are replaced.
They must allow to get, put, delete and list objects. A prefix belongs to one CELAJE_HOME.

  celaje vm volume store
  celaje vm volume store s3://backups/celaje --endpoint http://127.0.0.1:9000
  celaje vm volume store s3://my-chunks --region eu-central-1
  celaje vm volume store folder"""

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def run(words: list[str]) -> int:
    """Show or choose it. UsageError without keys; InputError for a bucket that cannot be used, or is another home's."""
    parser = Parser("vm volume store", "Shows or chooses where the chunks of snapshots are kept.", EPILOG)
    parser.add_argument("place", nargs="?", metavar="s3://BUCKET[/PREFIX]|folder", help="without it: where they are")
    parser.add_argument("--endpoint", metavar="URL", help="such as http://127.0.0.1:9000 (default: Amazon's own)")
    parser.add_argument("--region", default="us-east-1", metavar="REGION", help="(default: us-east-1)")
    parser.add_argument("--json", action="store_true", help="for programs: where they are, without the keys")
    chosen = parser.parse_args(words)

    from celaje.disk import chunk_place
    from celaje.disk.volumes import VolumeStore
    from celaje.image.progress import shown_on

    store = VolumeStore()
    if chosen.place is None:
        now = chunk_place.chosen(store.files, store.layout)
        if chosen.json:
            shown = {"kind": "folder", "path": str(store.layout.chunks)}
            if now is not None:
                shown = {
                    "kind": "s3", "endpoint": now.endpoint, "bucket": now.bucket, "prefix": now.prefix,
                    "region": now.region, "access_key": now.access_key,
                }  # fmt: skip
            print(json.dumps(shown, indent=2))
        else:
            print(f"chunks are kept in {store.layout.chunks if now is None else now.text}")
        return 0

    place = None
    if chosen.place != "folder":
        found = re.fullmatch(r"s3://([^/]+)(?:/(.*))?", chosen.place)
        if not found:
            raise UsageError(f"a place for chunks is s3://BUCKET[/PREFIX] or folder, and not {chosen.place!r}")
        access, secret = (os.environ.get(name, "") for name in KEYS)
        if not access or not secret:
            raise UsageError(f"a bucket needs keys: set {KEYS[0]} and {KEYS[1]} in the environment for this command")
        endpoint = chosen.endpoint or f"https://s3.{chosen.region}.amazonaws.com"
        place = chunk_place.checked(
            chunk_place.BucketPlace(
                endpoint=endpoint.rstrip("/"), bucket=found[1], prefix=(found[2] or "celaje").strip("/"),
                region=chosen.region, access_key=access, secret_key=secret,
            )
        )  # fmt: skip
    with shown_on() as progress:
        copied = chunk_place.move(
            store.files, store.layout, place, lambda done, total: progress.transfer("chunks", done, total)
        )
    where = store.layout.chunks if place is None else place.text
    print(f"chunks are kept in {where} from now on; {copied} were copied there")
    return 0
