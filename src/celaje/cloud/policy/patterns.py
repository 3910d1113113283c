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
_SHORT = 256  # characters of the longest pattern that is remembered
_LITERAL = {"*": "*", "?": "?", "$": "$"}  # ${*} is a star that stands for itself
# Stars and question marks that came out of a variable mean themselves: they are marked until a pattern is compiled.
_MARKED = {"*": "\ue000", "?": "\ue001"}
_PLAIN = {mark: character for character, mark in _MARKED.items()}


class Context(Protocol):
    """What is known of a request, by the names of condition keys in lower case: values, None where there is none."""

    def get(self, key: str, /) -> Sequence[str] | None: ...


def glob(pattern: str) -> Match:
    """What says of a text whether all of it matches `pattern`."""
    return _short(pattern) if len(pattern) <= _SHORT else _made(pattern)


@functools.lru_cache(maxsize=4096)
def _short(pattern: str) -> Match:
    return _made(pattern)


def _made(pattern: str) -> Match:
    first, *others = pattern.split("*")
    if "?" not in pattern:
        pieces = tuple(_restored(each) for each in others[:-1] if each)
        return _of_texts(_restored(first), pieces, _restored(others[-1]) if others else None)
    if not others:
        return re.compile(_piece(first), re.DOTALL).fullmatch
    *middle, last = others
    # An atomic group is never entered again: each piece is found once, at its first place.
    expression = _piece(first) + "".join(f"(?>.*?{_piece(each)})" for each in middle if each)
    return re.compile(f"{expression}.*{_piece(last)}", re.DOTALL).fullmatch


def _of_texts(first: str, pieces: tuple[str, ...], last: str | None) -> Match:
    """The same of texts with stars between them; `last` None: there is none. A regular expression would take a
    millisecond to make for each hundred stars."""
    if last is None:
        return lambda text: text == first
    least = len(first) + len(last)
    if not pieces:
        return lambda text: len(text) >= least and text.startswith(first) and text.endswith(last)

    def matches(text: str) -> bool:
        if len(text) < least or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in pieces:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return matches


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
