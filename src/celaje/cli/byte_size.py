"""Bytes for people, in the units that `--size` takes."""

from __future__ import annotations

from celaje.cli.arguments import SUFFIXES


def byte_size(size: int) -> str:
    """`8G`, `1.5M`: three digits, and exact where the size is a round one."""
    for suffix, factor in reversed(SUFFIXES.items()):
        if size >= factor:
            return f"{size / factor:.3g}{suffix}" if size < 1000 * factor else f"{size // factor}{suffix}"
    return f"{size}"
