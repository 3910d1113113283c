"""Patterns of policies: `*` stands for any characters, `?` for one, `${aws:username}` for what is known of a request.

A pattern may be hostile (`*a*a*a*b`) and the text that it is held against long, so no star is ever tried twice: between
two stars the first place that fits is taken, which is enough where the last piece is held against the end of the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Protocol

Match = Callable[[str], object]

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_DEFAULT = re.compile(r"\s*([^,\s]+)\s*,\s*'([^']*)'\s*\Z")
_LITERAL = {"*": "*", "?": "?", "$": "$"}  # ${*} is a star that stands for itself
# Stars and question marks that came out of a variable mean themselves: they are marked until a pattern is compiled.
_MARKED = {"*": "\ue000", "?": "\ue001"}
_PLAIN = {mark: character for character, mark in _MARKED.items()}


class Context(Protocol):
    """What is known of a request, by the names of condition keys in lower case: values, None where there is none."""

    def get(self, key: str, /) -> Sequence[str] | None: ...


@functools.lru_cache(maxsize=8192)
def glob(pattern: str) -> Match:
    """What says of a text whether all of it matches `pattern`."""
    first, *others = pattern.split("*")
    if not others:
        if "?" not in first:
            plain = _restored(first)
            return lambda text: text == plain
        return re.compile(_piece(first), re.DOTALL).fullmatch
    *middle, last = others
    # An atomic group is never entered again: each piece is found once, at its first place.
    expression = _piece(first) + "".join(f"(?>.*?{_piece(each)})" for each in middle if each)
    return re.compile(f"{expression}.*{_piece(last)}", re.DOTALL).fullmatch


def _piece(text: str) -> str:
    return "".join("." if character == "?" else re.escape(_PLAIN.get(character, character)) for character in text)


def _restored(text: str) -> str:
    for mark, character in _PLAIN.items():
        text = text.replace(mark, character)
    return text


def has_variable(text: str) -> bool:
    """Whether the text depends on the request."""
    return "${" in text and _VARIABLE.search(text) is not None


def resolved(text: str, context: Context) -> str | None:
    """The pattern that `text` is for a request: its variables replaced, None where one has no value or several."""
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        name = found[1]
        if name in _LITERAL:
            known = _LITERAL[name]
        else:
            default = _DEFAULT.match(name)
            values = context.get((default[1] if default else name).strip().lower())
            if values is not None and len(values) == 1:
                known = values[0]
            elif default:
                known = default[2]
            else:
                missing = True
                return ""
        for character, mark in _MARKED.items():
            known = known.replace(character, mark)
        return known

    replaced = _VARIABLE.sub(value, text)
    return None if missing else replaced


def plain(pattern: str) -> str:
    """A pattern that `resolved` made, as text for comparisons without wildcards."""
    return _restored(pattern)
