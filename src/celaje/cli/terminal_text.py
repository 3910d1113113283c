"""Text of others on a terminal: names and tags that anybody may give, what a guest says on its console.

A terminal obeys what it is sent: sequences move its cursor over what was printed before, set its title and clipboard,
and make it answer as if somebody had typed. What is not to be seen is shown by its escape, as in Python.
"""

from __future__ import annotations

import re

_COLOUR = re.compile("\x1b\\[[0-9;:]{0,40}m")
_LAYOUT = "\t\n\r\b"


def printable(text: str) -> str:
    """For one line: without controls, and without what turns the direction of writing."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def console_text(text: str) -> str:
    """For many lines of a console: those, and colours, stay."""
    kept = []
    at = 0
    for colour in _COLOUR.finditer(text):
        kept += [_lines(text[at : colour.start()]), colour[0]]
        at = colour.end()
    return "".join([*kept, _lines(text[at:])])


def _lines(text: str) -> str:
    return "".join(each if each.isprintable() or each in _LAYOUT else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
