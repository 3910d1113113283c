"""The file of the accounts' keys, kept as the accounts are."""

from __future__ import annotations

from pathlib import Path

from celaje.cloud.credentials_file import write_credentials
from celaje.cloud.iam.accounts import CREDENTIALS
from celaje.cloud.state.database import Database


class CredentialsController:
    """Writes CELAJE_HOME/cloud/credentials when an account was made or closed."""

    name = CREDENTIALS

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory

    def step(self) -> float | None:
        """Bring the file up to date."""
        with self._database.read() as session:
            write_credentials(session, self._directory)
        return None
