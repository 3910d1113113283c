"""How a command's words become values. Everything that is wrong with them is a UsageError: one line, exit status 2.

The standard library's argparse does it: it imports in a few milliseconds, and `celaje vm run` counts them.
"""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from celaje.errors import UsageError

SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of ending the process, and takes no abbreviated options."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"celaje {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows how it is used")


def size(text: str) -> int:
    """Bytes from `512M`, `2G`. UsageError for anything else: a number alone could be bytes or MiB."""
    found = re.fullmatch(r"(\d+)([KMGT])(?:i?B)?", text, re.IGNORECASE | re.ASCII)
    if not found:
        raise UsageError(f"a size is a whole number with K, M, G or T after it, such as 512M, not {text!r}")
    return int(found[1]) * SUFFIXES[found[2].upper()]


def count(text: str) -> int:
    """A whole number from 1."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) == 0:
        raise UsageError(f"a number of processors is a whole number from 1, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A time above 0, in seconds."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+", text) or float(text) == 0:
        raise UsageError(f"a time limit is a number of seconds above 0, such as 60 or 2.5, not {text!r}")
    return float(text)
