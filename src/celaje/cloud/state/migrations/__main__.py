"""Writes the next revision: what the tables are now, compared with what the revisions make."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from celaje.cloud.state.migrations import DIRECTORY, head, run_revisions


def main() -> None:
    """`python -m celaje.cloud.state.migrations MESSAGE`."""
    message = " ".join(sys.argv[1:]) or sys.exit("say what has changed, as the argument")
    revisions = list((DIRECTORY / "versions").glob("[0-9]*.py"))
    number = f"{int(head()) + 1:04}" if revisions else "0001"
    with tempfile.TemporaryDirectory() as scratch:
        engine = create_engine(f"sqlite:///{Path(scratch) / 'state.sqlite3'}")
        if revisions:
            run_revisions(engine)
        config = Config()
        config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
        config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        config.set_main_option("path_separator", "os")
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    main()
