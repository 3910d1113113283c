"""Identifiers as AWS writes them: a prefix and 17 hexadecimal digits."""

from __future__ import annotations

import secrets


def new_id(prefix: str) -> str:
    """A fresh identifier, such as i-0a1b2c3d4e5f67890 for `i`."""
    return f"{prefix}-{secrets.token_hex(9)[:17]}"
