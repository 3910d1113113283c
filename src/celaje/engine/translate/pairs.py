"""Pairs of operations that are worth a handler of their own, most frequent first."""

from __future__ import annotations

PAIRS: tuple[tuple[str, str], ...] = ()
